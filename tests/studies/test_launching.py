"""Jobs that the local launcher carries out side by side, with processes that pretend."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from robustplug.builtin import LocalOptions
from robustplug.core.reporting import Reporter, Silent
from robustplug.core.types import EpochReport, Progress, RunInfo
from robustplug.errors import Interrupted, RunError
from robustplug.files.reading import Unreadable
from robustplug.studies.following import Hearer, follow
from robustplug.studies.launchers import local, process
from robustplug.studies.launchers.jobs import JobFiles, job_ended, messages_file
from robustplug.studies.launchers.local import Local, places
from robustplug.studies.launchers.protocol import JobState, Launcher
from robustplug.studies.messages import LONGEST, Messages, Relay, decode, pass_on
from robustplug.studies.work import Commands, Failure, Job, carry_out

# Each does what its recipe says: the code of the process that stands in for a worker.
PROCESS = """
import json, os, sys, time
from pathlib import Path
from subprocess import PIPE
def say(kind, **values):
    write(json.dumps({"kind": kind, **values}) + "\\n")
def write(text):
    with open(file[:-1], "a") as messages:
        messages.write(text)
def wait_for(name):
    while not Path(job["folder"], name).exists():
        time.sleep(0.01)
for line in sys.stdin:
    job, file = json.loads(Path(line.strip()).read_text()), line.strip() + "l\\n"
    answer = "done"
    exec(job["recipe"]["code"])
    print(answer, flush=True)
    if answer != "done":
        break
