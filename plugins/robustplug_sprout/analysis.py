"""Analyses of the paper besides accuracy: products of β, and angles between input gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from robustplug.api import Batch, cross_entropy


def products(beta: Tensor) -> Tensor:
    """Return β_s·β_t, (K, K): the label covariance up to factors, Eq. (7) and Figure 8.

    Args:
        beta: β, (K,).
    """
    return beta[:, None] * beta[None]


def input_gradients(model: nn.Module, batch: Batch) -> Tensor:
    """Return the gradient of the cross entropy with respect to each sample, rows (N, D).

    Args:
        model: model in eval mode, from inputs (N, …) to logits (N, K).
        batch: samples with classes int64 (N,).
    """
    x = batch.x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(x), batch.y).sum(), x)
    rows: Tensor = gradient.flatten(1)
    return rows


def mean_cosines(models: Sequence[nn.Module], batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Return the mean cosine of the input gradients of every pair of models, (M, M): Table 7.

    A sample does not count if one of the two gradients is zero, since it has no angle.

    Args:
        models: models in eval mode.
        batches: batches of the task that all models share.

    Returns:
        The means, and the number of samples behind each.
    """
    count = len(models)
    sums, samples = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, count)
    for batch in batches:
        units = [_units(input_gradients(model, batch)) for model in models]
        for (i, first), (j, second) in itertools.product(enumerate(units), repeat=2):
            both = first.any(1) & second.any(1)
            sums[i, j] += float((first * second).sum(1)[both].double().sum())
            samples[i, j] += int(both.sum())
    return sums / samples, samples


def _units(rows: Tensor) -> Tensor:
    """Scale each row to length 1; a zero row stays zero."""
    # Use double precision, and divide by the largest entry first: squares of small gradients underflow.
    rows = rows.double()
    rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 0, rows / length.clamp_min(1), rows)
