"""What is asked of torch to capture a CUDA graph, with torch.cuda replaced: this needs and tests no GPU."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from robustplug.devices.graphs import CudaGraphs, Uncapturable, graphs_on, short
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

    def set_sync_debug_mode(self, mode: Any) -> None:
        self.mode = mode


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
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
    assert graph is fake  # type: ignore[comparison-overlap]
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
