"""A gradient-free baseline: replace the word whose removal helps most with the best frequent word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Step, Vicinity, View

from ..text.words import PAD, lengths, trimmed, widened
from .goals import Goal
from .victim import Aimed, Best, Victim, attackable

if TYPE_CHECKING:
    from .options import GreedyOptions

CHUNK = 256
"""Number of sentences that are translated together."""


class GreedyReplacement(Aimed):
    """Score each position by the loss with <pad> in it, and try words at the best one.

    A position where no word lowers the loss is not tried again.

    Args:
        options: options of the component.
    """

    def __init__(self, options: GreedyOptions) -> None:
        super().__init__(options)
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with sentences that reach the goal, or the original where none was found.

        Raises:
            Refused: the model does not translate from embeddings.
        """
        goal, o = self._goal(step, view), self.options
        origin, radius, best = trimmed(view.origin), step.radii(view, vicinity), Best(view, goal)
        current = origin.clone()
        with step.attack_mode(), torch.no_grad():
            victim = Victim(step, o, view, vicinity)
            tried = _frequent(victim, o.words)
            rows = attackable(goal, origin, radius)
            loss = victim.table.new_full((len(origin),), torch.inf)
            loss[rows] = _losses(victim, goal, rows, origin[rows])[0]
            barred = origin == PAD
            for _ in range(o.rounds):
                # Drop sentences with no position left, or with no words left to change.
                spent = (current != origin).sum(1) >= radius
                barred = barred | (spent[:, None] & (current == origin))
                rows = rows[~barred[rows].all(1)]
                if not len(rows):
                    break
                place = _weakest(victim, goal, rows, current[rows], barred[rows])
                options = tried[victim.kinds(current[rows].gather(1, place[:, None])[:, 0])]
                trials = current[rows].repeat_interleave(tried.shape[1], 0)
                where = place.repeat_interleave(tried.shape[1])[:, None]
                trials = trials.scatter(1, where, options.view(-1, 1))
                owner = rows.repeat_interleave(tried.shape[1])
                losses, words = _losses(victim, goal, owner, trials)
                table = losses.view(len(rows), -1)
                least, choice = table.min(1)
                better = least < loss[rows]
                picked = (torch.arange(len(rows), device=rows.device) * tried.shape[1] + choice)[better]
                chosen = rows[better]
                current[chosen], loss[chosen] = trials[picked], least[better]
                barred[rows[~better], place[~better]] = True
                hit = victim.promising(goal.rows(chosen), words[picked], best.price[chosen])
                hit &= (current[chosen] != origin[chosen]).any(1)
                chosen = chosen[hit]
                if len(chosen):
                    limit = best.price[chosen]
                    best.take(chosen, victim.attempt(chosen, goal.rows(chosen), current[chosen], limit))
                rows = rows[~best.reached[rows]]
        return view.replace(x=best.x, info={**view.info, "queries": victim.queries})


def _frequent(victim: Victim, count: int) -> Tensor:
    """Return the first words of the vocabulary, those within a word and those that begin one, int64 (2, C).

    C is `count`, or fewer where there are not as many; a kind without any repeats the other.
    """
    kinds = [(victim.usable & (victim.begins == begins)).nonzero()[:count, 0] for begins in (False, True)]
    kinds = [kind if len(kind) else kinds[1 - at] for at, kind in enumerate(kinds)]
    size = min(map(len, kinds))
    return torch.stack([kind[:size] for kind in kinds])


def _losses(victim: Victim, goal: Goal, owner: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses of sentences (C, S) and their translations; `owner` has the row whose goal applies."""
    sizes = lengths(x)
    return _of_vectors(victim, goal, owner, x, sizes)


def _of_vectors(victim: Victim, goal: Goal, owner: Tensor, x: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    losses, words = [], []
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        own = goal.rows(owner[part])
        found = victim.translate(owner[part], own, victim.table[x[part]], sizes[part])
        losses.append(victim.loss(own, found))
        words.append(found.words)
    if not losses:
        return victim.table.new_zeros(0), x.new_zeros(0, 1)
    width = max(part.shape[1] for part in words)
    return torch.cat(losses), torch.cat([widened(part, width) for part in words])


def _weakest(victim: Victim, goal: Goal, rows: Tensor, x: Tensor, barred: Tensor) -> Tensor:
    """Return for each sentence the position where <pad> yields the smallest loss, int64 (R,)."""
    places = (~barred).nonzero()
    number, column = places[:, 0], places[:, 1]
    # <pad> within a sentence does not end it.
    sizes = lengths(x)[number]
    without = x[number].scatter(1, column[:, None], PAD)
    losses, _ = _of_vectors(victim, goal, rows[number], without, sizes)
    table = losses.new_full(x.shape, torch.inf)
    table[number, column] = losses
    return table.argmin(1)
