"""Run the iterations of attacks on few sizes of batches, and by replaying graphs of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...devices.graphs import WARM_UP, Graph, Graphs, Uncapturable, graphs_on, short
from ...errors import ends_program, out_of_memory
from .rows import buffers, fill, has_rows, layout, padded_size
from .state import Same, change, other_draws, state_of

if TYPE_CHECKING:
    from ..calling.meter import Meter
    from ..step import Step
    from ..types import View

# Graphs that are kept at most; and how deep functions are followed into functions that they close over.
_GRAPHS, _DEPTH = 32, 5


@dataclass
class _Outcome:
    """Hold what an iteration returned.

    Attributes:
        values: its tensors.
        tree: how they are arranged.
        counted: forwards, backwards and values of gradients that it counted for each row.
        lost: of each row, the number of these values that were no finite numbers; 0 for none in all rows.
    """

    values: list[Any]
    tree: Any
    counted: tuple[int, int, int]
    lost: int | Tensor


@dataclass
class _Kind:
    """Hold what is known of iterations of one kind and size.

    Attributes:
        inputs: the tensors that it reads.
        tree: how they are arranged.
        function: the iteration that was captured, kept for the tensors that it refers to.
        count: number of iterations so far.
        graph, outcome: the graph, and the tensors that it writes; None without one.
    """

    inputs: list[Any]
    tree: Any
    function: Any = None
    count: int = 0
    graph: Graph | None = None
    outcome: _Outcome | None = None


@dataclass
class Iterations:
    """Run the iterations of one attack on a GPU.

    A batch is padded to a power of two, or to the rows of a whole batch, so that a handful of sizes serves
    it while its samples drop out; what the padding returns is dropped. Iterations that run as they are
    written are padded, too: kernels depend on the size, and results must not depend on what is captured.
    What cannot be captured is told with the reason, and runs as it is written.

    Args:
        graphs: what captures; None to run all iterations as they are written.
        most: rows of a whole batch.
        tell: called with a sentence on what cannot be captured.

    Attributes:
        replays: number of iterations that were replayed.
    """

    graphs: Graphs | None
    most: int
    tell: Callable[[str], None]
    replays: int = 0
    _kinds: dict[Hashable, _Kind] = field(default_factory=dict)
    _refused: set[CodeType] = field(default_factory=set)

    @contextlib.contextmanager
    def prepare(self) -> Iterator[None]:
        """Run a block of iterations on the stream of the captures, and drop their graphs afterwards."""
        with contextlib.nullcontext() if self.graphs is None else self.graphs.stream():
            try:
                yield
            finally:
                self._kinds.clear()

    def run(self, step: Step, iteration: Callable[..., Any], view: View, state: Sequence[Any]) -> Any:
        """Run an iteration; see `Step.iterate`."""
        rows, fields = len(view), {**vars(view), "info": dict(view.info)}
        leaves, tree = pytree.tree_flatten((fields, tuple(state)))
        if not rows or not isinstance(iteration, FunctionType) or not all(has_rows(e, rows) for e in leaves):
            return iteration(view, *state)
        size = padded_size(rows, self.most)
        inputs = buffers(leaves, size)
        layouts = tuple(layout(leaf) for leaf in inputs)
        key = (_identity(iteration), Same(step.model), torch.is_grad_enabled(), tree, layouts)
        kind = self._kinds.pop(key, None) or _Kind(inputs, tree)
        self._kinds[key] = kind  # the one that was used last comes last
        if len(self._kinds) > _GRAPHS:
            del self._kinds[next(iter(self._kinds))]
        fill(kind.inputs, leaves, rows)
        outcome = self._outcome(self.graphs, step, iteration, view, kind)
        _count(step.meter, outcome, rows)
        return pytree.tree_unflatten([_own(value, rows) for value in outcome.values], outcome.tree)

    def _outcome(
        self, graphs: Graphs | None, step: Step, iteration: FunctionType, view: View, kind: _Kind
    ) -> _Outcome:
        """Run an iteration, or replay it, on the buffers of its kind."""
        kind.count += 1

        def compute() -> _Outcome:
            return _computed(step, iteration, view, kind)

        if graphs is None or iteration.__code__ in self._refused or kind.count < WARM_UP:
            return compute()
        if kind.count == WARM_UP:
            return self._observed(graphs, step, iteration, compute)
        if kind.graph is None:
            self._capture(graphs, step, iteration, kind, compute)
        if kind.graph is None or kind.outcome is None:
            return compute()
        kind.graph.replay()
        self.replays += 1
        return kind.outcome

    def _observed(
        self, graphs: Graphs, step: Step, iteration: FunctionType, compute: Callable[[], _Outcome]
    ) -> _Outcome:
        """Run an iteration as it is written, and note what a graph of it would miss."""
        before = self._state(step)
        with graphs.observed() as waits:
            outcome = compute()
        if moved := change(before, self._state(step)):
            waits.append(f"{moved} changes in every iteration, outside the device's own tensors")
        if waits:
            self._refuse(iteration, waits[0])
        return outcome

    def _capture(
        self,
        graphs: Graphs,
        step: Step,
        iteration: FunctionType,
        kind: _Kind,
        compute: Callable[[], _Outcome],
    ) -> None:
        before = self._state(step)
        try:
            graph, outcome = graphs.capture(compute)
            if moved := change(before, self._state(step)):
                raise Uncapturable(f"{moved} changed while the iteration was captured")
        except Exception as error:
            if ends_program(error):
                raise
            reason = "memory does not hold it" if out_of_memory(error) else short(error)
            self._refuse(iteration, reason)
        else:
            kind.function, kind.graph, kind.outcome = iteration, graph, outcome

    def _state(self, step: Step) -> dict[str, Hashable]:
        """Describe what no graph repeats: state of the model outside the device, and draws of the attack."""
        parts = {"model": step.model, "loss": step.method.loss}
        found = state_of(parts, step.rng.device) | other_draws()
        return found | {"the generator of the attack": step.rng.get_state().numpy().tobytes()}

    def _refuse(self, iteration: FunctionType, reason: str) -> None:
        self._refused.add(iteration.__code__)
        self.tell(f"attacks run without CUDA graphs, with the same results but slower: {reason}")


def iterations_on(
    device: torch.device, capture: bool, most: int, tell: Callable[[str], None]
) -> Iterations | None:
    """Return what runs iterations on a device; None where they just run, on batches as they are.

    Args:
        device: the device.
        capture: whether to capture them.
        most, tell: see `Iterations`.
    """
    if device.type != "cuda":
        return None
    return Iterations(graphs_on(device, []) if capture else None, most, tell)


def _computed(step: Step, iteration: FunctionType, view: View, kind: _Kind) -> _Outcome:
    """Run an iteration on the buffers of its kind, with a meter of its own."""
    fields, state = pytree.tree_unflatten(kind.inputs, kind.tree)
    meter, step.meter = step.meter, type(step.meter)(by_row=True)
    try:
        result = iteration(view.replace(**fields), *state)
        own = step.meter
    finally:
        step.meter = meter
    values, tree = pytree.tree_flatten(result)
    size = len(fields["index"])
    return _Outcome(values, tree, (own.forwards // size, own.backwards // size, own.slopes // size), own.lost)


def _count(meter: Meter, outcome: _Outcome, rows: int) -> None:
    """Count what an iteration spent on the rows that are no padding."""
    forwards, backwards, slopes = outcome.counted
    meter.forwards += rows * forwards
    meter.backwards += rows * backwards
    meter.slopes += rows * slopes
    if isinstance(outcome.lost, Tensor):
        meter.lost = meter.lost + outcome.lost[:rows].sum()


def _own(value: Any, rows: int) -> Any:
    """Return the rows of a result that are no padding, in memory of their own."""
    if not isinstance(value, Tensor):
        return value
    return value[:rows].clone() if value.dim() else value.clone()


def _identity(value: Any, depth: int = 0) -> Hashable:
    """Tell functions apart by their code and by what they close over: tensors, plain values and functions.

    All other things that an attack's functions close over stay the same during an attack, or its results do
    not depend on them.
    """
    if isinstance(value, FunctionType):
        cells = [*(cell.cell_contents for cell in value.__closure__ or ()), *(value.__defaults__ or ())]
        inside = [_identity(each, depth + 1) for each in cells] if depth < _DEPTH else []
        return (value.__code__, *inside)
    if isinstance(value, Tensor):
        return Same(value)
    return (type(value), value) if value is None or isinstance(value, bool | int | float | str) else None
