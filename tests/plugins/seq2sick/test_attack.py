"""The attacks on a small trained model: honest successes, hard sentences, batches, a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.api import Batch, Refused, View
from robustplug.devices.processes import start
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.setting import Attack
from robustplug_seq2sick.attacks.goals import Goal
from robustplug_seq2sick.attacks.seq2sick import _Search
from robustplug_seq2sick.attacks.victim import Best, Victim
from robustplug_seq2sick.models.lstm import Embedded
from robustplug_seq2sick.text.search import Translation
from robustplug_seq2sick.text.words import BEGIN, PAD, UNKNOWN, lengths

from .models import attacked, first_batch, step_of, trained

SHORT: dict[str, Any] = {"steps": 12, "lr": [0.3], "patience": 0}


def goal_of(view: View) -> Goal | None:
    return Goal.of(view.info, trained()[0].info.target)


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
    goal = goal_of(view)
    assert goal is not None
    reached, moved = goal.reached(words), (view.x != view.origin).any(1)
    assert torch.equal(reached, moved)
    assert not ((view.x < 4) & (view.x != view.origin)).any()


def test_keywords_are_forced_in_most_sentences() -> None:
    view, _ = attacked(first_batch(12), attack(keywords=1, steps=60))
    assert int((view.x != view.origin).any(1).sum()) >= 6


@pytest.mark.parametrize("options", [{"keywords": 1}, {"untargeted": True, "share": 0.2}], ids=str)
@pytest.mark.parametrize("name", ["seq2sick", "greedy-replacement"])
def test_batching_equals_one_by_one(name: str, options: dict[str, Any]) -> None:
    batch, made = first_batch(5), attack(name, **options)
    together, _ = attacked(batch, made)
    assert bool((together.x != together.origin).any())
    for row in range(5):
        part = slice(row, row + 1)
        alone, _ = attacked(Batch(batch.x[part], batch.y[part], batch.index[part]), made)
        assert torch.equal(alone.x[0], together.x[row])


def test_an_evaluation_does_not_depend_on_the_batch_size() -> None:
    asked: list[dict[str, Any]] = [{"keywords": 1}, {"untargeted": True}]
    made = [Attack(str(at), {}, attack(**options), chain="") for at, options in enumerate(asked)]
    found = []
    for size in (9, 4, 1):
        run = evaluation()
        rows = run.run("test", made, size, 9)
        found.append(([row.right for row in rows], run.texts, [row.forwards for row in rows]))
    assert found[0][:2] == found[1][:2] == found[2][:2]
    assert "Successful" in {record.result_type for record in found[0][1]["0"]}


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


def test_without_patience_a_success_is_the_last_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    iterate, after_success = _Search._iterate, []

    def counted(search: _Search, rows: Tensor, lr: float) -> None:
        after_success.append(bool(search.best.reached[rows].any()))
        iterate(search, rows, lr)

    monkeypatch.setattr(_Search, "_iterate", counted)
    view, _ = attacked(first_batch(4), attack(steps=40))
    assert bool((view.x != view.origin).any())
    assert not any(after_success)


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
    assert all("no word in its original place: " in text for text in told[1:])
    assert task.score(view, Translation(words))[0]


def test_a_model_without_words_is_refused() -> None:
    batch = first_batch(2)

    class Other(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float()

    step = step_of(batch, Other())
    with pytest.raises(Refused, match="a model that translates"):
        attack().aim(step, View.of(batch, "adv"))


@pytest.mark.parametrize("name", ["seq2sick", "greedy-replacement"])
def test_more_keywords_than_there_are_words_are_refused(name: str) -> None:
    """Else every sentence would count as one that the attack could not break."""
    with pytest.raises(Refused, match=r"keywords = 9, but 8 words .* lower task.keyword_above"):
        attacked(first_batch(2), attack(name, keywords=9))


def transcribed(x: Tensor, keyword: int, steps: int, lr: float, lambda1: float, lambda2: float) -> list[int]:
    """Algorithm 6 with Eq. 2.9 and 3.4 for one sentence, δ going on from where it was."""
    _, model = trained()
    unit = model.vectors()[4:].square().sum(1).mean().sqrt().detach()
    table = (model.vectors() / unit).detach()
    usable, delta = range(4, len(table)), torch.zeros(len(x), table.shape[1])

    def nearest(point: Tensor, own: int) -> int:
        words: list[int] = sorted({*usable, own})
        return words[int((point - table[words]).norm(dim=1).argmin())]

    words = x.tolist()
    for _ in range(steps):
        leaf = table[words].clone().requires_grad_()
        size = torch.tensor([len(x)])
        none = torch.zeros(1, 1, 0, dtype=torch.int64)
        spoken = model(Embedded(leaf[None] * unit, size, model.limits(size), none)).words
        reader = model.reader(leaf[None] * unit, size)
        logits, state, before = [], reader.begin(), BEGIN
        for word in [*spoken[0][spoken[0] != PAD].tolist(), None]:
            state = reader.after(reader.memory, state, model.target(torch.tensor([before])))
            logits.append(reader.logits(state.feed)[0])
            before = word
        terms = []
        for z in logits:
            others = torch.cat([z[:keyword], z[keyword + 1 :]])
            terms.append((others.max() - z[keyword]).clamp_min(0))
        (gradient,) = torch.autograd.grad(torch.stack(terms).min(), leaf)
        for i in range(len(x)):
            norm = float(delta[i].norm())
            delta[i] = delta[i] * (1 - lr * lambda1 / norm) if norm > lr * lambda1 else 0.0
            away = table[x[i]] + delta[i] - table[nearest(table[x[i]] + delta[i], int(x[i]))]
            pull = away / away.norm() if float(away.norm()) > 1e-6 else 0.0 * away
            delta[i] -= lr * (gradient[i] + lambda2 * pull)
        words = [nearest(table[x[i]] + delta[i], int(x[i])) for i in range(len(x))]
    return words


@pytest.mark.parametrize(("lambda1", "lambda2"), [(1.0, 0.2), (0.3, 0.0), (0.0, 1.0)])
def test_the_iterations_are_algorithm_6(lambda1: float, lambda2: float) -> None:
    batch = first_batch(4)
    step = step_of(batch)
    made = attack(keywords=1, lambda1=lambda1, lambda2=lambda2, lr=[0.4], steps=6)
    view, vicinity = View.of(batch, "adv"), robustplug.build("vicinity", "word-replacement")
    goal = Goal(**made.aim(step, view))
    x = batch.x[:, : int(lengths(batch.x).max())]
    best = Best(view, goal)
    # No success is noted, so that no sentence leaves.
    best.price[:] = 0
    with step.attack_mode():
        search = _Search(Victim(step, made.options, view, vicinity), goal, x, best, made.options)
        for _ in range(6):
            search._iterate(torch.arange(len(x)), 0.4)
    assert bool((search.words != x).any())
    for row, size in enumerate(lengths(x).tolist()):
        expected = transcribed(x[row, :size], int(goal.keywords[row, 0]), 6, 0.4, lambda1, lambda2)
        assert search.words[row, :size].tolist() == expected


def evaluation(journal: Path | None = None) -> Evaluation:
    task, model = trained()
    vicinity = robustplug.build("vicinity", "word-replacement")
    loss = robustplug.build("loss", "translation")
    return Evaluation(model, task, vicinity, loss, 0, start("cpu", "float32"), journal=journal)


def rows() -> list[Attack]:
    return [Attack(f"{k} keywords", {"keywords": k}, attack(keywords=k), chain="") for k in (0, 1)]


def test_an_evaluation_counts_all_sentences_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    first = evaluation()
    whole = first.run("test", rows(), 7, 20)
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
    resumed = evaluation(journal)
    again = resumed.run("test", rows(), 7, 20)
    assert resumed.texts == first.texts
    assert [len(texts) for texts in first.texts.values()] == [20, 20]
    for one, other in zip(whole, again, strict=True):
        assert one.right == other.right
        assert one.example == other.example
        assert {n: m.mean for n, m in one.measures.items()} == pytest.approx(
            {n: m.mean for n, m in other.measures.items()}, nan_ok=True
        )


def test_a_loss_that_falls_is_what_the_greedy_search_finds() -> None:
    view, words = attacked(first_batch(6), attack("greedy-replacement", rounds=6, words=110))
    goal = goal_of(view)
    assert goal is not None
    assert int(goal.reached(words).sum()) >= 3


def test_training_and_evaluating_by_recipe(tmp_path: Path) -> None:
    small = ["task.sentences=40", "model.word=8", "model.hidden=8", "train.epochs=1", "train.batch_size=32"]
    few = ["validate.samples=4", "evaluate.samples=1", "task.keyword_above=1"]
    run = robustplug.train("seq2seq-synthetic", overrides=[*small, *few], out=tmp_path / "run")
    assert run.history[0].validation.keys() >= {"loss", "BLEU", "exact match/clean"}
    short = {"use": "seq2sick", "steps": 2, "lr": [0.3]}
    result = robustplug.evaluate(tmp_path / "run", attacks=[short, {**short, "keywords": 1}])
    assert [(row.skipped, row.attempted) for row in result.attacks] == [("", 1)] * 3
