"""Boosted trees, loaded from their files, decide as their library does."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import Refused
from robustplug.errors import RunError
from robustplug.subjects.loading import load_target
from robustplug.subjects.target import Target

from .models import INFO, attacked, images
from .tables import decisions, lightgbm, margins, saved, xgboost

Make = Callable[[], Any]
MODELS: dict[str, tuple[Make, int, str]] = {
    "lightgbm": (lightgbm, 10, "m.txt"),
    "lightgbm, one against all": (lambda: lightgbm("multiclassova"), 10, "m.txt"),
    "lightgbm, binary": (lambda: lightgbm("binary", 2), 2, "m.txt"),
    "xgboost json": (xgboost, 10, "m.json"),
    "xgboost ubj": (xgboost, 10, "m.ubj"),
    "xgboost, binary": (lambda: xgboost("binary:logistic", 2), 2, "m.ubj"),
    "xgboost, linear": (lambda: xgboost(booster="gblinear", max_depth=None), 10, "m.json"),
}


def load(path: Path, classes: int = 10) -> Target:
    return load_target(path, dataclasses.replace(INFO, classes=classes))


@pytest.mark.parametrize("kind", MODELS)
def test_trees_decide_as_their_library_does(kind: str, tmp_path: Path) -> None:
    make, classes, name = MODELS[kind]
    booster = make()
    target = load(saved(booster, tmp_path / name), classes)
    assert (target.kind, target.gradients) == (kind.partition(",")[0].partition(" ")[0], False)
    assert json.loads(json.dumps(target.description)) == target.description
    assert target.description["notes"] == []
    assert len(target.description["sha256"]) == 64
    for size in (1, 7, 200):
        x = images(size)
        logits = target.module(x)
        assert logits.shape == (size, classes)
        assert logits.dtype == torch.float32
        assert logits.argmax(1).tolist() == decisions(booster, x).tolist()
        raw = torch.as_tensor(margins(booster, x)).float()
        if classes == 2:
            assert torch.equal(logits[:, 0], torch.zeros(size))
            logits = logits[:, 1]
        torch.testing.assert_close(logits, raw, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost ubj"])
def test_content_counts_and_attacks_by_gradients_are_refused(kind: str, tmp_path: Path) -> None:
    make, _, name = MODELS[kind]
    path = saved(make(), tmp_path / name).rename(tmp_path / "model.onnx")
    target = load(path)
    assert target.kind == kind.partition(" ")[0]
    with pytest.raises(Refused, match="black-box"):
        attacked(target.module, "fgsm")
    attacked(target.module, "noise")
    shifted = load_target(path, INFO, mean=[0.5], std=[0.5])
    assert torch.equal(shifted.module(images(3)), target.module((images(3) - 0.5) / 0.5))


@pytest.mark.parametrize("make", [lightgbm, xgboost])
@pytest.mark.parametrize(
    ("change", "value", "message"),
    [
        ("shape", (3, 8, 8), r"takes 64 features, but images of shape \(3, 8, 8\) have 192"),
        ("classes", 7, "has 10 classes, but the task has 7"),
    ],
)
def test_trees_for_other_tasks(make: Make, change: str, value: Any, message: str, tmp_path: Path) -> None:
    path = saved(make(), tmp_path / "m.json")
    other = dataclasses.replace(INFO, **{change: value})
    with pytest.raises(RunError, match=message) as caught:
        load_target(path, other)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("objective", ["regression", "lambdarank"])
def test_lightgbm_that_does_not_classify(objective: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"not a classifier: its objective is {objective}"):
        load(saved(lightgbm(objective), tmp_path / "m.txt"))


@pytest.mark.parametrize("objective", ["reg:squarederror", "rank:ndcg"])
def test_xgboost_that_does_not_classify(objective: str, tmp_path: Path) -> None:
    booster = xgboost("reg:squarederror")
    booster.set_param({"objective": objective})
    with pytest.raises(RunError, match=f"not a classifier: its objective is {objective}"):
        load(saved(booster, tmp_path / "m.json"))


# A damaged file must not reach the library, which may end the process.
@pytest.mark.parametrize("kind", ["lightgbm", "xgboost json", "xgboost ubj"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8, 0.95])
def test_cut_off_files(kind: str, share: float, tmp_path: Path) -> None:
    make, _, name = MODELS[kind]
    path = saved(make(), tmp_path / name)
    data = path.read_bytes()
    end = data.find(b"end of trees") if kind == "lightgbm" else len(data)
    path.write_bytes(data[: int(share * end)])
    with pytest.raises(RunError, match="damaged or cut off .* download or save it again"):
        load(path)


def test_a_lightgbm_file_with_a_lost_line(tmp_path: Path) -> None:
    path = saved(lightgbm(), tmp_path / "m.txt")
    lines = path.read_text().splitlines(keepends=True)
    lost = next(number for number, line in enumerate(lines) if line.startswith("threshold="))
    path.write_text("".join(lines[:lost] + lines[lost + 1 :]))
    with pytest.raises(RunError, match="not at the stated positions"):
        load(path)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_trees_need_their_package(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(lightgbm() if library == "lightgbm" else xgboost(), tmp_path / "m.json")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(RunError, match=rf'needs {library} .* pip install "robustplug\[trees\]"'):
        load(path)


def test_rounds_beyond_the_best_are_noted(tmp_path: Path) -> None:
    booster = xgboost()
    booster.set_attr(best_iteration="1")
    (note,) = load(saved(booster, tmp_path / "m.ubj")).description["notes"]
    assert "all 4 rounds are used" in note


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("kind", ["lightgbm", "xgboost ubj"])
def test_threads_are_those_of_torch_which_keeps_them(kind: str, tmp_path: Path) -> None:
    make, _, name = MODELS[kind]
    module = load(saved(make(), tmp_path / name)).module
    x, a = images(300), torch.ones(300, 300)
    first = module(x)
    for threads in (2, 1, 2):
        torch.set_num_threads(threads)
        assert float((a @ a).sum()) == 300**3
        assert torch.equal(module(x), first)
        assert torch.get_num_threads() == threads


def test_a_hard_label_attack_breaks_trees(tmp_path: Path) -> None:
    path = saved(lightgbm(), tmp_path / "m.txt")
    result = robustplug.evaluate(
        path,
        task="digits",
        vicinity={"use": "l2", "eps": 1.0},
        attacks=["pgd", {"use": "sign-opt", "queries": 400, "starts": 20, "directions": 20}],
        samples=12,
        out=tmp_path,
    )
    clean, skipped, broken = result.attacks
    assert broken.accuracy < clean.accuracy - 0.3
    assert broken.rejected == 0
    assert "black-box" in skipped.skipped
    assert result.meta["loaded"]["kind"] == "lightgbm"
