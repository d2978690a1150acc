"""Training batches that are mixed from two tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import Feed, Refused
from robustplug.builtin.tasks import MixOptions
from robustplug.builtin.tasks.mix import MixedTask
from robustplug.plugin.component import Use
from robustplug.recipe.errors import RecipeError
from robustplug.testing.toys import ToyTask

from ..training.runs import TASK, tiny

BASE, EXTRA = 30, 17
MIX = {"use": "mix", "base": TASK, "extra": {**TASK, "split_seed": 1}, "share": 0.4}


def toys(size: int, seed: int, **info: Any) -> Any:
    task = ToyTask(seed, sizes={"train": size, "validation": 6, "test": 6})
    task.info = replace(task.info, **info)
    return task


def mixed(share: float = 0.4, **options: Any) -> MixedTask:
    chosen = MixOptions(Use("toy"), Use("toy"), share, **options)
    return MixedTask(chosen, base=toys(BASE, 0), extra=toys(EXTRA, 1))


def feed(**changes: Any) -> Feed:
    return Feed(**{"batch_size": 10, "shuffle": True, "augment": True, "seed": 3, **changes})


def test_every_batch_has_its_share_and_every_index_its_sample() -> None:
    task = mixed()
    assert task.info.sizes["train"] == 50
    assert (task.info.pool, task.info.training_indices) == (BASE + EXTRA, BASE + EXTRA)
    assert task.info.sizes["test"] == 6
    samples = [
        next(iter(each.batches("train", Feed(batch_size=100)))) for each in (toys(BASE, 0), toys(EXTRA, 1))
    ]
    x, y = torch.cat([b.x for b in samples]), torch.cat([b.y for b in samples])
    batches = list(task.batches("train", feed()))
    assert [len(batch) for batch in batches] == [10] * 5
    for batch in batches:
        assert int((batch.index >= BASE).sum()) == 4
        assert torch.equal(batch.x, x[batch.index])
        assert torch.equal(batch.y, y[batch.index])
        assert torch.equal(batch.info["scored"], batch.index < BASE)
    # 30 base rows in an epoch: each once.
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index[index < BASE].tolist()) == list(range(BASE))
    assert all(not batch.info for batch in mixed(score_extra=True).batches("train", feed()))


def test_extra_samples_come_once_before_any_comes_again() -> None:
    task = mixed()
    drawn = torch.cat(
        [batch.index for epoch in range(17) for batch in task.batches("train", feed(epoch=epoch))]
    )
    extra = drawn[drawn >= BASE] - BASE
    assert len(extra) == 17 * 20
    for start in range(0, len(extra), EXTRA):
        assert sorted(extra[start : start + EXTRA].tolist()) == list(range(EXTRA))


@pytest.mark.parametrize(("batch_size", "share"), [(10, 0.4), (7, 0.3), (16, 0.55)])
def test_batches_are_skipped_and_shared_out(batch_size: int, share: float) -> None:
    task, settings = mixed(share), {"batch_size": batch_size, "epoch": 2}
    whole = list(task.batches("train", feed(**settings)))
    assert sum(map(len, whole)) == task.info.sizes["train"]
    rest = list(task.batches("train", feed(**settings, skip=2)))
    assert all(torch.equal(a.index, b.index) for a, b in zip(whole[2:], rest, strict=True))
    parts = [list(task.batches("train", feed(**settings, rank=rank, world=2))) for rank in (0, 1)]
    # A last batch with fewer rows than processes is dropped, as everywhere.
    for batch, one, two in zip(whole, *parts, strict=False):
        both = torch.cat([one.index, two.index]).sort().values
        assert torch.equal(both, batch.index.sort().values)


def test_without_shuffling_it_is_the_base() -> None:
    for split in ("train", "test"):
        (found,) = mixed().batches(split, feed(batch_size=100, shuffle=False))
        (base,) = toys(BASE, 0).batches(split, feed(batch_size=100, shuffle=False))
        assert torch.equal(found.x, base.x)


def test_a_run_on_it_resumes_and_keeps_a_memory_of_all_samples(tmp_path: Path) -> None:
    recipe = {**tiny("cat"), "task": MIX}
    trained = robustplug.train(recipe, out=tmp_path / "run")
    assert trained.parts is not None
    (memory,) = trained.parts.method.state.memories()
    assert len(memory.values) == 133 + 133
    assert trained.history[0].train["accuracy/adv"] >= 0


@pytest.mark.parametrize(
    ("base", "extra", "message"),
    [
        ({}, {"classes": 5}, "extra has classes 5, and base has 3"),
        ({}, {"shape": (1, 2, 2)}, "extra has shape"),
        ({"bounds": (0, 255)}, {}, "extra has bounds"),
        ({"classes": None}, {"classes": None}, "must be a classification"),
        ({"pool": 9}, {}, "base is itself a mixture"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(base: Any, extra: Any, message: str) -> None:
    options = MixOptions(Use("toy"), Use("toy"))
    with pytest.raises(ValueError, match=message):
        MixedTask(options, base=toys(9, 0, **base), extra=toys(9, 1, **extra))


def test_batches_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="batch of 2 rows with 0 extra ones is too small for 1 processes"):
        next(mixed(0.1).batches("train", feed(batch_size=2)))
    task = mixed()
    follows = task.extra.batches
    monkeypatch.setattr(
        task.extra, "batches", lambda split, given: follows(split, replace(given, order=None))
    )
    with pytest.raises(Refused, match="ToyTask does not follow a given order"):
        next(task.batches("train", feed()))


@pytest.mark.parametrize("train", [{"sampling": "balanced"}, {"class_weights": "balanced"}])
def test_it_chooses_its_samples_itself(train: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match='task "mix" chooses the samples of an epoch itself'):
        robustplug.train({**tiny(train=train), "task": MIX}, out=tmp_path / "run")
