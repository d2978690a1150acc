"""Greedy decoding and beam search; the sentences of a batch do not affect one another.

A decoder is any object with

    begin()                  -> the state before the first word, a tree of tensors with N rows
    step(rows, state, words) -> (vectors (R, H), state) after one more word of the sentences `rows`
    logits(vectors)          -> logits (R, V) of the next word
    some(vectors, words)     -> the logits of some words (R, J) only, (R, J)

where `rows`, int64 (R,), contains the number of the sentence of each row of the state.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from robustplug.api import take

from .words import BEGIN, END, PAD

UNSAID = (PAD, BEGIN)
"""Words that no translation contains."""

GOING = 0.75
"""When at most this share of the sentences is unfinished, the finished ones leave the batch."""


class Decoder(Protocol):
    """Interface of a decoder; see the module docstring."""

    def begin(self) -> Any:
        """Return the state of all sentences before the first word."""
        ...

    def step(self, rows: Tensor, state: Any, words: Tensor) -> tuple[Tensor, Any]:
        """Return the vectors (R, H) that determine the next word, and the state, after one more word (R,)."""
        ...

    def logits(self, vectors: Tensor) -> Tensor:
        """Return the logits (R, V) of the next word."""
        ...

    def some(self, vectors: Tensor, words: Tensor) -> Tensor:
        """Return the logits of some words (R, J) as the next word, (R, J)."""
        ...


class Scores(NamedTuple):
    """Hold the logits that losses use, for each word of the translations and for </s>.

    Attributes:
        best: the largest logit, (N, T + 1).
        second: the next one, (N, T + 1).
        word: the word with the largest logit, int64 (N, T + 1).
        own: logits of the watched words, (N, T + 1, J).
    """

    best: Tensor
    second: Tensor
    word: Tensor
    own: Tensor

    @classmethod
    def of(cls, logits: Tensor, watched: Tensor) -> Scores:
        """Select the scores from all logits (N, T + 1, V); `watched` is as in `greedy`."""
        values, words = logits.topk(2, 2)
        places = [_watched(watched, place) for place in range(logits.shape[1])]
        return cls(values[..., 0], values[..., 1], words[..., 0], logits.gather(2, torch.stack(places, 1)))

    def others(self, words: Tensor) -> Tensor:
        """Return the largest logit among all words except the given ones, (N, T + 1, J).

        Args:
            words: excluded words, int64 (N, T + 1, J) or broadcastable to it.
        """
        return torch.where(self.word[..., None] == words, self.second[..., None], self.best[..., None])


class Translation(NamedTuple):
    """Hold translations.

    Attributes:
        words: int64 (N, T), without </s>, padded at the end.
        scores: scores at each position, given the words before it; None after a beam search.
    """

    words: Tensor
    scores: Scores | None = None


def _watched(watched: Tensor, place: int) -> Tensor:
    """Return the words to watch at a position, (N, J); beyond the last position, those of the last one."""
    return watched[:, min(place, watched.shape[1] - 1)]


def never_said(logits: Tensor, last: Tensor) -> Tensor:
    """Set the logits (R, V) of forbidden words to -inf, in place.

    Args:
        logits: logits of the next word.
        last: rows that must end now, bool (R,).
    """
    logits[:, list(UNSAID)] = -torch.inf
    if last.any():
        ends = logits[last, END]
        logits[last] = -torch.inf
        logits[last, END] = ends
    return logits


def greedy(decoder: Decoder, limits: Tensor, watched: Tensor) -> Translation:
    """Decode the likeliest word at each position, up to </s>; the scores keep their graph.

    The graph contains only a few logits of each position: the others would add nothing to a backward pass.

    Args:
        decoder: decoder of N sentences.
        limits: largest number of words of each translation, int64 (N,); 0 for an empty one.
        watched: words whose logits are needed at each position, int64 (N, P, J); the last ones also apply
            beyond P.
    """
    state, count = decoder.begin(), len(limits)
    rows = torch.arange(count, device=limits.device)
    words = torch.full_like(rows, BEGIN)
    said: list[Tensor] = []
    best: list[Tensor] = []
    logits: list[Tensor] = []
    going = torch.ones_like(rows, dtype=torch.bool)
    for place in range(int(limits.max()) + 1 if count else 0):
        vectors, state = decoder.step(rows, state, words)
        with torch.no_grad():
            # One more candidate than there are forbidden words: at least one is allowed.
            top = decoder.logits(vectors).topk(len(UNSAID) + 1, 1).indices
            fine = (top[..., None] != torch.tensor(UNSAID, device=top.device)).all(2)
            words = top.gather(1, fine.int().argmax(1, keepdim=True))[:, 0]
            words = words.masked_fill(limits[rows] <= place, END)
        own = decoder.some(vectors, torch.cat([top[:, :2], _watched(watched[rows], place)], 1))
        logits.append(own.new_zeros(count, own.shape[1]).index_copy(0, rows, own))
        best.append(torch.full_like(limits, PAD).index_copy(0, rows, top[:, 0]))
        going = going & (words != END)
        said.append(torch.full_like(limits, PAD).index_copy(0, rows, words.masked_fill(~going, PAD)))
        left = int(going.sum())
        if not left:
            break
        # A few long translations must not cost as much as a batch of them.
        if left <= GOING * len(rows):
            rows, words, state = rows[going], words[going], take(state, going)
            going = going[going]
    if not said:
        return Translation(limits.new_full((count, 1), PAD))
    # The last column is </s> everywhere.
    table = torch.stack(said, 1)[:, :-1] if len(said) > 1 else torch.stack(said, 1)
    found = torch.stack(logits, 1)
    return Translation(table, Scores(found[..., 0], found[..., 1], torch.stack(best, 1), found[..., 2:]))


class Beam(NamedTuple):
    """Hold the state of a search over the unfinished sentences.

    Attributes:
        rows: numbers of these sentences, int64 (A,).
        state: the decoder's state, A·K rows.
        words: words so far, int64 (A, K, t).
        scores: sums of log-probabilities, (A, K).
    """

    rows: Tensor
    state: Any
    words: Tensor
    scores: Tensor


@torch.no_grad()
def beam_search(decoder: Decoder, limits: Tensor, width: int) -> Translation:
    """Search for the translation of the largest mean log-probability of its words and </s>.

    A sentence is finished when the number of its ended translations reaches the beam width. Its best one is
    returned, and the search continues with the other sentences.

    Args:
        decoder: decoder of N sentences.
        limits: largest number of words of each translation, int64 (N,).
        width: K, the beam width.
    """
    count, device = len(limits), limits.device
    most = int(limits.max()) if count else 0
    best = torch.full((count, max(1, most)), PAD, device=device)
    best_score = torch.full((count,), -torch.inf, device=device)
    ended = torch.zeros(count, dtype=torch.int64, device=device)
    rows = torch.arange(count, device=device)
    scores = torch.full((count, width), -torch.inf, device=device)
    scores[:, 0] = 0
    start = take(decoder.begin(), rows.repeat_interleave(width))
    beam = Beam(rows, start, torch.full((count, width, 1), BEGIN, device=device), scores)
    for place in range(most + 1):
        if not len(beam.rows):
            break
        flat = beam.rows.repeat_interleave(width)
        vectors, state = decoder.step(flat, beam.state, beam.words[:, :, -1].flatten())
        logits = never_said(decoder.logits(vectors).log_softmax(1), (limits <= place)[flat])
        total = beam.scores[..., None] + logits.view(len(beam.rows), width, -1)
        values, flat_choice = total.flatten(1).topk(2 * width, 1)
        parent, word = flat_choice // total.shape[2], flat_choice % total.shape[2]
        ends = (word == END) & values.isfinite()
        # Only translations that end within the beam count.
        ends &= torch.arange(2 * width, device=device) < width
        final = torch.where(ends, values / (place + 1), -torch.inf)
        top, which = final.max(1)
        better = top > best_score[beam.rows]
        winners = beam.words.gather(1, parent.gather(1, which[:, None])[..., None].expand(-1, -1, place + 1))[
            :, 0, 1:
        ]
        chosen = beam.rows[better]
        best[chosen] = PAD
        best[chosen, :place] = winners[better]
        best_score[chosen] = top[better]
        ended[beam.rows] += ends.sum(1)
        values = values.masked_fill(word == END, -torch.inf)
        scores, kept = values.topk(width, 1)
        parent, word = parent.gather(1, kept), word.gather(1, kept)
        going = (ended[beam.rows] < width) & scores.isfinite().any(1)
        offset = torch.arange(len(beam.rows), device=device)[:, None] * width
        words = beam.words.gather(1, parent[..., None].expand(-1, -1, place + 1))
        words = torch.cat([words, word[..., None]], 2)
        beam = Beam(
            beam.rows[going], take(state, (offset + parent)[going].flatten()), words[going], scores[going]
        )
    return Translation(best)
