"""What is asked of torch to capture a CUDA graph, with torch.cuda replaced: this needs and tests no GPU."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from robustplug.devices.graphs import (
    CudaGraphs,
    Parts,
    Uncapturable,
    _stream_of,
    graphs_on,
    short,
    uncapturable_exchange,
)
from robustplug.devices.processes import Processes
from robustplug.training.running.pending import Pending

SYNC = "called a synchronizing CUDA operation (Triggered internally at CUDAFunctions.cpp:112.)"


class Fake:
    """Stands for torch.cuda: notes the calls, and fails as it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.free, self.peak, self.ends_with = 100, 130, ""
        self.mode: Any = 0
        self.default = torch.Generator().manual_seed(1)

    def wait_stream(self, other: Any) -> None:
        self.calls.append("wait")

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.calls.append("register")

    @contextlib.contextmanager
    def graph(self, graph: Any, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        assert (pool, capture_error_mode) == ("pool", "thread_local")
        self.calls.append("begin")
        try:
            yield
        finally:
            self.calls.append("end")
            if self.ends_with:
                raise RuntimeError(self.ends_with)

    def replay(self) -> None:
        self.calls.append("replay")

    def set_sync_debug_mode(self, mode: Any) -> None:
        self.mode = mode


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    _stream_of.cache_clear()
    replaced = {
        "Stream": lambda device: made,
        "CUDAGraph": lambda: made,
        "graph": made.graph,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device: made,
        "current_device": lambda: 0,
        "default_generators": (made.default,),
        "graph_pool_handle": lambda: "pool",
        "mem_get_info": lambda device: (made.free, 1000),
        "memory_allocated": lambda device: 20,
        "max_memory_allocated": lambda device: made.peak,
        "reset_peak_memory_stats": lambda device: None,
        "get_sync_debug_mode": lambda: made.mode,
        "set_sync_debug_mode": made.set_sync_debug_mode,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return made


@pytest.fixture
def own() -> torch.Generator:
    return torch.Generator().manual_seed(2)


@pytest.fixture
def graphs(fake: Fake, own: torch.Generator) -> CudaGraphs:
    found = graphs_on(torch.device("cuda"), [own])
    assert isinstance(found, CudaGraphs)
    return found


def test_other_devices_have_no_graphs() -> None:
    assert graphs_on(torch.device("cpu"), []) is None
    assert graphs_on(torch.device("mps"), []) is None


def test_a_function_is_captured_with_its_generators_which_stay_as_they_were(
    fake: Fake, graphs: CudaGraphs, own: torch.Generator
) -> None:
    before = own.get_state(), fake.default.get_state()

    def function() -> str:
        torch.rand(2, generator=own)
        torch.rand(2, generator=fake.default)
        return "outcome"

    graph, outcome = graphs.capture(function)
    assert isinstance(graph, Parts)
    assert graph.graphs == [fake]
    assert outcome == "outcome"
    assert fake.calls == ["register", "begin", "end"]
    assert torch.equal(own.get_state(), before[0])
    assert torch.equal(fake.default.get_state(), before[1])


def test_the_first_error_tells_why_a_capture_failed(fake: Fake, graphs: CudaGraphs) -> None:
    fake.ends_with = "operation failed due to a previous error during capture"

    def function() -> None:
        raise ValueError("a row was chosen by a mask")

    with pytest.raises(ValueError, match="a row was chosen by a mask"):
        graphs.capture(function)
    with pytest.raises(Uncapturable, match="operation failed due to a previous error"):
        graphs.capture(lambda: None)
    fake.ends_with = ""
    with pytest.raises(ValueError, match="a row was chosen by a mask"):
        graphs.capture(function)


def test_a_block_is_between_two_waits(fake: Fake, graphs: CudaGraphs) -> None:
    with pytest.raises(KeyError), graphs.stream():
        assert fake.calls == ["wait"]
        raise KeyError
    assert fake.calls == ["wait", "wait"]


def test_work_between_two_parts_of_a_graph_is_called_by_each_replay(fake: Fake, graphs: CudaGraphs) -> None:
    fake.free = 1000

    def function() -> int:
        fake.calls.append("first")
        graphs.between(lambda: fake.calls.append("work"))
        fake.calls.append("second")
        return 7

    graph, outcome = graphs.capture(function)
    assert outcome == 7
    part = ["register", "begin"]
    assert fake.calls == [*part, "first", "end", *part, "second", "end"]
    fake.calls.clear()
    graph.replay()
    graph.replay()
    assert fake.calls == ["replay", "work", "replay"] * 2


@pytest.mark.parametrize("after", [False, True])
def test_an_error_in_a_part_ends_that_part_and_leaves_the_next_capture_alone(
    after: bool, fake: Fake, graphs: CudaGraphs
) -> None:
    fake.free = 1000

    def function() -> None:
        if after:
            graphs.between(lambda: None)
        raise ValueError("a row was chosen by a mask")

    with pytest.raises(ValueError, match="a row was chosen"):
        graphs.capture(function)
    assert fake.calls.count("begin") == fake.calls.count("end") == 1 + after
    fake.calls.clear()
    graph, _ = graphs.capture(lambda: None)
    graph.replay()
    assert fake.calls == ["register", "begin", "end", "replay"]


def test_work_of_an_observed_block_may_wait_unobserved(fake: Fake, graphs: CudaGraphs) -> None:
    modes = []

    def work() -> None:
        modes.append(fake.mode)
        raise KeyError

    with graphs.observed():
        with pytest.raises(KeyError):
            graphs.unobserved(work)
        modes.append(fake.mode)
    assert modes == ["default", "warn"]


def test_what_averages_gradients_in_graphs_is_made_on_their_stream(fake: Fake) -> None:
    accelerator: Any = SimpleNamespace(
        prepare_model=lambda model: fake.calls.append("made"), num_processes=2, device=torch.device("cuda")
    )
    processes = Processes(accelerator)
    processes.wrap(torch.nn.Identity())
    assert fake.calls == ["made"]
    processes.wrap(torch.nn.Identity(), captured=True)
    assert fake.calls[1:] == ["wait", "made", "wait"]


@pytest.mark.parametrize(
    ("device", "backend", "version", "why"),
    [
        ("cuda", "nccl", (2, 9, 6), None),
        ("cuda", "nccl", (2, 27, 3), None),
        ("cuda", "nccl", (2, 8, 4), "what NCCL 2.8.4 exchanges cannot be captured: that needs NCCL 2.9.6"),
        ("cuda", "gloo", (2, 27, 3), "the processes exchange gradients by gloo"),
        ("cpu", "gloo", (), "the processes exchange gradients by gloo"),
    ],
)
def test_graphs_hold_what_nccl_exchanges(
    device: str, backend: str, version: Any, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "get_backend", lambda group: backend)
    monkeypatch.setattr("torch.cuda.nccl.version", lambda: version)
    found = uncapturable_exchange(torch.device(device))
    assert found == why or (why is not None and found is not None and found.startswith(why))


def test_waits_for_the_device_are_noted_and_other_warnings_passed_on(fake: Fake, graphs: CudaGraphs) -> None:
    def block() -> list[str]:
        with graphs.observed() as waits:
            assert fake.mode == "warn"
            warnings.warn(SYNC, UserWarning, stacklevel=1)
            warnings.warn("another", UserWarning, stacklevel=1)
        return waits

    with pytest.warns(UserWarning, match="another") as passed:
        (wait,) = block()
    assert fake.mode == 0
    assert [str(warning.message) for warning in passed] == ["another"]
    assert wait.endswith(" waits for the device")
    assert "test_graphs.py:" in wait


def test_a_graph_must_leave_memory_for_an_update_without_it(fake: Fake, graphs: CudaGraphs) -> None:
    with graphs.observed():
        pass
    with pytest.raises(Uncapturable, match="memory does not hold the graph beside an update without it"):
        graphs.capture(lambda: None)
    fake.free = 110
    assert graphs.capture(lambda: 7)[1] == 7


def test_a_message_is_cut_after_its_first_sentence() -> None:
    assert short(RuntimeError("no compiler was found. Install one.")) == "no compiler was found"
    assert short(RuntimeError("see torch.compile\n for more")) == "see torch.compile for more"
    assert short(KeyError()) == "KeyError"


def test_a_number_is_read_later() -> None:
    assert Pending(torch.tensor(1.5)).read() == 1.5
