"""Seq2Sick: projected gradient descent in the space of embeddings (thesis §3.1.2, Algorithm 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Step, Vicinity, View

from ..text.words import lengths, trimmed
from .goals import Goal
from .projection import distance_gradient, half_gaps, largest_gradient, nearest, shrunk
from .victim import Aimed, Victim, attackable

if TYPE_CHECKING:
    from .options import Seq2SickOptions


@dataclass
class _Best:
    """The best sentence so far of each row: a success with the fewest changed words.

    Attributes:
        x: int64 (N, S); the original where there is no success.
        changed: words changed, (N,); infinite where there is no success.
        since: iterations since this success, (N,).
    """

    x: Tensor
    changed: Tensor
    since: Tensor


class Seq2Sick(Aimed):
    """Replace words so that the translation has no word in its original place, or all keywords.

    All sentences of a batch are attacked together; a broken sentence leaves the batch.

    Args:
        options: options of the component.
    """

    def __init__(self, options: Seq2SickOptions) -> None:
        super().__init__(options)
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with sentences that reach the goal, or the original where none was found.

        Raises:
            Refused: the model does not translate from embeddings.
        """
        goal = self._goal(step, view)
        origin, radius = trimmed(view.origin), step.radii(view, vicinity)
        best = _Best(
            origin.clone(),
            torch.full((len(origin),), torch.inf, device=origin.device),
            torch.zeros(len(origin), dtype=torch.int64, device=origin.device),
        )
        with step.attack_mode():
            search = _Search(Victim(step, self.options), goal, origin, radius, best, self.options)
            rows = attackable(goal, origin, radius)
            for lr in self.options.lr:
                search.descend(rows[best.changed[rows].isinf()], lr)
        x = view.origin.clone()
        x[:, : origin.shape[1]] = best.x
        return view.replace(x=x)


class _Search:
    """Descend for some sentences, and store the results in `best`."""

    def __init__(
        self,
        victim: Victim,
        goal: Goal,
        origin: Tensor,
        radius: Tensor,
        best: _Best,
        options: Seq2SickOptions,
    ) -> None:
        self.victim, self.goal, self.origin, self.radius = victim, goal, origin, radius
        self.best, self.options = best, options
        table = victim.table
        self.unit = table[victim.usable].square().sum(1).mean().sqrt()
        self.table = table / self.unit
        self.allowed = torch.ones_like(victim.usable) if options.specials else victim.usable
        self.start = self.table[origin]
        self.delta = torch.zeros_like(self.start)
        self.sizes = lengths(origin)
        self.there = torch.arange(origin.shape[1], device=origin.device) < self.sizes[:, None]
        self.words = origin.clone()
        self.asked, self.gradient = torch.full_like(origin, -1), torch.zeros_like(self.start)
        self.gap = half_gaps(origin, self.table, self.allowed)

    def descend(self, rows: Tensor, lr: float) -> None:
        """Descend for the sentences `rows`, until each is broken or the iterations are used up."""
        o = self.options
        if o.reset:
            self.delta[rows], self.words[rows] = 0, self.origin[rows]
        for _ in range(o.steps):
            if not len(rows):
                return
            self._iterate(rows, lr)
            self.best.since[rows] += 1
            found = self.best.changed[rows].isfinite()
            rows = rows[~(found & (self.best.since[rows] >= o.patience))]
        # The last δ has not been tried yet.
        self._try(rows, self.words[rows])

    def _nearest(self, rows: Tensor, delta: Tensor) -> Tensor:
        """Return the words nearest to X + δ, int64 (R, S); the original word is always allowed."""
        words, sizes = self.origin[rows], delta.norm(dim=2)
        moved = (sizes > self.gap[rows]) & self.there[rows]
        points, own = self.start[rows][moved] + delta[moved], words[moved]
        other = nearest(points, self.table, self.allowed)
        nearer = (points - self.table[other]).norm(dim=1) < sizes[moved]
        words[moved] = torch.where(nearer, other, own)
        return words

    def _iterate(self, rows: Tensor, lr: float) -> None:
        o, delta, start = self.options, self.delta[rows], self.start[rows]
        if o.project:
            # The gradient is taken at the nearest words: it stays the same while they do.
            fresh = (self.words[rows] != self.asked[rows]).any(1)
            self._ask(rows[fresh], self.table[self.words[rows[fresh]]])
        else:
            self._ask(rows, start + delta)
        gradient = self.gradient[rows]
        if o.largest:
            gradient = gradient + o.largest * largest_gradient(delta)
        delta = shrunk(delta, lr * o.lambda1)
        if o.lambda2:
            away = start + delta - self.table[self._nearest(rows, delta)]
            gradient = gradient + o.lambda2 * distance_gradient(away)
        delta = (delta - lr * gradient) * self.there[rows][..., None]
        self.words[rows] = self._nearest(rows, delta)
        self.delta[rows] = self.table[self.words[rows]] - start if o.overwrite else delta

    def _ask(self, rows: Tensor, point: Tensor) -> None:
        """Store the gradient of the loss at `point`, and try the words of sentences that reach the goal."""
        if not len(rows):
            return
        words, goal = self.words[rows], self.goal.rows(rows)
        point = point.detach().requires_grad_()
        # Only short rows may be left: columns beyond the longest of them cost time.
        longest = int(self.sizes[rows].max())
        found = self.victim.translate(goal, point[:, :longest] * self.unit, self.sizes[rows])
        hit = goal.reached(found.words)
        self._try(rows[hit], words[hit])
        self.gradient[rows] = self.victim.step.gradient(self.victim.loss(goal, found).sum(), point)
        self.asked[rows] = words

    def _try(self, rows: Tensor, words: Tensor) -> None:
        """Keep sentences that are legal, change fewer words than the best so far, and break the model."""
        changed = words != self.origin[rows]
        count = changed.sum(1)
        legal = (self.victim.usable[words] | ~changed).all(1)
        worth = legal & (count > 0) & (count <= self.radius[rows]) & (count < self.best.changed[rows])
        rows, words, count = rows[worth], words[worth], count[worth]
        if not len(rows):
            return
        good = self.victim.breaks(self.goal.rows(rows), words)
        rows = rows[good]
        self.best.x[rows], self.best.changed[rows] = words[good], count[good].float()
        self.best.since[rows] = -1
