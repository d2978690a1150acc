"""What each kind of component must do. A plugin satisfies these by shape; nothing is inherited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .state import MethodState
    from .step import Step
    from .task import Task
    from .types import Batch, Cost, ParamGroup, View


class Vicinity(Protocol):
    """V: where virtual samples come from, and what a legal perturbation of them is.

    `eps` is the radius of a view that carries none of its own; radii are (N,) tensors. `norm` is the
    order p of the norm that measures them (2.0, math.inf), or None for a set that is no norm ball.
    """

    eps: float
    norm: float | None

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Draw virtual samples."""
        ...

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest legal point."""
        ...

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Tell for each sample whether x is legal, up to float rounding: bool (N,)."""
        ...

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction of unit size that ascends a linear function the fastest."""
        ...

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a legal point uniformly from the ball, then project it."""
        ...


class Perturbation(Protocol):
    """The perturbation generator: move a view's x to another legal point."""

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with a new x, detached from any graph; model and gradients untouched."""
        ...

    def cost(self, target: Cost) -> Cost:
        """Say how many forwards and backwards per sample one call makes during training.

        `Cost.unknown()` where that depends on the data.

        Args:
            target: what asking the method's label map once costs.
        """
        ...


class LabelMap(Protocol):
    """h: from a view to the targets of its loss."""

    def __call__(self, step: Step, view: View) -> Any:
        """Return targets, for classification (N, K) rows that sum to 1 or int64 (N,)."""
        ...


class OutputMap(Protocol):
    """g∘f: from a view to the model's outputs."""

    def __call__(self, step: Step, view: View) -> Any:
        """Return outputs, for classification logits (N, K), through `step.forward`."""
        ...


class Loss(Protocol):
    """The per-sample loss."""

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample, (N,), never reduced."""
        ...


@runtime_checkable
class LearnedSlot(Protocol):
    """A slot with parameters or memory of its own, in whatever method it stands."""

    def setup(self, model: nn.Module, task: Task, state: MethodState) -> Sequence[ParamGroup]:
        """Register parameters and buffers with the method's state, and name those to train.

        Called once, after the method's own setup, with the global generator seeded for it.
        """
        ...


@runtime_checkable
class SelfTrained(Protocol):
    """A model that learns by itself, without gradients: an nn.Module with `fit`, such as boosted trees.

    An epoch of training calls `fit` once, with all its samples. Optimizer, schedule and attacks have no part
    in it: the component declares `traits=self_trained()`, and a recipe that asks for them is refused. What
    was learnt may be of any size: torch's `get_extra_state` and `set_extra_state` put it into the state dict.
    """

    def fit(self, x: Tensor, y: Tensor, seed: int) -> None:
        """Forget what was learnt, and learn to lower the cross entropy −Σ_k ỹ_k · log softmax(f(x̃))_k.

        Args:
            x: virtual samples (N, …), those of an epoch.
            y: their labels, int64 (N,), or rows (N, K) that sum to 1.
            seed: of everything random; the same samples and seed give the same model.

        Raises:
            Refused: it cannot learn from these labels.
        """
        ...


@runtime_checkable
class AimingPerturbation(Protocol):
    """An attack with a goal of its own, such as an output to force, instead of making samples wrong.

    The goal is stated before the attack, and from the clean samples alone. The task's `score` reads it in the
    view's info, and a sample is right as long as the goal is not reached. The row starts with all samples,
    whether they are right when clean or not.
    """

    def aim(self, step: Step, view: View) -> Mapping[str, Any]:
        """Return the goal of each sample, for the view's info; its tensors have N rows."""
        ...


class Schedule(Protocol):
    """A learning-rate schedule."""

    def __call__(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate at a (fractional) epoch of a run of `epochs`."""
        ...
