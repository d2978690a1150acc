"""The values that flow through the loop. Importing this module does not import torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Batch:
    """Hold some samples of a task.

    Attributes:
        x: inputs, for images float32 (N, C, H, W) in [0, 1]; else whatever the task says.
        y: labels, for classification int64 (N,), or float (N, K) rows that sum to 1.
        index: int64 (N,) on the CPU or the device: stable sample ids within the split.
        info: what a vicinity wants the slots to know of its samples; its tensors have N rows.
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
        y: the labels that came with the samples.
        role: "clean", "adv", or what the method calls it; output maps and losses may switch on it.
        origin: the inputs that the radius is measured from.
        index: stable sample ids, as in Batch.
        weight: factor of this view in the loss: a number, or a tensor (N,).
        radius: allowed distance from origin: None for the vicinity's own, or a tensor (N,).
        info: what a method wants its own slots to know, for example {"eps": Tensor}, or what came with
            the batch.
    """

    x: Any
    y: Any
    role: str
    origin: Any
    index: Tensor
    weight: float | Tensor = 1.0
    radius: Tensor | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch, role: str = "clean", **changes: Any) -> View:
        """Make the view of an unperturbed batch."""
        own = {"x": batch.x, "y": batch.y, "origin": batch.x, "index": batch.index, "info": batch.info}
        return cls(**{**own, "role": role, **changes})

    def replace(self, **changes: Any) -> View:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def rows(self, keep: Tensor) -> View:
        """Return the view of some rows: a boolean (N,) or an int64 tensor of positions."""
        values = {f.name: take(getattr(self, f.name), keep) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **values)

    def __len__(self) -> int:
        return len(self.index)


def take(tree: Any, keep: Tensor) -> Any:
    """Select rows of every tensor in a tree of tensors, mappings, lists, tuples and named tuples.

    Tensors of no dimension, numbers and strings stay as they are.
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
        name: for reports and for methods that do different things in different passes.
        update: names of the parameter groups that this pass updates.
        input_grad: the views' x require grad, and after_backward may read `view.x.grad`.
    """

    name: str = "main"
    update: frozenset[str] = frozenset({"model"})
    input_grad: bool = False


@dataclass(frozen=True)
class ParamGroup:
    """Name some parameters and say how they are optimised.

    Attributes:
        name: unique within the method; passes refer to it.
        params: the parameters.
        lr: learning rate; None for that of the recipe. The schedule scales both.
        maximize: gradient ascent instead of descent.
        always: every pass updates this group, unless the method's passes name it somewhere; for the
            groups of a slot that may stand in any method.
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
        """Return the cost of what stops when the data says so."""
        return cls(math.nan, math.nan)

    @property
    def known(self) -> bool:
        """Tell whether the cost does not depend on the data."""
        return not math.isnan(self.forwards + self.backwards)

    def __add__(self, other: tuple[Any, ...]) -> Cost:
        return Cost(self.forwards + other[0], self.backwards + other[1])


@dataclass(frozen=True)
class Progress:
    """Tell where training is. All counts start at 0.

    Attributes:
        epoch, epochs: current and total epochs.
        batch, batches: current batch of the epoch, and batches in an epoch.
        update, updates: optimiser updates done, and all that the run will make.
    """

    epoch: int = 0
    epochs: int = 1
    batch: int = 0
    batches: int = 1
    update: int = 0
    updates: int = 1


@dataclass(frozen=True)
class Feed:
    """Say which batches of a split are wanted, in which order, and for which process.

    Attributes:
        epoch: reshuffles and re-augments.
        batch_size: rows of a global batch, over all processes.
        seed: of the run.
        shuffle: random order (training) or stored order (evaluation).
        augment: apply the task's training augmentation.
        rank, world: this process gets rows rank, rank + world, … of each global batch.
        skip: batches of this epoch that are already done.
        samples: use only this many samples, the first of the stored order; None for all.
        device: where batches go.
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


@dataclass(frozen=True)
class TaskInfo:
    """Describe a task to models and methods.

    Attributes:
        sizes: samples in each split.
        shape: of one input, for images (C, H, W); None when inputs have no fixed shape.
        classes: number of classes; None when the task is no classification.
        class_names: their names, if any.
        mean, std: per channel, of the training inputs, for the model's normalisation layer.
    """

    sizes: Mapping[Split, int]
    shape: tuple[int, ...] | None = None
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class RunInfo:
    """Tell observers which run this is: plain values only.

    Attributes:
        name: of the recipe.
        folder: of the run.
        method, task, model: names of the components; "" for the task's own model.
        epochs: that the run will have.
        resumed_at_epoch: whole epochs that were done when the run was resumed; None for a new run.
        observers: names of the plugins that were asked to observe it, besides those that always do.
    """

    name: str
    folder: str
    method: str
    task: str
    model: str
    epochs: int
    resumed_at_epoch: int | None = None
    observers: tuple[str, ...] = ()


@dataclass(frozen=True)
class EpochReport:
    """Report an epoch: plain numbers only.

    Attributes:
        epoch: from 0.
        train: means over the training samples of the epoch: "loss", accuracy by role, and what the
            method logs.
        validation: "clean" and "robust" accuracy in [0, 1]; "loss" of the clean samples if checkpoints
            are selected by it; what else the task measures, under the attack if that is run on all samples.
            Empty when not measured.
        lr: learning rate at the end of the epoch.
        seconds: wall time of the epoch so far as this process measured it.
        best: this epoch's weights are the best so far.
    """

    epoch: int
    train: Mapping[str, float]
    validation: Mapping[str, float]
    lr: float
    seconds: float
    best: bool


@dataclass(frozen=True)
class Measure:
    """Report the mean of a number over samples, or what a task makes of all samples together.

    Attributes:
        mean: over the samples that have the number.
        low, high: its 95 % confidence interval, for samples drawn independently of one another.
        count: samples that have the number.
    """

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class AttackResult:
    """Report one row of an evaluation: an attack, a distribution shift, or both.

    Attributes:
        name: label of the row; "clean" for no attack.
        options: the attack's resolved options.
        accuracy: share of all samples that are right after this row and those before it in its chain;
            NaN when it was skipped.
        broken: samples that this row, and none before it in its chain, broke.
        attempted: samples that it was run on.
        rejected: results thrown away because they left the vicinity.
        forwards, backwards: passes spent, per sample of the whole split.
        seconds: wall time.
        threat: the vicinity, for example {"use": "linf", "eps": 0.1}; empty for none.
        shift: the distribution shift that came first; empty for none.
        chain: rows of one chain run on what the rows before left right; "" for a row of its own.
        skipped: why the row was not run; "" when it was.
        distance: median distance of the examples that broke a sample: {"linf": …, "l2": …}.
        right: for each sample, whether it is right after this row; empty when it was skipped.
        measures: means over the samples that it was run on, of what else the task measures.
        example: what became of one sample, as the task tells it: of those that the row broke, or else of
            all, the one of the lowest index; "" where the task tells nothing.
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


@dataclass(frozen=True)
class Result:
    """Report an evaluation.

    Attributes:
        split, samples: what was evaluated.
        threat: the vicinity's name and options, for example {"use": "linf", "eps": 0.1}.
        attacks: in the order they were run, "clean" first.
        meta: versions, recipe hash, device, model, training cost, wall time, summaries.
    """

    split: str
    samples: int
    threat: Mapping[str, Any]
    attacks: tuple[AttackResult, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
