"""Intervals of values, by their ends or by middle and radius, of which each follows from the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class _Ends(torch.autograd.Function):
    """Ends of intervals; two operations each way."""

    @staticmethod
    def forward(ctx: Any, centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        return centre - radius, centre + radius

    @staticmethod
    def backward(ctx: Any, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return low + high, high - low


class _Middle(torch.autograd.Function):
    """Centres and radii of intervals; two operations each way."""

    @staticmethod
    def forward(ctx: Any, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        centre = torch.lerp(low, high, 0.5)
        return centre, centre - low

    @staticmethod
    def backward(ctx: Any, centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        high = torch.lerp(centre, radius, 0.5)
        return centre - high, high


class Bounds:
    """Lower and upper bound of the output of a node, (N, …) each.

    Those of a sum are known by their middle and half their width, from which the ends follow where they are
    needed: an affine map behind it needs none.

    Args:
        low, high: the ends; None if the middle is given.
        middle: centre and radius.
    """

    __slots__ = ("_ends", "_middle")

    def __init__(
        self,
        low: Tensor | None = None,
        high: Tensor | None = None,
        middle: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self._ends = None if low is None or high is None else (low, high)
        self._middle = middle

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper end."""
        if self._ends is None:
            assert self._middle is not None
            self._ends = _Ends.apply(*self._middle)
        return self._ends

    @property
    def low(self) -> Tensor:
        """Return the lower end."""
        return self.ends[0]

    @property
    def high(self) -> Tensor:
        """Return the upper end."""
        return self.ends[1]

    @property
    def middle(self) -> tuple[Tensor, Tensor]:
        """Return centre and radius."""
        if self._middle is None:
            self._middle = _Middle.apply(*self.ends)
        return self._middle

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.ends)
