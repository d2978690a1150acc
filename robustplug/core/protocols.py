"""The interface of each kind of component. Plugins implement it structurally, without inheritance.

A component that waits for the device in an update says so by a class attribute, `needs_sync = True`; without
one it does not wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .measures import Measure
    from .state import MethodState
    from .step import Step
    from .task import Task
    from .types import Batch, Cost, ParamGroup, Progress, TaskInfo, View


class Vicinity(Protocol):
    """V: the distribution of virtual samples around a training sample, and the set of legal perturbations.

    `eps` is the radius of a view that has no radius of its own; radii are (N,) tensors. `norm` is the order
    p of the norm that measures them (1.0, 2.0, math.inf), or None for a set that is not a whole norm ball
    within the range of the inputs, such as a ball in which only some pixels may change.
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
        """Return for each sample whether x is legal, up to float rounding: bool (N,)."""
        ...

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction of unit size that increases a linear function the fastest."""
        ...

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a legal point uniformly from the ball, then project it."""
        ...


@runtime_checkable
class BoundedVicinity(Protocol):
    """A vicinity of inputs whose valid range need not be [0, 1]; one without this is refused elsewhere."""

    def within(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        """Keep inputs in [low, high]: numbers, or one for each channel or feature."""
        ...


@runtime_checkable
class SparseVicinity(Protocol):
    """A vicinity in which the steepest direction changes one value alone, and good steps change some more."""

    def sparse(self, gradient: Tensor, share: Tensor) -> Tensor:
        """Return a direction of unit size (N, …) along a share (N,) of the values, and at least one."""
        ...


@runtime_checkable
class ProportionalVicinity(Protocol):
    """A vicinity in which attacks of several steps follow the gradient, not the steepest direction."""

    def proportional(self, gradient: Tensor) -> Tensor:
        """Return the gradient in the set's own units, (N, …), its largest value of unit size, 0 for 0."""
        ...


@runtime_checkable
class DescribedVicinity(Protocol):
    """A vicinity that says in its own units what is legal, such as which patch or which features."""

    def described(self) -> str:
        """Return what is legal as a part of a sentence, for captions."""
        ...


@runtime_checkable
class SpannedVicinity(Protocol):
    """A vicinity that is no norm ball and knows from which radius on it bounds nothing, for wrong units."""

    def span(self, info: TaskInfo) -> tuple[float, str]:
        """Return the largest radius that makes a difference, above 0, and what it is, as "8 pixels"."""
        ...


@runtime_checkable
class InformedVicinity(Protocol):
    """A vicinity that must know the task, such as the words of its texts."""

    def inform(self, info: TaskInfo) -> None:
        """Take what the task says about its samples; called once, before anything else."""
        ...


class Perturbation(Protocol):
    """The perturbation generator: moves a view's x to another legal point."""

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with a new x, detached from any graph; leave model and gradients unchanged."""
        ...

    def cost(self, target: Cost) -> Cost:
        """Return how many forwards and backwards per sample one call makes during training.

        Return `Cost.unknown()` if that depends on the data.

        Args:
            target: cost of one call of the method's label map.
        """
        ...


@runtime_checkable
class Stating(Protocol):
    """A part that states what its options leave open, such as the text of a file.

    It may be a model, a perturbation or a vicinity.
    """

    def facts(self) -> Mapping[str, Any]:
        """Return plain JSON values, which are stored with the result and identify the evaluation.

        Those of a model may have "notes", sentences for the reader.
        """
        ...


class Measurement(Protocol):
    """What an evaluation measures of each sample in a row of its own, besides attacks.

    The call is within `step.attack_mode()`: the model is in eval mode, its parameters are frozen, and outputs
    of `step.forward` are not kept.
    """

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> Mapping[str, Tensor]:
        """Return named numbers of each sample, (N,) each; NaN for samples that have none.

        Random numbers are drawn from generators that are seeded with `step.seed` and the sample's index: the
        numbers of a sample do not depend on its batch. A name that starts with "_" is not reported.

        Args:
            step: the step of the batch; `step.forward` is the model.
            view: the clean samples.
            vicinity: the threat model.

        Raises:
            Refused: nothing can be measured with this model, task or threat model.
        """
        ...


@runtime_checkable
class Certificate(Protocol):
    """A measurement that proves for each sample a radius within which no input is classified wrongly.

    It returns the radius as `CERTIFIED_RADIUS`, -1 where the prediction is wrong, or nothing can be said. The
    radius holds for all inputs in the ball up to float rounding, as `vicinity.contains` tells it. The row
    shows the share of samples whose radius is at least the threat model's, as a lower bound.

    Attributes:
        norm: norm of the radius, as a vicinity's.
        radii: further radii at which the certified accuracy is measured.
        confidence: probability that what it says of one sample is true; 1 for a proof.
        about: the model that it is about, if that is not the evaluated one; "" otherwise.
    """

    norm: float
    radii: Sequence[float]
    confidence: float
    about: str

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> Mapping[str, Tensor]:
        """Return the radii, float64 (N,), as `CERTIFIED_RADIUS`, and whatever else it measures."""
        ...


CERTIFIED_RADIUS = "certified radius"
"""Name under which a certificate returns its radii."""


@runtime_checkable
class PortionedMeasurement(Protocol):
    """A measurement that takes long for each sample: an evaluation records its progress more often.

    Attributes:
        portion: largest number of samples of one call.
    """

    portion: int


@runtime_checkable
class DoubtingMeasurement(Protocol):
    """A measurement whose numbers mean little for some models; the result says so."""

    def doubts(self, trained: Mapping[str, Any] | None, measures: Mapping[str, Measure]) -> Sequence[str]:
        """Return sentences about a row; none for one that is as it should be.

        Args:
            trained: table of the method that trained the model, as in its recipe, and under "wrapper" those
                of the runs that the wrapper around it names; None if it is not known.
            measures: the measures of the row.
        """
        ...


class LabelMap(Protocol):
    """h: maps a view to the targets of its loss."""

    def __call__(self, step: Step, view: View) -> Any:
        """Return targets, for classification (N, K) rows that sum to 1 or int64 (N,)."""
        ...


class OutputMap(Protocol):
    """g∘f: maps a view to the model's outputs."""

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
    """A slot with parameters or memory of its own, in whatever method it is used."""

    def setup(self, model: nn.Module, task: Task, state: MethodState) -> Sequence[ParamGroup]:
        """Register parameters and buffers with the method's state, and return the groups to train.

        Called once, after the method's own setup, with the global generator seeded for it.
        """
        ...


@runtime_checkable
class SelfTrained(Protocol):
    """A model that learns by itself, without gradients: an nn.Module with `fit`, such as boosted trees.

    An epoch of training calls `fit` once, with all samples of the epoch. Optimizer, schedule and attacks
    are not used. The component declares `traits=self_trained()`, and a recipe that requests them is
    refused. The learned state may have any size: torch's `get_extra_state` and `set_extra_state` put it
    into the state dict.
    """

    def fit(self, x: Tensor, y: Tensor, seed: int) -> None:
        """Discard the learned state, and learn to lower the cross entropy −Σ_k ỹ_k · log softmax(f(x̃))_k.

        Args:
            x: virtual samples (N, …) of an epoch.
            y: their labels, int64 (N,), or rows (N, K) that sum to 1.
            seed: seed of all randomness; the same samples and seed produce the same model.

        Raises:
            Refused: the model cannot learn from these labels.
        """
        ...


@runtime_checkable
class KnownElsewhere(Protocol):
    """A network whose weights are published under other names, too, which a file may hold."""

    def names_elsewhere(self) -> Mapping[str, str]:
        """Return the name of each layer with tensors in the published definition, by its name here."""
        ...


@runtime_checkable
class AimingPerturbation(Protocol):
    """An attack with a goal of its own, such as an output to force, instead of making samples wrong.

    The goal is stated before the attack, and from the clean samples alone. The task's `score` reads the
    goal from the view's info; a sample is correct as long as the goal is not reached. The row starts with
    all samples, whether or not they are correct when clean.
    """

    def aim(self, step: Step, view: View) -> Mapping[str, Any]:
        """Return the goal of each sample, for the view's info; its tensors have N rows."""
        ...


class Schedule(Protocol):
    """A learning-rate schedule."""

    def __call__(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate at a (fractional) epoch of a run of `epochs` epochs."""
        ...


class Rate(NamedTuple):
    """State the learning rate and the momentum of an update.

    Attributes:
        factor: factor of every learning rate.
        momentum: momentum, or β₁ of Adam and its relatives; None to leave it as the recipe sets it.
    """

    factor: float
    momentum: float | None = None


@runtime_checkable
class UpdateSchedule(Protocol):
    """A schedule that counts updates, or that also sets the momentum."""

    def update(self, progress: Progress, settings: Mapping[str, Any]) -> Rate:
        """Return the factor of the learning rate, and the momentum, of an update.

        The result depends on the arguments alone: a resumed run asks only for the updates that it makes.

        Args:
            progress: position in the training run.
            settings: settings of the recipe's optimizer: "lr", "momentum", "betas" and the like.

        Raises:
            Refused: the schedule does not fit the optimizer.
        """
        ...


def rate_at(schedule: Schedule | UpdateSchedule, progress: Progress, settings: Mapping[str, Any]) -> Rate:
    """Return the rate of an update, from either kind of schedule; see `UpdateSchedule.update`."""
    if isinstance(schedule, UpdateSchedule):
        return schedule.update(progress, settings)
    return Rate(schedule(progress.moment, progress.epochs))


class Augmentation(Protocol):
    """A random change of training inputs that keeps their labels."""

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return changed inputs, in the shape, type and range of x, which stays unchanged.

        Args:
            x: inputs (N, …) of a training batch, on its device.
            seeds: a seed for each sample. A sample's change depends on the sample and its seed alone, so it
                is the same in any batch, on any process and after a resume.

        Raises:
            Refused: the inputs cannot be changed.
        """
        ...
