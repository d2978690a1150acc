"""Ensembles of attacks: each attack runs on the samples that the attacks before it did not break."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .types import Cost

if TYPE_CHECKING:
    from .protocols import Perturbation, Vicinity
    from .step import Step
    from .types import View


@dataclass(frozen=True)
class Ensemble:
    """Run attacks in order, each on the samples that are still correct after the attacks before it.

    An evaluation runs the parts as separate attacks, one after the other over the whole split. So batches
    stay full, and each part is reported and resumed separately.

    Attributes:
        parts: name and perturbation of each attack, in order.
    """

    # Each part attacks the rows that those before it left.
    needs_sync = True

    parts: Sequence[tuple[str, Perturbation]]

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return for each sample the first point that fools the model, or else the point of highest loss."""
        x = view.x.detach().clone()
        rows = torch.arange(len(view), device=view.index.device)
        highest = torch.full((len(view),), -torch.inf, device=view.index.device)
        for _, part in self.parts:
            if not len(rows):
                break
            moved = part(step, view.rows(rows), vicinity)
            with step.attack_mode(), torch.no_grad():
                output = step.output(moved)
                fooled = ~step.score(moved, output)
                losses = step.loss(moved, output, step.target(moved))
            better = fooled | (losses > highest[rows])
            x[rows[better]], highest[rows] = moved.x[better].to(x.dtype), losses.maximum(highest[rows])
            rows = rows[~fooled]
        return view.replace(x=x)

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost, since it depends on the data."""
        return Cost.unknown()
