"""What a Step needs from a method, a vicinity, and what runs iterations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ..types import View


class Slots(Protocol):
    """What a Step needs from a method: the three slots between a view and its loss."""

    @property
    def label_map(self) -> Callable[[Any, View], Any]:
        """Return h."""
        ...

    @property
    def output_map(self) -> Callable[[Any, View], Any]:
        """Return g∘f."""
        ...

    @property
    def loss(self) -> Callable[[Any, View, Any, Any], Tensor]:
        """Return the per-sample loss."""
        ...


class Iterating(Protocol):
    """What runs the iterations of an attack; see `Step.iterate`."""

    def run(self, step: Any, iteration: Callable[..., Any], view: View, state: Sequence[Any]) -> Any:
        """Run one."""
        ...


class Bounded(Protocol):
    """What a Step needs from a vicinity: the radius of views that have none of their own."""

    @property
    def eps(self) -> float:
        """Return the radius."""
        ...
