from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.errors import RunError
from robustplug.files.reading import Unreadable
from robustplug.files.seals import sealed
from robustplug.runs import checkpoint
from robustplug.runs.checkpoint import load, load_newest, load_selected, pack, prune, save, unpack
from robustplug.runs.folder import write_atomic, write_json
from robustplug.runs.heads import name_of, names
from robustplug.runs.manifest import Manifest

from ..training.runs import newest, outcome, read_json, tiny
from ..training.test_resume import Killed, kill_after_save

pytestmark = pytest.mark.table

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7), "local/m": torch.zeros(6)}
RUN, OTHER, RECIPE = "a" * 32, "b" * 32, "c" * 64
MANIFEST = Manifest(run=RUN, recipe="", digest=RECIPE, threads=1)
ONE, TWO = name_of(1, 0), name_of(2, 0)


def meta(epoch: int, batch: int = 0, **changes: Any) -> dict[str, Any]:
    body = {
        "recipe": RECIPE,
        "world": 1,
        "epoch": epoch,
        "batch": batch,
        "update": 4 * epoch,
        "means": {"loss": [1.5, 3.0]},
        "passes": [8, 8],
        "best": None,
        "score": None,
        "seconds": 0.5,
        "local": {"m": [[2, 3]]},
        "optimizers": {"model": {"0": {"momentum_buffer": {"$tensor": "a"}, "step": 3}}},
    }
    return {**body, **changes}


def put(folder: Path, epoch: int, run: str = RUN, **changes: Any) -> str:
    name = name_of(epoch, 0)
    save(folder, name, TENSORS, meta(epoch, **changes), run)
    return name


def test_a_checkpoint_reads_back(tmp_path: Path) -> None:
    put(tmp_path / "new", 1, score=0.1, best=[ONE, 0.1])
    found = load(tmp_path / "new", ONE, MANIFEST)
    assert found.name == ONE
    assert json.loads(json.dumps(found.meta)) == {**meta(1, score=0.1, best=[ONE, 0.1]), "history": None}
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
    body["meta"]["update"] = 17
    path.write_text(json.dumps(body))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def other_format(path: Path) -> None:
    path.write_text(json.dumps({**read_json(path), "format": 99}))


DAMAGE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("safetensors", truncate, r"2-.*\.safetensors does not match its checksum"),
    ("safetensors", flip, r"2-.*\.safetensors does not match its checksum"),
    ("safetensors", Path.unlink, r"2-.*\.safetensors does not exist"),
    ("safetensors", lambda path: path.write_bytes(b""), r"2-.*\.safetensors does not match"),
    ("safetensors", make_folder, "is a folder, not a file"),
    ("safetensors", make_pipe, "is a named pipe, not a file"),
    ("json", truncate, r"2-.*\.json is not valid JSON"),
    ("json", tamper, r"2-.*\.json does not match its seal"),
    ("json", other_format, r"2-.*\.json does not match its seal"),
    ("json", lambda path: path.write_bytes(b""), r"2-.*\.json is not valid JSON"),
    ("json", lambda path: path.write_bytes(b"\xff\xfe{}"), r"2-.*\.json is not valid JSON"),
    ("json", lambda path: path.write_text("[1]"), r"2-.*\.json is not the JSON of a checkpoint"),
    ("json", lambda path: path.write_text("{}"), r"2-.*\.json has no seal"),
    ("json", lambda path: path.write_text("[" * 10**5), r"2-.*\.json is nested too deeply"),
    ("json", make_folder, "is a folder, not a file"),
    ("json", make_pipe, "is a named pipe, not a file"),
]


def swap(folder: Path) -> None:
    """Exchange the two files of each of two checkpoints."""
    for suffix in ("json", "safetensors"):
        one, two = folder / f"{ONE}.{suffix}", folder / f"{TWO}.{suffix}"
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)


@pytest.mark.parametrize(("suffix", "harm", "why"), DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    suffix: str, harm: Callable[[Path], Any], why: str, tmp_path: Path
) -> None:
    put(tmp_path, 1)
    put(tmp_path, 2)
    harm(tmp_path / f"{TWO}.{suffix}")
    with pytest.raises(Unreadable, match=why):
        load(tmp_path, TWO, MANIFEST)
    found, problems = load_newest(tmp_path, MANIFEST)
    assert found.name == ONE
    assert len(problems) == 1
    assert f"checkpoint {TWO} cannot be used" in problems[0]
    harm(tmp_path / f"{ONE}.{suffix}")
    with pytest.raises(RunError, match=f"{ONE} cannot be used") as caught:
        load_newest(tmp_path, MANIFEST)
    assert f"{TWO} cannot be used" in str(caught.value)


