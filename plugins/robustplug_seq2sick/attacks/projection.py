"""The model-independent parts of Algorithm 6: projection, group lasso, gradient regularisation."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(points: Tensor, table: Tensor, allowed: Tensor) -> Tensor:
    """Return the word whose embedding is nearest to each point, int64 (…).

    Args:
        points: (…, d).
        table: embeddings, (V, d).
        allowed: words that may be chosen, bool (V,).
    """
    distances = table.square().sum(1).masked_fill(~allowed, torch.inf) - 2 * points @ table.T
    return distances.argmin(-1)


def shrunk(delta: Tensor, amount: float) -> Tensor:
    """Return the proximal step of amount · Σ_i ‖δ_i‖, (N, S, d): Algorithm 6, lines 5 to 8."""
    norms = delta.norm(dim=-1, keepdim=True)
    return torch.where(norms > amount, delta * (1 - amount / norms.clamp_min(1e-12)), 0.0)


def half_gaps(words: Tensor, table: Tensor, allowed: Tensor) -> Tensor:
    """Return half the distance from each word to the nearest other word, (…).

    Within this distance of a word, no other word is nearer.

    Args:
        words: int64 (…).
        table, allowed: as in `nearest`.
    """
    kinds, place = torch.unique(words, return_inverse=True)
    squares = table.square().sum(1)
    distances = squares[kinds, None] + squares - 2 * table[kinds] @ table.T
    distances = distances.masked_fill(~allowed, torch.inf).scatter(1, kinds[:, None], torch.inf)
    # Slightly less than half, to allow for rounding.
    return (0.499 * distances.amin(1).clamp_min(0).sqrt())[place]


def distance_gradient(away: Tensor) -> Tensor:
    """Return the gradient of Σ_i min_j ‖p_i − w_j‖ with respect to points p, (…, d): Eq. 3.4, third term.

    It is a unit vector away from the nearest embedding, and 0 at an embedding.

    Args:
        away: p_i − w_j, the vectors from the nearest embedding to each point.
    """
    norms = away.norm(dim=-1, keepdim=True)
    # Where a point is an embedding, rounding leaves a spurious direction.
    return torch.where(norms > 1e-6, away / norms.clamp_min(1e-12), 0.0)


def largest_gradient(delta: Tensor) -> Tensor:
    """Return the gradient of the largest entry of each sentence's δ, (N, S, d)."""
    flat = delta.flatten(1)
    return torch.zeros_like(flat).scatter(1, flat.argmax(1, keepdim=True), 1.0).view_as(delta)
