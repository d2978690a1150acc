"""Graphs of a CUDA device: what was launched once is launched again, in one call."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

Result = TypeVar("Result")
# Calls of one kind before one is captured: they make the workspaces of libraries and what models, and
# optimizers, keep after their first calls.
WARM_UP = 3
# The same with DistributedDataParallel, which times its first ten updates; and the NCCL that it needs.
WARM_UP_SEVERAL, LEAST_NCCL = 11, (2, 9, 6)
_SYNC = "called a synchronizing CUDA operation"


class Uncapturable(Exception):
    """A function cannot be captured; the message states why."""


class Graph(Protocol):
    """A captured function."""

    def replay(self) -> None:
        """Do again what the function did, on the same tensors, with the present state of the generators."""
        ...


class Graphs(Protocol):
    """What captures functions on a device."""

    def stream(self) -> contextlib.AbstractContextManager[None]:
        """Run a block where functions are captured: what comes before and after it waits for it."""
        ...

    def observed(self) -> contextlib.AbstractContextManager[list[str]]:
        """Observe a block; the list has, after the block, a sentence on each wait for the device."""
        ...

    def unobserved(self, work: Callable[[], None]) -> None:
        """Call work within an observed block, without observing it."""
        ...

    def capture(self, function: Callable[[], Result]) -> tuple[Graph, Result]:
        """Capture a function: its Python runs, but neither tensors nor generators change.

        Returns:
            The graph, and what the function returned, whose tensors get their values by a replay.

        Raises:
            Exception: the function raised it, or cannot be captured.
        """
        ...

    def between(self, work: Callable[[], None]) -> None:
        """Call `work` in every replay here, between two parts of the graph, and not now.

        Called by a function while it is captured.
        """
        ...


@dataclass
class Parts:
    """A captured function in parts, between which each replay calls Python.

    Attributes:
        graphs: the graphs of the parts.
        between: what is called after each of them but the last one.
    """

    graphs: list[Graph] = field(default_factory=list)
    between: list[Callable[[], None]] = field(default_factory=list)

    def replay(self) -> None:
        """Replay the parts in turn."""
        for graph, work in itertools.zip_longest(self.graphs, self.between):
            graph.replay()
            if work is not None:
                work()


@functools.cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def capturing_on(device: torch.device) -> Iterator[None]:
    """Run a block on the stream on which functions are captured; what comes before and after it waits for it.

    Autograd ties parameters to the stream on which they are first used, as DistributedDataParallel does when
    it is made: so both happen here.
    """
    own, outside = _stream_of(device), torch.cuda.current_stream(device)
    own.wait_stream(outside)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        outside.wait_stream(own)


@dataclass
class CudaGraphs:
    """Capture CUDA graphs, which share one pool of memory.

    Attributes:
        device: the device.
        generators: the generators that captured functions draw from, besides the global one.
    """

    device: torch.device
    generators: Sequence[torch.Generator]

    def __post_init__(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._needed = 0
        self._parts, self._open = Parts(), contextlib.ExitStack()

    def stream(self) -> contextlib.AbstractContextManager[None]:
        """Run a block on the stream of the captures."""
        return capturing_on(self.device)

    @contextlib.contextmanager
    def observed(self) -> Iterator[list[str]]:
        """Note the waits for the device in a block, and the memory that it needs."""
        found: list[str] = []
        mode, held = torch.cuda.get_sync_debug_mode(), torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield found
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        self._needed = max(self._needed, torch.cuda.max_memory_allocated(self.device) - held)
        for warning in seen:
            if _SYNC in str(warning.message):
                found.append(f"{warning.filename}:{warning.lineno} waits for the device")
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno, source=warning.source
                )

    def unobserved(self, work: Callable[[], None]) -> None:
        """Let work wait for the device within an observed block."""
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    def capture(self, function: Callable[[], Result]) -> tuple[Graph, Result]:
        """Capture a function as a CUDA graph.

        Raises:
            Uncapturable: it cannot be captured, or memory does not suffice to also run it without the graph.
        """
        parts = self._parts = Parts()
        own = torch.cuda.current_device() if self.device.index is None else self.device.index
        every = [*self.generators, torch.cuda.default_generators[own]]
        before = [generator.get_state() for generator in every]
        reasons: list[BaseException] = []

        def noted() -> Result:
            try:
                return function()
            except BaseException as error:
                reasons.append(error)
                raise

        try:
            with self._open:
                self._open.enter_context(self._part(parts))
                result = noted()
        except RuntimeError as error:
            # A capture that failed raises again when it ends; the first error is the one that tells why.
            raise (reasons[0] if reasons else Uncapturable(short(error))) from error
        finally:
            for generator, state in zip(every, before, strict=True):
                generator.set_state(state)
        free, _ = torch.cuda.mem_get_info(self.device)
        if free < self._needed:
            raise Uncapturable("memory does not hold the graph beside an update without it")
        return parts, result

    def between(self, work: Callable[[], None]) -> None:
        """End the present graph, and go on in another one, before which each replay calls `work`."""
        parts = self._parts
        self._open.close()
        parts.between.append(work)
        self._open.enter_context(self._part(parts))

    @contextlib.contextmanager
    def _part(self, parts: Parts) -> Iterator[None]:
        """Capture a block as the next part. All parts share the pool, as they are replayed in this order."""
        graph: Any = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        # Other threads may prepare batches meanwhile.
        stream = _stream_of(self.device)
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            yield
        parts.graphs.append(graph)


def short(error: BaseException) -> str:
    """Return the first sentence of an error's message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.split(r"(?<=[a-z)])\. ", text, maxsplit=1)[0].rstrip(".")[:200]


def graphs_on(device: torch.device, generators: Sequence[torch.Generator]) -> Graphs | None:
    """Return what captures functions on a device; None if nothing does."""
    return CudaGraphs(device, generators) if device.type == "cuda" else None


def uncapturable_exchange(device: torch.device) -> str | None:
    """Return why what several processes exchange cannot be captured; None if it can.

    The requirements are those of torch's notes on CUDA graphs with DistributedDataParallel.
    """
    backend = torch.distributed.get_backend(torch.distributed.group.WORLD)
    if device.type != "cuda" or backend != "nccl":
        return f"the processes exchange gradients by {backend}, and only NCCL's operations can be captured"
    version: tuple[int, ...] = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    if version < LEAST_NCCL:
        found, needed = (".".join(map(str, each)) for each in (version, LEAST_NCCL))
        return f"what NCCL {found} exchanges cannot be captured: that needs NCCL {needed}"
    return None
