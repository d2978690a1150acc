"""The values that flow through training and evaluation. Importing this module does not import torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .measures import Certified, Measure

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..text.records import TextRecord

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Batch:
    """Hold samples of a task.

    Attributes:
        x: inputs, for images float32 (N, C, H, W) in [0, 1]; otherwise as the task defines them.
        y: labels, for classification int64 (N,), or float (N, K) rows that sum to 1.
        index: int64 (N,) on the CPU or the device: stable sample ids within the split.
        info: what a task or a vicinity states about its samples; its tensors have N rows. "scored",
            bool (N,), marks those that count in the accuracies of training; all without it.
    """

    x: Any
    y: Any
    index: Tensor
    info: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class View:
    """Hold one set of virtual samples that a loss is computed on.

    Attributes:
        x: the (perturbed) inputs.
        y: the labels of the samples.
        role: "clean", "adv", or another name that the method chooses, under which reports show the view.
        origin: the inputs that the radius is measured from.
        index: stable sample ids, as in Batch.
        weight: factor in the loss: a number, a tensor (N,), or a function of step and view that returns one.
        radius: allowed distance from origin: None for the vicinity's own, or a tensor (N,).
        info: what a method passes to its own slots, for example {"eps": Tensor}, or the info of the batch.
        treat_as: what the slots take the view for, such as "clean"; "" for its role.
        scored: whether its accuracy is reported.
        penalty: function of step and view that returns (N,), in the place of the loss; None for the slots.
    """

    x: Any
    y: Any
    role: str
    origin: Any
    index: Tensor
    weight: float | Tensor | Callable[[Any, View], Tensor] = 1.0
    radius: Tensor | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    treat_as: str = ""
    scored: bool = True
    penalty: Callable[[Any, View], Tensor] | None = None

    @property
    def kind(self) -> str:
        """Return what the slots take the view for."""
        return self.treat_as or self.role

    @classmethod
    def of(cls, batch: Batch, role: str = "clean", **changes: Any) -> View:
        """Return the view of an unperturbed batch."""
        own = {"x": batch.x, "y": batch.y, "origin": batch.x, "index": batch.index, "info": batch.info}
        return cls(**{**own, "role": role, **changes})

    def replace(self, **changes: Any) -> View:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def at_origin(self) -> View:
        """Return the clean view of the same samples, at their origins."""
        return self.replace(x=self.origin, role="clean", treat_as="")

    def rows(self, keep: Tensor) -> View:
        """Return the view of some rows, given as a boolean (N,) or an int64 tensor of positions."""
        values = {f.name: take(getattr(self, f.name), keep) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **values)

    def __len__(self) -> int:
        return len(self.index)


def take(tree: Any, keep: Tensor | slice) -> Any:
    """Select rows of every tensor in a tree of tensors, mappings, lists, tuples and named tuples.

    Tensors without dimensions, numbers and strings stay unchanged. A slice selects without copying.
    """
    if hasattr(tree, "ndim") and hasattr(tree, "device"):
        return tree[keep] if tree.ndim else tree
    if isinstance(tree, Mapping):
        return {key: take(value, keep) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        parts = [take(value, keep) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


@dataclass(frozen=True)
class Pass:
    """Describe one optimiser update.

    Attributes:
        name: name in reports, and for methods that do different things in different passes.
        update: names of the parameter groups that this pass updates.
        input_grad: whether the views' x require grad, so that after_backward may read `view.x.grad`.
    """

    name: str = "main"
    update: frozenset[str] = frozenset({"model"})
    input_grad: bool = False


@dataclass(frozen=True)
class ParamGroup:
    """Name some parameters and define how they are optimised.

    Attributes:
        name: unique name within the method; passes refer to it.
        params: the parameters.
        lr: learning rate; None for that of the recipe. The schedule scales both.
        maximize: whether to use gradient ascent instead of descent.
        always: whether every pass updates this group, unless one of the method's passes names it.
        optimizer: a torch optimizer class or function of (params, lr=…, maximize=…) instead of the
            recipe's.
    """

    name: str
    params: Sequence[torch.nn.Parameter]
    lr: float | None = None
    maximize: bool = False
    always: bool = False
    optimizer: Callable[..., torch.optim.Optimizer] | None = None


class Cost(NamedTuple):
    """Count forward and backward passes per sample; NaN where that depends on the data."""

    forwards: float
    backwards: float

    @classmethod
    def unknown(cls) -> Cost:
        """Return the cost of an algorithm whose stopping point depends on the data."""
        return cls(math.nan, math.nan)

    @property
    def known(self) -> bool:
        """Return whether the cost is independent of the data."""
        return not math.isnan(self.forwards + self.backwards)

    def __add__(self, other: tuple[Any, ...]) -> Cost:
        return Cost(self.forwards + other[0], self.backwards + other[1])


@dataclass(frozen=True)
class Progress:
    """Describe the position in a training run. All counts start at 0.

    Attributes:
        epoch, epochs: current and total epochs.
        batch, batches: current batch of the epoch, and batches in an epoch.
        update, updates: optimiser updates done, and optimiser updates of the whole run.
    """

    epoch: int = 0
    epochs: int = 1
    batch: int = 0
    batches: int = 1
    update: int = 0
    updates: int = 1

    @property
    def moment(self) -> float:
        """Return the position in epochs; every update advances it."""
        passes = max(1, self.updates // (self.epochs * self.batches))
        return self.epoch + (self.batch + self.update % passes / passes) / self.batches


@dataclass(frozen=True)
class Feed:
    """Select the batches of a split, their order, and the process that they are for.

    Attributes:
        epoch: number of the epoch; each epoch has its own order and augmentation.
        batch_size: rows of a global batch, over all processes.
        seed: seed of the run.
        shuffle: random order (training) or stored order (evaluation).
        augment: whether to apply the task's training augmentation.
        rank, world: this process gets rows rank, rank + world, … of each global batch.
        skip: number of batches of this epoch that are already done.
        samples: number of samples, taken from the start of the stored order; None for all.
        device: device of the batches.
        order: positions of the samples of a shuffled epoch, in order, int64 (n,) on the CPU; a sample may
            occur more than once. None for a random permutation of all.
    """

    epoch: int = 0
    batch_size: int = 128
    seed: int = 0
    shuffle: bool = False
    augment: bool = False
    rank: int = 0
    world: int = 1
    skip: int = 0
    samples: int | None = None
    device: str = "cpu"
    order: Tensor | None = field(default=None, compare=False)


@dataclass(frozen=True)
class TaskInfo:
    """Describe a task to models and methods.

    Attributes:
        sizes: number of samples in each split; of "train", number of samples in an epoch.
        shape: shape of one input, for images (C, H, W); None when inputs have no fixed shape.
        classes, class_names: number of classes, None when the task is not a classification; their names.
        output_size: number of values that a model returns for an input, if that is not the number of classes.
        mean, std: those of the training inputs per channel, for the model's normalisation layer.
        bounds: lowest and highest value of an input, numbers or one for each channel or feature; radii are
            in the same units.
        pool: number of different training samples, if an epoch draws its samples from more of them than it
            has; their indices are 0 to pool − 1. None if an epoch holds each sample once.
    """

    sizes: Mapping[Split, int]
    shape: tuple[int, ...] | None = None
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    bounds: tuple[float | Sequence[float], float | Sequence[float]] = (0.0, 1.0)
    pool: int | None = None
    output_size: int | None = None

    @property
    def outputs(self) -> int | None:
        """Return the number of values that a model returns for an input; None if it is not fixed."""
        return self.classes if self.output_size is None else self.output_size

    @property
    def places(self) -> Mapping[str, Sequence[int]]:
        """Return the inputs of each column of a table by its name; empty where columns have no names."""
        return {}

    @property
    def training_indices(self) -> int:
        """Return the number of training indices, which is the size of a memory for each training sample."""
        return self.sizes["train"] if self.pool is None else self.pool


@dataclass(frozen=True)
class RunInfo:
    """Identify a run to observers: plain values only.

    Attributes:
        name: name of the recipe.
        folder: the run folder.
        method, task, model: names of the components; "" for the task's own model.
        epochs: number of epochs of the whole run.
        resumed_at_epoch: whole epochs that were done when the run was resumed; None for a new run.
        observers: names of the plugins that were requested as observers, besides those that always observe.
        score: what the share of correct samples is called: "accuracy", or what the task says.
    """

    name: str
    folder: str
    method: str
    task: str
    model: str
    epochs: int
    resumed_at_epoch: int | None = None
    observers: tuple[str, ...] = ()
    score: str = "accuracy"


@dataclass(frozen=True)
class EpochReport:
    """Report an epoch: plain numbers only.

    Attributes:
        epoch: number of the epoch, from 0.
        train: means over the training samples: "loss", "SCORE/ROLE", and what the method logs.
        validation: "clean" and "robust" accuracy in [0, 1], or "SCORE/clean" and "SCORE/robust" where the
            task's score is another; "loss" of the clean samples if checkpoints are selected by it; the task's
            other measures, under the attack if that is run on all samples. Empty when not measured.
        lr: learning rate at the end of the epoch.
        seconds: wall time of the epoch, as far as this process measured it.
        best: whether this epoch's weights are the best so far.
    """

    epoch: int
    train: Mapping[str, float]
    validation: Mapping[str, float]
    lr: float
    seconds: float
    best: bool


@dataclass(frozen=True)
class AttackResult:
    """Report one row of an evaluation: an attack, a distribution shift, or both.

    Attributes:
        name: label of the row; "clean" for no attack.
        options: the attack's resolved options.
        accuracy: share of all samples that the task scores as correct after this row and those before it in
            its chain; NaN when the row was skipped, or is invalid.
        broken: number of samples that this row broke and no row before it in its chain.
        attempted: number of samples that the row was run on.
        rejected: number of results that were discarded because they left the vicinity.
        forwards, backwards: passes spent, per sample of the whole split.
        prepared: forwards spent once, before the first sample, as to train an adversary; part of `forwards`.
        seconds: wall time.
        threat: the vicinity, for example {"use": "linf", "eps": 0.1}; empty for none.
        shift: the distribution shift that is applied before the attack; empty for none.
        chain: name of the chain, whose rows run on what those before left correct; "" for a row of its own.
        skipped: why the row was not run, or is invalid; "" when it was run and is valid.
        distance: median distance of the successful adversarial examples: {"linf": …, "l2": …}.
        right: for each sample, whether it is still correct after this row; empty if skipped or invalid.
        measures: means of the task's and the row's other measures over the samples that the row was run on.
        by_class: for a classification, number of samples of each class that are still correct after this row.
        confusion: for the clean row and the last of each chain, samples by class (rows) and prediction
            (columns), of a broken sample that which broke it. Empty above 200 classes.
        example: outcome of the first sample that the row broke, or else of the first, in the task's words.
        bound: "upper" for an attack, "lower" for a certificate, "none" for measures beside clean accuracy.
        certified: for a certificate, what it says of each sample.
    """

    name: str
    options: Mapping[str, Any]
    accuracy: float
    broken: int
    attempted: int
    rejected: int
    forwards: float
    backwards: float
    seconds: float
    threat: Mapping[str, Any] = field(default_factory=dict)
    shift: Mapping[str, Any] = field(default_factory=dict)
    chain: str = ""
    skipped: str = ""
    distance: Mapping[str, float] = field(default_factory=dict)
    right: tuple[bool, ...] = ()
    measures: Mapping[str, Measure] = field(default_factory=dict)
    example: str = ""
    by_class: tuple[int, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    prepared: int = 0
    bound: Literal["upper", "lower", "none"] = "upper"
    certified: Certified | None = None

    @property
    def invalid(self) -> bool:
        """Return whether the row was run, but too many of its results were discarded for it to count."""
        return bool(self.skipped) and self.rejected > 0


@dataclass(frozen=True)
class Result:
    """Report an evaluation.

    Attributes:
        split, samples: the evaluated split and number of samples.
        threat: the vicinity's name and options, for example {"use": "linf", "eps": 0.1}.
        attacks: rows in the order in which they were run, "clean" first.
        meta: versions, recipe hash, device, model, training cost, wall time, summaries.
        examples: the adversarial examples, an `Examples`, if they were kept; not part of result.json.
        texts: of a task of texts, what each row did to each sample, in order; not part of result.json.
    """

    split: str
    samples: int
    threat: Mapping[str, Any]
    attacks: tuple[AttackResult, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    examples: Any = None
    texts: Mapping[str, Sequence[TextRecord]] = field(default_factory=dict)
