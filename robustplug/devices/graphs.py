"""Graphs of a CUDA device: what was launched once is launched again, in one call."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

Result = TypeVar("Result")
# Calls of one kind before one is captured: they make the workspaces of libraries and what models, and
# optimizers, keep after their first calls.
WARM_UP = 3
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

    def capture(self, function: Callable[[], Result]) -> tuple[Graph, Result]:
        """Capture a function: its Python runs, but neither tensors nor generators change.

        Returns:
            The graph, and what the function returned, whose tensors get their values by a replay.

        Raises:
            Exception: the function raised it, or cannot be captured.
        """
        ...


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
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._needed = 0

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Run a block on the stream of the captures, to which autograd ties parameters that it uses there."""
        outside = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(outside)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            outside.wait_stream(self._stream)

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

    def capture(self, function: Callable[[], Result]) -> tuple[Graph, Result]:
        """Capture a function as a CUDA graph.

        Raises:
            Uncapturable: it cannot be captured, or memory does not suffice to also run it without the graph.
        """
        graph: Any = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
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
            # Other threads may prepare batches meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
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
        return graph, result


def short(error: BaseException) -> str:
    """Return the first sentence of an error's message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.split(r"(?<=[a-z)])\. ", text, maxsplit=1)[0].rstrip(".")[:200]


def graphs_on(device: torch.device, generators: Sequence[torch.Generator]) -> Graphs | None:
    """Return what captures functions on a device; None if nothing does."""
    return CudaGraphs(device, generators) if device.type == "cuda" else None
