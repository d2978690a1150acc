"""The device that is measured: its times, its graphs, and the sizes of what runs on it."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from unittest import mock

import torch

Work = Callable[[], Any]


@dataclass(frozen=True)
class Sizes:
    """State what is measured.

    Attributes:
        model: the model, as in a recipe.
        side: height and width of the images.
        batches: rows of a batch, the first of them for all methods.
        steps: steps of PGD.
        warm, runs, rounds: calls before the first time is taken, calls of each time, times of each row.
        epochs, train_batch: of the training of a robust network.
        attacked, block: samples for AutoAttack, and how many of them at a time.
        audited: samples of the audit.
        eps: radius of the robust network.
    """

    model: dict[str, Any] = field(default_factory=lambda: {"use": "resnet18"})
    side: int = 32
    batches: Sequence[int] = (128, 512)
    steps: int = 10
    warm: int = 5
    runs: int = 10
    rounds: int = 3
    epochs: int = 15
    train_batch: int = 128
    attacked: int = 1000
    block: int = 250
    audited: int = 200
    eps: str = "8/255"


TINY = Sizes(
    model={"use": "small-cnn", "width": 2, "hidden": 4},
    side=12,
    batches=(4, 8),
    steps=2,
    warm=1,
    runs=1,
    rounds=1,
    epochs=1,
    train_batch=8,
    attacked=8,
    block=4,
    audited=10,
)


@dataclass(frozen=True)
class Machine:
    """Measure on a GPU; or, in a dry run, call everything once on the CPU.

    Attributes:
        dry: whether it is the CPU, where graphs only call their functions, and nothing is compiled.
        chosen: what is measured; None for the sizes of benchmarks/gpu.py.
    """

    dry: bool
    chosen: Sizes | None = None

    @property
    def device(self) -> torch.device:
        """Return the device."""
        return torch.device("cpu" if self.dry else "cuda")

    @property
    def sizes(self) -> Sizes:
        """Return what is measured."""
        return self.chosen or (TINY if self.dry else Sizes())

    def describe(self) -> dict[str, Any]:
        """Return the device and the versions."""
        found: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda, "device": "cpu"}
        if not self.dry:
            found["device"] = torch.cuda.get_device_name()
            found["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30)
            found["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return found

    def wait(self) -> None:
        """Wait for the device."""
        if not self.dry:
            torch.cuda.synchronize()

    def milliseconds(self, work: Work, left: Callable[[], float]) -> float:
        """Return the median over rounds of the time of a call; fewer rounds where little time is left.

        Args:
            work: makes an update.
            left: seconds that are left.
        """
        sizes, times = self.sizes, list[float]()
        for _ in range(sizes.warm):
            work()
        for number in range(sizes.rounds):
            self.wait()
            began = time.perf_counter()
            for _ in range(sizes.runs):
                work()
            self.wait()
            times.append((time.perf_counter() - began) / sizes.runs)
            if number and left() < 2 * times[-1] * sizes.runs:
                break
        return 1e3 * statistics.median(times)

    def graph(self, work: Work) -> Work:
        """Return a function that replays a CUDA graph of `work`, after three calls on a side stream."""
        if self.dry:
            work()
            return work
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        replay: Work = graph.replay
        return replay

    def fast(self, asked: str) -> str:
        """Return how updates run in the place of `train.fast`: a CPU has no graphs, so it calls them."""
        return {"capture": "off", "compile+capture": "compile"}.get(asked, asked) if self.dry else asked

    def ways(self, fasts: Sequence[str], number: int) -> Sequence[str]:
        """Return the ways in which a method runs; in a dry run, all of them only for the first method."""
        return fasts[:1] if self.dry and number else fasts

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Trace what is compiled in a dry run, but generate no code, which would take minutes."""
        if not self.dry:
            yield
            return
        compile_ = torch.compile

        def traced(model: Any = None, **options: Any) -> Any:
            kept = {name: options[name] for name in ("dynamic", "fullgraph") if name in options}
            return compile_(model, backend="eager", **kept)

        with mock.patch.object(torch, "compile", traced):
            yield

    @contextlib.contextmanager
    def deterministic(self) -> Iterator[None]:
        """Use deterministic algorithms alone for a block; CUBLAS_WORKSPACE_CONFIG is set at the start.

        torch would then also fill memory that nothing reads before it is written, which costs a kernel each.
        """
        cudnn, filling = torch.backends.cudnn, cast(Any, torch.utils.deterministic)
        before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
        filled = filling.fill_uninitialized_memory
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
        filling.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0])
            cudnn.deterministic, cudnn.benchmark = before[1:]
            filling.fill_uninitialized_memory = filled

    def free(self) -> None:
        """Forget compiled code, and give memory that is no longer used back to the GPU."""
        torch.compiler.reset()
        if not self.dry:
            gc.collect()
            torch.cuda.empty_cache()
