"""Locks belong to a process and a run, also without locks of the file system."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from robustplug.errors import RunError
from robustplug.runs.lock import holder, locked


def test_the_lock_states_its_holder_and_a_second_process_reads_it(tmp_path: Path) -> None:
    with locked(tmp_path) as held:
        held.note("a" * 32)
        found = json.loads((tmp_path / ".lock").read_text())
        assert (found["run"], found["pid"]) == ("a" * 32, os.getpid())
        code = (
            "from pathlib import Path; from robustplug.runs.lock import locked; "
            f"locked(Path({str(tmp_path)!r})).__enter__()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"another process is using {tmp_path}: process {os.getpid()} on host" in done.stderr
    with locked(tmp_path):
        pass


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system without locks."""
    import fcntl

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_file_keeps_others_out(tmp_path: Path) -> None:
    with locked(tmp_path) as held:
        held.check(lambda _: "")
        assert holder(tmp_path / ".lock.exists")["pid"] == os.getpid()
        with pytest.raises(RunError, match=rf"process {os.getpid()} on host .*delete .*\.lock\.exists"):
            locked(tmp_path).__enter__()
    assert not (tmp_path / ".lock.exists").exists()
    with locked(tmp_path):
        pass


def _nothing() -> None:
    pass


@pytest.mark.usefixtures("no_locks")
def test_the_lock_of_a_dead_process_is_taken_over_and_that_of_another_host_is_not(tmp_path: Path) -> None:
    gone = multiprocessing.get_context("fork").Process(target=_nothing)
    gone.start()
    gone.join()
    file = tmp_path / ".lock.exists"
    with locked(tmp_path):
        _, host, *_ = file.read_text().splitlines()
    file.write_text(f"{gone.pid}\n{host}\n")
    with locked(tmp_path):
        pass
    file.write_text("1\nelsewhere\n")
    os.utime(file, (time.time() - 7300,) * 2)
    with pytest.raises(RunError, match=r"process 1 on host elsewhere, for 2 hours; .*delete"):
        locked(tmp_path).__enter__()


@pytest.mark.parametrize("content", ["", "x", "[]", "{}", '{"pid": "x"}', "[" * 3000, "\xff"])
def test_a_damaged_lock_has_no_holder(content: str, tmp_path: Path) -> None:
    for name in (".lock", ".lock.exists"):
        (tmp_path / name).write_text(content)
        assert holder(tmp_path / name) == {}


def test_a_folder_that_was_moved_removed_or_made_anew_is_noticed(tmp_path: Path) -> None:
    def kept(folder: Path) -> str:
        return f"kept in {folder}."

    run, away = tmp_path / "run", tmp_path / "away"
    with locked(run) as held:
        held.check(kept)
        run.rename(away)
        with pytest.raises(RunError, match=f"{run} was moved to {away} while .* kept in {away}"):
            held.check(kept)
        run.mkdir()
        (run / ".lock").touch()
        with pytest.raises(RunError, match=f"was moved to {away}"):
            held.check(kept)
        shutil.rmtree(away)
        with pytest.raises(RunError, match="was removed and made anew while"):
            held.check(kept)
        shutil.rmtree(run)
        with pytest.raises(RunError, match=r"was removed while .* nothing of it is kept"):
            held.check(kept)
    with locked(run) as held:
        (run / ".lock").unlink()
        with pytest.raises(RunError, match=r"the lock .*\.lock was removed while"):
            held.check(kept)
