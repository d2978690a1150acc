"""Tasks of texts and dialogues that are given from Python have their kind; threat models have captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import ArrayTask
from robustplug.recipe.errors import RecipeError
from robustplug.report.tables.threats import threat_text
from robustplug.subjects.given import task_component
from robustplug_text.data.task import TextTask
from robustplug_text.options import TextOptions

OPTIONS = {"data": "synthetic", "reviews": 60}


class Own(TextTask):
    """A task of the reader's own, after that of the plugin."""


@pytest.mark.parametrize(
    ("task", "modality", "vicinity", "tasks"),
    [
        (lambda: robustplug.build("task", "text", **OPTIONS), "text", "word-substitution", ("text",)),
        (lambda: Own(TextOptions(**OPTIONS)), "text", "word-substitution", ("text",)),  # type: ignore[arg-type]
        (
            lambda: robustplug.build("task", "synthetic-translation", sentences=24),
            "text",
            "word-replacement",
            ("synthetic-translation",),
        ),
        (
            lambda: robustplug.build("task", "scripted-negotiation", dialogues=11, scenarios=8),
            "dialogue",
            "rules",
            ("scripted-negotiation",),
        ),
        (
            lambda: ArrayTask({"test": (torch.rand(4, 1, 2, 2), torch.arange(4) % 2)}),
            "numbers",
            None,
            (),
        ),
    ],
)
def test_a_given_task_is_of_its_own_kind(
    task: Any, modality: str, vicinity: str | None, tasks: tuple[str, ...]
) -> None:
    made = task()
    for _ in range(2):
        component, _ = task_component(made)
        assert component.modality == modality
        assert component.evaluate.get("vicinity", {}).get("use") == vicinity
        assert component.tasks == tasks


def test_a_model_is_attacked_with_what_fits_the_given_task() -> None:
    task = Own(TextOptions(**OPTIONS))  # type: ignore[arg-type]
    model = robustplug.build("model", "word-cnn", info=task.info, width=4, filters=3)
    result = robustplug.evaluate(model, data=task, samples=4)
    assert result.threat["use"] == "word-substitution"
    assert result.meta["modality"] == "text"
    assert [row.name.partition(" ")[0] for row in result.attacks] == ["clean", "textfooler"]
    assert not result.attacks[1].skipped
    with pytest.raises(RecipeError, match='"linf" perturbs numbers'):
        robustplug.evaluate(model, data=task, samples=4, threat="linf")
    with pytest.raises(RecipeError, match='"rules" is not for the task'):
        robustplug.evaluate(model, data=task, samples=4, threat="rules")


def test_a_given_task_is_trained_on(tmp_path: Path) -> None:
    recipe = {
        "model": {"use": "word-cnn", "width": 4, "filters": 3},
        "method": {"use": "freelb", "steps": 1},
        "train": {"epochs": 1, "batch_size": 42, "select": "last"},
        "validate": {"attack": {"use": "none"}},
        "evaluate": {"samples": 4, "attack": [{"use": "textfooler", "candidates": 2}]},
    }
    run = robustplug.train(recipe, data=Own(TextOptions(**OPTIONS)), out=tmp_path / "run")  # type: ignore[arg-type]
    assert run.result.threat["use"] == "word-substitution"
    assert not run.result.attacks[1].skipped


QUICK = {
    "model": {"use": "word-cnn", "width": 4, "filters": 3},
    "method": {"use": "erm"},
    "train": {"epochs": 1, "batch_size": 42, "select": "last"},
    "validate": {"attack": {"use": "none"}},
    "evaluate": {"samples": 4, "attack": [{"use": "textfooler", "candidates": 2}]},
}


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        ({"use": "text", "split_seed": 3}, "one set"),
        ({"use": "digits"}, "several sets"),
        (None, "splits"),
    ],
)
def test_a_data_set_of_texts_is_trained_on_as_texts(task: Any, shape: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def made(count: int) -> Any:
        rows = [
            (f"a {('bad', 'good')[number % 2]} film number {number}", number % 2) for number in range(count)
        ]
        labels = datasets.ClassLabel(names=["neg", "pos"])
        features = datasets.Features({"said": datasets.Value("string"), "stars": labels})
        return datasets.Dataset.from_list([{"said": s, "stars": n} for s, n in rows], features)

    recipe = {**QUICK, **({} if task is None else {"task": task})}
    given: dict[str, Any] = {"data": made(40), "validation": 0.2, "test": 0.1}
    if shape == "several sets":
        given = {"data": made(40), "validation": made(8), "test": made(4)}
    elif shape == "splits":
        given = {"data": datasets.DatasetDict({"train": made(40), "dev": made(8), "test": made(4)})}
    run = robustplug.train(recipe, columns=("said", "stars"), out=tmp_path / "run", **given)
    assert run.parts is not None
    train = 28 if shape == "one set" else 40
    assert run.parts.task.info.sizes == {"train": train, "validation": 8, "test": 4}
    assert isinstance(run.parts.task, TextTask)
    assert run.parts.task.info.class_names == ("neg", "pos")
    assert run.parts.recipe.task.options.split_seed == (3 if task and task["use"] == "text" else 0)
    assert run.result.threat["use"] == "word-substitution"
    assert not run.result.attacks[1].skipped


@pytest.mark.parametrize(
    ("threat", "text"),
    [
        ({"use": "linf", "eps": 0.1}, "linf, eps = 0.1"),
        ({"use": "word-substitution"}, "word-substitution: any number of words, cosine ≥ 0.5"),
        (
            {"use": "word-substitution", "eps": 1000.0, "share": 0.2, "similarity": 0.7, "sentence": 0.8},
            "word-substitution: any number of words, at most 20% of a text's words, cosine ≥ 0.7, "
            "that of the texts ≥ 0.8",
        ),
        (
            {"use": "word-substitution", "eps": 3.0, "stop_words": False, "embeddings": "v.txt"},
            "word-substitution: at most 3 words, cosine ≥ 0.5, stop words, too, v.txt",
        ),
        ({"use": "word-replacement", "eps": 1000.0, "chrf": None}, "word-replacement: any number of words"),
        (
            {"use": "word-replacement", "eps": 2.0, "chrf": 0.7, "perplexity": 3.0},
            "word-replacement: at most 2 words, chrF2 ≥ 0.7, relative perplexity ≤ 3",
        ),
        ({"use": "rules", "turns": 6, "words": 8}, "rules: at most 6 turns of 8 words"),
        ({"use": "rules", "unknown": True}, "rules: at most 20 turns of 100 words, any words"),
    ],
)
def test_a_threat_model_says_how_it_is_captioned(threat: dict[str, Any], text: str) -> None:
    assert threat_text(threat, images=False) == text
