"""Seq2Sick: projected gradient descent in the space of embeddings (thesis §3.1.2, Algorithm 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Step, Vicinity, View

from ..text.words import lengths, trimmed
from .goals import Goal
from .projection import distance_gradient, half_gaps, largest_gradient, nearest, shrunk
from .victim import Aimed, Best, Victim, attackable

if TYPE_CHECKING:
    from .options import Seq2SickOptions


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
        origin, best = trimmed(view.origin), Best(view, goal)
        with step.attack_mode():
            victim = Victim(step, self.options, view, vicinity)
            search = _Search(victim, goal, origin, best, self.options)
            rows = attackable(goal, origin, step.radii(view, vicinity))
            for lr in self.options.lr:
                search.descend(rows[~best.reached[rows]], lr)
        return view.replace(x=best.x, info={**view.info, "queries": victim.queries})


class _Search:
    """Descend for some sentences, and store the results in `best`."""

    def __init__(
        self,
        victim: Victim,
        goal: Goal,
        origin: Tensor,
        best: Best,
        options: Seq2SickOptions,
    ) -> None:
        self.victim, self.goal, self.origin = victim, goal, origin
        self.best, self.options = best, options
        # Iterations since the best sentence was found.
        self.since = torch.zeros_like(best.reached, dtype=torch.int64)
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
            self.since[rows] += 1
            rows = rows[~(self.best.reached[rows] & (self.since[rows] >= o.patience))]
        # The last δ has not been tried yet.
        self._try(rows, self.words[rows])

    def _nearest(self, rows: Tensor, delta: Tensor) -> Tensor:
        """Return the words nearest to X + δ, int64 (R, S); the original word is always allowed."""
        words, sizes = self.origin[rows], delta.norm(dim=2)
        moved = (sizes > self.gap[rows]) & self.there[rows]
        points, own = self.start[rows][moved] + delta[moved], words[moved]
        other, kinds = own.clone(), self.victim.kinds(own)
        for kind in (0, 1):
            here = kinds == kind
            if bool(here.any()):
                allowed = self.allowed & (self.victim.begins == bool(kind))
                other[here] = nearest(points[here], self.table, allowed)
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
        found = self.victim.translate(rows, goal, point[:, :longest] * self.unit, self.sizes[rows])
        hit = self.victim.promising(goal, found.words, self.best.price[rows])
        self._try(rows[hit], words[hit])
        self.gradient[rows] = self.victim.step.gradient(self.victim.loss(goal, found).sum(), point)
        self.asked[rows] = words

    def _try(self, rows: Tensor, words: Tensor) -> None:
        """Keep sentences whose text is legal, and better than the best so far."""
        # The tokenizer is asked for few: most sentences are not changed, or cannot be better.
        changed = (words != self.origin[rows]).any(1)
        rows, words = rows[changed], words[changed]
        if not len(rows):
            return
        tried = self.victim.attempt(rows, self.goal.rows(rows), words, self.best.price[rows])
        self.since[self.best.take(rows, tried)] = -1
