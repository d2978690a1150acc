"""The interface of a task: samples, a score of outputs, and optional further measures and descriptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from ..text.records import TextRecord
    from .measures import Measure, Quantity
    from .types import Batch, Feed, Split, TaskInfo, View


class Task(Protocol):
    """Data with stable sample indices, and a score of outputs.

    `default_model` names a model component for this task.
    """

    default_model: str

    @property
    def info(self) -> TaskInfo:
        """Describe the data; a task may describe more than TaskInfo does."""
        ...

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of one epoch of a split, on `feed.device`; see `index_batches`."""
        ...

    def score(self, view: View, output: Any) -> Tensor:
        """Return for each sample whether the output is correct: bool (N,)."""
        ...


@runtime_checkable
class LabelledTask(Protocol):
    """A task that knows the classes of its samples; others are read once where they are needed."""

    def labels(self, split: Split) -> Tensor:
        """Return the class of each sample of a split, int64 (n,), by its index."""
        ...


@runtime_checkable
class RawTask(Protocol):
    """A task whose batches are completed by work of their device alone, such as augmentation.

    Updates that run as CUDA graphs do that work within them. `batches` must yield what `ready` makes of each
    raw batch.
    """

    def raw_batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of `batches` before that work, with all that was drawn for it in their info.

        Of every field, the tensors have as many rows as the batch, or those of a part of it.
        """
        ...

    def ready(self, batch: Batch) -> Batch:
        """Return a raw batch as `batches` yields it; the host must not wait for the device."""
        ...


@runtime_checkable
class NotedTask(Protocol):
    """A task with notes on its data for the user, such as how many files it skipped."""

    @property
    def notes(self) -> Sequence[str]:
        """Return the notes, a sentence each."""
        ...


def notes_of(task: Task) -> Sequence[str]:
    """Return the notes of a task on its data; most have none."""
    return task.notes if isinstance(task, NotedTask) else ()


@runtime_checkable
class ShowingTask(Protocol):
    """A task that does something to training batches, and shows that it is at work."""

    def mechanism(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return quantities of a training batch, as `Method.mechanism` does of an update."""
        ...


@runtime_checkable
class MeasuringTask(Protocol):
    """A task that measures more than correct and wrong: an evaluation reports the means."""

    def measure(self, view: View, output: Any) -> Mapping[str, Tensor]:
        """Return named numbers of each sample, (N,) each; NaN for samples that have none."""
        ...


@runtime_checkable
class DescribedMeasures(Protocol):
    """A task that says what its measures are: which of them its tables show, and what their intervals are."""

    @property
    def quantities(self) -> Sequence[Quantity]:
        """Describe the measures; those in the tables of results first, in the order of the columns."""
        ...


def quantities_of(task: Task) -> Sequence[Quantity]:
    """Return what a task says of its measures; most say nothing."""
    return task.quantities if isinstance(task, DescribedMeasures) else ()


@runtime_checkable
class NamedScore(Protocol):
    """A task that says what the share of its correct samples is called, where it is no accuracy."""

    score_name: str


def score_name(task: Task) -> str:
    """Return what the share of the correct samples of a task is called in progress and logs.

    It is "accuracy", or what the task says; a task that is judged by other measures and says nothing has a
    "score".
    """
    if isinstance(task, NamedScore):
        return task.score_name
    return "score" if any(quantity.headline for quantity in quantities_of(task)) else "accuracy"


@runtime_checkable
class PoolingTask(Protocol):
    """A task with a measure that is not a mean over samples, such as BLEU or perplexity."""

    def pool(self, values: Mapping[str, Tensor]) -> Mapping[str, Measure]:
        """Return measures of all samples of a row together.

        Args:
            values: results of `measure`, float64 (n,) each, for all samples that the row was run on. A name
                that starts with "_" is for this method alone: its mean is not reported.
        """
        ...


@runtime_checkable
class RecordingTask(Protocol):
    """A task whose samples are texts: an evaluation writes what each attack did to them to files."""

    def records(self, view: View, output: Any) -> Sequence[TextRecord]:
        """Return a record for each sample, or none at all."""
        ...


@runtime_checkable
class TellingTask(Protocol):
    """A task that can describe the outcome of a sample in words, shown for one sample of each row."""

    def tell(self, view: View, output: Any) -> Sequence[str]:
        """Return a text for each sample; it may have several lines."""
        ...
