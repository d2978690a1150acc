"""Models with a tokenizer of pieces: attacks are judged on what it makes of the text, and words are words."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import Feed, Refused, Step, View, stream
from robustplug.core.method import Objective
from robustplug.devices.processes import start
from robustplug.errors import RunError
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.setting import Attack
from robustplug.report.tables.results import result_tables
from robustplug.subjects.assemble import bounded
from robustplug.text.changes import words_changed
from robustplug.text.records import COLUMNS
from robustplug_seq2sick.attacks.goals import Goal
from robustplug_seq2sick.text.scores import bleu, chrf
from robustplug_seq2sick.text.words import Words, lengths

from .folders import aligned, language_model, model_folder

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

SHORT: dict[str, Any] = {"use": "seq2sick", "steps": 6, "lr": [1.0, 3.0], "patience": 0}

SAMPLES = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return aligned(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(data, tmp_path_factory.mktemp("models") / "tiny-marian")


def table(data: Path, **options: Any) -> dict[str, Any]:
    return {"use": "translation", "root": str(data), "keyword_above": 1, "stop_words": 5, **options}


@pytest.fixture(scope="module")
def opened(data: Path, folder: Path) -> tuple[Any, Any]:
    given = {**table(data), "vocabulary": "tokenizer", "tokenizer": str(folder)}
    task = robustplug.build("task", given.pop("use"), **given)
    options = {"folder": str(folder), "beam": 2, "longer": 2}
    return task, robustplug.build("model", "huggingface", info=task.info, **options).eval()


def threat(task: Any, **options: Any) -> Any:
    return bounded(robustplug.build("vicinity", "word-replacement", **options), "", task.info)


def attack(**options: Any) -> Any:
    given = {**SHORT, **options}
    return robustplug.build("perturbation", given.pop("use"), **given)


def attacked(opened: tuple[Any, Any], size: int, made: Any, vicinity: Any) -> tuple[View, Any]:
    """Attack the first sentences, and return the view and what the model says to the attacked ones."""
    task, model = opened
    batch = next(iter(task.batches("test", Feed(batch_size=size))))
    objective = Objective(
        lambda step, view: view.y,
        lambda step, view: step.forward(view.x),
        robustplug.build("loss", "translation"),
    )
    step = Step(model, objective, task, batch, stream(0, "test"), evaluating=True)
    view = View.of(batch, "adv")
    view = view.replace(info=made.aim(step, view))
    moved = made(step, view, vicinity)
    with torch.no_grad():
        return moved, model(moved.x)


def evaluated(opened: tuple[Any, Any], batch_size: int, vicinity: Any, *rows: Any) -> Evaluation:
    task, model = opened
    loss = robustplug.build("loss", "translation")
    result = Evaluation(model, task, vicinity, loss, 0, start("cpu", "float32"))
    attacks = [Attack(str(number), {"n": number}, row, chain="") for number, row in enumerate(rows)]
    result.run("test", attacks, batch_size, SAMPLES)
    return result


def test_successes_are_judged_on_the_text(opened: tuple[Any, Any]) -> None:
    task, model = opened
    source, target = task.info.source, task.info.target
    view, output = attacked(opened, 8, attack(), threat(task))
    moved = (view.x != view.origin).any(1)
    assert int(moved.sum()) >= 3
    goal = Goal.of(view.info, target)
    assert goal is not None
    assert torch.equal(goal.reached(output.words), moved)
    for row in moved.nonzero()[:, 0].tolist():
        text = source.text(view.x[row].tolist())
        numbers = source.encode(text)
        assert numbers == view.x[row, : lengths(view.x)[row]].tolist()
        with torch.no_grad():
            said = target.text(model(torch.tensor([numbers])).words[0].tolist())
        before = target.text(view.info["said"][row].tolist())
        assert said
        assert not any(one == other for one, other in zip(said.split(), before.split(), strict=False))


def test_what_the_tokenizer_would_read_otherwise_is_not_legal(opened: tuple[Any, Any]) -> None:
    task, _ = opened
    source: Words = task.info.source
    text = next(iter(task.batches("test", Feed(batch_size=1)))).x
    width, vicinity = text.shape[1], threat(task)

    def row(numbers: list[int]) -> torch.Tensor:
        return torch.tensor([numbers + [0] * (width - len(numbers))])

    own = source.encode("the dog falls .")
    other = source.encode("the cat falls .")
    # The same text in single letters: no tokenizer would make these pieces of it.
    letters = [source.all.index("▁"), *(source.all.index(letter) for letter in "the")]
    split = [*letters, *own[1:]]
    assert source.text(split) == source.text(own)
    assert source.settled(split) == tuple(own)
    radius = torch.tensor([1.0])
    assert vicinity.contains(row(other), row(own), radius).tolist() == [True]
    assert vicinity.contains(row(split), row(own), radius).tolist() == [False]
    assert vicinity.contains(row(own), row(own), torch.zeros(1)).tolist() == [True]
    # One word, whatever its number of pieces; two words are more than the radius.
    assert source.changed(own, other) == 1
    far = source.encode("a cat falls .")
    assert vicinity.contains(row(far), row(own), radius).tolist() == [False]
    assert vicinity.contains(row(far), row(own), radius + 1).tolist() == [True]
    assert torch.equal(vicinity.project(row(far), row(own), radius), row(own))
    assert vicinity.contains(row([*own[:-1], 3]), row(own), radius).tolist() == [False]


def test_words_changed_are_words(opened: tuple[Any, Any]) -> None:
    result = evaluated(opened, SAMPLES, threat(opened[0]), attack())
    won = [record for record in result.texts["0"] if record.result_type == "Successful"]
    assert won
    for record in result.texts["0"]:
        assert record.num_queries is not None
        assert record.num_queries > 1
        assert record.perturbed_score <= 1
    assert all(record.perturbed_score == 1 for record in won)
    few = evaluated(opened, SAMPLES, threat(opened[0], eps=2.0), attack())
    counts, limited = (
        [words_changed(record.original_text, record.perturbed_text) for record in found.texts["0"]]
        for found in (result, few)
    )
    assert max(counts) > 2 >= max(limited)


@pytest.mark.table(1)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use": "greedy-replacement", "rounds": 1, "words": 6},
    ],
    ids=str,
)
def test_results_do_not_depend_on_the_batch(opened: tuple[Any, Any], options: dict[str, Any]) -> None:
    task, _ = opened
    given = dict(options)
    if given.get("use") == "greedy-replacement":
        made = robustplug.build("perturbation", given.pop("use"), **given)
    else:
        made = attack(**given)
    vicinity = threat(task, chrf=0.1)
    together, alone = (evaluated(opened, size, vicinity, made).texts for size in (SAMPLES, 1))
    assert together["0"] == alone["0"]
    assert any(record.original_text != record.perturbed_text for record in together["0"])


def test_an_untargeted_attack_lowers_bleu_against_the_data(opened: tuple[Any, Any]) -> None:
    task, model = opened
    target = task.info.target
    batch = next(iter(task.batches("test", Feed(batch_size=6))))
    with torch.no_grad():
        said = model(batch.x).words
    # As if the data were what the model says: it starts from BLEU 1.
    y = torch.zeros(6, 60, dtype=torch.int64)
    y[:, : said.shape[1]] = said
    made = attack(untargeted=True, share=0.3)
    objective = Objective(lambda s, v: v.y, lambda s, v: s.forward(v.x), robustplug.build("loss", "ce"))
    step = Step(model, objective, task, batch, stream(0, "test"), evaluating=True)
    view = View.of(batch, "adv").replace(y=y)
    view = view.replace(info=made.aim(step, view))
    moved = made(step, view, threat(task))
    with torch.no_grad():
        words = model(moved.x).words
    scores = [
        bleu(target.text(own), target.text(data), target.literal)
        for own, data in zip(words.tolist(), y.tolist(), strict=True)
    ]
    goal = Goal.of(view.info, target)
    assert goal is not None
    assert goal.reached(words).tolist() == [score <= 0.3 for score in scores]
    assert sum(scores) / len(scores) < 0.5
    with pytest.raises(Exception, match="untargeted has no keywords"):
        attack(untargeted=True, keywords=1)


@pytest.mark.slow
def test_constraints_hold_for_every_success(opened: tuple[Any, Any], data: Path, tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    task, _ = opened
    judge = language_model(data, tmp_path / "lm")
    limits: list[dict[str, Any]] = [
        {"chrf": 0.7},
        {"similarity": 0.8},
        {"language_model": str(judge), "perplexity": 1.0},
    ]
    free = evaluated(opened, SAMPLES, threat(task), attack()).texts["0"]
    for options in limits:
        vicinity = threat(task, **options)
        found = evaluated(opened, SAMPLES, vicinity, attack()).texts["0"]
        pairs = [(record.original_text, record.perturbed_text) for record in found]
        assert bool(vicinity._constraints.allow(*map(list, zip(*pairs, strict=True))).all())
        # The constraint binds: not everything that is found without it satisfies it.
        before, after = zip(*((r.original_text, r.perturbed_text) for r in free), strict=True)
        assert not bool(vicinity._constraints.allow(before, after).all())
        if "chrf" in options:
            assert all(chrf(new, old) >= 0.7 for old, new in pairs)
    with pytest.raises(Refused, match="holds no readable tokenizer"):
        bad = threat(task, language_model=str(data), perplexity=2.0)
        bad.contains(torch.tensor([[5, 6]]), torch.tensor([[5, 7]]), torch.tensor([9.0]))


def test_a_folder_is_attacked_in_one_command(data: Path, folder: Path, tmp_path: Path) -> None:
    rows = [{"label": "non-overlap", "attack": SHORT}]
    result = robustplug.evaluate(
        f"huggingface:{folder}",
        task=table(data),
        suite={"schema": 1, "name": "short", "row": rows},
        samples=4,
        overrides=["model.beam=2", "model.longer=2"],
        out=tmp_path,
    )
    assert result.threat["use"] == "word-replacement"
    assert result.attacks[1].threat["use"] == "word-replacement"
    assert result.meta["modality"] == "text"
    stored = (tmp_path / "short.json").read_text()
    assert "linf" not in stored
    shown: Any = result_tables(result, 200)[0]
    assert [column.header for column in shown.columns[:5]] == [
        "attack", "success %", "words changed", "BLEU", "chrF",
    ]  # fmt: skip
    assert next(iter(shown.columns[5].cells)) == ""
    assert "/255" not in str(shown.caption)
    (row,) = [row for row in result.attacks if row.name == "non-overlap"]
    assert not row.skipped
    assert {"success %", "BLEU", "chrF", "queries"} <= row.measures.keys()
    texts = tmp_path / "short-texts"
    entries = json.loads((texts / "non-overlap.json").read_text())
    assert len(entries) == 4
    assert list(entries[0]) == list(COLUMNS)
    assert sum(entry["result_type"] == "Successful" for entry in entries) == row.broken
    with (texts / "non-overlap.csv").open(newline="") as file:
        marked = list(csv.DictReader(file))
    changed = [entry for entry in marked if entry["result_type"] == "Successful"]
    assert all("[[" in entry["perturbed_text"] for entry in changed)
    assert "<ins>" in (texts / "non-overlap.html").read_text()
    with pytest.raises(RunError, match="names its model component"):
        robustplug.evaluate(f"huggingface:{folder}", architecture="huggingface", task=table(data))


def test_the_default_attack_on_a_text_model_is_one_on_text(data: Path, folder: Path) -> None:
    from robustplug.subjects.subject import open_subject

    found = open_subject(f"huggingface:{folder}", {"task": table(data)})
    assert [attack.name for attack in found.parts.recipe.evaluate.attack] == ["seq2sick"]
    assert found.parts.threat.name == "word-replacement"
    assert found.parts.recipe.task.options.tokenizer == str(folder)
