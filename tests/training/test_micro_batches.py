"""Micro-batches: the gradients of the parts of a batch make the update of the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import robustplug
from robustplug.core.types import Batch
from robustplug.plugin.host import registry
from robustplug.recipe.errors import RecipeError
from robustplug.training.running.micro import divided, merged, micro_batches
from robustplug.training.running.update import Outcome

from .capturing import capturing, replays
from .runs import merged as changed
from .runs import newest, outcome, tiny

# Without statistics of a batch and without noise, a sample's loss depends on that sample alone.
FIXED = {"steps": 2, "start": "zero"}
EXACT: dict[str, dict[str, Any]] = {
    "erm": {},
    "pgd-at": {"perturbation": FIXED},
    "free-at": {},
    "cat": {"perturbation": FIXED, "label_map": {"c": 0.0}},
    "iaat": {"perturbation": FIXED, "warmup": 0},
    "dkl": {"perturbation": {**FIXED, "loss": {"use": "ce"}}},
}
SLOW = ("erm", "pgd-at", "iaat", "dkl")
GAIRAT = {"use": "pgd-at", "perturbation": {"use": "early-stopped"}}
# Each draws noise more than once in an update, lets the samples of a batch meet, or needs BatchNorm.
DRAWN = {"sprout", "robmask", "advprop", "macer", "gradalign", "interpolated", "gairat", "awp"}


def recipe(method: str, micro: int | None = None, **tables: Any) -> dict[str, Any]:
    base = tiny(method, model={"batchnorm": False}, optimizer={"lr": 0.2}, evaluate={"samples": 20})
    # 30 rows of 133: the last batch has 13, which 7 does not divide either.
    base = changed(base, {"method": EXACT.get(method, {}), "train": {"batch_size": 30}})
    base["evaluate"]["attack"] = []
    if micro is not None:
        base["train"]["micro_batch"] = micro
    return changed(base, tables)


def trained(settings: dict[str, Any], folder: Path) -> tuple[dict[str, torch.Tensor], Any]:
    run = robustplug.train(settings, out=folder)
    tensors = load_file(folder / "checkpoints" / f"{newest(folder)}.safetensors")
    kept = {key: value for key, value in tensors.items() if not key.startswith("optimizer")}
    return kept, run


def compare(settings: dict[str, Any], micro: int, tmp_path: Path) -> None:
    whole, first = trained(settings, tmp_path / "whole")
    parts, second = trained(changed(settings, {"train": {"micro_batch": micro}}), tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        assert (parts[key].double() - value.double()).abs().max() <= 2e-5, key
    for one, other in zip(first.history, second.history, strict=True):
        assert other.train == pytest.approx(dict(one.train), abs=2e-5)
    one, other = (run.result.meta["training"] for run in (first, second))
    for count in ("forwards_per_sample", "backwards_per_sample"):
        assert one[count] == other[count]


@pytest.mark.table(2)
@pytest.mark.parametrize(
    "method", ["free-at", "cat", *(pytest.param(m, marks=pytest.mark.slow) for m in SLOW)]
)
def test_an_update_in_parts_is_the_update_of_the_batch(method: str, tmp_path: Path) -> None:
    compare(recipe(method), 7, tmp_path)


def test_clipping_and_averages_see_the_whole_gradient(tmp_path: Path) -> None:
    weights = [1.0, 3.0, *[0.5] * 8]
    train = {"clip_grad_norm": 0.05, "ema_decay": 0.5, "class_weights": weights}
    compare(recipe("erm", train=train), 7, tmp_path)


def test_captured_parts_give_the_bits_of_eager_ones(tmp_path: Path) -> None:
    settings = recipe("free-at", 5, train={"batch_size": 10, "epochs": 1})
    robustplug.train(settings, out=tmp_path / "eager")
    with capturing() as made:
        robustplug.train(settings, out=tmp_path / "captured")
    assert replays(made) > 0
    eager, captured = (outcome(tmp_path / name)["model"] for name in ("eager", "captured"))
    assert eager == captured


def test_running_statistics_are_those_of_the_parts(tmp_path: Path) -> None:
    settings = recipe("erm", model={"batchnorm": True}, train={"epochs": 1})
    whole, _ = trained(settings, tmp_path / "whole")
    parts, _ = trained(changed(settings, {"train": {"micro_batch": 15}}), tmp_path / "parts")
    counts = next(key for key in whole if key.endswith("num_batches_tracked"))
    assert int(whole[counts]) == 5
    assert int(parts[counts]) == 4 * 2 + 1


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ({"use": "awp", "inner": {"use": "trades"}}, "along the gradient of the whole batch"),
        (
            {"use": "swa", "inner": {"use": "gairat", "inner": GAIRAT}},
            "their mean over the whole batch",
        ),
        (
            {"use": "cat", "loss": {"use": "cat", "margin_weight": "radius-sum"}},
            "adds up over the whole batch",
        ),
        ({"use": "ibp", "regularisation": 0.5}, "compares means over the whole batch"),
    ],
)
def test_what_needs_the_whole_batch_is_refused(method: Any, why: str, tmp_path: Path) -> None:
    settings = recipe("erm", 7)
    with pytest.raises(RecipeError, match=why):
        robustplug.train({**settings, "method": method}, out=tmp_path / "run")
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("rows", "world", "most", "parts"),
    [
        (30, 1, None, 1),
        (30, 1, 30, 1),
        (30, 1, 7, 5),
        (41, 2, 7, 3),
        (41, 2, 1, 20),
        (3, 2, 1, 1),
        (4096, 8, 32, 16),
    ],
)
def test_all_processes_make_as_many_parts(rows: int, world: int, most: int | None, parts: int) -> None:
    assert micro_batches(rows, world, most) == parts


def test_parts_are_views_of_all_rows_in_order() -> None:
    batch = Batch(
        torch.rand(8, 2), torch.arange(8), torch.arange(8) + 3, {"own": torch.arange(8), "all": "x"}
    )
    made = list(divided(batch, 3))
    assert [(start, len(part)) for start, part in made] == [(0, 3), (3, 3), (6, 2)]
    assert torch.equal(torch.cat([part.info["own"] for _, part in made]), batch.y)
    assert made[1][1].x.data_ptr() == batch.x[3:].data_ptr()
    assert list(divided(batch, 1)) == [(0, batch)]


def test_means_count_the_rows_that_were_counted() -> None:
    one = Outcome(
        torch.tensor(0.25), {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, {"b": torch.tensor(0)}
    )
    two = Outcome(torch.tensor(0.5), {"a": torch.tensor(4.0), "b": torch.tensor(6.0)}, {"b": torch.tensor(2)})
    both = merged([(2, one), (1, two)])
    assert (float(both.total), float(both.logged["a"]), float(both.logged["b"])) == (0.75, 2.0, 6.0)
    assert {name: int(value) for name, value in both.counted.items()} == {"b": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    sorted({c.name for c in registry().by_kind()["method"] if not c.tasks} - DRAWN - set(EXACT)),
)
def test_every_method_without_noise_does_the_same_in_parts(method: str, tmp_path: Path) -> None:
    settings = recipe(method, train={"epochs": 1})
    without = changed(settings, {"method": {"perturbation": {"use": "pgd", **FIXED}}})
    try:
        compare(without, 7, tmp_path)
    except RecipeError:  # it takes no such attack
        compare(settings, 7, tmp_path)
