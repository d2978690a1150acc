"""Normalisation in front is the one by hand, and is not applied twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from robustplug.errors import RunError
from robustplug.subjects.loading import load_target

from .models import BARE, INFO, SMALL, attacked, bare, images, small, write_onnx

MEAN, STD = [0.3], [0.4]


class ByHand(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = bare()((x - 0.3) / 0.4)
        return result


def sources(programs: Callable[..., Path], folder: Path) -> dict[str, tuple[Any, dict[str, Any]]]:
    save_file(bare().state_dict(), folder / "model.safetensors")
    return {
        "module": (bare(), {}),
        "callable": (lambda x: bare()(x), {}),
        "black box": (lambda x: bare()(x).detach().numpy(), {}),
        "state dict": (folder / "model.safetensors", {"model": BARE}),
        "torchscript": (programs("trace.ts"), {}),
        "frozen": (programs("frozen.pt"), {}),
        "export": (programs("fixed.pt2"), {}),
    }


@pytest.mark.parametrize(
    "kind", ["module", "callable", "black box", "state dict", "torchscript", "frozen", "export"]
)
def test_it_is_the_one_by_hand(kind: str, programs: Callable[..., Path], tmp_path: Path) -> None:
    source, options = sources(programs, tmp_path)[kind]
    target = load_target(source, INFO, mean=MEAN, std=STD, **options)
    assert target.description["normalisation"] == {"mean": MEAN, "std": STD, "where": "in front"}
    for rows in (1, 3, 7):
        with torch.no_grad():
            torch.testing.assert_close(
                target.module(images(rows)), ByHand()(images(rows)), atol=1e-5, rtol=1e-5
            )
    assert target.gradients is (kind != "black box")
    if target.gradients:
        attacked(target.module, "fgsm")


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = write_onnx(tmp_path / "net.onnx", bare(), 2)
    target = load_target(path, INFO, mean=MEAN, std=STD)
    with torch.no_grad():
        torch.testing.assert_close(target.module(images(3)), ByHand()(images(3)), atol=1e-5, rtol=1e-5)


def test_where_it_is(tmp_path: Path) -> None:
    description = load_target(bare(), INFO).description
    assert description["normalisation"] == {"mean": None, "std": None, "where": "none stated"}
    assert description["notes"] == []
    save_file(small().state_dict(), tmp_path / "model.safetensors")
    description = load_target(tmp_path / "model.safetensors", INFO, model=SMALL).description
    inside = description["normalisation"]
    assert inside["where"] == "inside the model"
    assert inside["mean"] == pytest.approx(INFO.mean, abs=1e-5)
    assert inside["std"] == pytest.approx(INFO.std, abs=1e-5)
    assert description["notes"] == []


def test_the_values_of_the_file_count(tmp_path: Path) -> None:
    state = {**small().state_dict(), "mean": torch.full((1, 1, 1, 1), 0.125)}
    save_file(state, tmp_path / "model.safetensors")
    target = load_target(tmp_path / "model.safetensors", INFO, model=SMALL)
    assert target.description["normalisation"]["mean"] == [0.125]


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (MEAN, None, "give both"),
        (None, STD, "give both"),
        ([0.3, 0.3], [0.4, 0.4], "1 channels"),
        ([0.3], [0.4, 0.4], "std has length 2"),
        ([], [], "mean has length 0"),
        ([0.3], [0.0], "std above 0"),
        ([float("nan")], [0.4], "finite"),
        ([123.7], [58.4], "divide mean and std by 255"),
    ],
)
def test_numbers_that_cannot_be(
    mean: Sequence[float] | None, std: Sequence[float] | None, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        load_target(bare(), INFO, mean=mean, std=std)


def test_it_is_not_applied_twice() -> None:
    with pytest.raises(RunError, match=r"already normalises.*model\.normalize=false"):
        load_target(small(), INFO, mean=MEAN, std=STD)
