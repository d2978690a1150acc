"""Greedy word replacement: find a sentence that makes the target decide badly (Eq. 3.9 to 3.12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..agents.mind import Glass, Recalled
from ..agents.voice import Utterance, forbidden
from ..dialogues.layout import PAD, SELECTION, SPECIALS, THEM, YOU
from ..dialogues.scenarios import gains

if TYPE_CHECKING:
    from .options import SearchOptions

CHUNK = {"cpu": 512}
"""Number of sentences scored together, by device; MOST_CHUNK on other devices."""
MOST_CHUNK = 16_384


class Scores(NamedTuple):
    """Hold the adversary's scores of sentences.

    Attributes:
        loss: L of each sentence, (C,); below 0, the target's best decision favours the adversary.
        slack: slack of the constraint, (C,); the constraint is met at 0 and above.
    """

    loss: Tensor
    slack: Tensor


Score = Callable[[Tensor, Utterance], Tensor]
"""Score sentences of the adversary, (C,), given the dialogue of each, int64 (C,), and the sentences."""


class Objective(NamedTuple):
    """Hold the objective of a search.

    Attributes:
        loss: L of sentences.
        slack: slack of the constraint; None without a constraint.
    """

    loss: Score
    slack: Score | None


class Found(NamedTuple):
    """Hold the sentences that a search found.

    Attributes:
        said: one sentence per dialogue.
        scores: scores of the sentences.
    """

    said: Utterance
    scores: Scores

    def rows(self, keep: Tensor) -> Found:
        """Return the sentences of some dialogues."""
        return Found(self.said.rows(keep), Scores(self.scores.loss[keep], self.scores.slack[keep]))


def margin_loss(decisions: Tensor, x: Tensor, kappa: float) -> Tensor:
    """Return L = max(z_o' − max_{o in Ō} z_o, −κ) of each dialogue, (C,): Eq. 3.10.

    Ō are the decisions that give the adversary more than the target, and o' is the likeliest of all
    others: L is below 0 if, and only if, the target's decision is in Ō.

    Args:
        decisions: scores (C, 126) of the target's decisions; -inf for illegal ones.
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
    """Return turns of the adversary as the target receives them."""
    return follow(*_word(said.sizes, THEM), said.words, said.sizes)


def _loss(options: SearchOptions, decisions: Tensor, x: Tensor) -> Tensor:
    if options.objective == "official":
        return official_loss(decisions, x)
    return margin_loss(decisions, x, options.kappa)


def reactive(glass: Glass, memory: Recalled, options: SearchOptions) -> Objective:
    """Score sentences by the target's decision after them, if it answers <selection>: Eq. 3.11.

    Constraint (3.9): <selection> is the target's likeliest answer. As a penalty, the violation is added to
    the loss instead.
    """

    def slack(owner: Tensor, said: Utterance) -> Tensor:
        tail = follow(*_spoken(said), *_word(said.sizes, YOU))
        logits = forbidden(glass.next_word(memory, owner, *tail), True)
        selection = logits[:, SELECTION].clone()
        logits[:, SELECTION] = -torch.inf
        # If no word has a score, not even <selection>, the constraint is violated.
        return (selection - logits.amax(1)).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)

    def loss(owner: Tensor, said: Utterance) -> Tensor:
        answered = torch.tensor([[YOU, SELECTION]], device=owner.device).expand(len(owner), -1)
        tail = follow(*_spoken(said), answered, torch.full_like(said.sizes, 2))
        return _loss(options, glass.judge(memory, owner, *tail), memory.x[owner])

    def penalised(owner: Tensor, said: Utterance) -> Tensor:
        return loss(owner, said) - slack(owner, said).clamp_max(0)

    return Objective(penalised, None) if options.constraint == "penalty" else Objective(loss, slack)


def preemptive(glass: Glass, memory: Recalled, options: SearchOptions, most: int) -> Objective:
    """Score sentences by the target's decision after its likeliest reply and <selection>: Eq. 3.12.

    Args:
        glass: the target.
        memory: dialogues so far.
        options: options of the attack.
        most: largest number of words of the reply.
    """

    def loss(owner: Tensor, said: Utterance) -> Tensor:
        tail = follow(*_spoken(said), *_word(said.sizes, YOU))
        reply = glass.reply(memory, owner, *_spoken(said), most)
        words, sizes = follow(*tail, reply.words, reply.sizes)
        # If the target ends the dialogue, the adversary does not.
        going = (~reply.ends).long()
        words, sizes = follow(words, sizes, _word(sizes, THEM)[0], going)
        words, sizes = follow(words, sizes, _word(sizes, SELECTION)[0], going)
        return _loss(options, glass.judge(memory, owner, words, sizes), memory.x[owner])

    return Objective(loss, None)


