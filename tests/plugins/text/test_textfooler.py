"""TextFooler against a transcription that asks about one text at a time."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.api import Feed, Refused, isolated
from robustplug_text.attacks.textfooler import descending, importance
from robustplug_text.data.passages import Passage, passages, texts, written

from .small import attacked, small_task, trained, vectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return vectors(tmp_path)


def threat(path: Path, **options: Any) -> Any:
    return robustplug.build("vicinity", "word-substitution", embeddings=str(path), **options)


def fooler(**options: Any) -> Any:
    return robustplug.build("perturbation", "textfooler", **options)


def transcribed(model: nn.Module, passage: Passage, label: int, vicinity: Any, width: int) -> tuple[str, int]:
    """Return the attacked text, and the number of texts that the model was asked about."""
    asked = 0

    @functools.cache
    def probabilities(text: str) -> Tensor:
        nonlocal asked
        asked += 1
        with torch.no_grad():
            found: Tensor = model(written([Passage(text)], width)).double().softmax(1)[0]
        return found

    clean = probabilities(passage.text)
    if int(clean.argmax()) != label:
        return passage.text, asked
    scores = {}
    for place in vicinity.changeable(passage):
        without = probabilities(passage.replaced({place: ""}).text)
        scores[place] = float(clean[label] - without[label])
        if int(without.argmax()) != label:  # the other class gains, too
            other = int(without.argmax())
            scores[place] += float(without[other] - clean[other])
    words: dict[int, str] = {}
    limit = vicinity.limit(passage, vicinity.eps)
    for place in sorted(scores, key=lambda at: -round(scores[at], 9)):  # line 8
        if len(words) >= limit:
            break
        found = [{**words, place: near} for near in vicinity.candidates(passage.words[place], 50)]
        trials = {passage.replaced(trial).text: trial for trial in found}
        answers = {text: probabilities(text) for text in trials}
        wrong = [text for text, p in answers.items() if int(p.argmax()) != label]
        if wrong:
            cosines = [float(vicinity.close(passage, [Passage(text)])) for text in wrong]
            return wrong[max(range(len(wrong)), key=lambda at: cosines[at])], asked
        present = float(probabilities(passage.replaced(words).text)[label])
        if answers:
            best = min(answers, key=lambda text: float(answers[text][label]))
            if float(answers[best][label]) < present - 1e-6:
                words = trials[best]
    return passage.replaced(words).text, asked


@pytest.mark.parametrize("share", [1.0, 0.15])
def test_it_is_algorithm_1(path: Path, share: float) -> None:
    vicinity, model = threat(path, share=share), trained()
    view, step = attacked(model, fooler(), vicinity, slice(None))
    expected = [
        transcribed(model, passage, label, vicinity, view.x.shape[1])
        for passage, label in zip(passages(view.origin), view.y.tolist(), strict=True)
    ]
    assert texts(view.x) == [text for text, _ in expected]
    assert step.reported["queries"].tolist() == [count for _, count in expected]
    changed = (view.x != view.origin).any(1)
    assert int(changed.sum()) > 3
    assert vicinity.contains(view.x, view.origin, step.radii(view, vicinity)).all()
    assert not torch.equal(model(view.x).argmax(1), model(view.origin).argmax(1))
    # Every text is sent through `step.forward`.
    assert step.meter.forwards == sum(count for _, count in expected)


def bert() -> Any:
    pytest.importorskip("transformers")
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with isolated(1):
        model = robustplug.build(
            "model", "huggingface-text", kind="bert", config=config, info=small_task().info
        ).eval()
    with torch.no_grad():  # an untrained model would call everything the same
        model.model.classifier.weight.mul_(40)
    return model


@pytest.mark.parametrize("make", [trained, bert])
def test_the_result_of_a_text_does_not_depend_on_its_batch(path: Path, make: Any) -> None:
    vicinity, model, calls = threat(path), make(), []
    count = small_task().info.sizes["test"]
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    whole, step = attacked(model, fooler(), vicinity, slice(None))
    together = len(calls)
    for size in (1, 5):
        parts = [attacked(model, fooler(), vicinity, slice(at, at + size)) for at in range(0, count, size)]
        assert torch.equal(torch.cat([view.x for view, _ in parts]), whole.x)
        queries = torch.cat([own.reported["queries"] for _, own in parts])
        assert torch.equal(queries, step.reported["queries"])
        if size == 1:
            # All texts are asked about together.
            assert len(calls) - together > 5 * together
    handle.remove()


@pytest.mark.parametrize("budget", [0, 1, 6, 20])
def test_a_budget_of_queries_is_kept(path: Path, budget: int) -> None:
    view, step = attacked(trained(), fooler(queries=budget), threat(path), slice(None))
    queries = step.reported["queries"]
    assert float(queries.max()) == budget
    free, unbounded = attacked(trained(), fooler(), threat(path), slice(None))
    cheap = unbounded.reported["queries"] <= budget
    assert torch.equal(view.x[cheap], free.x[cheap])


def test_bounds_of_the_threat_model_hold(path: Path) -> None:
    for options in ({"share": 0.1}, {"sentence": 0.9}, {"eps": 1.0}, {"similarity": 0.85}):
        vicinity = threat(path, **options)
        view, step = attacked(trained(), fooler(), vicinity, slice(None))
        assert bool((view.x != view.origin).any())
        assert vicinity.contains(view.x, view.origin, step.radii(view, vicinity)).all()
    view, _ = attacked(trained(), fooler(), threat(path, eps=0.0), slice(None))
    assert torch.equal(view.x, view.origin)


def test_words_that_the_training_texts_lack_are_left_out(tmp_path: Path) -> None:
    assert "goot" not in small_task().info.vocabulary
    (tmp_path / "two.txt").write_text("good 1 0\ngoot 1 0\n")
    found = {}
    for known in (True, False, None):
        view, _ = attacked(trained(), fooler(known=known), threat(tmp_path / "two.txt"), slice(None))
        found[known] = {word for passage in passages(view.x) for word in passage.words}
    assert "goot" not in found[True]
    assert "goot" in found[False]
    # None: all words of a file are words.
    assert found[None] == found[False]


def test_importance_counts_what_the_new_class_gains() -> None:
    clean = torch.tensor([0.7, 0.2, 0.1])
    without = torch.tensor([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1]])
    torch.testing.assert_close(importance(clean, without, 0), torch.tensor([0.1, 0.4 + 0.4]))


def test_equal_values_keep_their_order() -> None:
    values = torch.tensor([0.1, 0.3, 0.3 + 1e-8, 0.2], dtype=torch.float64)
    assert descending(values) == [1, 2, 3, 0]
    assert descending(values[:0]) == []


def test_other_threat_models_are_refused() -> None:
    linf = robustplug.build("vicinity", "linf")
    with pytest.raises(Refused, match="word-substitution"):
        attacked(trained(), fooler(), linf, slice(None))


def test_rows_of_labels_count_by_their_largest(path: Path) -> None:
    task = small_task()
    (batch,) = task.batches("test", Feed(batch_size=1000))
    whole, _ = attacked(trained(), fooler(), threat(path), slice(None))

    class Soft:
        info = task.info

        def batches(self, split: Any, feed: Any) -> Any:
            rows = nn.functional.one_hot(batch.y, 2) * 0.8 + 0.1
            yield type(batch)(batch.x, rows, batch.index)

    soft, _ = attacked(trained(), fooler(), threat(path), slice(None), Soft())
    assert torch.equal(soft.x, whole.x)
