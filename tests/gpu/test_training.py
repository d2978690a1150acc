"""On a GPU, the same seed gives the same bits, however the updates are run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import robustplug

from ..training.runs import merged, outcome, tiny

pytestmark = pytest.mark.gpu

METHODS = (
    "erm",
    "pgd-at",
    "fast-at",
    "free-at",
    "n-fgsm",
    "trades",
    "cat",
    "sprout",
    "bilateral",
    "stability",
)
LEFT = ("model", "metrics")


def trained(folder: Path, method: str, **train: Any) -> dict[str, Any]:
    """Return the weights and the metrics of a run of 18 updates, the last of each epoch on fewer rows."""
    settings = {"device": "cuda", "batch_size": 16, **train}
    robustplug.train(tiny(method, train=settings), out=folder)
    found = outcome(folder)
    return {name: found[name] for name in LEFT}


@pytest.mark.parametrize("method", METHODS)
def test_captured_updates_change_no_bit(tmp_path: Path, method: str) -> None:
    eager = trained(tmp_path / "eager", method, fast="off")
    assert trained(tmp_path / "captured", method, fast="capture") == eager


@pytest.mark.parametrize(
    "tables",
    [
        {"schedule": {"use": "torch:OneCycleLR"}},
        {"optimizer": {"use": "torch:Adagrad", "lr": 0.01}, "schedule": {"use": "cosine"}},
        {"optimizer": {"use": "adamw", "lr": 0.01}, "schedule": {"use": "torch:OneCycleLR"}},
        {"task": {"augment": True}},
    ],
    ids=["momentum", "adagrad", "beta", "augmented"],
)
def test_every_optimizer_and_the_augmentation_change_no_bit(tmp_path: Path, tables: dict[str, Any]) -> None:
    found = []
    for fast in ("off", "capture"):
        train = {"device": "cuda", "batch_size": 16, "fast": fast}
        recipe = tiny("pgd-at", train=train) | {k: v for k, v in tables.items() if k != "task"}
        robustplug.train(merged(recipe, {"task": tables.get("task", {})}), out=tmp_path / fast)
        found.append({name: outcome(tmp_path / fast)[name] for name in LEFT})
    assert found[0] == found[1]


@pytest.mark.parametrize("method", ["iaat", "robmask", "advprop", "interpolated"])
def test_two_runs_of_other_methods_give_the_same_bits(tmp_path: Path, method: str) -> None:
    assert trained(tmp_path / "one", method) == trained(tmp_path / "other", method)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_compiled_runs_give_the_same_bits(tmp_path: Path, precision: str) -> None:
    one, other = (
        trained(tmp_path / name, "pgd-at", fast="compile+capture", precision=precision)
        for name in ("one", "other")
    )
    assert one == other
