"""Greedy replacement of words: which sentence makes the target decide badly (Eq. 3.9 to 3.12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .layout import PAD, SELECTION, SPECIALS, THEM, YOU
from .mind import Glass, Recalled
from .scenarios import gains
from .voice import Utterance, forbidden

if TYPE_CHECKING:
    from .attack_options import SearchOptions

CHUNK = {"cpu": 512}
"""Sentences that are scored together, by device; elsewhere as many as MOST_CHUNK."""
MOST_CHUNK = 16_384
_WORST = 1e6


class Scores(NamedTuple):
    """Hold how good sentences are for the adversary.

    Attributes:
        loss: L of each, (C,): below 0, the target's best decision favours the adversary.
        slack: how far the constraint is met, (C,): at least 0, it is.
    """

    loss: Tensor
    slack: Tensor


Objective = Callable[[Tensor, Utterance], Scores]
"""Score sentences of the adversary: from the dialogue of each, int64 (C,), and the sentences."""


class Found(NamedTuple):
    """Hold the sentences that a search found.

    Attributes:
        said: one for each dialogue.
        scores: of them.
    """

    said: Utterance
    scores: Scores


def margin_loss(decisions: Tensor, x: Tensor, kappa: float) -> Tensor:
    """Return L = max(z_o' − max_{o in Ō} z_o, −κ) of each dialogue, (C,): Eq. 3.10.

    Ō are the decisions that give the adversary more than the target, and o' is the likeliest of all
    others, so that L is below 0 if, and only if, the target's decision is in Ō.

    Args:
        decisions: scores (C, 126) of the target's decisions; -inf for those that are not legal.
        x: rows (C, 12 + T).
        kappa: κ.
    """
    own, other = gains(x)
    favourable = other > own
    best = decisions.masked_fill(~favourable, -torch.inf).amax(1)
    rest = decisions.masked_fill(favourable, -torch.inf).amax(1)
    return (rest - best).clamp_min(-kappa)


def official_loss(decisions: Tensor, x: Tensor) -> Tensor:
    """Return 5·(z_chosen − z_best) − advantage of best, the loss of the authors' code, (C,).

    `best` is the likeliest decision that favours the adversary.
    """
    own, other = gains(x)
    advantage = (other - own).to(decisions.dtype)
    best = decisions.masked_fill(advantage <= 0, -torch.inf).max(1)
    return 5 * (decisions.amax(1) - best.values) - advantage.gather(1, best.indices[:, None])[:, 0]


def follow(words: Tensor, sizes: Tensor, more: Tensor, more_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Append words to padded words, row by row, and return them with their sizes."""
    width = int((sizes + more_sizes).max())
    joined = torch.nn.functional.pad(words, (0, max(0, width - words.shape[1])), value=PAD)
    places = sizes[:, None] + torch.arange(more.shape[1], device=more.device)
    kept = torch.arange(more.shape[1], device=more.device) < more_sizes[:, None]
    rows = torch.arange(len(words), device=words.device)[:, None].expand_as(places)
    joined = joined.clone()
    joined[rows[kept], places[kept]] = more[kept]
    return joined, sizes + more_sizes


def _word(like: Tensor, word: int) -> tuple[Tensor, Tensor]:
    return like.new_full((len(like), 1), word), like.new_ones(len(like))


def _spoken(said: Utterance) -> tuple[Tensor, Tensor]:
    """Return turns of the adversary as the target hears them."""
    return follow(*_word(said.sizes, THEM), said.words, said.sizes)


def _loss(options: SearchOptions, decisions: Tensor, x: Tensor) -> Tensor:
    if options.objective == "official":
        return official_loss(decisions, x)
    return margin_loss(decisions, x, options.kappa)


def reactive(glass: Glass, memory: Recalled, options: SearchOptions) -> Objective:
    """Score sentences by what the target decides after them, if it answers <selection>: Eq. 3.11.

    Constraint (3.9): <selection> is the likeliest of all that the target may say. As a penalty, what it
    lacks is added to the loss instead.
    """

    def score(owner: Tensor, said: Utterance) -> Scores:
        tail = follow(*_spoken(said), *_word(said.sizes, YOU))
        logits = forbidden(glass.next_word(memory, owner, *tail), True)
        others = logits.clone()
        others[:, SELECTION] = -torch.inf
        slack = logits[:, SELECTION] - others.amax(1)
        decisions = glass.judge(memory, owner, *follow(*tail, *_word(said.sizes, SELECTION)))
        loss = _loss(options, decisions, memory.x[owner])
        if options.constraint == "penalty":
            return Scores(loss - slack.clamp_max(0), torch.zeros_like(slack))
        return Scores(loss, slack)

    return score


def preemptive(glass: Glass, memory: Recalled, options: SearchOptions, most: int) -> Objective:
    """Score sentences by what the target decides after its likeliest reply and <selection>: Eq. 3.12.

    Args:
        glass: the target.
        memory: dialogues so far.
        options: of the attack.
        most: words of the reply.
    """

    def score(owner: Tensor, said: Utterance) -> Scores:
        tail = follow(*_spoken(said), *_word(said.sizes, YOU))
        reply = glass.reply(memory, owner, *_spoken(said), most)
        words, sizes = follow(*tail, reply.words, reply.sizes)
        # A target that ends the dialogue itself leaves nothing to end.
        going = (~reply.ends).long()
        words, sizes = follow(words, sizes, _word(sizes, THEM)[0], going)
        words, sizes = follow(words, sizes, _word(sizes, SELECTION)[0], going)
        loss = _loss(options, glass.judge(memory, owner, words, sizes), memory.x[owner])
        return Scores(loss, torch.zeros_like(loss))

    return score


def search(base: Utterance, objective: Objective, vocabulary: int, options: SearchOptions) -> Found:
    """Replace words of sentences one after the other, each time by the best of the whole vocabulary.

    Each time the word is the one whose replacement by <pad> has the smallest loss; or, with
    `search = "every"`, any. Of the words tried, those that meet the constraint come first, then the
    smallest loss counts; where none meets it, the one that misses it by least. A sentence that no word
    makes better, or that meets the constraint with L = −κ, is left as it is.

    Args:
        base: a sentence for each of n dialogues, none of them empty.
        objective: scores sentences.
        vocabulary: number of words, the special ones included.
        options: of the attack.
    """
    words, sizes = base.words.clone(), base.sizes
    rows = torch.arange(len(words), device=words.device)
    scores = _in_chunks(objective, rows, base)
    for _ in range(options.changes):
        rows = rows[~((scores.slack[rows] >= 0) & (scores.loss[rows] <= -options.kappa))]
        if not len(rows):
            break
        places = (torch.arange(words.shape[1], device=words.device) < sizes[rows, None] - 1).nonzero()
        if options.search == "pad":
            padded = words[rows[places[:, 0]]].scatter(1, places[:, 1:], PAD)
            owner = rows[places[:, 0]]
            without = _in_chunks(objective, owner, Utterance(padded, sizes[owner]))
            places = places[best(without.loss, places[:, 0], len(rows))]
        tried = torch.arange(len(SPECIALS), vocabulary, device=words.device)
        segment = places[:, 0].repeat_interleave(len(tried))
        owner = rows[segment]
        trials = words[owner].scatter(
            1, places[:, 1].repeat_interleave(len(tried))[:, None], tried.repeat(len(places))[:, None]
        )
        result = _in_chunks(objective, owner, Utterance(trials, sizes[owner]))
        chosen = best(_rank(result), segment, len(rows))
        better = _rank(result)[chosen] < _rank(Scores(scores.loss[rows], scores.slack[rows]))
        rows, chosen = rows[better], chosen[better]
        words[rows] = trials[chosen]
        scores.loss[rows], scores.slack[rows] = result.loss[chosen], result.slack[chosen]
    return Found(Utterance(words, sizes), scores)


def _rank(scores: Scores) -> Tensor:
    """Return what is smallest for the best: the loss, behind it how far the constraint is missed."""
    return torch.where(scores.slack >= 0, scores.loss, _WORST - scores.slack)


def best(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Return the position of the smallest value of each segment, the first of equals: int64 (count,)."""
    least = values.new_full((count,), torch.inf).scatter_reduce(0, segment, values, "amin")
    hits = (values == least[segment]).nonzero()[:, 0]
    return hits.new_full((count,), len(values)).scatter_reduce(0, segment[hits], hits, "amin")


def _in_chunks(objective: Objective, owner: Tensor, said: Utterance) -> Scores:
    most = CHUNK.get(owner.device.type, MOST_CHUNK)
    parts = [
        objective(owner[start : start + most], said.rows(slice(start, start + most)))
        for start in range(0, len(owner), most)
    ]
    return Scores(*(torch.cat(column) for column in zip(*parts, strict=True)))
