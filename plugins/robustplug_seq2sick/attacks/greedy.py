"""A gradient-free baseline: replace the word whose removal helps most with the best frequent word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Step, Vicinity, View

from ..text.words import PAD, lengths, trimmed
from .goals import Goal
from .victim import Aimed, Victim, attackable

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
        origin, radius = trimmed(view.origin), step.radii(view, vicinity)
        current, result = origin.clone(), origin.clone()
        with step.attack_mode(), torch.no_grad():
            victim = Victim(step, o)
            tried = victim.usable.nonzero()[: o.words, 0]
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
                trials = current[rows].repeat_interleave(len(tried), 0)
                where = place.repeat_interleave(len(tried))[:, None]
                trials = trials.scatter(1, where, tried.repeat(len(rows))[:, None])
                owner = rows.repeat_interleave(len(tried))
                losses, hits = _losses(victim, goal, owner, trials)
                table = losses.view(len(rows), -1)
                least, choice = table.min(1)
                better = least < loss[rows]
                picked = torch.arange(len(rows), device=rows.device) * len(tried) + choice
                chosen = rows[better]
                current[chosen], loss[chosen] = trials[picked[better]], least[better]
                barred[rows[~better], place[~better]] = True
                hit = chosen[hits[picked[better]] & (current[chosen] != origin[chosen]).any(1)]
                done = hit[victim.breaks(goal.rows(hit), current[hit])] if len(hit) else hit
                result[done] = current[done]
                rows = rows[~torch.isin(rows, done)]
        x = view.origin.clone()
        x[:, : origin.shape[1]] = result
        return view.replace(x=x)


def _losses(victim: Victim, goal: Goal, owner: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return loss and success of sentences (C, S); `owner` has the row of the batch whose goal applies."""
    sizes = lengths(x)
    return _of_vectors(victim, goal, owner, x, sizes)


def _of_vectors(victim: Victim, goal: Goal, owner: Tensor, x: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    losses, hits = [], []
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        own = goal.rows(owner[part])
        found = victim.translate(own, victim.table[x[part]], sizes[part])
        losses.append(victim.loss(own, found))
        hits.append(own.reached(found.words))
    if not losses:
        return victim.table.new_zeros(0), torch.zeros(0, dtype=torch.bool, device=x.device)
    return torch.cat(losses), torch.cat(hits)


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
