"""What each kind of model computes, loaded, is what it computed before."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import robustplug
from robustplug.api import Refused
from robustplug.core.modules import Normalized
from robustplug.devices.processes import start
from robustplug.errors import RunError
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.setting import Attack
from robustplug.subjects.loading import load_target
from robustplug.subjects.target import Target

from .conftest import WRITERS
from .models import INFO, SMALL, TASK, attacked, bare, close, images, losses, small, write_onnx

Programs = Callable[..., Path]


def described(target: Target, kind: str, gradients: bool) -> None:
    assert (target.kind, target.gradients) == (kind, gradients)
    assert json.loads(json.dumps(target.description)) == target.description
    assert target.description["kind"] == kind
    assert target.description["gradients"] is gradients
    assert target.description["input_range"] == [0.0, 1.0]
    assert set(target.description["normalisation"]) == {"mean", "std", "where"}


def ascends(target: Target) -> None:
    """An attack by gradients raises the loss and leaves the model as it was."""
    view, moved = attacked(target.module, "fgsm")
    assert losses(target.module, moved).mean() > losses(target.module, view).mean() + 1e-3
    attacked(target.module, "pgd", steps=2, rows=3)


@pytest.mark.parametrize("name", WRITERS)
def test_programs_compute_what_the_module_did(name: str, programs: Programs) -> None:
    target = load_target(programs(name), INFO)
    described(target, "export" if name.endswith("pt2") else "torchscript", True)
    assert target.description["sha256"] == hashlib.sha256(programs(name).read_bytes()).hexdigest()
    close(target.module, bare())
    x = images(7).requires_grad_()
    (ours,) = torch.autograd.grad(target.module(x).sum(), x)
    (theirs,) = torch.autograd.grad(bare()(x).sum(), x)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    ascends(target)


@pytest.mark.parametrize("kind", ["script.pt", "trace.ts", "frozen.pt", "fixed.pt2", "module", "callable"])
def test_a_whole_evaluation(kind: str, programs: Programs) -> None:
    sources: dict[str, Any] = {"module": bare(), "callable": lambda x: bare()(x)}
    module = load_target(sources.get(kind) or programs(kind), INFO, mean=[0.3], std=[0.4]).module
    loss, fgsm = robustplug.build("loss", "ce"), robustplug.build("perturbation", "fgsm")
    rows = []
    for model in (module, Normalized(bare(), [0.3], [0.4])):
        vicinity = robustplug.build("vicinity", "linf", eps=0.1)
        evaluation = Evaluation(model, TASK, vicinity, loss, 0, start("cpu", "float32"))
        rows.append(evaluation.run("test", [Attack("fgsm", {}, fgsm)], 7, samples=30))
    assert [row.accuracy for row in rows[0]] == [row.accuracy for row in rows[1]]
    assert [row.right for row in rows[0]] == [row.right for row in rows[1]]
    assert rows[0][1].backwards > 0


def test_programs_state_the_batches_that_they_take(programs: Programs) -> None:
    assert load_target(programs("fixed.pt2"), INFO).description["batch"] == {"least": 4, "most": 4}
    assert load_target(programs("free.pt2"), INFO).description["batch"] == {"least": 2, "most": None}
    assert "batch" not in load_target(programs("script.pt"), INFO).description


def test_content_counts_and_not_the_suffix(programs: Programs, tmp_path: Path) -> None:
    for name, kind in (("script.pt", "torchscript"), ("fixed.pt2", "export")):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(programs(name).read_bytes())
        assert load_target(path, INFO).kind == kind


@pytest.mark.parametrize("name", ["trace.ts", "fixed.pt2", "free.pt2"])
def test_programs_in_training_mode_are_noted(name: str, programs: Programs) -> None:
    notes = load_target(programs(name, training=True), INFO).description["notes"]
    assert any("other images of its batch" in note or "differ from call to call" in note for note in notes)
    notes = load_target(programs(name), INFO).description["notes"]
    assert not any("batch" in note or "call" in note for note in notes)


def test_a_scripted_model_saved_in_training_mode_is_put_in_eval_mode(programs: Programs) -> None:
    target = load_target(programs("script.pt", training=True), INFO)
    close(target.module, bare())


def test_programs_in_memory(programs: Programs) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.load(str(programs("frozen.pt")))  # type: ignore[no-untyped-call]
    target = load_target(frozen, INFO)
    described(target, "module", True)
    close(target.module, bare())
    ascends(target)
    program = torch.export.load(programs("free.pt2"))
    target = load_target(program, INFO)
    described(target, "export", True)
    close(target.module, bare())
    target = load_target(program.module(), INFO)
    described(target, "module", True)
    ascends(target)


@pytest.mark.parametrize("rows", ["N", 2])
@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16"])
def test_onnx(rows: int | str, dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network = bare()
    target = load_target(write_onnx(tmp_path / "net.onnx", network, rows, dtype), INFO)
    described(target, "onnx", False)
    assert target.description["providers"] == ["CPUExecutionProvider"]
    for size in (1, 3, 7):
        x = images(size)
        with torch.no_grad():
            logits, expected = target.module(x), network(x)
        assert logits.dtype == torch.float32
        off = 2e-2 if dtype == "FLOAT16" else 1e-5
        torch.testing.assert_close(logits, expected, atol=off, rtol=off)
    assert not target.module(images(2).requires_grad_()).requires_grad
    with pytest.raises(Refused, match="black-box"):
        attacked(target.module, "fgsm")
    attacked(target.module, "noise")


@pytest.mark.parametrize("last", [(8, 8, 1), ("H", "W", 1), (8, None, 1)])
def test_onnx_with_channels_last_is_permuted_and_told(
    last: tuple[int | str | None, ...], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network = bare()
    target = load_target(write_onnx(tmp_path / "net.onnx", network, last=last), INFO)
    described(target, "onnx", False)
    close(target.module, network)
    assert target.description["layout"] == "NHWC"
    (note,) = target.description["notes"]
    assert "channels last" in note
    square = write_onnx(tmp_path / "plain.onnx", network)
    assert "layout" not in load_target(square, INFO).description


def test_onnx_of_neither_layout_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    for last in [(8, 9, 1), (8, 8, 3), (9, 8, 1)]:
        path = write_onnx(tmp_path / "net.onnx", bare(), last=last)
        with pytest.raises(RunError, match=r"takes images of shape|cannot load"):
            load_target(path, INFO)


def test_onnx_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08rest")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RunError, match=r'pip install "robustplug\[onnx\]"'):
        load_target(path, INFO)


def test_a_module_stays_what_it_is() -> None:
    model = small()
    model.train()
    next(model.parameters()).requires_grad_(False)
    grads = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    target = load_target(model, INFO)
    described(target, "module", True)
    assert target.module is model
    assert model.training
    assert all(part.training for part in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    ascends(target)


def test_a_frozen_batchnorm_is_left_in_eval_mode() -> None:
    model = bare().train()
    still = next(part for part in model.modules() if isinstance(part, nn.BatchNorm2d)).eval()
    target = load_target(model, INFO, mean=[0.3], std=[0.4])
    assert not still.training
    assert model.training
    assert target.module.training


def test_a_function_of_tensors_gives_gradients() -> None:
    model = small()
    target = load_target(lambda x: model(x), INFO)
    described(target, "callable", True)
    close(target.module, model)
    ascends(target)


@pytest.mark.parametrize("kind", ["numpy", "detached", "no gradient of x"])
def test_a_function_without_gradients_is_a_black_box(kind: str) -> None:
    model = small()

    def numpy(x: Tensor) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(np.asarray(x))).numpy().astype(np.float64)

    functions: dict[str, Callable[[Tensor], Any]] = {
        "numpy": numpy,
        "detached": lambda x: model(x).detach(),
        "no gradient of x": lambda x: model(x.detach()),
    }
    target = load_target(functions[kind], INFO)
    described(target, "callable", False)
    assert any("black-box" in note for note in target.description["notes"])
    close(target.module, model)
    assert target.module(images(2)).dtype == torch.float32
    with pytest.raises(Refused, match="black-box"):
        attacked(target.module, "fgsm")


def test_a_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(small().state_dict(), path)
    generator = torch.get_rng_state()
    target = load_target(str(path), INFO, model=SMALL)
    assert torch.equal(torch.get_rng_state(), generator)
    described(target, "state-dict", True)
    assert target.description["model"] == {
        "use": "small-cnn", "width": 4, "hidden": 16, "batchnorm": True, "normalize": True
    }  # fmt: skip
    assert target.description["source"] == str(path)
    assert not target.module.training
    close(target.module, small())
    ascends(target)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(RunError, match="not int"):
        load_target(3, INFO)  # type: ignore[arg-type]


def test_importing_is_light() -> None:
    code = (
        "import sys, robustplug.subjects.target; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_the_task_is_the_one_that_the_tests_assume() -> None:
    assert (TASK.info.shape, TASK.info.classes) == ((1, 8, 8), 10)
