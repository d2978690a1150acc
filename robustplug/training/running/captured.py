"""Run updates by replaying graphs of them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...core.replaying.state import change, other_draws, state_of
from ...core.types import Pass, Progress
from ...devices.graphs import WARM_UP, Graph, Graphs, Uncapturable, short
from ...errors import ends_program, out_of_memory
from ...plugin.culprit import UNKNOWN, culprit
from .inputs import StaticBatch, layout_of
from .probes import Changing, NotedProgress
from .update import Outcome, Update

if TYPE_CHECKING:
    import torch

    from ...core.calling.meter import Meter

# Graphs that are kept at most, and updates without any after which this is told.
_GRAPHS, _PATIENCE = 8, 50


class Compute(Protocol):
    """Computes an update; see `Loop.compute`."""

    def __call__(self, update: Update, watched: bool = True) -> Outcome:
        """Compute it."""
        ...


@dataclass(frozen=True)
class Whole:
    """Hold what an update works on besides its batch.

    Attributes:
        compute: computes an update.
        parts: what may hold state: model, method and optimizers' state, by name.
        numbers: returns the numbers that the optimizers take from Python.
        meter: counts forwards and backwards.
        device: the device.
    """

    compute: Compute
    parts: Mapping[str, Any]
    numbers: Callable[[], Hashable]
    meter: Meter
    device: torch.device


@dataclass
class _Captured:
    """Hold a graph of an update.

    Attributes:
        graph: the graph.
        batch: the tensors that it reads its batch from.
        outcome: the tensors that it writes its outcome to.
        read: the numbers of the progress that the update had read, by name.
        state: the state that the update had found.
        forwards, backwards: rows that the update counted.
    """

    graph: Graph
    batch: StaticBatch
    outcome: Outcome
    read: Mapping[str, int]
    state: Mapping[str, Hashable]
    forwards: int
    backwards: int


@dataclass
class _Seen:
    """Count the updates of a pass.

    Attributes:
        key: the kind of the last update.
        count: updates of this kind in a row.
        futile: updates since the last graph, or since the start.
        refused: whether the pass is not captured any more.
        waits: where the last update waited for the device.
        changed: where the last update changed state that a graph cannot change.
        state: the state after it.
    """

    key: Hashable = None
    count: int = 0
    futile: int = 0
    refused: bool = False
    waits: list[str] = field(default_factory=list)
    changed: str | None = None
    state: Mapping[str, Hashable] | None = None


class Captured:
    """Run updates by replaying graphs of them, and those that have no graph as they are written.

    A graph repeats the work of the device with other inputs, but not the Python that led to it. So it
    stands for those updates alone in which Python would do the same: those of the same pass, of batches of
    the same layout, with the same numbers of the optimizers, and with the same of the progress as far as
    it was read. An update that reads the number of the batch or of the update, or whose components change
    their state outside the device, has no such others: its pass is not captured, which is told once.

    The first updates, the first and the last of an epoch, and batches of other sizes run as they are
    written. All results are the same as without graphs.

    Args:
        whole: what an update works on.
        graphs: what captures.
        tell: called with a sentence if a pass cannot be captured.
        never: reason why nothing can be captured; None if it can be tried.

    Attributes:
        replays: number of updates that were replayed.
    """

    def __init__(
        self, whole: Whole, graphs: Graphs, tell: Callable[[str], None], never: str | None = None
    ) -> None:
        self._whole, self._graphs, self._tell, self._never = whole, graphs, tell, never
        self._captured: dict[Hashable, _Captured] = {}
        self._seen: dict[Pass, _Seen] = {}
        self._told: set[str] = set()
        self.replays = 0

    @contextlib.contextmanager
    def prepare(self) -> Iterator[None]:
        """Run the updates of a block on the stream of the captures."""
        with self._graphs.stream():
            yield

    def run(self, update: Update) -> Outcome:
        """Replay the graph of an update, make it first, or run the update as it is written."""
        seen = self._seen.setdefault(update.pass_, _Seen())
        if self._never is not None:
            self._refuse(seen, self._never)
        if seen.refused:
            return self._whole.compute(update)
        if update.inspected or update.last:
            return self._inspected(update)
        key = (update.pass_, update.share, layout_of(update.batch), self._whole.numbers())
        found = self._captured.get(key)
        if found is None or not reads_the_same(found.read, update.progress):
            self._captured.pop(key, None)
            found = self._capture(update, key, seen)
        return self._eager(update, key, seen) if found is None else self._replay(found, update)

    def _eager(self, update: Update, key: Hashable, seen: _Seen) -> Outcome:
        """Run an update as it is written, and note what a graph of it would miss."""
        seen.count = seen.count + 1 if key == seen.key else 1
        seen.key, seen.futile = key, seen.futile + 1
        if seen.futile == _PATIENCE:
            self._say(update.pass_, "layouts of batches, or numbers of the optimizer, change all the time")
        if seen.count < WARM_UP:
            return self._whole.compute(update)
        before, draws = self._state(), other_draws()
        with self._graphs.observed() as waits:
            outcome = self._whole.compute(update)
        seen.state = self._state()
        seen.waits, seen.changed = waits, change(before, seen.state) or change(draws, other_draws())
        return outcome

    def _inspected(self, update: Update) -> Outcome:
        """Run an update as it is written, and drop the graphs of a state that is not there any more."""
        outcome = self._whole.compute(update)
        known = [seen for seen in self._seen.values() if seen.state is not None and not seen.refused]
        if known:
            now = self._state()
            for seen in known:
                if seen.state is not None and change(seen.state, now) is not None:
                    seen.count, seen.state = WARM_UP - 1, None
            stale = [key for key, found in self._captured.items() if change(found.state, now) is not None]
            for key in stale:
                del self._captured[key]
        return outcome

    def _capture(self, update: Update, key: Hashable, seen: _Seen) -> _Captured | None:
        """Return the graph of an update, or None if it is too early, or if there can be none."""
        if key != seen.key or seen.count < WARM_UP or seen.state is None:
            return None
        meter, progress = self._whole.meter, NotedProgress(update.progress)
        passed = meter.forwards, meter.backwards
        try:
            if seen.waits:
                raise Uncapturable(seen.waits[0])
            if seen.changed is not None:
                raise Uncapturable(
                    f"{seen.changed} changes in every update, outside the device's own tensors"
                )
            state, batch = self._state(), StaticBatch(update.batch)
            if moved := change(seen.state, state):
                raise Uncapturable(f"{moved} changes between updates, outside the device's own tensors")
            frozen = dataclasses.replace(
                update, batch=batch.batch, progress=progress, seed=Changing("step.seed")
            )
            graph, outcome = self._graphs.capture(lambda: self._whole.compute(frozen, watched=False))
            counted = meter.forwards - passed[0], meter.backwards - passed[1]
            read = progress.read()
            if moving := sorted({"batch", "update"} & read.keys()):
                raise Uncapturable(f"progress.{moving[0]} is read, which changes from update to update")
            if moved := change(state, self._state()):
                raise Uncapturable(f"{moved} changed while the update was captured")
        except Exception as error:
            if ends_program(error):
                raise
            reason, who = short(error), culprit(error)
            if out_of_memory(error):
                reason = "memory does not hold it"
            elif who != UNKNOWN:
                reason = f"{reason} (in {who.name})"
            self._refuse(seen, reason, update.pass_)
            return None
        finally:
            meter.forwards, meter.backwards = passed
        while len(self._captured) >= _GRAPHS:
            del self._captured[next(iter(self._captured))]
        seen.futile = 0
        self._captured[key] = _Captured(graph, batch, outcome, read, state, *counted)
        return self._captured[key]

    def _replay(self, found: _Captured, update: Update) -> Outcome:
        found.batch.fill(update.batch)
        found.graph.replay()
        self.replays += 1
        self._whole.meter.forwards += found.forwards
        self._whole.meter.backwards += found.backwards
        # The next replay writes into the same tensor, which is read only later.
        return dataclasses.replace(found.outcome, total=found.outcome.total.clone())

    def _state(self) -> Mapping[str, Hashable]:
        return state_of(self._whole.parts, self._whole.device)

    def _refuse(self, seen: _Seen, reason: str, pass_: Pass | None = None) -> None:
        seen.refused = True
        self._say(pass_, reason)

    def _say(self, pass_: Pass | None, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            which = "updates" if pass_ is None or pass_ == Pass() else f'updates of pass "{pass_.name}"'
            self._tell(f"{which} run without a CUDA graph, with the same results but slower: {reason}")


def reads_the_same(read: Mapping[str, int], progress: Progress) -> bool:
    """Return whether a position in a run has the numbers that were read from another one."""
    return all(getattr(progress, name) == value for name, value in read.items())