# Forged with a seal that fits, as a program could do it that means harm.
FORGED: list[tuple[dict[str, Any], str]] = [
    ({"epoch": "2"}, "meta.epoch"),
    ({"epoch": True}, "meta.epoch"),
    ({"epoch": -1}, "meta.epoch"),
    ({"epoch": 10**30}, "meta.epoch"),
    ({"epoch": 3}, "was written under the name"),
    ({"batch": 1.0}, "meta.batch"),
    ({"batch": 7}, "was written under the name"),
    ({"update": None}, "meta.update"),
    ({"world": 0}, "meta.world"),
    ({"world": 2}, "shape for each process"),
    ({"recipe": "d" * 64}, "belongs to another recipe"),
    ({"recipe": "../../etc"}, "meta.recipe"),
    ({"means": {"loss": [1.0]}}, "meta.means.loss"),
    ({"means": []}, "meta.means"),
    ({"passes": [1]}, "meta.passes"),
    ({"passes": [-1, 0]}, "meta.passes"),
    ({"seconds": "nan"}, "meta.seconds"),
    ({"seconds": float("inf")}, "meta.seconds"),
    ({"seconds": -1.0}, "meta.seconds"),
    ({"best": ["../../../../etc/passwd", 0.5]}, "is not the name of a checkpoint"),
    ({"best": [ONE + "/../x", 0.5]}, "is not the name of a checkpoint"),
    ({"best": [ONE, float("nan")]}, "meta.best"),
    ({"best": [ONE, "0.5"]}, "meta.best"),
    ({"best": [ONE]}, "meta.best"),
    ({"best": {}}, "meta.best"),
    ({"score": float("inf")}, "meta.score"),
    ({"local": {"m": [[2, 2]]}}, "does not fit"),
    ({"local": {"m": [[10**13, 10**13]]}}, "meta.local"),
    ({"local": {"m": [[-2, -3]]}}, "meta.local"),
    ({"local": {"m": [[1] * 65]}}, "meta.local"),
    ({"local": {"other": [[2, 3]]}}, "does not fit"),
    ({"local": None}, "meta.local"),
    ({"optimizers": {"model": {"0": {"m": {"$tensor": "not there"}}}}}, "'not there' is missing"),
    ({"optimizers": {"model": {"0": {"m": {"$tensor": [1]}}}}}, "is missing"),
    ({"optimizers": {"model": {"x": {}}}}, "meta.optimizers"),
    ({"optimizers": {"model": []}}, "meta.optimizers"),
    ({"optimizers": 3}, "meta.optimizers"),
    ({"history": [{"epoch": "x"}]}, "meta.history"),
    ({"unknown": 1}, "meta.unknown"),
]