"""
MEETS = """
Path(job["folder"], job["recipe"]["own"]).touch()
wait_for(job["recipe"]["other"])
say("attack", name=os.environ.get("CUDA_VISIBLE_DEVICES", ""), done=1, total=os.getpid())
say("done")
"""
GARBAGE = """
write("no message\\n")
write("[" * 9999 + "\\n")
write("x" * 3 * 2**20 + "\\n")
say("attack", name=3, done="1", total=[])
say("failed", reason=3, details=None)
say("done")
write("cut off")
"""
STOPS = "say('warn', message='up')\nsys.stdin.read()\nsay('stopped')\nanswer = 'stopped'"


@pytest.fixture(autouse=True)
def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-S", "-c", PROCESS))


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
    jobs: dict[int, Job],
    launcher: Launcher,
    act: Callable[[], object] = lambda: None,
    going: dict[int, str] | None = None,
) -> tuple[list[tuple[int, str]], dict[int, Failure | None]]:
    notes: list[tuple[int, str]] = []
    ended: dict[int, Failure | None] = {}
    folder = Path(next(iter(jobs.values())).folder)
    files = JobFiles(folder)

    def start(number: int) -> Reporter:
        return Heard(number, notes, act)

    def full(count: int) -> None:
        notes.append((count, "full"))

    hearer = Hearer(lambda _: None, lambda _: True, start, ended.__setitem__, full)
    paths = {number: files.write(str(number), each) for number, each in jobs.items()}
    paths = {number: path for number, path in paths.items() if number not in (going or {})}
    try:
        follow(launcher, paths, going or {}, lambda number: files.messages(str(number)), hearer)
    except Interrupted as stop:
        notes.append((stop.exit_code, "interrupted"))
    finally:
        launcher.close()
    return notes, ended


def processes(count: int, gpus: Sequence[str] = ()) -> Local:
    launcher = Local(LocalOptions(count), folder=Path(), gpus=False)
    launcher._where = places(count, gpus)
    return launcher


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
    assert local.visible_gpus() == expected


def test_jobs_run_side_by_side_each_in_its_place(tmp_path: Path) -> None:
    """Each waits for a sign of the other: one after the other they would wait for ever."""
    jobs = {1: job(tmp_path, MEETS, own="a", other="b"), 2: job(tmp_path, MEETS, own="b", other="a")}
    jobs[7] = job(tmp_path, MEETS, own="c", other="a")
    notes, ended = run_all(jobs, processes(2, ["0", "1"]))
    assert sorted(notes)[:2] == [(1, "0"), (2, "1")]
    assert len(notes) == 3
    assert ended == {1: None, 2: None, 7: None}


def test_a_process_does_one_job_after_the_other_and_dies_with_one_that_fails(tmp_path: Path) -> None:
    says = "say('warn', message=str(os.getpid()))\n"
    jobs = {0: job(tmp_path, says + "say('done')"), 1: job(tmp_path, says + "say('done')")}
    jobs[2] = job(tmp_path, says + "say('failed', reason='no', details='')\nanswer = 'failed'")
    jobs[3] = job(tmp_path, says + "say('done')")
    notes, ended = run_all(jobs, processes(1))
    numbers = [said for _, said in sorted(notes)]
    assert len({*numbers[:3]}) == 1
    assert numbers[3] != numbers[0]
    assert ended == {0: None, 1: None, 2: Failure("no", ""), 3: None}


def test_what_fails_or_dies_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    jobs = {
        0: job(tmp_path, "say('failed', reason='no memory', details='Traceback …')\nanswer = 'failed'"),
        1: job(tmp_path, "print('out of luck', file=sys.stderr); sys.exit(3)"),
        2: job(tmp_path, "os.kill(os.getpid(), 9)"),
        3: job(tmp_path, GARBAGE),
    }
    notes, ended = run_all(jobs, processes(2))
    (warning,) = [text for number, text in notes if number == 3]
    assert warning.startswith("5 lines of its process were no messages")
    assert "\n" not in warning
    assert ended[0] == Failure("no memory", "Traceback …")
    assert ended[1] is not None
    assert ended[1].reason.startswith("its process ended with exit code 3: out of luck; ")
    assert ended[2] is not None
    assert "killed by signal 9" in ended[2].reason
    assert ended[3] is None


def test_an_interrupt_stops_all_and_starts_no_more(tmp_path: Path) -> None:
    jobs = {number: job(tmp_path, STOPS) for number in range(3)}
    signals = [signal.SIGTERM]  # a second one would kill this process

    def interrupt() -> None:
        while signals:
            signal.raise_signal(signals.pop())

    notes, ended = run_all(jobs, processes(2), interrupt)
    assert notes[-1] == (143, "interrupted")
    assert ended == {}
    assert {number for number, _ in notes[:-1]} <= {0, 1}


def test_a_second_interrupt_kills(tmp_path: Path) -> None:
    deaf = "say('warn', message='up')\nsys.stdin.read()\nsay('warn', message='no')\nwait_for('never')"
    # A shell that starts the tests in the background has Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_all({0: job(tmp_path, deaf)}, processes(1), lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert threading.active_count() < 20


class Queue:
    """Be a launcher whose jobs last: it writes their messages itself, and takes one job at a time."""

    places, lasting, pause = 1, True, 0.01

    def __init__(self, script: dict[str, list[tuple[str, str]]]) -> None:
        self.script, self.taken, self.files = script, list[str](), dict[str, Path]()
        self.closed = False

    def submit(self, jobs: Sequence[Path]) -> Sequence[str]:
        if any(self.script[number] for number in self.taken):
            return []
        self.taken.append(jobs[0].stem)
        self.files[jobs[0].stem] = jobs[0]
        return [jobs[0].stem]

    def states(self, numbers: Iterable[str]) -> dict[str, JobState]:
        found = {}
        for number in numbers:
            state, text = self.script[number].pop(0) if self.script.get(number) else ("ended", "")
            if text:
                with messages_file(self.files[number]).open("a") as file:
                    file.write(text + "\n")
            found[number] = JobState(state, "node lost" if number == "3" else "")  # type: ignore[arg-type]
        return found

    def cancel(self, numbers: Sequence[str]) -> None:
        raise AssertionError("jobs that last are not cancelled")

    def close(self) -> None:
        self.closed = True


WARN = json.dumps({"kind": "warn", "message": "hello"})
DONE, STOPPED = (json.dumps({"kind": kind}) for kind in ("done", "stopped"))


def test_a_queue_that_is_full_is_waited_for_and_what_is_queued_again_goes_on(tmp_path: Path) -> None:
    script = {
        "0": [("queued", ""), ("running", WARN), ("ended", DONE)],
        "1": [("running", WARN), ("queued", STOPPED), ("running", WARN), ("ended", DONE)],
        "2": [("running", WARN), ("ended", STOPPED)],
        "3": [("running", WARN)],
    }
    launcher = Queue(script)
    notes, ended = run_all({number: job(tmp_path, "") for number in range(4)}, launcher)
    assert notes == [(3, "full"), (0, "hello"), (1, "hello"), (1, "hello"), (2, "hello"), (3, "hello")]
    assert (ended[0], ended[1]) == (None, None)
    assert ended[2] == Failure("was stopped: the same command goes on from its checkpoint", "")
    assert ended[3] == Failure("node lost; the same command goes on from its checkpoint", "")
    assert launcher.closed


def test_an_interrupt_leaves_what_lasts(tmp_path: Path) -> None:
    script = {"0": [("running", WARN)] + [("running", "")] * 99, "1": [("running", "")]}
    notes, ended = run_all(
        {number: job(tmp_path, "") for number in range(2)},
        Queue(script),
        lambda: signal.raise_signal(signal.SIGTERM),
    )
    assert notes[-1] == (143, "interrupted")
    assert ended == {}


def test_what_was_submitted_before_is_followed_and_not_submitted_again(tmp_path: Path) -> None:
    launcher = Queue({"0": [("running", WARN), ("ended", DONE)]})
    launcher.files["0"] = tmp_path / "jobs" / "0.json"
    notes, ended = run_all({0: job(tmp_path, "")}, launcher, going={0: "0"})
    assert (notes, ended, launcher.taken) == ([(0, "hello")], {0: None}, [])


def test_where_jobs_were_submitted_is_noted_and_damaged_lines_are_left_out(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    files.write("a", job(tmp_path, ""))
    files.note({"use": "slurm"}, [("a", "1_0"), ("b", "1_1")])
    with (files.folder / "submitted.jsonl").open("a") as file:
        file.write('{"run": "c", "number": 3}\nnothing\n')
    files.note({"use": "slurm", "gpus": 1}, [("a", "2")])
    found = files.submitted()
    assert {name: each.number for name, each in found.items()} == {"a": "2", "b": "1_1"}
    assert found["a"].launcher == {"use": "slurm", "gpus": 1}


def test_messages_are_read_once_and_a_line_that_is_being_written_later(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    messages = Messages(file)
    assert list(messages.read()) == []
    file.write_text(WARN + "\n" + DONE[:5])
    assert len(list(messages.read())) == 1
    assert messages.ended is None
    file.write_text(WARN + "\n" + DONE + "\n")
    assert len(list(messages.read())) == 1
    assert messages.ended is not None
    assert job_ended(tmp_path / "a.json")
    file.write_text(WARN + "\n" + DONE + "\n\n" + WARN + "\n")
    assert len(list(messages.read())) == 1
    assert (messages.ended, messages.malformed) == (None, 0)
    assert not job_ended(tmp_path / "a.json")


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


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with file.open("wb") as lines:
        lines.truncate(64 * 2**20)
    messages = Messages(file)
    tracemalloc.start()
    assert list(messages.read()) == []
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()
    assert messages.first_malformed == f"is longer than {LONGEST} bytes"


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
        {"directory": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_worker_takes_only_a_job(change: dict[str, Any], tmp_path: Path) -> None:
    body = {**asdict(job(tmp_path, "")), **change}
    with pytest.raises(Unreadable):
        Job.parse(json.dumps(body).encode())


def test_a_worker_that_gets_no_job_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"folder": 3}')
    command = [sys.executable, "-m", "robustplug.worker"]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE) as worker:
        assert worker.stdin
        assert worker.stdout
        assert worker.stderr
        # The input stays open: a worker whose input ends while it is at work stops.
        worker.stdin.write(f"{file}\n".encode())
        worker.stdin.flush()
        assert (worker.wait(60), worker.stdout.read()) == (1, b"failed\n")
        assert b"Traceback" not in worker.stderr.read()
    (failed,) = Messages(messages_file(file)).read()
    assert "is not as it was written" in str(failed)


def test_a_job_does_what_is_asked_and_no_more(tmp_path: Path) -> None:
    calls: list[str] = []

    def note(name: str, error: Exception | None = None) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> None:
            calls.append(name)
            if error:
                raise error

        return call

    both = Job({}, str(tmp_path), False, False, "x.toml", True, "cpu")
    parts: list[str] = []
    commands = Commands(note("t"), note("e"), note("a"))
    assert carry_out(both, commands, Silent(), finish=parts.append) is None
    assert (calls, parts) == (["e", "a"], ["suite", "audit"])
    assert carry_out(both, commands, Silent(), done=["suite"]) is None
    assert calls.pop() == "a"
    assert Job.parse(json.dumps(asdict(both)).encode()) == both
    failed = carry_out(both, Commands(note("t"), note("e", RunError("full")), note("a")), Silent())
    assert failed is not None
    assert (failed.reason, calls[2:]) == ("full", ["e"])
    failed = carry_out(both, Commands(note("t"), note("e", ZeroDivisionError("x")), note("a")), Silent())
    assert failed is not None
    assert failed.reason == "ZeroDivisionError: x"
    assert "Traceback" in failed.details


class SlowToEnd:
    """A worker that does everything at once, and takes its time to end."""

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def do(self, job: Path) -> str:
        return "done"

    def end(self, patience: float | None = None) -> int:
        time.sleep(0.5)
        return 0


def test_a_job_that_comes_while_a_place_is_given_up_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustplug.studies.launchers.local.WorkerProcess", SlowToEnd)
    launcher = processes(2)
    try:
        for name in ("first", "second"):
            (number,) = launcher.submit([Path(name)])
            end = time.monotonic() + 10
            while launcher.states([number])[number].name != "ended":
                assert time.monotonic() < end, f"the {name} job waits for ever"
                time.sleep(0.05)
    finally:
        launcher.close()


def test_the_newest_submission_of_a_run_counts_and_half_a_line_hides_none(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    files.folder.mkdir()
    files.note({"use": "here"}, [("a", "1"), ("b", "2")])
    with files.journal.open("a") as journal:
        journal.write('{"run": "c"')
    files.note({"use": "there"}, [("a", "3")])
    known = files.submitted()
    assert [(run, each.number) for run, each in known.items()] == [("b", "2"), ("a", "3")]
