from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.errors import RunError
from robustplug.runs import checkpoint
from robustplug.runs.checkpoint import load, load_newest, names, pack, prune, save, unpack
from robustplug.runs.folder import write_atomic, write_json

from ..training.runs import merged, newest, outcome, read_json, tiny
from ..training.test_resume import Killed, kill_after_save

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}


def test_a_checkpoint_reads_back(tmp_path: Path) -> None:
    meta = {"epoch": 1, "score": 0.1, "none": None, "list": [1, "x"]}
    save(tmp_path / "new", "one", TENSORS, meta)
    found = load(tmp_path / "new", "one")
    assert found.name == "one"
    assert found.meta == meta
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[key], value) for key, value in TENSORS.items())
    assert all(found.tensors[key].dtype == value.dtype for key, value in TENSORS.items())


def test_trees_pack_into_json_and_tensors_and_back() -> None:
    tree = {
        "group": {0: {"momentum": torch.ones(2), "step": torch.tensor(3.0)}, 1: {}},
        "rest": [1, "x", None],
    }
    tensors: dict[str, torch.Tensor] = {}
    body = json.loads(json.dumps(pack(tree, "top", tensors)))
    back = unpack(body, tensors)
    assert len(tensors) == 2
    assert list(back["group"]) == [0, 1]
    assert torch.equal(back["group"][0]["momentum"], torch.ones(2))
    assert torch.equal(back["group"][0]["step"], torch.tensor(3.0))
    assert back["group"][1] == {}
    assert back["rest"] == [1, "x", None]
    tree["group"][0]["momentum"] += 1  # type: ignore[index]
    assert torch.equal(tensors["top.group.0.momentum"], torch.ones(2)), "a checkpoint is a copy"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def tamper(path: Path) -> None:
    body = read_json(path)
    body["meta"]["epoch"] = 17
    path.write_text(json.dumps(body))


def other_format(path: Path) -> None:
    path.write_text(json.dumps({**read_json(path), "format": 99}))


DAMAGE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("safetensors", truncate, r"two\.safetensors does not match its checksum"),
    ("safetensors", flip, r"two\.safetensors does not match its checksum"),
    ("safetensors", Path.unlink, "No such file"),
    ("safetensors", lambda path: path.write_bytes(b""), r"two\.safetensors"),
    ("json", truncate, r"two\.json is damaged"),
    ("json", tamper, r"two\.json does not match its checksum"),
    ("json", other_format, "format 99"),
    ("json", lambda path: path.write_bytes(b""), r"two\.json is damaged"),
    ("json", lambda path: path.write_bytes(b"\xff\xfe{}"), r"two\.json is damaged"),
    ("json", lambda path: path.write_text("[1]"), r"two\.json is damaged"),
    ("json", lambda path: path.write_text("{}"), r"two\.json is damaged"),
]


@pytest.mark.parametrize(("suffix", "harm", "why"), DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    suffix: str, harm: Callable[[Path], Any], why: str, tmp_path: Path
) -> None:
    save(tmp_path, "one", TENSORS, {"epoch": 1})
    save(tmp_path, "two", TENSORS, {"epoch": 2})
    harm(tmp_path / f"two.{suffix}")
    with pytest.raises((ValueError, OSError), match=why):
        load(tmp_path, "two")
    found, problems = load_newest(tmp_path)
    assert (found.name, found.meta["epoch"]) == ("one", 1)
    assert len(problems) == 1
    assert "checkpoint two cannot be used" in problems[0]
    harm(tmp_path / f"one.{suffix}")
    with pytest.raises(RunError, match="one cannot be used") as caught:
        load_newest(tmp_path)
    assert "two cannot be used" in str(caught.value)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert names(tmp_path / "nowhere") == []
    with pytest.raises(RunError, match="it contains none"):
        load_newest(tmp_path)


def test_the_two_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for name in "abcde":
        save(tmp_path, name, TENSORS, {})
    prune(tmp_path, {"b"})
    assert names(tmp_path) == ["b", "d", "e"]
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == ["b", "d", "e"]


def test_a_run_keeps_the_two_newest_and_the_best(tmp_path: Path) -> None:
    recipe = tiny(train={"epochs": 4, "checkpoint_batches": 1}, optimizer={"lr": 0.2})
    run = robustplug.train(recipe, out=tmp_path / "run")
    kept = names(tmp_path / "run" / "checkpoints")
    best = run.result.meta["training"]["selected"]
    assert kept == sorted({best, "epoch-00003-batch-0000003", "epoch-00004-batch-0000000"})


