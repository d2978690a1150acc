"""Which samples come in an epoch, what they weigh, and how they are changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import robustplug
from robustplug.api import ArrayTask, Batch, Component, Feed, NoOptions, View, register, stream
from robustplug.core.batches import balanced_order, endless_order, epoch_batches, index_batches
from robustplug.core.state import MethodState
from robustplug.core.step import factors
from robustplug.core.types import Split
from robustplug.devices.processes import start
from robustplug.plugin.host import registry
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.subjects.assemble import assemble
from robustplug.testing.toys import ToyTask
from robustplug.training.data import TrainingData, training_labels
from robustplug.training.loop import Means

from .runs import merged, tiny

# 60, 25 and 3 samples of three classes.
LABELS = torch.cat([torch.full((count,), number) for number, count in enumerate((60, 25, 3))])
LABELS = LABELS[torch.randperm(len(LABELS), generator=stream(0, "labels"))]


def uneven() -> ArrayTask:
    x = torch.rand(len(LABELS), 1, 8, 8, generator=stream(0, "x"))
    return ArrayTask(dict.fromkeys(("train", "validation", "test"), (x, LABELS)))


@pytest.fixture
def given() -> Iterator[Any]:
    """Register a task of uneven classes for a test."""
    register("task", Component("uneven", lambda options: uneven(), NoOptions, "uneven classes"))
    yield {"use": "uneven"}
    known = registry()
    del known.components["task", "uneven"], known.owners["task", "uneven"]


def data(task: Mapping[str, Any], /, rank: int = 0, world: int = 1, **train: Any) -> TrainingData:
    recipe = recipe_from_mapping({**tiny(train=train), "task": dict(task)})
    processes = start("cpu", "float32")
    made = TrainingData(assemble(recipe, processes.device), processes)
    feed = made.feed
    made.feed = lambda epoch, skip: replace(feed(epoch, skip), rank=rank, world=world)  # type: ignore[method-assign]
    return made


def test_the_first_batch_is_drawn_once_until_an_epoch_starts(given: Any) -> None:
    made, served = data(given), []
    batches = made.task.batches

    def counted(split: Split, feed: Feed) -> Iterator[Batch]:
        served.append(feed)
        return batches(split, feed)

    made.task.batches = counted  # type: ignore[method-assign]
    first = made.first()
    assert made.first() is first
    assert len(served) == 1
    assert torch.equal(next(made.batches(0)).x, first.x)
    assert len(served) == 2
    assert torch.equal(made.first().x, first.x)
    assert len(served) == 3


# --- orders


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_all_classes_are_equally_frequent_in_a_balanced_epoch(epoch: int) -> None:
    order = balanced_order(LABELS, 3, 7, epoch)
    assert len(order) == len(LABELS)
    counts = torch.bincount(LABELS[order], minlength=3)
    assert int(counts.max() - counts.min()) <= 1
    # Within a class, no sample comes more than once more often than another.
    times = torch.bincount(order, minlength=len(LABELS))
    for number in range(3):
        own = times[number == LABELS]
        assert int(own.max() - own.min()) <= 1
    assert torch.equal(order, balanced_order(LABELS, 3, 7, epoch))
    assert not torch.equal(order, balanced_order(LABELS, 3, 7, epoch + 1))
    assert not torch.equal(order, balanced_order(LABELS, 3, 8, epoch))


def test_more_classes_than_samples_are_drawn_by_lot() -> None:
    labels = torch.arange(5)
    with pytest.raises(ValueError, match="class 5 has no training samples"):
        balanced_order(labels, 6, 0, 0)
    assert sorted(balanced_order(labels, 5, 0, 0).tolist()) == [0, 1, 2, 3, 4]


def test_an_endless_order_shows_all_before_any_again_and_can_be_cut_anywhere() -> None:
    whole = endless_order(7, 0, 40, 3, "name")
    for round in range(5):
        assert sorted(whole[7 * round : 7 * round + 7].tolist()) == list(range(7))
    for first, count in ((0, 3), (5, 4), (6, 20), (13, 1), (14, 0), (35, 5)):
        assert torch.equal(endless_order(7, first, count, 3, "name"), whole[first : first + count])
    assert not torch.equal(endless_order(7, 0, 40, 3, "other"), whole)


def test_an_order_of_its_own_is_skipped_and_shared_out() -> None:
    order = balanced_order(LABELS, 3, 0, 0)
    feed = Feed(batch_size=16, shuffle=True, order=order)
    whole = list(index_batches(len(LABELS), feed))
    assert torch.equal(torch.cat(whole), order)
    assert len(whole) == epoch_batches(len(LABELS), feed) == 6
    rest = list(index_batches(len(LABELS), replace(feed, skip=4)))
    assert all(map(torch.equal, whole[4:], rest))
    shares = [list(index_batches(len(LABELS), replace(feed, rank=rank, world=2))) for rank in (0, 1)]
    for rows, *parts in zip(whole, *shares, strict=True):
        assert all(torch.equal(rows[rank::2], part) for rank, part in enumerate(parts))
    # Evaluation keeps the stored order.
    assert torch.equal(torch.cat(list(index_batches(8, replace(feed, shuffle=False)))), torch.arange(8))


# --- a memory for each sample


def test_of_a_sample_that_occurs_twice_the_last_row_counts() -> None:
    memory = MethodState().per_sample("m", 5)
    memory.write(torch.tensor([3, 1, 3, 3, 0]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert memory.values.tolist() == [5.0, 2.0, 0.0, 4.0, 0.0]
    memory.synchronize(lambda rows: torch.cat([rows, rows + 10 * (rows.is_floating_point())]))
    assert memory.values.tolist() == [15.0, 12.0, 0.0, 14.0, 0.0]


@pytest.mark.parametrize("method", ["cat", "iaat"])
def test_methods_with_a_memory_take_samples_that_occur_twice(method: str, given: Any, tmp_path: Path) -> None:
    recipe = {**tiny(method, train={"sampling": "balanced"}), "task": given}
    trained = robustplug.train(recipe, out=tmp_path / "run")
    assert all(report.train["loss"] > 0 for report in trained.history)


# --- sampling and weights in a recipe


def test_balanced_sampling_reaches_the_batches_on_every_process(given: Any) -> None:
    whole = data(given, sampling="balanced", batch_size=16)
    batches = list(whole.batches(1))
    index = torch.cat([batch.index for batch in batches])
    assert torch.equal(index, balanced_order(LABELS, 3, 0, 1))
    assert torch.equal(torch.cat([batch.y for batch in batches]), LABELS[index])
    again = list(whole.batches(1, skip=3))
    assert all(torch.equal(a.index, b.index) for a, b in zip(batches[3:], again, strict=True))
    shares = [data(given, rank, 2, sampling="balanced", batch_size=16).batches(1) for rank in (0, 1)]
    for batch, *parts in zip(batches, *shares, strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(batch.index[rank::2], part.index)
            assert torch.equal(batch.x[rank::2], part.x)


def test_balanced_weights_are_one_on_average_and_inverse_to_the_frequency(given: Any) -> None:
    weights = data(given, class_weights="balanced").class_weights
    assert weights is not None
    counts = torch.bincount(LABELS).double()
    assert weights.tolist() == pytest.approx((len(LABELS) / (3 * counts)).tolist())
    assert float(weights[LABELS].mean()) == pytest.approx(1)
    assert data(given, class_weights=[1, "1/2", 0]).class_weights is not None
    assert data(given).class_weights is None


def test_the_weight_of_a_mixture_is_that_of_its_shares() -> None:
    weights = torch.tensor([1.0, 2.0, 4.0])
    assert factors(torch.tensor([2, 0]), weights).tolist() == [4.0, 1.0]
    rows = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    assert factors(rows, weights).tolist() == [1.5, 3.5]


def test_a_weight_of_zero_takes_a_class_out_of_the_training(given: Any, tmp_path: Path) -> None:
    base = merged(tiny(), {"optimizer": {"lr": 0.1}, "train": {"epochs": 6, "select": "last"}})
    base |= {"task": {"use": "digits", "validation": 64, "test": 1200}}
    base["evaluate"] = {"samples": 200}
    weights = [1.0] * 10
    weights[3] = 0.0
    found: list[tuple[tuple[int, ...], ...]] = []
    for given_weights in (None, weights):
        train = {} if given_weights is None else {"class_weights": given_weights}
        trained = robustplug.train(merged(base, {"train": train}), out=tmp_path / str(len(found)))
        found.append(trained.result.attacks[0].confusion)
    taken = [sum(row[3] for row in table) for table in found]
    assert taken[1] < taken[0]
    assert taken[1] <= 2


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"class_weights": [1, 2]}, "must hold 3 numbers, one for each class, at least one above 0"),
        ({"class_weights": [0, 0, 0]}, "at least one above 0"),
        ({"class_weights": "balanced", "sampling": "balanced"}, "balance the classes twice"),
    ],
)
def test_weights_that_cannot_be_are_refused(train: dict[str, Any], message: str, given: Any) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        data(given, **train)
    assert "train.class_weights" in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("sampling", "balanced"), ("class_weights", "balanced")])
def test_tasks_without_classes_or_with_empty_ones_are_refused(
    key: str, value: str, robustplug_register: Any
) -> None:
    class Sparse(ToyTask):
        def __init__(self, options: object) -> None:
            super().__init__()
            self.info = replace(self.info, classes=4)

    class Unclassified(ToyTask):
        def __init__(self, options: object) -> None:
            super().__init__()
            self.info = replace(self.info, classes=None)

    asked: dict[str, Any] = {key: value}
    robustplug_register("task", Component("sparse", Sparse, NoOptions, "x"))
    robustplug_register("task", Component("unclassified", Unclassified, NoOptions, "x"))
    with pytest.raises(RecipeError, match="class 3 has no training samples"):
        data({"use": "sparse"}, **asked)
    recipe = recipe_from_mapping({**tiny(train={key: value}), "task": {"use": "unclassified"}})
    processes = start("cpu", "float32")
    parts = assemble(replace(recipe, task=recipe_from_mapping(tiny()).task), processes.device)
    parts.task = Unclassified(None)
    parts.recipe = recipe
    with pytest.raises(RecipeError, match=rf'train\.{key}\n.*the task "unclassified" has none'):
        TrainingData(parts, processes)
    if key == "class_weights":
        parts.recipe = recipe_from_mapping({**tiny(train={key: [1.0, 2.0]}), "task": {"use": "unclassified"}})
        with pytest.raises(RecipeError, match="has none"):
            TrainingData(parts, processes)


def test_a_task_that_follows_no_order_is_refused(robustplug_register: Any) -> None:
    class OwnOrder(ToyTask):
        def __init__(self, options: object) -> None:
            super().__init__()

        def batches(self, split: Any, feed: Feed) -> Iterator[Batch]:
            yield from super().batches(split, replace(feed, order=None))

    robustplug_register("task", Component("own-order", OwnOrder, NoOptions, "x"))
    with pytest.raises(RecipeError, match="does not follow a given order of samples"):
        data({"use": "own-order"}, sampling="balanced")
    # Its classes are read from its batches.
    assert torch.equal(training_labels(OwnOrder(None)), torch.arange(22) % 3)
    assert data({"use": "own-order"}, class_weights="balanced").class_weights is not None


# --- augmentation


def test_augmentation_is_the_same_for_any_skip_and_any_process(given: Any) -> None:
    train: dict[str, Any] = {
        "batch_size": 16,
        "augment": [{"use": "torchvision:RandomErasing"}, {"use": "torchvision:GaussianNoise"}],
    }
    whole = list(data(given, **train).batches(2))
    plain = list(data(given, batch_size=16).batches(2))
    assert all(torch.equal(a.index, b.index) for a, b in zip(whole, plain, strict=True))
    assert all(not torch.equal(a.x, b.x) for a, b in zip(whole, plain, strict=True))
    rest = list(data(given, **train).batches(2, skip=2))
    assert all(torch.equal(a.x, b.x) for a, b in zip(whole[2:], rest, strict=True))
    for rank in (0, 1, 2):
        parts = data(given, rank, 3, **train).batches(2)
        assert all(torch.equal(a.x[rank::3], b.x) for a, b in zip(whole, parts, strict=True))
    other = list(data(given, **train).batches(3))
    assert not torch.equal(torch.cat([b.x for b in other]), torch.cat([b.x for b in whole]))


def test_a_sample_that_occurs_twice_is_changed_in_two_ways(given: Any) -> None:
    train: dict[str, Any] = {"sampling": "balanced", "augment": [{"use": "torchvision:GaussianNoise"}]}
    batches = list(data(given, **train).batches(0))
    x = torch.cat([batch.x for batch in batches])
    index = torch.cat([batch.index for batch in batches])
    rare = index == int((LABELS == 2).nonzero()[0])
    assert int(rare.sum()) > 3
    assert len(torch.unique(x[rare].flatten(1), dim=0)) == int(rare.sum())


def test_an_augmentation_that_fails_during_training_ends_the_run_with_its_reason(
    tmp_path: Path, robustplug_register: Any
) -> None:
    from robustplug.errors import Refused, RunError

    class Fails:
        def __init__(self, options: object, *, info: Any) -> None:
            self.calls = 0

        def __call__(self, x: Tensor, seeds: Any) -> Tensor:
            self.calls += 1
            if self.calls > 6:
                raise Refused("the weather is bad")
            return x

    robustplug_register("augmentation", Component("fails", Fails, NoOptions, "x"))
    recipe = tiny(train={"augment": [{"use": "fails"}]})
    with pytest.raises(RunError, match=r"the weather is bad\. The last good checkpoint"):
        robustplug.train(recipe, out=tmp_path / "run")


# --- samples that are not scored


def test_means_are_over_the_rows_that_count() -> None:
    means = Means()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(0.5)}, 4, {"b": torch.tensor(2)})
    means.add({"a": torch.tensor(3.0), "b": torch.tensor(0.0)}, 4, {"b": torch.tensor(0)})
    assert means.means() == {"a": 2.0, "b": 0.5}
    assert Means.of(means.totals()).means() == means.means()
    empty = Means()
    empty.add({"b": torch.tensor(0.0)}, 4, {"b": torch.tensor(0)})
    assert empty.means() == {}


def test_samples_marked_as_not_scored_do_not_count_in_accuracies() -> None:
    from robustplug.testing.bench import Bench, Subject
    from robustplug.testing.toys import toy_plain
    from robustplug.training.loop import training_loss

    bench = Bench(Subject("method", "erm"), toy_plain)
    batch = bench.batch()
    scored = torch.arange(len(batch)) % 2 == 0
    step = bench.step(replace(batch, info={"scored": scored}))
    training_loss(bench.method, step)
    with torch.no_grad():
        right = bench.task.score(View.of(batch), bench.model(batch.x))
    assert float(step.logged["accuracy/clean"]) == pytest.approx(float(right[scored].float().mean()))
    assert int(step.counted["accuracy/clean"]) == int(scored.sum())
