"""Methods: the five slots and their state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from .protocols import LearnedSlot
from .state import MethodState
from .types import Batch, Cost, ParamGroup, Pass, Progress, View

if TYPE_CHECKING:
    from .protocols import LabelMap, Loss, OutputMap, Perturbation, Vicinity
    from .step import Step
    from .task import Task

Options = TypeVar("Options")


def prepare(method: Method[Any], model: nn.Module, task: Task) -> Sequence[ParamGroup]:
    """Set up a method and its learned slots, and return all parameter groups to train."""
    groups = list(method.setup(model, task))
    parts = (method.vicinity, method.perturbation, method.label_map, method.output_map, method.loss)
    for part in parts:
        if isinstance(part, LearnedSlot):
            groups += part.setup(model, task, method.state)
    held = {id(parameter) for parameter in method.state.held()}
    for group in groups:
        for parameter in group.params:
            if id(parameter) in held:
                parameter.requires_grad_(True)
    return groups


def needs_sync(method: Method[Any]) -> bool:
    """Return whether a method, or a component that it holds, says that its updates wait for the device.

    Any component may have an attribute `needs_sync`; without one it does not wait. Such a method is run
    eagerly: a CUDA graph holds no value that the host reads, and no shape that depends on data.
    """
    return any(getattr(part, "needs_sync", False) for part in _held(method))


def whole_batch(method: Method[Any]) -> str:
    """Return why an update cannot be computed in micro-batches; "" if it can.

    Any component may have an attribute `whole_batch`, which says that; without one it can.
    """
    found = (str(getattr(part, "whole_batch", "")) for part in _held(method))
    return next(filter(None, found), "")


def _held(method: Method[Any]) -> Iterator[Any]:
    """Yield a method, and all components that it holds."""
    seen: set[int] = set()
    left: list[Any] = [method]
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple):
            left += part
            continue
        yield part
        if isinstance(part, Method) or (
            not isinstance(part, nn.Module | type) and (callable(part) or hasattr(part, "sample"))
        ):
            left += getattr(part, "__dict__", {}).values()


def same_kind(x: Any, origin: Tensor) -> bool:
    """Return whether x is made of real numbers, as many as origin, so that their difference counts."""
    numbers = isinstance(x, Tensor) and x.is_floating_point() and origin.is_floating_point()
    return numbers and x.shape == origin.shape and x.numel() > 0


@dataclass(frozen=True)
class Objective:
    """Hold the three slots between a view and its loss, for evaluation and for custom loops."""

    label_map: LabelMap
    output_map: OutputMap
    loss: Loss


@dataclass(frozen=True)
class Averaging:
    """Define an average of the weights, which a run evaluates and exports in place of the last ones.

    The training does not depend on it. Running statistics of BatchNorm are estimated anew for it at the end
    of each epoch, on the training inputs.

    Attributes:
        decay: decay of an exponential average over the updates, in [0, 1), at most (1 + n)/(10 + n) after n
            of them; None for the mean over epochs.
        warmup: number of first epochs that are left out; as long as they last, the run has no average.
        every: of the mean over epochs, the number of epochs from one to the next.
    """

    decay: float | None = None
    warmup: int = 0
    every: int = 1


class Method(Generic[Options]):
    """Fill the five slots; subclasses override what their paper changes.

    This base class trains on the perturbed samples alone. Without a perturbation, that is empirical risk
    minimisation; with PGD, it is adversarial training.

    Args:
        options: the component's options.
        vicinity, perturbation, label_map, output_map, loss: the slots.
        networks: what fills the slots of kind "model" in the options, such as a teacher; each becomes an
            attribute, and a part of the state (see `MethodState.hold`). None for an empty slot.
    """

    needs_sync: bool = False
    """Whether an update must wait for the device; such updates are never captured in a CUDA graph."""
    second_order: bool = False
    """Whether the loss contains input gradients with a graph, which a compiled model does not have."""
    whole_batch: str = ""
    """What an update does that needs all rows of its batch at once; "" if micro-batches do the same."""

    def __init__(
        self,
        options: Options,
        *,
        vicinity: Vicinity,
        perturbation: Perturbation,
        label_map: LabelMap,
        output_map: OutputMap,
        loss: Loss,
        **networks: nn.Module | None,
    ) -> None:
        self.options = options
        self.vicinity = vicinity
        self.perturbation = perturbation
        self.label_map = label_map
        self.output_map = output_map
        self.loss = loss
        self.state = MethodState()
        self._hold(networks)

    def _hold(self, networks: Mapping[str, nn.Module | None]) -> None:
        for name, network in networks.items():
            setattr(self, name, network)
            if network is not None:
                self.state.hold(name, network)

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Prepare state and model, and return the parameter groups to train; called once, before training.

        Only here may a method change the model.
        """
        return [ParamGroup("model", tuple(model.parameters()))]

    def passes(self, progress: Progress) -> Sequence[Pass]:
        """Return the optimiser updates to make on one batch; their number is the same for every batch."""
        return (Pass(),)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the views whose weighted mean losses add up to the training loss.

        Args:
            step: the current update.
            point: virtual samples, drawn from the vicinity.
        """
        return [self.perturbation(step, View.of(point, "adv"), self.vicinity)]

    def around_loss(self, step: Step, views: Sequence[View]) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the loss of the views and its gradient are computed.

        It may move weights, through `step.moved`. It ends before `after_backward`.
        """
        return contextlib.nullcontext()

    def after_backward(self, step: Step, views: Sequence[View]) -> None:
        """Act after the backward pass and before the optimiser update.

        With `train.micro_batch`, this and `after_step` are called for each micro-batch, after the backward
        pass and the update of the whole batch; `step.closes` marks the last call.
        """

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        """Act after the optimiser update; write per-sample memory here."""

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return quantities that are 0 unless what the method adds to plain training is at work.

        Called without gradients after the last update of each epoch. The means are logged as
        "mechanism/NAME"; those of the last epoch are in the result. A benchmark refuses a run where one is 0.
        By default "moved": the largest change of a value in each training input, (N,); nothing for a method
        that trains on the samples as they are.

        Args:
            step, views: as for `after_step`.

        Returns:
            Values of at least 0, (M,) each, by name.
        """
        origin = step.batch.x
        moved = [
            (view.x.detach() - origin).abs().flatten(1).amax(1)
            for view in views
            if isinstance(origin, Tensor) and view.x is not origin and same_kind(view.x, origin)
        ]
        return {"moved": torch.stack(moved).amax(0)} if moved else {}

    def averaging(self) -> Averaging | None:
        """Return which average of the weights the run leaves; None for the last weights."""
        return None

    def export(self, model: nn.Module) -> nn.Module:
        """Return a plain module for deployment and evaluation; must not change `model`.

        The argument may be a copy of the trained model (averaged weights): find modules by name or type,
        not by identity.
        """
        return model

    def cost(self) -> Cost:
        """Return the forwards and backwards per sample that one batch costs, all passes included."""
        return self.perturbation.cost(Cost(0, 0)) + self.loss_cost()

    def loss_cost(self) -> Cost:
        """Return the forwards and backwards per sample of the loss of the views, in one pass."""
        return Cost(1, 1)


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

    def averaging(self) -> Averaging | None:
        """Return the average of the inner method, if it has one."""
        return self.inner.averaging()

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
