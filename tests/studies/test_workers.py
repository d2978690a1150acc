"""Runs side by side, with processes that pretend."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from robustplug.studies.workers import places, run_side_by_side

from robustplug.core.reporting import Silent
from robustplug.core.types import EpochReport, Progress, RunInfo
from robustplug.errors import Interrupted, RunError
from robustplug.files.reading import Unreadable
from robustplug.studies import workers
from robustplug.studies.messages import LONGEST, Relay, decode, pass_on, read_messages
from robustplug.studies.work import Commands, Failure, Job, carry_out

# Each does what its recipe says: the code of the process that stands in for a worker.
PROCESS = """
import json, os, sys, time
from pathlib import Path
job = json.loads(sys.stdin.readline())
def say(kind, **values):
    print(json.dumps({"kind": kind, **values}), flush=True)
def wait_for(name):
    while not Path(job["folder"], name).exists():
        time.sleep(0.01)
exec(job["recipe"]["code"])
"""
MEETS = """
Path(job["folder"], job["recipe"]["own"]).touch()
wait_for(job["recipe"]["other"])
say("attack", name=os.environ.get("CUDA_VISIBLE_DEVICES", ""), done=1, total=2)
say("done")
"""
GARBAGE = """
print("no message", flush=True)
print("[" * 9999, flush=True)
print("x" * 3 * 2**20, flush=True)
say("attack", name=3, done="1", total=[])
say("failed", reason=3, details=None)
say("done")
print("cut off", end="")
"""
STOPS = "say('warn', message='up')\nsys.stdin.read()\nsay('stopped')"


@pytest.fixture(autouse=True)
def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-S", "-c", PROCESS))


def job(folder: Path, code: str, **more: str) -> Job:
    return Job({"code": code, **more}, str(folder), True, False, None, False, "cpu")


class Heard(Silent):
    def __init__(self, number: int, notes: list[tuple[int, str]], act: Callable[[], object]) -> None:
        self.number, self.notes, self.act = number, notes, act

    def attack(self, name: str, done: int, total: int) -> None:
        self.notes.append((self.number, name))

    def warn(self, message: str) -> None:
        self.notes.append((self.number, message))
        self.act()


def run_all(
    jobs: dict[int, Job], where: list[dict[str, str]], act: Callable[[], object] = lambda: None
) -> tuple[list[tuple[int, str]], dict[int, Failure | None]]:
    notes: list[tuple[int, str]] = []
    ended: dict[int, Failure | None] = {}
    try:
        run_side_by_side(jobs, where, lambda number: Heard(number, notes, act), ended.__setitem__)
    except Interrupted as stop:
        notes.append((stop.exit_code, "interrupted"))
    return notes, ended


@pytest.mark.parametrize(
    ("processes", "gpus", "expected"),
    [
        (None, [], [{}]),
        (2, [], [{}, {}]),
        (None, ["3", "5"], [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}]),
        (3, ["3", "5"], [{"CUDA_VISIBLE_DEVICES": name} for name in "353"]),
    ],
)
def test_processes_share_the_gpus(processes: int | None, gpus: list[str], expected: Any) -> None:
    assert places(processes, gpus) == expected


@pytest.mark.parametrize(
    ("set_to", "count", "expected"),
    [(None, 2, ["0", "1"]), ("GPU-a, GPU-b,GPU-c", 2, ["GPU-a", "GPU-b"]), ("", 0, [])],
)
def test_gpus_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, set_to: str | None, count: int, expected: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if set_to is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", set_to)
    assert workers.visible_gpus() == expected


def test_jobs_run_side_by_side_each_in_its_place(tmp_path: Path) -> None:
    """Each waits for a sign of the other: one after the other they would wait for ever."""
    jobs = {1: job(tmp_path, MEETS, own="a", other="b"), 2: job(tmp_path, MEETS, own="b", other="a")}
    jobs[7] = job(tmp_path, MEETS, own="c", other="a")
    notes, ended = run_all(jobs, places(None, ["0", "1"]))
    assert sorted(notes[:2]) == [(1, "0"), (2, "1")]
    assert [number for number, _ in notes[2:]] == [7]
    assert ended == {1: None, 2: None, 7: None}


def test_what_fails_or_dies_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    jobs = {
        0: job(tmp_path, "say('failed', reason='no memory', details='Traceback …')"),
        1: job(tmp_path, "print('out of luck', file=sys.stderr); sys.exit(3)"),
        2: job(tmp_path, "os.kill(os.getpid(), 9)"),
        3: job(tmp_path, GARBAGE),
    }
    notes, ended = run_all(jobs, [{}, {}])
    (warning,) = [text for number, text in notes if number == 3]
    assert warning.startswith("5 lines of its process were no messages")
    assert "\n" not in warning
    assert ended[0] == Failure("no memory", "Traceback …")
    assert ended[1] is not None
    assert ended[1].reason == "its process ended with exit code 3: out of luck"
    assert ended[2] is not None
    assert "killed by signal 9" in ended[2].reason
    assert ended[3] is None


def test_an_interrupt_stops_all_and_starts_no_more(tmp_path: Path) -> None:
    jobs = {number: job(tmp_path, STOPS) for number in range(3)}
    signals = [signal.SIGTERM]  # a second one would kill this process

    def interrupt() -> None:
        while signals:
            signal.raise_signal(signals.pop())

    notes, ended = run_all(jobs, [{}, {}], interrupt)
    assert notes[-1] == (143, "interrupted")
    assert ended == {}
    assert {number for number, _ in notes[:-1]} <= {0, 1}


def test_a_second_interrupt_kills(tmp_path: Path) -> None:
    deaf = "say('warn', message='up')\nsys.stdin.read()\nsay('warn', message='no')\nwait_for('never')"
    # A shell that starts the tests in the background has Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_all({0: job(tmp_path, deaf)}, [{}], lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert threading.active_count() < 20


def test_what_a_run_reports_passes_through_unchanged() -> None:
    heard: list[tuple[str, tuple[Any, ...]]] = []

    class Listener:
        def __getattr__(self, name: str) -> Any:
            return lambda *given: heard.append((name, given))

    said: list[tuple[str, tuple[Any, ...]]] = [
        ("begin", (RunInfo("a", "b", "c", "d", "e", 3, 1), Progress(1, 3, 2, 4, 5, 6))),
        ("batch", (Progress(0, 1, 1, 2, 3, 4), {"loss": 0.1})),
        ("epoch", (EpochReport(0, {"loss": float("inf")}, {"clean": 0.3}, 0.1, 2.0, True), 3)),
        ("attack", ("pgd", 1, 2)),
        ("warn", ("\u2028 careful\n",)),
    ]
    lines: list[str] = []
    relay = Relay(lines.append)
    for name, given in said:
        getattr(relay, name)(*given)
    for line in lines:
        assert line.count("\n") == 1
        pass_on(decode(line.encode()), Listener())
    assert heard == said


PROGRESS = {"epoch": 0, "epochs": 1, "batch": 0, "batches": 1, "update": 0, "updates": 1}
RUN: dict[str, Any] = dict.fromkeys(("name", "folder", "method", "task", "model"), "x")
RUN |= {"epochs": 1, "resumed_at_epoch": None, "observers": []}
REPORT = {"epoch": 0, "train": {}, "validation": {}, "lr": 0.1, "seconds": 1.0, "best": True}


def said(kind: Any, **values: Any) -> bytes:
    return json.dumps({"kind": kind, **values}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nothing",
        b"[]",
        b"3",
        b"{}",
        b"\xff\xfe",
        b"[" * 9999,
        said("unknown"),
        said(["done"]),
        said("done", more=1),
        said("warn"),
        said("warn", message=3),
        said("warn", message=None),
        said("failed", reason="x"),
        said("failed", reason="x", details=["y"]),
        said("attack", name="a", done=True, total=1),
        said("attack", name="a", done=-1, total=1),
        said("attack", name="a", done=1, total=10**400),
        said("epoch", report=REPORT, epochs=0),
        said("epoch", report={**REPORT, "epoch": "0"}, epochs=1),
        said("epoch", report={**REPORT, "train": {"loss": "1"}}, epochs=1),
        said("batch", progress=PROGRESS, means={}),
        said("batch", progress=PROGRESS, means={"loss": None}),
        said("batch", progress={**PROGRESS, "batches": 1.5}, means={"loss": 1.0}),
        said("batch", progress={**PROGRESS, "epochs": -1}, means={"loss": 1.0}),
        said("begin", run=RUN, progress={}),
        said("begin", run={**RUN, "observers": "x"}, progress=PROGRESS),
        said("begin", run={**RUN, "folder": 7}, progress=PROGRESS),
    ],
    ids=lambda line: line.decode(errors="replace")[:60],
)
def test_a_line_that_is_no_message_is_not_believed(line: bytes) -> None:
    with pytest.raises(Unreadable) as error:
        decode(line)
    assert "\n" not in str(error.value)


def test_a_line_without_end_takes_no_memory() -> None:
    class Endless(io.RawIOBase):
        """Send 64 MiB without the end of a line, then a message."""

        left = 64

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            part = b"x" * len(buffer) if self.left else b""
            self.left -= self.left and 1
            buffer[: len(part)] = part
            return len(part)

    tracemalloc.start()
    stream = io.BufferedReader(Endless(), 2**20)
    assert [str(each) for each in read_messages(stream)] == [f"is longer than {LONGEST} bytes"]
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


def test_long_texts_are_cut_to_their_ends() -> None:
    lines: list[str] = []
    Relay(lines.append).send("failed", reason="r" * 10**7, details="…" * 10**7 + "the end")
    assert len(lines[0]) < LONGEST
    message: Any = decode(lines[0].encode())
    assert message.details.endswith("…the end")


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": []},
        {"folder": 3},
        {"train": "yes"},
        {"resume": 1},
        {"suite": False},
        {"audit": None},
        {"device": ["cpu"]},
        {"observers": "tensorboard"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_worker_takes_only_a_job(change: dict[str, Any], tmp_path: Path) -> None:
    body = {**asdict(job(tmp_path, "")), **change}
    with pytest.raises(Unreadable):
        Job.parse(json.dumps(body).encode())


def test_a_worker_that_gets_no_job_says_so() -> None:
    command = [sys.executable, "-m", "robustplug.worker"]
    done = subprocess.run(command, input=b'{"folder": 3}\n', capture_output=True, check=True)
    (failed,) = read_messages(io.BytesIO(done.stdout))
    assert "the job that the study gave to its process is not as it was written" in str(failed)
    assert b"Traceback" not in done.stderr


def test_a_job_does_what_is_asked_and_no_more(tmp_path: Path) -> None:
    calls: list[str] = []

    def note(name: str, error: Exception | None = None) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> None:
            calls.append(name)
            if error:
                raise error

        return call

    both = Job({}, str(tmp_path), False, False, "x.toml", True, "cpu")
    assert carry_out(both, Commands(note("t"), note("e"), note("a")), Silent()) is None
    assert calls == ["e", "a"]
    assert Job.parse(json.dumps(asdict(both)).encode()) == both
    failed = carry_out(both, Commands(note("t"), note("e", RunError("full")), note("a")), Silent())
    assert failed is not None
    assert (failed.reason, calls[2:]) == ("full", ["e"])
    failed = carry_out(both, Commands(note("t"), note("e", ZeroDivisionError("x")), note("a")), Silent())
    assert failed is not None
    assert failed.reason == "ZeroDivisionError: x"
    assert "Traceback" in failed.details
