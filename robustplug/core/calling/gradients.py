"""Input gradients that an attack can follow: finite, and neither too small nor too large to be squared."""

from __future__ import annotations

import torch
from torch import Tensor

# Beyond them sums of squares of float32 numbers underflow or overflow, and libraries divide by 0 or infinity.
SMALLEST, LARGEST, USUAL = 1e-18, 1e15, 1e-3


def finite(gradient: Tensor) -> Tensor:
    """Return a gradient with 0 in the place of NaN and infinities: those inputs stay where they are."""
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def lost(gradient: Tensor) -> Tensor:
    """Return for each row of a gradient (N, …) the number of values that are not finite numbers, (N,)."""
    found = gradient.isfinite().logical_not_()
    return found.flatten(1).sum(1) if found.dim() > 1 else found


def largest(gradient: Tensor) -> Tensor:
    """Return the largest magnitude in each row of a finite gradient (N, …), in a shape that broadcasts."""
    size = gradient.flatten(1).abs().amax(1) if gradient.numel() else gradient.new_zeros(len(gradient))
    return size.view(-1, *(1,) * (gradient.dim() - 1))


def to_unit(gradient: Tensor) -> Tensor:
    """Scale each row of a gradient (N, …) so that its largest magnitude is 1; a row of zeros stays.

    Its norm can then neither underflow nor overflow. Values that are not finite become 0, and half precision
    becomes float32.
    """
    gradient = finite(gradient if gradient.dtype == torch.float64 else gradient.float())
    size = largest(gradient)
    # Two divisions: the reciprocal of a denormal number is infinite.
    return gradient / torch.where(size > 0, size, 1.0)


def squarable(gradient: Tensor) -> Tensor:
    """Return a finite gradient (N, …) whose rows have a size that can be squared; most stay bit-identical."""
    size = largest(gradient)
    extreme = (size > 0) & ((size < SMALLEST) | (size > LARGEST))
    return torch.where(extreme, USUAL * (gradient / torch.where(extreme, size, 1.0)), gradient)