class Full:
    """A disk on which no file grows beyond a few bytes once it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.real = False, os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, number: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.real(number)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Full(monkeypatch)
    write_atomic(tmp_path / "file", b"old")
    disk.full = True
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "checkpoints", "one", TENSORS, {})
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_manifest_that_cannot_be_written_takes_its_tensors_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, data: bytes) -> None:
        if path.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(path, data)

    monkeypatch.setattr(checkpoint, "write_atomic", fail)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, "one", TENSORS, {})
    assert list(tmp_path.iterdir()) == []


def test_json_has_null_for_what_is_no_number(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [None, 1.5],
    }


def test_a_full_disk_stops_training_and_names_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("pgd-at", train={"checkpoint_batches": 1})
    robustplug.train(recipe, out=tmp_path / "whole")
    disk, real, saves = Full(monkeypatch), checkpoint.save, []

    def save_until_full(folder: Path, *rest: Any) -> None:
        saves.append(folder)
        disk.full = len(saves) == 6
        real(folder, *rest)

    monkeypatch.setattr(checkpoint, "save", save_until_full)
    folder = tmp_path / "full"
    with pytest.raises(RunError, match="cannot write a checkpoint .*No space left on device") as caught:
        robustplug.train(recipe, out=folder)
    assert str(folder / "checkpoints" / "epoch-00001-batch-0000001") in str(caught.value)
    assert names(folder / "checkpoints") == ["epoch-00001-batch-0000000", "epoch-00001-batch-0000001"]
    assert not list((folder / "checkpoints").glob(".*"))
    disk.full = False
    monkeypatch.setattr(checkpoint, "save", real)
    robustplug.train(resume=folder)
    assert outcome(folder) == outcome(tmp_path / "whole")


def test_a_full_disk_at_the_end_says_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustplug.training import train

    def fail(path: Path, data: bytes) -> None:
        if path.name == "model.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomic(path, data)

    monkeypatch.setattr(train, "write_atomic", fail)
    with pytest.raises(RunError, match=r"cannot write the result .*No space left.*epoch-00002-batch-0000000"):
        robustplug.train(tiny(), out=tmp_path / "run")


class Warnings:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, message: str) -> None:
        self.texts.append(message)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


def test_training_goes_on_from_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    recipe = tiny("cat", train={"checkpoint_batches": 1})
    robustplug.train(recipe, out=tmp_path / "whole")
    folder = tmp_path / "broken"
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, 6)
        robustplug.train(recipe, out=folder)
    flip(folder / "checkpoints" / "epoch-00001-batch-0000002.safetensors")
    listener = Warnings()
    robustplug.train(resume=folder, reporter=listener)
    (text,) = listener.texts
    assert "epoch-00001-batch-0000002" in text
    assert "resuming from epoch-00001-batch-0000001" in text
    assert outcome(folder) == outcome(tmp_path / "whole")


def test_training_does_not_start_anew_over_broken_checkpoints(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, 1)
        robustplug.train(tiny(), out=tmp_path / "run")
    truncate(tmp_path / "run" / "checkpoints" / f"{newest(tmp_path / 'run')}.safetensors")
    with pytest.raises(RunError, match="no checkpoint in .* can be used"):
        robustplug.train(resume=tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "why"),
    [({"recipe": "0" * 64}, "belongs to another recipe"), ({"world": 2}, "trained by 2 processes.*not by 1")],
)
def test_a_checkpoint_of_another_run_is_refused(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, 1)
        robustplug.train(tiny(), out=tmp_path / "run")
    folder, name = tmp_path / "run" / "checkpoints", newest(tmp_path / "run")
    found = load(folder, name)
    save(folder, name, found.tensors, merged(found.meta, change))
    with pytest.raises(RunError, match=why):
        robustplug.train(resume=tmp_path / "run")


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, 1)
        robustplug.train(tiny(), out=tmp_path / "run")
    folder, name = tmp_path / "run" / "checkpoints", newest(tmp_path / "run")
    found = load(folder, name)
    tensors = {key: value for key, value in found.tensors.items() if not key.endswith("running_mean")}
    save(folder, name, tensors, found.meta)
    with pytest.raises(RunError, match="does not fit this model"):
        robustplug.train(resume=tmp_path / "run")
