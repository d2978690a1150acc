"""Checkpoints that are written behind the training: the same bits, no step waits, nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import robustplug
from robustplug.errors import Interrupted, RunError
from robustplug.runs import checkpoint
from robustplug.training.loop import Loop
from robustplug.training.running.behind import Behind
from robustplug.training.session import Session

from .runs import newest, outcome, tiny

TABLES: dict[str, Any] = {"evaluate": {"samples": 8}, "validate": {"samples": 8}}
BEHIND = {"background_checkpoints": True, "checkpoint_batches": 1}


def recipe(**train: Any) -> dict[str, Any]:
    return tiny("erm", train={"epochs": 1, **train}, **TABLES)


def test_updates_go_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    went_on, save, update, threads = threading.Event(), checkpoint.save, Loop._update, list[str]()

    def slow(*args: Any) -> None:
        threads.append(threading.current_thread().name)
        if len(threads) == 1:
            assert went_on.wait(60), "no update was made meanwhile"
        save(*args)

    def noted(self: Loop, *args: Any) -> None:
        update(self, *args)
        if self.update > 1:
            went_on.set()

    robustplug.train(recipe(checkpoint_batches=1), out=tmp_path / "before")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", slow)
        patch.setattr(Loop, "_update", noted)
        robustplug.train(recipe(**BEHIND), out=tmp_path / "behind")
    assert set(threads) == {"checkpoint"}
    before, behind = (outcome(tmp_path / name) for name in ("before", "behind"))
    for part in ("name", "checkpoint", "model", "metrics"):
        assert before[part] == behind[part]


def test_a_checkpoint_that_cannot_be_written_ends_the_run_at_the_next_one(tmp_path: Path) -> None:
    save, count = checkpoint.save, 0

    def full(*args: Any) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(28, "No space left on device")
        save(*args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RunError, match="No space left"):
        patch.setattr(checkpoint, "save", full)
        robustplug.train(recipe(**BEHIND), out=tmp_path / "run")
    assert newest(tmp_path / "run") == "epoch-00000-batch-0000001"
    robustplug.train(resume=tmp_path / "run")
    robustplug.train(recipe(**BEHIND), out=tmp_path / "whole")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_who_is_told_to_stop_has_written_its_checkpoint(tmp_path: Path) -> None:
    update = Loop._update

    def update_and_stop(self: Loop, *args: Any) -> None:
        update(self, *args)
        if self.update == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Loop, "_update", update_and_stop)
        robustplug.train(recipe(**BEHIND), out=tmp_path / "run")
    assert newest(tmp_path / "run") == "epoch-00000-batch-0000002"
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoint"]


def test_one_checkpoint_is_in_memory_at_a_time(tmp_path: Path) -> None:
    save, capture, going = checkpoint.save, Session.capture, list[bool]()

    def slow(*args: Any) -> None:
        time.sleep(0.2)
        save(*args)

    def noted(self: Session) -> Any:
        going.append(any(thread.name == "checkpoint" for thread in threading.enumerate()))
        return capture(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", slow)
        patch.setattr(Session, "capture", noted)
        robustplug.train(recipe(**BEHIND), out=tmp_path / "run")
    assert len(going) == 4
    assert not any(going)


def test_work_is_done_in_order_and_a_failure_is_said_once() -> None:
    behind, done = Behind(), list[int]()
    for number in range(3):
        behind.start(lambda number=number: done.append(number))  # type: ignore[misc]
    behind.start(lambda: [][0])
    with pytest.raises(IndexError):
        behind.start(lambda: done.append(3))
    behind.wait()
    assert done == [0, 1, 2]
