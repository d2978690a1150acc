"""What the parts of an evaluation leave when they fail, and what the same command then finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from robustplug.errors import RunError
from robustplug.evaluation.kept.records import first_line
from robustplug.plugin.component import Component, NoOptions
from robustplug.plugin.host import registered
from robustplug.runs.result_file import write_result
from robustplug.studies.launchers.jobs import messages_file
from robustplug.studies.launchers.protocol import JobState
from robustplug.studies.messages import Relay
from robustplug.studies.parts import Part, parse_job
from robustplug.studies.sharing import share, sharing_of

BODY: dict[str, Any] = {"attacks": []}


class Here:
    """Do each part when it is submitted, as the test says; those that it does not do go on."""

    does: Callable[[Part, Relay], object]
    places, lasting, pause = 2, False, 0.0
    submitted: Sequence[str] = ()
    cancelled: Sequence[str] = ()
    going: Sequence[str] = ()

    def __init__(self, options: NoOptions, *, folder: Path, gpus: bool) -> None:
        self.folder = folder

    def submit(self, jobs: Sequence[Path]) -> Sequence[str]:
        for job in jobs:
            part = parse_job(job.read_bytes())
            assert isinstance(part, Part)
            with messages_file(job).open("a") as lines:
                Here.does(part, Relay(lines.write))
        Here.submitted = [*Here.submitted, *(job.stem for job in jobs)]
        return [job.stem for job in jobs]

    def states(self, numbers: Sequence[str]) -> Mapping[str, JobState]:
        alive = {*Here.going} - {*Here.cancelled}
        return {number: JobState("running" if number in alive else "ended") for number in numbers}

    def cancel(self, numbers: Sequence[str]) -> None:
        Here.cancelled = [*Here.cancelled, *numbers]

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True, params=[False, True], ids=["here", "cluster"])
def lasting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Offer a launcher whose jobs end with the command, or do not."""
    for name in ("submitted", "cancelled", "going"):
        monkeypatch.setattr(Here, name, ())
    monkeypatch.setattr(Here, "lasting", request.param)
    with registered("launcher", Component("here", Here, summary="in this process")):
        yield request.param


def shared(out: Path, does: Callable[[Part, Relay], object], parts: int = 2) -> dict[str, Any]:
    Here.does = staticmethod(does)
    sharing, _ = sharing_of("here", parts, [])
    assert sharing is not None
    return share(sharing, "evaluate", "net.safetensors", {}, {}, out)


def left(out: Path) -> list[str]:
    """Return what lies in the folders of parts."""
    return sorted(
        path.relative_to(each).as_posix() for each in out.glob("*-shares-*") for path in each.rglob("*")
    )


def is_done(part: Part, relay: Relay) -> None:
    write_result(Path(part.folder) / "evaluation.json", BODY)
    relay.send("done")


def fails(part: Part, relay: Relay) -> None:
    """Attack a batch, and fail in a way that nobody expected."""
    note_batches(part, 1)
    relay.send("failed", reason="KeyError: 'x'", details=f"Traceback of part {part.number}")


def note_batches(part: Part, count: int) -> None:
    journal = Path(part.shares) / f"share-{part.number}.journal"
    journal.parent.mkdir(parents=True, exist_ok=True)
    Path(part.folder).mkdir(parents=True, exist_ok=True)
    journal.write_text(first_line("key")[0] + count * "a line\n")


def test_parts_that_were_refused_leave_nothing(tmp_path: Path, lasting: bool) -> None:
    def refused(part: Part, relay: Relay) -> None:
        note_batches(part, 0)
        relay.send("failed", reason="no suite is named x", details="")

    with pytest.raises(RunError, match="no part was done: no suite is named x$"):
        shared(tmp_path, refused)
    # On a cluster, their logs are there.
    assert bool(left(tmp_path)) is lasting
    assert shared(tmp_path, is_done) == BODY
    assert left(tmp_path) == []


def test_what_is_done_and_the_tracebacks_stay_until_the_same_command_succeeds(
    tmp_path: Path, lasting: bool
) -> None:
    with pytest.raises(RunError, match=r"KeyError: 'x'; see .*failure.txt; what is done is kept"):
        shared(tmp_path, fails)
    (folder,) = tmp_path.glob("*-shares-*")
    assert (folder / "failure.txt").read_text() == "Traceback of part 0\n\nTraceback of part 1"
    journals = ["share-0.journal", "share-1.journal"]
    if not lasting:
        assert left(tmp_path) == ["failure.txt", *journals]

    def refused(part: Part, relay: Relay) -> None:
        relay.send("failed", reason="no memory", details="")

    with pytest.raises(RunError, match="no part was done: no memory; what is done is kept"):
        shared(tmp_path, refused)
    assert not (folder / "failure.txt").exists()
    if not lasting:
        assert left(tmp_path) == journals
    assert shared(tmp_path, is_done) == BODY
    assert left(tmp_path) == []


def test_jobs_that_the_launcher_refuses_leave_nothing(tmp_path: Path) -> None:
    def refuses(part: Part, relay: Relay) -> None:
        raise RunError("the cluster has no partition x")

    with pytest.raises(RunError, match="no partition x"):
        shared(tmp_path, refuses)
    assert left(tmp_path) == []


@pytest.mark.parametrize("lasting", [True], indirect=True)
def test_parts_of_the_same_command_with_more_of_them_are_followed_and_ended(tmp_path: Path) -> None:
    def goes_on(part: Part, relay: Relay) -> None:
        Here.going = [*Here.going, f"part-{part.number}"]

    def dies(self: Here, numbers: Sequence[str]) -> Mapping[str, JobState]:
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Here, "states", dies)
        shared(tmp_path, goes_on, 3)
    assert Here.going == ["part-0", "part-1", "part-2"]
    Here.going = ["part-2"]
    assert shared(tmp_path, is_done, 2) == BODY
    assert "part-2" in Here.cancelled
    assert left(tmp_path) == []
