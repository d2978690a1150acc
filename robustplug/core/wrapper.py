"""Methods around methods."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .method import Method, Options
from .state import MethodState
from .types import Batch, Cost, ParamGroup, Pass, Progress, View

if TYPE_CHECKING:
    from .step import Step
    from .task import Task

SLOTS = ("vicinity", "perturbation", "label_map", "output_map", "loss")


class Wrapper(Method[Options]):
    """Stand around another method: whatever a subclass does not override is the inner method's.

    That includes the slots, and with them the threat model of an evaluation. The inner method's state is a
    part of the wrapper's.

    Args:
        options: the component's options, with a slot `inner` (see `WrapperOptions`).
        inner: the method around which it stands.
        networks: as in `Method`.
    """

    def __init__(self, options: Options, *, inner: Method[Any], **networks: nn.Module | None) -> None:
        self.options, self.inner = options, inner
        self.needs_sync = inner.needs_sync
        self.state = MethodState()
        self.state.add_module("inner", inner.state)
        self._hold(networks)

    def __getattr__(self, name: str) -> Any:
        if name in SLOTS:
            return getattr(self.inner, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SLOTS:
            setattr(self.inner, name, value)
        else:
            super().__setattr__(name, value)

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Prepare the inner method."""
        return self.inner.setup(model, task)

    def passes(self, progress: Progress) -> Sequence[Pass]:
        """Return the updates of the inner method."""
        return self.inner.passes(progress)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the views of the inner method."""
        return self.inner.views(step, point)

    def around_loss(self, step: Step, views: Sequence[View]) -> contextlib.AbstractContextManager[None]:
        """Return the context of the inner method."""
        return self.inner.around_loss(step, views)

    def after_backward(self, step: Step, views: Sequence[View]) -> None:
        """Act as the inner method does."""
        self.inner.after_backward(step, views)

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        """Act as the inner method does."""
        self.inner.after_step(step, views)

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the quantities of the inner method."""
        return self.inner.mechanism(step, views)

    def export(self, model: nn.Module) -> nn.Module:
        """Return the module that the inner method exports."""
        return self.inner.export(model)

    def cost(self) -> Cost:
        """Return the cost of the inner method."""
        return self.inner.cost()

    def loss_cost(self) -> Cost:
        """Return the cost of the inner method's loss."""
        return self.inner.loss_cost()


def nested(method: Method[Any]) -> Iterator[Method[Any]]:
    """Yield a method, and the methods around which it stands, from the outside in."""
    yield method
    if isinstance(method, Wrapper):
        yield from nested(method.inner)
