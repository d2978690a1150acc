"""Run updates by replaying graphs of them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...core.replaying.state import change, other_draws, state_of
from ...core.types import Pass, Progress
from ...devices.graphs import WARM_UP, WARM_UP_SEVERAL, Graph, Graphs, Uncapturable, short
from ...errors import ends_program, out_of_memory
from ...plugin.culprit import UNKNOWN, culprit
from .inputs import StaticBatch, layout_of
from .probes import Changing, NotedProgress
from .update import Between, Outcome, Update, at_once

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ...core.calling.meter import Meter
    from ...core.state import PerSample
    from ..optim import Optimizers

# Graphs that are kept at most, and updates without any after which this is told.
_GRAPHS, _PATIENCE = 8, 50


class Compute(Protocol):
    """Computes an update; see `Loop.compute`."""

    def __call__(self, update: Update, watched: bool = True, between: Between = at_once) -> Outcome:
        """Compute it."""
        ...


@dataclass(frozen=True)
class Whole:
    """Hold what an update works on besides its batch.

    Attributes:
        compute: computes an update.
        parts: what may hold state: model and method, by name.
        optimizers: the optimizers.
        memories: the method's per-sample memories.
        meter: counts forwards and backwards.
        device: the device.
        agreed: returns whether a flag is set on every process; None for a single process.
    """

    compute: Compute
    parts: Mapping[str, Any]
    optimizers: Optimizers
    memories: Sequence[PerSample]
    meter: Meter
    device: torch.device
    agreed: Callable[[bool], bool] | None = None


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
        written: the indices that it wrote to each memory.
    """

    graph: Graph
    batch: StaticBatch
    outcome: Outcome
    read: Mapping[str, int]
    state: Mapping[str, Hashable]
    forwards: int
    backwards: int
    written: Sequence[list[Tensor]]


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
    Optimizers with numbers or state in Python make their step between two parts of the graph.

    The first updates, the first and the last of an epoch, and batches of other sizes run as they are
    written. All results are the same as without graphs. Of several processes, all replay an update or none,
    since their graphs hold what they exchange: they agree before and after a capture.

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
        self._warm_up = WARM_UP if whole.agreed is None else WARM_UP_SEVERAL
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
        optimizers = self._whole.optimizers
        numbers = optimizers.numbers() if optimizers.in_graphs else None
        key = (update.pass_, update.share, layout_of(update.batch), numbers)
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
        if seen.count < self._warm_up:
            return self._whole.compute(update)
        before, draws = self._state(), other_draws()
        with self._graphs.observed() as waits:
            outcome = self._whole.compute(update, between=self._graphs.unobserved)
        seen.state = self._state()
        seen.waits, seen.changed = waits, change(before, seen.state) or change(draws, other_draws())
        return outcome

    def _inspected(self, update: Update) -> Outcome:
        """Run an update as it is written, and drop the graphs of a state that is not there any more."""
        outcome = self._whole.compute(update)
        known = [seen for seen in self._seen.values() if seen.state is not None and not seen.refused]
        if known:
            now = self._state()
            states = [seen.state for seen in known] + [found.state for found in self._captured.values()]
            if not self._agreed(all(state is None or change(state, now) is None for state in states)):
                self._captured.clear()
                for seen in known:
                    seen.count, seen.state = self._warm_up - 1, None
        return outcome

    def _capture(self, update: Update, key: Hashable, seen: _Seen) -> _Captured | None:
        """Return the graph of an update, or None if it is too early, or if there can be none."""
        if key != seen.key or seen.count < self._warm_up or seen.state is None:
            return None
        refused: str | None = None
        found: _Captured | None = None
        meter, memories = self._whole.meter, self._whole.memories
        passed = meter.forwards, meter.backwards
        written = [memory.swap_writes([]) for memory in memories]
        try:
            if self._agreed_to(seen):
                found = self._made(update, passed)
        except Exception as error:
            if ends_program(error):
                raise
            refused = reason_for(error)
        finally:
            meter.forwards, meter.backwards = passed
            for memory, before in zip(memories, written, strict=True):
                memory.swap_writes(before)
        if not self._agreed(found is not None):
            self._refuse(seen, refused or "another process cannot capture them", update.pass_)
            return None
        assert found is not None
        while len(self._captured) >= _GRAPHS:
            del self._captured[next(iter(self._captured))]
        seen.futile = 0
        self._captured[key] = found
        return found

    def _agreed(self, own: bool) -> bool:
        return own if self._whole.agreed is None else self._whole.agreed(own)

    def _agreed_to(self, seen: _Seen) -> bool:
        """Return whether every process can try to capture; if this one cannot, raise the reason.

        Raises:
            Uncapturable: this process cannot.
        """
        reasons = list(seen.waits)
        if seen.changed is not None:
            reasons.append(f"{seen.changed} changes in every update, outside the device's own tensors")
        if seen.state is not None and (moved := change(seen.state, self._state())):
            reasons.append(f"{moved} changes between updates, outside the device's own tensors")
        every = self._agreed(not reasons)
        if reasons:
            raise Uncapturable(reasons[0])
        return every

    def _made(self, update: Update, passed: tuple[int, int]) -> _Captured:
        """Capture an update, after as many forwards and backwards of the meter.

        Raises:
            Exception: it cannot be captured.
        """
        meter, progress = self._whole.meter, NotedProgress(update.progress)
        state, batch = self._state(), StaticBatch(update.batch)
        frozen = dataclasses.replace(update, batch=batch.batch, progress=progress, seed=Changing("step.seed"))
        graph, outcome = self._graphs.capture(
            lambda: self._whole.compute(frozen, watched=False, between=self._between())
        )
        counted = meter.forwards - passed[0], meter.backwards - passed[1]
        written = [memory.swap_writes([]) for memory in self._whole.memories]
        read = progress.read()
        if moving := sorted({"batch", "update"} & read.keys()):
            raise Uncapturable(f"progress.{moving[0]} is read, which changes from update to update")
        if moved := change(state, self._state()):
            raise Uncapturable(f"{moved} changed while the update was captured")
        return _Captured(graph, batch, outcome, read, state, *counted, written)

    def _between(self) -> Between:
        """Return what calls work between two parts of a graph, on the gradients that the parts compute."""
        known: list[tuple[nn.Parameter, Tensor | None]] = []

        def between(work: Callable[[], None]) -> None:
            first = not known
            if first:
                known.extend((each, each.grad) for each in self._whole.optimizers.parameters())

            def call() -> None:
                # An update that ran as it is written has left other ones.
                if first:
                    for parameter, gradient in known:
                        parameter.grad = gradient
                work()

            self._graphs.between(call)

        return between

    def _replay(self, found: _Captured, update: Update) -> Outcome:
        found.batch.fill(update.batch)
        found.graph.replay()
        self.replays += 1
        self._whole.meter.forwards += found.forwards
        self._whole.meter.backwards += found.backwards
        for memory, indices in zip(self._whole.memories, found.written, strict=True):
            memory.swap_writes([*memory.swap_writes([]), *indices])
        # The next replay writes into the same tensor, which is read only later.
        return dataclasses.replace(found.outcome, total=found.outcome.total.clone())

    def _state(self) -> Mapping[str, Hashable]:
        optimizers, parts = self._whole.optimizers, self._whole.parts
        if optimizers.in_graphs:
            parts = {**parts, "optimizer": {name: each.state for name, each in optimizers.by_name.items()}}
        return state_of(parts, self._whole.device)

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


def reason_for(error: Exception) -> str:
    """Return why an update that raised this cannot be captured, and which component is the reason."""
    if out_of_memory(error):
        return "memory does not hold it"
    who = culprit(error)
    return short(error) if who == UNKNOWN else f"{short(error)} (in {who.name})"
