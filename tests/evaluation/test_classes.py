"""Accuracies by class, confusion matrices and the calibration of an evaluation."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.reporting import Warns
from robustplug.core.types import AttackResult, Batch, Feed, Result
from robustplug.errors import RunError
from robustplug.evaluation.classes import (
    by_class,
    calibration_error,
    confidences,
    confusion,
    predictions,
)
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.kept.journal import Journal
from robustplug.evaluation.setting import Attack
from robustplug.evaluation.summary import worst_cases
from robustplug.report.pages.run_page import evaluation_html
from robustplug.report.tables.results import result_table, skipped_lines
from robustplug.runs.folder import json_text
from robustplug.runs.result_file import result_from_json, result_to_json
from robustplug.testing.toys import ToyTask, toy_plain

from ..training.runs import timeless
from .test_evaluate import evaluation
from .test_journal import Noisy

DATA = Path(__file__).parents[1] / "data" / "run-0.1"


def drawn(size: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return (torch.randint(classes, (size,), generator=rng) for _ in range(2))  # type: ignore[return-value]


# --- pure functions


def test_the_confusion_matrix_counts_labels_by_predictions() -> None:
    from sklearn.metrics import confusion_matrix

    labels, predicted = drawn(200, 4)
    assert np.array_equal(confusion(predicted, labels, 4), confusion_matrix(labels, predicted))
    predicted[:50] = -1
    assert np.array_equal(confusion(predicted, labels, 4), confusion_matrix(labels[50:], predicted[50:]))
    assert confusion(predicted, labels, None) == ()
    assert confusion(torch.full((3,), -1), torch.zeros(3).long(), 4) == ()
    labels, predicted = drawn(200, 201)
    assert confusion(predicted, labels, 201) == ()


def test_right_samples_are_counted_by_class() -> None:
    labels = torch.tensor([0, 0, 2, 2, 2])
    assert by_class(torch.tensor([True, False, True, True, False]), labels, 4) == (1, 0, 2, 0)
    assert by_class(torch.ones(5, dtype=torch.bool), labels, None) == ()
    assert by_class(torch.ones(5, dtype=torch.bool), labels, 1001) == ()


def naive_error(confidence: np.ndarray[Any, Any], right: np.ndarray[Any, Any], bins: int) -> float:
    """Follow Guo et al. 2017, Eq. 3, word for word."""
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            total += inside.mean() * gap
    return total


def test_the_calibration_error_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    for bins in (1, 10, 15):
        confidence = rng.uniform(0.1, 1, 500)
        right = rng.uniform(size=500) < confidence**2
        found = calibration_error(torch.tensor(confidence), torch.tensor(right), bins)
        assert found == pytest.approx(naive_error(confidence, right, bins), abs=1e-12)
    sure = torch.ones(4)
    assert calibration_error(sure, torch.tensor([True] * 4)) == 0
    assert calibration_error(sure, torch.tensor([True, False] * 2)) == 0.5
    assert math.isnan(calibration_error(torch.empty(0), torch.empty(0, dtype=torch.bool)))
    assert math.isnan(calibration_error(torch.tensor([0.5, math.nan]), torch.tensor([True, True])))


def test_confidence_is_that_of_logits_of_probabilities_and_of_nothing() -> None:
    logits = torch.tensor([[1.0, 3.0, 0.0], [-2.0, 0.0, 0.0]])
    assert torch.allclose(confidences(logits), logits.softmax(1).amax(1))
    shares = torch.tensor([[0.2, 0.8], [0.5, 0.5]])
    assert torch.allclose(confidences(shares), torch.tensor([0.8, 0.5]))
    assert bool(confidences(torch.eye(3)).isnan().all())
    assert predictions(logits, 3) is not None
    lost = predictions(torch.tensor([[math.nan] * 3, [0.0, math.nan, 1.0], [0.0, 2.0, -math.inf]]), 3)
    assert lost is not None
    assert lost.tolist() == [-1, -1, 1]
    assert predictions(logits, None) is None
    assert predictions(logits, 4) is None
    assert predictions([1, 2], 2) is None


# --- an evaluation


class Flips:
    """Turn half of the samples of an evaluation into the opposite, as an attack within a large radius."""

    def __init__(self, every: int) -> None:
        self.every = every

    def __call__(self, step: Any, view: Any, vicinity: Any) -> Any:
        step.forward(view.x)
        flipped = (view.index % self.every == 0).view(-1, 1, 1, 1)
        return view.replace(x=torch.where(flipped, 1 - view.x, view.x))

    def cost(self, target: Any) -> Any:
        raise NotImplementedError


def wide(**changes: Any) -> Evaluation:
    subject = evaluation()
    subject.vicinity.eps = 1.0
    return dataclasses.replace(subject, **changes)


def attacked(subject: Evaluation, split: Any = "test") -> tuple[AttackResult, ...]:
    rows = [Attack(f"flip {n}", {}, Flips(n), chain="main") for n in (2, 3)]
    return subject.run(split, [*rows, Attack("alone", {}, Flips(1), chain="")], 4)


def test_the_numbers_by_class_are_those_of_the_samples() -> None:
    subject = wide()
    clean, first, second, alone = attacked(subject)
    (batch,) = subject.task.batches("test", Feed(batch_size=100))
    with torch.no_grad():
        own = subject.model.eval()(batch.x).argmax(1)
        other = subject.model(1 - batch.x).argmax(1)
    labels = batch.y
    predicted = own.clone()
    assert clean.confusion == confusion(predicted, labels, 2)
    standing = own == labels
    for every, row in ((2, first), (3, second)):
        run = standing & (torch.arange(len(labels)) % every == 0)
        predicted = torch.where(run, other, torch.where(standing, own, predicted))
        standing = standing & ~(run & (other != labels))
        assert row.by_class == by_class(standing, labels, 2)
        assert row.right == tuple(standing.tolist())
    assert second.confusion == confusion(predicted, labels, 2)
    assert [len(row.confusion) for row in (clean, first, second, alone)] == [2, 0, 2, 0]
    for row in (clean, second):
        assert tuple(row.confusion[n][n] for n in range(2)) == row.by_class
        assert [sum(line) for line in row.confusion] == subject.classes["classes"]["samples"]
    assert alone.by_class == by_class((own == labels) & (other == labels), labels, 2)


def test_calibration_is_measured_on_the_clean_samples() -> None:
    subject = wide()
    attacked(subject)
    (batch,) = subject.task.batches("test", Feed(batch_size=100))
    with torch.no_grad():
        output = subject.model.eval()(batch.x)
    confidence = output.softmax(1).amax(1)
    found = subject.classes["calibration"]
    right = output.argmax(1) == batch.y
    assert (found["row"], found["bins"]) == ("clean", 15)
    assert found["error"] == pytest.approx(calibration_error(confidence, right))
    assert found["confidence"] == pytest.approx(float(confidence.mean()))


@pytest.mark.parametrize("stop_at", [0, 1, 3, 5, 7])
def test_a_killed_evaluation_resumes_to_the_same_numbers_by_class(stop_at: int, tmp_path: Path) -> None:
    def rows(subject: Evaluation, *attacks: Any) -> tuple[AttackResult, ...]:
        return subject.run("test", [Attack(f"n{n}", {}, a, chain="main") for n, a in enumerate(attacks)], 4)

    whole = evaluation()
    expected = rows(whole, Noisy(), Noisy())
    path = tmp_path / "j"
    with pytest.raises(KeyboardInterrupt):
        rows(dataclasses.replace(evaluation(), journal=path), Noisy(stop_at), Noisy(max(0, stop_at - 4)))
    again = dataclasses.replace(evaluation(), journal=path)
    found = rows(again, Noisy(), Noisy())
    assert timeless([dataclasses.asdict(row) for row in found]) == timeless(
        [dataclasses.asdict(row) for row in expected]
    )
    assert again.classes == whole.classes
    assert expected[-1].confusion


def test_a_journal_of_an_earlier_version_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    monkeypatch.setattr("robustplug.evaluation.kept.share.JOURNAL_FORMAT", 1)
    dataclasses.replace(evaluation(), journal=path).run("test", [Attack("n", {}, Noisy())], 4)
    monkeypatch.undo()
    seen: list[Any] = []
    chunk = Journal.chunk

    def note(*given: Any) -> Any:
        seen.append(chunk(*given))
        return seen[-1]

    monkeypatch.setattr(Journal, "chunk", note)
    rows = dataclasses.replace(evaluation(), journal=path).run("test", [Attack("n", {}, Noisy())], 4)
    assert seen
    assert set(seen) == {None}
    assert rows[1].confusion


class Leaves(Flips):
    """Leave the threat model, with samples whose index is a multiple of a number."""

    def __call__(self, step: Any, view: Any, vicinity: Any) -> Any:
        far = (view.index % self.every == 0).view(-1, 1, 1, 1)
        return view.replace(x=torch.where(far, view.x + 2, view.x))


def test_a_result_outside_the_threat_model_counts_as_right() -> None:
    clean, row = evaluation().run("test", [Attack("leaves", {}, Leaves(22))], 4)
    assert row.rejected == 1
    assert row.by_class == clean.by_class
    assert row.confusion == clean.confusion


def test_a_row_of_which_more_than_a_tenth_was_discarded_has_no_accuracy() -> None:
    rows = [
        Attack("flip", {}, Flips(2), chain="main"),
        Attack("leaves", {}, Leaves(1), threat={"use": "linf"}, chain="main"),
        Attack("again", {}, Flips(3), chain="main"),
    ]
    subject = wide(reporter=Warns())
    with pytest.warns(UserWarning, match="leaves is invalid: .* results broke the rules"):
        clean, flip, leaves, again = subject.run("test", rows, 4)
    assert (leaves.invalid, flip.invalid, clean.invalid) == (True, False, False)
    assert math.isnan(leaves.accuracy)
    assert (leaves.right, leaves.by_class, leaves.confusion) == ((), (), ())
    assert leaves.rejected == leaves.attempted > 0
    # The chain goes on from what it did not break.
    assert again.attempted == leaves.attempted - leaves.broken
    assert worst_cases([clean, flip, leaves, again])[0]["skipped"] == ["leaves"]
    meta = {"name": "x", "task": "toy", "seconds": 1.0, **subject.classes}
    result = Result("test", len(clean.right), {"use": "linf", "eps": 1.0}, (clean, flip, leaves, again), meta)
    stored = result_from_json(json.loads(json_text(result_to_json(result))))
    assert stored.attacks[2].invalid
    assert [line.partition(" of ")[0] for line in skipped_lines(stored)] == [
        f"invalid: leaves: {leaves.rejected}"
    ]
    assert list(result_table(stored).columns[1].cells)[2] == "invalid"
    assert evaluation_html(stored, "evaluation").count("invalid") == 2


def test_a_skipped_row_and_a_task_without_classes_have_no_numbers() -> None:
    subject = evaluation()
    rows = subject.run("test", [Attack("no", {}, None, refused="cannot")], 4)
    assert rows[1].by_class == ()
    assert rows[1].confusion == ()
    assert rows[0].confusion
    task = ToyTask()
    task.info = dataclasses.replace(task.info, classes=None)
    subject = dataclasses.replace(evaluation(toy_plain(ToyTask().info)), task=task)
    (clean,) = subject.run("test", [], 4)
    assert clean.by_class == ()
    assert subject.classes == {}


def test_rows_of_shares_are_labels_too() -> None:
    class Soft(ToyTask):
        def batches(self, split: Any, feed: Feed) -> Any:
            for batch in super().batches(split, feed):
                rows = nn.functional.one_hot(batch.y, 3).float() * 0.7 + 0.1
                yield Batch(batch.x, rows, batch.index)

    net = toy_plain(ToyTask().info)
    hard, soft = (dataclasses.replace(evaluation(net), task=task) for task in (ToyTask(), Soft()))
    assert soft.run("test", [], 4)[0].confusion == hard.run("test", [], 4)[0].confusion


def test_the_training_split_of_a_mixture_is_not_evaluated() -> None:
    task = ToyTask()
    task.info = dataclasses.replace(task.info, pool=99)
    with pytest.raises(RunError, match="draws from a pool"):
        dataclasses.replace(evaluation(), task=task).run("train", [], 4)


# --- results


def test_a_result_has_them_and_comes_back_from_json() -> None:
    net = toy_plain(ToyTask().info)
    found = robustplug.evaluate(net, data=ToyTask(), attacks=["fgsm"], threat={"use": "linf", "eps": 0.1})
    body = json.loads(json.dumps(result_to_json(found)))
    assert body["meta"]["classes"] == {"names": [], "samples": [3, 3, 2]}
    assert body["meta"]["calibration"]["row"] == "clean"
    assert np.array(body["attacks"][0]["confusion"]).sum() == 8
    again = result_from_json(body)
    assert again.attacks == found.attacks
    assert isinstance(again.attacks[0].confusion[0], tuple)


def test_a_result_of_version_0_1_is_read_without_them() -> None:
    stored = json.loads((DATA / "finished" / "result.json").read_text())
    assert "by_class" not in stored["attacks"][0]
    found = result_from_json(stored)
    assert isinstance(found, Result)
    assert not any(row.by_class or row.confusion for row in found.attacks)


def test_decisions_have_no_calibration() -> None:
    net = toy_plain(ToyTask().info)

    def decide(x: Tensor) -> Tensor:
        with torch.no_grad():
            numbers: Tensor = net(x).argmax(1)
        return numbers

    found = robustplug.evaluate(decide, data=ToyTask(), attacks=[], threat={"use": "linf", "eps": 0.1})
    assert "calibration" not in found.meta
    assert found.attacks[0].confusion


def test_many_classes_stay_small() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(600, 1, 2, 2, generator=rng), torch.arange(600) % 300
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 300))
    found = robustplug.evaluate(net, data=(x, y), attacks=["fgsm"], threat={"use": "linf", "eps": 0.01})
    assert all(row.confusion == () for row in found.attacks)
    assert all(len(row.by_class) == 300 for row in found.attacks)
    assert len(json.dumps(result_to_json(found))) < 12_000
