"""An update of the training loop as a value, and what runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from ...core.types import Batch, Pass, Progress


# Calls work that a graph of an update cannot hold.
Between = Callable[[Callable[[], None]], None]


def at_once(work: Callable[[], None]) -> None:
    """Call work where it stands."""
    work()


@dataclass(frozen=True)
class Update:
    """Hold what distinguishes an update from the others of its run.

    Attributes:
        batch: this process's rows of the batch.
        pass_: the pass of the method.
        progress: position in the training run.
        share: factor that makes the mean over processes the mean over the global batch.
        seed: seed from which the generators of single samples are derived.
        whole: whether the global batch has as many rows as the recipe states.
        last: whether the batch is the last one of its epoch: then the method is asked for its mechanism.
        inspected: whether the components are watched closely, as in the first update of an epoch.
        parts: number of micro-batches into which the batch is divided.
    """

    batch: Batch
    pass_: Pass
    progress: Progress
    share: float
    seed: Any
    whole: bool = True
    last: bool = False
    inspected: bool = False
    parts: int = 1


@dataclass(frozen=True)
class Outcome:
    """Hold what the loop reads of an update.

    Attributes:
        total: the loss, a scalar without a graph.
        logged: mean of each logged quantity, by name.
        counted: number of rows of the means that are over fewer than all.
    """

    total: Tensor
    logged: Mapping[str, Tensor]
    counted: Mapping[str, Tensor]


class Runner(Protocol):
    """What runs updates; it never changes their results."""

    def prepare(self) -> contextlib.AbstractContextManager[None]:
        """Prepare the model and the device for a block of updates, and restore them afterwards."""
        ...

    def run(self, update: Update) -> Outcome:
        """Run an update; the generators are seeded for it."""
        ...


class Eager:
    """Run each update as it is written.

    Args:
        compute: computes an update.
    """

    def __init__(self, compute: Callable[[Update], Outcome]) -> None:
        self._compute = compute

    def prepare(self) -> contextlib.AbstractContextManager[None]:
        """Change nothing."""
        return contextlib.nullcontext()

    def run(self, update: Update) -> Outcome:
        """Run an update."""
        return self._compute(update)
