from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.core.reporting import Silent
from robustplug.errors import RunError
from robustplug.recipe.load import read_recipe
from robustplug.training.fit_batch import batch_sizes, largest_fitting

from .failing import FAILING, raising, recipe
from .runs import offered, outcome

pytestmark = pytest.mark.table

SIZES = {
    (128, 1257): [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
    (40, 133): [5, 10, 20, 40, 80],
    (7, 20): [7, 14],
    (1, 5): [1, 2, 4],
    (10**6, 133): [133],
}


@pytest.mark.parametrize(("given", "sizes"), SIZES.items())
def test_the_sizes_tried_are_those_of_the_recipe_times_powers_of_two(
    given: tuple[int, int], sizes: list[int]
) -> None:
    assert batch_sizes(*given) == sizes


@pytest.mark.parametrize(("fits", "step"), list(itertools.product([1, 2, 7, 64, 500, 10**6], [0, 1])))
def test_the_largest_that_fits_is_found_whether_it_fails_or_is_foreseen(fits: int, step: int) -> None:
    sizes = batch_sizes(128, 1257)
    tried: list[int] = []

    def need(rows: int) -> float | None:
        tried.append(rows)
        return None if rows > fits else float(rows * step)

    found = largest_fitting(sizes, need, free=float(fits))
    assert found == max((size for size in sizes if size <= fits), default=None)
    assert all(rows <= max(fits, 8) for rows in tried) or not step
    assert len(tried) == len(set(tried))


class Warned(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with offered("perturbation", FAILING):
        yield
    raising.clear()


def exhausted(step: Any) -> None:
    if len(step.batch) > 20:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.slow
def test_a_run_trains_with_the_batch_that_fits_as_if_it_had_been_given(tmp_path: Path) -> None:
    raising.append(exhausted)
    reporter = Warned()
    short = {"epochs": 1}
    robustplug.train(recipe(train=short), out="fitted", fit_batch=True, reporter=reporter)
    robustplug.train(recipe(train=short), out="given", batch_size=20)
    assert outcome(Path("fitted"))["model"] == outcome(Path("given"))["model"]
    assert read_recipe(Path("fitted/recipe.toml"), starts=False).train.batch_size == 20
    assert any("train.batch_size = 20: 40 would not fit" in warning for warning in reporter.warnings)


@pytest.mark.slow
def test_without_limit_the_batch_is_the_training_split_at_most() -> None:
    robustplug.train(recipe(train={"epochs": 1}), out="run", fit_batch=True)
    assert read_recipe(Path("run/recipe.toml"), starts=False).train.batch_size == 80


@pytest.mark.slow
def test_where_nothing_fits_nothing_is_started() -> None:
    raising.append(lambda step: bytearray(2**62))
    with pytest.raises(RunError, match="not even a batch of 5"):
        robustplug.train(recipe(), out="run", fit_batch=True)
    assert not Path("run").exists()


def test_any_batch_fits_in_parts() -> None:
    with pytest.raises(RunError, match="no effect with train.micro_batch"):
        robustplug.train(recipe(train={"micro_batch": 5}), out="run", fit_batch=True)


def test_a_resumed_run_keeps_its_batch() -> None:
    robustplug.train(recipe(train={"epochs": 1}), out="run")
    with pytest.raises(RunError, match="--fit-batch"):
        robustplug.train(resume="run", epochs=2, fit_batch=True)