def search(base: Utterance, objective: Objective, vocabulary: int, options: SearchOptions) -> Found:
    """Replace words of sentences one after the other, each time by the best of the whole vocabulary.

    The replaced word is the one whose replacement by <pad> has the smallest loss; with `search = "every"`,
    any word. The best new word has the smallest loss of those that meet the constraint. If none meets it, the
    best is the one with the smallest violation. A sentence that no word improves, or that meets the
    constraint with L = −κ, is left unchanged.

    Args:
        base: a sentence for each of n dialogues, none of them empty.
        objective: objective that scores sentences.
        vocabulary: number of words, the special ones included.
        options: options of the attack.
    """
    words, sizes = base.words.clone(), base.sizes
    rows = torch.arange(len(words), device=words.device)
    loss = _in_chunks(objective.loss, rows, base)
    slack = torch.zeros_like(loss)
    if objective.slack is not None:
        slack = _in_chunks(objective.slack, rows, base)
    for _ in range(options.changes):
        rows = rows[(slack[rows] < 0) | (loss[rows] > -options.kappa)]
        if not len(rows):
            break
        places = (torch.arange(words.shape[1], device=words.device) < sizes[rows, None] - 1).nonzero()
        if options.search == "pad":
            padded = words[rows[places[:, 0]]].scatter(1, places[:, 1:], PAD)
            owner = rows[places[:, 0]]
            without = _in_chunks(objective.loss, owner, Utterance(padded, sizes[owner]))
            places = places[best(without, places[:, 0], len(rows))]
        tried = torch.arange(len(SPECIALS), vocabulary, device=words.device)
        segment = places[:, 0].repeat_interleave(len(tried))
        trials = words[rows[segment]].scatter(
            1, places[:, 1].repeat_interleave(len(tried))[:, None], tried.repeat(len(places))[:, None]
        )
        found, met = _best_trials(objective, rows[segment], Utterance(trials, sizes[rows[segment]]), segment)
        new = found.scores
        better = torch.where(met, (slack[rows] < 0) | (new.loss < loss[rows]), new.slack > slack[rows])
        rows = rows[better]
        words[rows] = found.said.words[better]
        loss[rows], slack[rows] = new.loss[better], new.slack[better]
    return Found(Utterance(words, sizes), Scores(loss, slack))


def best(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Return the position of the smallest value of each segment, the first of ties: int64 (count,)."""
    least = values.new_full((count,), torch.inf).scatter_reduce(0, segment, values, "amin")
    hits = (values == least[segment]).nonzero()[:, 0]
    return hits.new_full((count,), len(values)).scatter_reduce(0, segment[hits], hits, "amin")


def _best_trials(
    objective: Objective, owner: Tensor, said: Utterance, segment: Tensor
) -> tuple[Found, Tensor]:
    """Return the best sentence of each segment, and whether it meets the constraint, bool (n,).

    Losses are not computed for sentences that violate the constraint if another of their segment meets it.
    """
    count = int(segment[-1]) + 1
    slack = torch.zeros(len(owner), device=owner.device)
    if objective.slack is not None:
        slack = _in_chunks(objective.slack, owner, said)
    considered = slack >= 0
    met = considered.new_zeros(count).index_fill(0, segment[considered], True)
    considered[best(-slack, segment, count)[~met]] = True
    judged = considered.nonzero()[:, 0]
    loss = _in_chunks(objective.loss, owner[judged], said.rows(judged))
    chosen = best(loss, segment[judged], count)
    return Found(said.rows(judged[chosen]), Scores(loss[chosen], slack[judged[chosen]])), met


def _in_chunks(score: Score, owner: Tensor, said: Utterance) -> Tensor:
    """Score sentences, those of one dialogue together, so that shared tensors are not copied."""
    most = CHUNK.get(owner.device.type, MOST_CHUNK)
    ends: list[int] = []
    start = done = 0
    for count in torch.unique_consecutive(owner, return_counts=True)[1].tolist():
        if done + count - start > most and done > start:
            ends.append(done)
            start = done
        done += count
        while done - start > most:
            start += most
            ends.append(start)
    parts, start = [], 0
    for end in (*ends, len(owner)):
        parts.append(score(owner[start:end], said.rows(slice(start, end))))
        start = end
    # Rounding differs with the number of sentences that are scored together; it must not decide between
    # sentences that are as good as equal.
    return torch.cat(parts).round(decimals=4)
