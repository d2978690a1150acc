"""The model that translates, and how it decodes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import robustplug
from robustplug_seq2sick.models.lstm import Embedded, Forced
from robustplug_seq2sick.models.training import exact, token_loss
from robustplug_seq2sick.text.search import Scores, beam_search, greedy
from robustplug_seq2sick.text.words import BEGIN, END, PAD, lengths

from .models import first_batch, small_task, trained

NONE = torch.zeros(1, 1, 0, dtype=torch.int64)


class Table:
    """A decoder whose logits depend on the words so far, by a table of random numbers."""

    def __init__(self, count: int, size: int) -> None:
        rng = torch.Generator().manual_seed(5)
        self.count, self.size = count, size
        self.table = torch.randn(count, 400, size, generator=rng) * 2

    def begin(self) -> Tensor:
        return torch.zeros(self.count, dtype=torch.int64)

    def step(self, rows: Tensor, state: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        state = (state * 7 + words) % 400
        return self.table[rows, state], state

    def logits(self, vectors: Tensor) -> Tensor:
        return vectors

    def some(self, vectors: Tensor, words: Tensor) -> Tensor:
        return vectors.gather(1, words)

    def score(self, row: int, words: tuple[int, ...]) -> float:
        """Return the mean log-probability of words and </s>, after <s>."""
        state, total, before = 0, 0.0, BEGIN
        for word in (*words, END):
            state = (state * 7 + before) % 400
            logits = self.table[row, state].clone()
            logits[[PAD, BEGIN]] = -torch.inf
            total += float(logits.log_softmax(0)[word])
            before = word
        return total / (len(words) + 1)


def test_a_wide_beam_finds_the_best_of_all_translations() -> None:
    size, most = 6, 3
    decoder = Table(4, size)
    # Forcing the end at the limit changes the probabilities there: leave room.
    found = beam_search(decoder, torch.tensor([most] * 4), 200).words
    usable = [word for word in range(size) if word not in (PAD, BEGIN, END)]
    for row in range(4):
        options = [words for n in range(most) for words in itertools.product(usable, repeat=n)]
        best = max(decoder.score(row, words) for words in options)
        own = tuple(word for word in found[row].tolist() if word != PAD)
        assert len(own) == most or decoder.score(row, own) == pytest.approx(best, abs=1e-5)


def test_a_beam_of_one_says_the_likeliest_words() -> None:
    limits = torch.tensor([5, 0, 9, 2])
    one, likeliest = (
        beam_search(Table(4, 9), limits, 1).words,
        greedy(Table(4, 9), limits, NONE.expand(4, 1, 0)),
    )
    width = min(one.shape[1], likeliest.words.shape[1])
    assert torch.equal(one[:, :width], likeliest.words[:, :width])
    assert not one[:, width:].any()
    assert not likeliest.words[:, width:].any()
    assert bool((lengths(one) <= limits).all())
    assert likeliest.scores is not None
    assert likeliest.scores.best.shape == (4, likeliest.words.shape[1] + 1)


@pytest.mark.parametrize("mode", ["beam", "greedy", "forced"])
def test_batching_equals_one_by_one(mode: str) -> None:
    _, model = trained()
    batch = first_batch(9)

    def ask(rows: slice) -> Tensor:
        x, y = batch.x[rows], batch.y[rows]
        with torch.no_grad():
            if mode == "forced":
                answer: Tensor = model(Forced(x, y))
                return answer
            sizes = lengths(x)
            found: Any = (
                model(x)
                if mode == "beam"
                else model(
                    Embedded(model.vectors()[x], sizes, model.limits(sizes), NONE.expand(len(x), 1, 0))
                )
            )
        words: Tensor = found.words
        return words

    together = ask(slice(None))
    for row in range(9):
        alone = ask(slice(row, row + 1))[0]
        width = min(len(alone), together.shape[1])
        torch.testing.assert_close(alone[:width], together[row, :width], atol=1e-4, rtol=1e-4)


def test_the_words_of_vectors_are_those_of_words_and_the_graph_reaches_them() -> None:
    _, model = trained()
    x = first_batch(3).x
    sizes = lengths(x)
    vectors = model.vectors()[x].detach().requires_grad_()
    watched = torch.tensor([[[5, 7], [6, 8]]]).expand(3, 2, 2)
    found = model(Embedded(vectors, sizes, model.limits(sizes), watched))
    forced = model(Forced(x, found.words))
    expected = Scores.of(forced, watched)
    for row, size in enumerate(lengths(found.words).tolist()):
        for one, other in zip(found.scores, expected, strict=True):
            torch.testing.assert_close(one[row, : size + 1], other[row, : size + 1], atol=1e-4, rtol=1e-4)
        for place in range(size + 1):
            k = watched[row, min(place, 1)].tolist()
            assert expected.own[row, place].tolist() == forced[row, place, k].tolist()
    (gradient,) = torch.autograd.grad(found.scores.best.sum() + found.scores.own.sum(), vectors)
    there = torch.arange(x.shape[1]) < sizes[:, None]
    assert bool(gradient[there].abs().sum(1).all())
    assert not gradient[~there].any()


def test_cudnn_is_left_out_where_it_has_no_backward_pass() -> None:
    """In eval mode cuDNN refuses to go back through an LSTM; elsewhere it is wanted."""
    _, model = trained()
    x, seen = first_batch(2).x, []
    hook = model.onward.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    with torch.no_grad():
        model(x)
    sizes = lengths(x)
    model(Embedded(model.vectors()[x], sizes, model.limits(sizes), NONE.expand(2, 1, 0)))
    model.train()
    model(Forced(x, x))
    model.eval()
    hook.remove()
    assert seen == [True, False, True]


def test_an_empty_sentence_has_an_empty_translation() -> None:
    _, model = trained()
    x = first_batch(2).x.clone()
    x[0] = PAD
    with torch.no_grad():
        words = model(x).words
    assert lengths(words)[0] == 0
    assert lengths(words)[1] > 0


def test_the_loss_is_the_mean_cross_entropy_of_words_and_end() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 7, generator=rng)
    target = torch.tensor([[4, 5, 0, 0, 0], [6, 4, 5, 0, 0]])
    expected = []
    for row, words in enumerate(([4, 5, END], [6, 4, 5, END])):
        terms = [-float(logits[row, place].log_softmax(0)[word]) for place, word in enumerate(words)]
        expected.append(sum(terms) / len(terms))
    torch.testing.assert_close(token_loss(logits, target), torch.tensor(expected))
    sure = torch.nn.functional.one_hot(torch.tensor([[4, 5, END, 0], [6, 4, 5, 6]]), 7).float()
    assert exact(sure, target).tolist() == [True, False]


def test_weights_of_other_vocabularies_are_refused() -> None:
    other = robustplug.build("task", "synthetic-translation", sentences=16, keyword_above=1)
    options = {"word": 8, "hidden": 8}
    model = robustplug.build("model", "lstm-attention", info=small_task().info, **options)
    stranger = robustplug.build("model", "lstm-attention", info=other.info, **options)
    state = stranger.state_dict()
    with pytest.raises(RuntimeError, match="belong to other vocabularies"):
        model.load_state_dict(state)
