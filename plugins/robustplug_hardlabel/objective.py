"""The smooth objective of an L∞ attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .pool import Array

ROUNDS = 60


@dataclass(frozen=True)
class Smooth:
    """Σᵢ max(λ|θᵢ| − ε, 0)² for directions with ‖θ‖∞ = 1: thesis §2.4.2; 0 within the radius.

    Attributes:
        eps: ε.
    """

    eps: float

    def value(self, theta: Array, length: float) -> float:
        """Return the objective at length · θ."""
        excess = np.maximum(length * np.abs(theta.astype(np.float64)) - self.eps, 0)
        return float(excess @ excess)

    def lengths(self, thetas: Array, value: float) -> Any:
        """Return the lengths (q,) along directions (q, D) at which the objective takes a value.

        Newton's method starts above the root and descends to it: the objective is convex and increasing.
        """
        sizes = np.abs(thetas.astype(np.float64))
        # Here the largest entry alone reaches the value; all entries together reach at least that.
        lengths = (self.eps + np.sqrt(value)) / sizes.max(1)
        if value <= 0:
            return lengths
        for _ in range(ROUNDS):
            excess = np.maximum(lengths[:, None] * sizes - self.eps, 0)
            above = np.einsum("qd,qd->q", excess, excess) - value
            slope = 2 * np.einsum("qd,qd->q", excess, sizes)
            # A value that rounds to 0 is reached at ε.
            step = np.divide(above, slope, out=np.zeros_like(above), where=slope > 0)
            lengths -= step
            if (np.abs(step) <= 1e-9 * lengths).all():
                break
        return lengths