@pytest.mark.parametrize(("change", "why"), FORGED)
def test_what_a_forged_checkpoint_says_is_checked(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    put(tmp_path, 1)
    put(tmp_path, 2)
    path = tmp_path / f"{TWO}.json"
    body = read_json(path)
    body["meta"] |= change
    path.write_text(json.dumps(sealed(body, run=RUN, name=TWO)))
    with pytest.raises(Unreadable, match=why):
        load(tmp_path, TWO, MANIFEST)
    found, (problem,) = load_newest(tmp_path, MANIFEST)
    assert found.name == ONE
    assert TWO in problem


def test_other_formats_are_named(tmp_path: Path) -> None:
    put(tmp_path, 1)
    path = tmp_path / f"{ONE}.json"
    path.write_text(json.dumps(sealed({**read_json(path), "format": 99}, run=RUN, name=ONE)))
    with pytest.raises(Unreadable, match="has format 99; this version reads 2"):
        load(tmp_path, ONE)


def test_swapped_renamed_and_foreign_checkpoints_are_not_used(tmp_path: Path) -> None:
    put(tmp_path, 1)
    put(tmp_path, 2)
    swap(tmp_path)
    with pytest.raises(RunError, match=f"{ONE}.json was written under the name '{TWO}'"):
        load_newest(tmp_path, MANIFEST)
    swap(tmp_path)
    for suffix in ("json", "safetensors"):  # renamed to look newer
        path = tmp_path / f"{ONE}.{suffix}"
        path.with_stem(name_of(7, 0)).write_bytes(path.read_bytes())
    put(tmp_path, 8, run=OTHER)  # of another run of the same recipe
    found, problems = load_newest(tmp_path, MANIFEST)
    assert found.name == TWO
    assert [("another run" in text, f"under the name '{ONE}'" in text) for text in problems] == [
        (True, False),
        (False, True),
    ]


def test_a_checkpoint_without_a_seal_counts_only_where_the_manifest_lists_it(tmp_path: Path) -> None:
    import hashlib

    put(tmp_path, 1)
    path = tmp_path / f"{ONE}.json"
    body = read_json(path)
    plain = {"format": 1, "sha256": body["sha256"], "meta": {**body["meta"], "history": []}}
    checksum = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**plain, "checksum": checksum}))
    with pytest.raises(Unreadable, match="has no seal"):
        load(tmp_path, ONE, MANIFEST)
    listed = {ONE: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert load(tmp_path, ONE, MANIFEST.model_copy(update={"unsealed": listed})).meta["epoch"] == 1
    path.write_text(json.dumps({**plain, "checksum": "0" * 64}))
    with pytest.raises(Unreadable, match="does not match its checksum"):
        load(tmp_path, ONE)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert names(tmp_path / "nowhere") == []
    with pytest.raises(RunError, match="it contains none"):
        load_newest(tmp_path)


def test_names_are_ordered_by_number_and_other_names_do_not_count(tmp_path: Path) -> None:
    for epoch in (100_000, 99_999, 2):
        (tmp_path / f"{name_of(epoch, 0)}.json").write_text("")
    for other in ("result.json", "epoch-1-batch-2.json", "notes.txt", f"{ONE}-mine.json"):
        (tmp_path / other).write_text("")
    assert names(tmp_path) == [name_of(epoch, 0) for epoch in (2, 99_999, 100_000)]


@pytest.mark.parametrize(
    ("scores", "chosen", "why"),
    [
        ({1: 0.2, 3: 0.4, 4: None}, (3, 0.4), "is selected instead, with the score 0.4 in place of 0.9"),
        ({1: 0.4, 3: 0.4, 4: 0.4}, (1, 0.4), "is selected instead"),
        ({1: None, 3: None, 4: None}, None, "none that is kept has a score: the newest is used"),
    ],
)
@pytest.mark.parametrize("harm", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_where_the_selected_one_is_damaged_another_is_selected(
    scores: dict[int, float | None],
    chosen: tuple[int, float] | None,
    why: str,
    harm: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    for epoch, score in {**scores, 2: 0.9}.items():
        put(tmp_path, epoch, score=score, best=[TWO, 0.9])
    harm(tmp_path / f"{TWO}.safetensors")
    newest, problems = load_newest(tmp_path, MANIFEST)
    assert not problems
    found, best, (note,) = load_selected(tmp_path, newest, MANIFEST)
    assert best == (None if chosen is None else (name_of(chosen[0], 0), chosen[1]))
    assert found.name == name_of(4 if chosen is None else chosen[0], 0)
    assert TWO in note
    assert why in note


def test_the_two_newest_and_the_best_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    folder, target = tmp_path / "checkpoints", tmp_path / "target.safetensors"
    written = [put(folder, epoch) for epoch in range(1, 6)]
    others = [
        folder / name for name in ("mine.safetensors", "mine.json", ".mine.tmp", f"{ONE}-2.safetensors")
    ]
    others.append(folder / f"{name_of(0, 3)}.safetensors")  # the pattern, but not written by the run
    for path in others:
        path.write_bytes(b"precious")
    target.write_bytes(b"precious")
    (folder / f"{ONE}.safetensors").unlink()
    (folder / f"{ONE}.safetensors").symlink_to(target)
    prune(folder, written, {name_of(2, 0)})
    assert written == names(folder) == [name_of(epoch, 0) for epoch in (2, 4, 5)]
    assert all(path.read_bytes() == b"precious" for path in [*others, target])


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
        put(tmp_path / "checkpoints", 1)
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
        put(tmp_path, 1)
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
    from robustplug.training import store

    def fail(path: Path, data: bytes) -> None:
        if path.name == "model.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomic(path, data)

    monkeypatch.setattr(store, "write_atomic", fail)
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


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, 1)
        robustplug.train(tiny(), out=folder)
    return folder


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"recipe": "0" * 64}, "belongs to another recipe"),
        ({"optimizers": {}}, 'no state of the optimizer "model"'),
        ({"optimizers": {"model": {"99": {}}}}, "that of other parameters"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    change: dict[str, Any], why: str, unfinished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(unfinished, tmp_path / "run")
    folder, name = run / "checkpoints", newest(run)
    found = load(folder, name)
    save(folder, name, found.tensors, {**found.meta, **change}, read_json(run / "manifest.json")["run"])
    with pytest.raises(RunError, match=why):
        robustplug.train(resume=run)


def test_a_checkpoint_of_another_architecture_is_refused(unfinished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(unfinished, tmp_path / "run")
    folder, name = run / "checkpoints", newest(run)
    found = load(folder, name)
    tensors = {key: value for key, value in found.tensors.items() if not key.endswith("running_mean")}
    save(folder, name, tensors, found.meta, read_json(run / "manifest.json")["run"])
    with pytest.raises(RunError, match="does not fit this model"):
        robustplug.train(resume=run)
