"""The attacks on a small trained model: honest successes, hard sentences, batches, a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import robustplug
from robustplug.api import Batch, Refused, View
from robustplug.engine.evaluate import Attack, Evaluation
from robustplug.engine.processes import start
from robustplug_seq2sick.goals import Goal
from robustplug_seq2sick.search import Translation
from robustplug_seq2sick.words import PAD, UNKNOWN, lengths

from .models import attacked, first_batch, step_of, trained

SHORT: dict[str, Any] = {"steps": 12, "lr": [0.3], "patience": 0}


def attack(name: str = "seq2sick", **options: Any) -> Any:
    short = {} if "variant" in options else SHORT
    given = {**(short if name == "seq2sick" else {"rounds": 3, "words": 30}), **options}
    return robustplug.build("perturbation", name, **given)


ABLATIONS: list[dict[str, Any]] = [
    {},
    {"keywords": 1},
    {"keywords": 2, "patience": 3},
    {"keywords": 1, "lambda1": 0.0},
    {"keywords": 1, "lambda2": 0.0},
    {"keywords": 1, "project": False},
    {"keywords": 2, "mask": False, "margin": 0.1},
    {"variant": "paper", "steps": 8},
    {"variant": "official", "steps": 5},
]


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_what_is_returned_reaches_the_goal_by_beam_search_or_is_the_original(options: dict[str, Any]) -> None:
    view, words = attacked(first_batch(12), attack(**options))
    goal = Goal.of(view)
    assert goal is not None
    reached, moved = goal.reached(words), (view.x != view.origin).any(1)
    assert torch.equal(reached, moved)
    assert not ((view.x < 4) & (view.x != view.origin)).any()


def test_keywords_are_forced_in_most_sentences() -> None:
    view, _ = attacked(first_batch(12), attack(keywords=1, steps=60))
    assert int((view.x != view.origin).any(1).sum()) >= 6


@pytest.mark.parametrize("name", ["seq2sick", "greedy-replacement"])
def test_batching_equals_one_by_one(name: str) -> None:
    batch = first_batch(5)
    together, _ = attacked(batch, attack(name, keywords=1))
    assert bool((together.x != together.origin).any())
    for row in range(5):
        part = slice(row, row + 1)
        alone, _ = attacked(Batch(batch.x[part], batch.y[part], batch.index[part]), attack(name, keywords=1))
        assert torch.equal(alone.x[0], together.x[row])


def test_a_broken_sentence_leaves_the_batch() -> None:
    batch = first_batch(12)
    step = step_of(batch)
    found = attack(steps=60)(step, View.of(batch, "adv"), robustplug.build("vicinity", "word-replacement"))
    assert int((found.x != found.origin).any(1).sum()) >= 10
    assert step.meter.backwards < 12 * 30


@pytest.mark.parametrize("eps", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("name", ["seq2sick", "greedy-replacement"])
def test_no_more_words_are_replaced_than_allowed(name: str, eps: float) -> None:
    view, _ = attacked(first_batch(12), attack(name), eps)
    assert int((view.x != view.origin).sum(1).max()) <= eps


def test_patience_finds_sentences_with_fewer_changes() -> None:
    first, _ = attacked(first_batch(12), attack(keywords=1, steps=40))
    later, _ = attacked(first_batch(12), attack(keywords=1, steps=40, patience=15))
    before, after = ((view.x != view.origin).sum(1) for view in (first, later))
    assert bool((after <= before).all())
    assert int(after.sum()) < int(before.sum())


@pytest.mark.parametrize("name", ["seq2sick", "greedy-replacement"])
def test_empty_long_and_unknown_sentences(name: str) -> None:
    batch = first_batch(3)
    task, _ = trained()
    x = torch.full((3, 40), PAD)
    x[1] = batch.x[1, 0]
    x[2, :5] = UNKNOWN
    hard = Batch(x, batch.y, batch.index)
    view, words = attacked(hard, attack(name))
    assert torch.equal(view.x[0], view.origin[0])
    assert lengths(view.x).tolist() == [0, 40, 5]
    told = task.tell(view, Translation(words))
    assert "nothing to attack" in told[0]
    assert all("no word in its place: " in text for text in told[1:])
    assert task.score(view, Translation(words))[0]


def test_a_model_without_words_is_refused() -> None:
    batch = first_batch(2)

    class Other(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float()

    step = step_of(batch, Other())
    with pytest.raises(Refused, match="a model that translates"):
        attack().aim(step, View.of(batch, "adv"))


def evaluation(journal: Path | None = None) -> Evaluation:
    task, model = trained()
    vicinity = robustplug.build("vicinity", "word-replacement")
    loss = robustplug.build("loss", "translation")
    return Evaluation(model, task, vicinity, loss, 0, start("cpu", "float32"), journal=journal)


def rows() -> list[Attack]:
    return [Attack(f"{k} keywords", {"keywords": k}, attack(keywords=k), chain="") for k in (0, 1)]


def test_an_evaluation_counts_all_sentences_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    whole = evaluation().run("test", rows(), 7, 20)
    clean, row = whole[0], whole[1]
    assert row.attempted == 20
    assert "BLEU" in clean.measures
    assert row.measures["success %"].mean == pytest.approx(100 * (1 - row.accuracy))
    assert row.broken == round(20 * (1 - row.accuracy))
    journal = tmp_path / "journal"
    evaluation(journal).run("test", rows(), 7, 20)
    lines = journal.read_text().splitlines(keepends=True)
    # As if it had been killed after the first batches of the second attack.
    journal.write_text("".join(lines[:-2]))
    again = evaluation(journal).run("test", rows(), 7, 20)
    for one, other in zip(whole, again, strict=True):
        assert one.right == other.right
        assert one.example == other.example
        assert {n: m.mean for n, m in one.measures.items()} == pytest.approx(
            {n: m.mean for n, m in other.measures.items()}, nan_ok=True
        )


def test_a_loss_that_falls_is_what_the_greedy_search_finds() -> None:
    view, words = attacked(first_batch(6), attack("greedy-replacement", rounds=6, words=110))
    goal = Goal.of(view)
    assert goal is not None
    assert int(goal.reached(words).sum()) >= 3


def test_training_and_evaluating_by_recipe(tmp_path: Path) -> None:
    small = ["task.sentences=40", "model.word=8", "model.hidden=8", "train.epochs=1", "train.batch_size=32"]
    few = ["validate.samples=4", "evaluate.samples=1", "evaluate.attack=[]"]
    run = robustplug.train("seq2seq-synthetic", overrides=[*small, *few], out=tmp_path / "run")
    assert run.history[0].validation.keys() >= {"loss", "BLEU", "clean"}
    result = robustplug.evaluate(tmp_path / "run", suite="seq2sick")
    assert [row.skipped for row in result.attacks] == [""] * 5
