"""The task webdataset: images and labels in .tar files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustplug.builtin.tasks.picture_task import PictureTask
from robustplug.builtin.tasks.webdataset import find_shards
from robustplug.core.types import Feed
from robustplug.errors import BrokenData, DataMissing
from robustplug.run import build
from robustplug.testing.kit import run_checks

from ..subjects.pictures import bits, picture

NAMES = ("ash", "birch", "cedar")


def encoded(seed: int, depth: int = 8, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(bits(picture(9, 9, seed=seed), depth)).save(file, kind)
    return file.getvalue()


def sample(number: int, label: object = None) -> dict[str, bytes]:
    return {
        f"{number:06}.png": encoded(number),
        f"{number:06}.cls": str(number % 3 if label is None else label).encode(),
    }


def write_shard(path: Path, *samples: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for entries in samples:
            for name, content in entries.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


def shards(**options: Any) -> PictureTask:
    given = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    task: PictureTask = build("task", "webdataset", **{"workers": 0, **given})
    return task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for number in range(3):
        write_shard(root / f"train-{number:03}.tar", *(sample(20 * number + at) for at in range(20)))
    write_shard(root / "test.tar", *(sample(100 + at) for at in range(12)))
    return root


@pytest.mark.parametrize("pattern", ["train-{000..002}.tar", "train-*.tar", "train-00[0-2].tar"])
def test_shards_are_found_by_ranges_and_wildcards(folder: Path, pattern: str) -> None:
    task = shards(train=folder / pattern, test=folder / "test.tar", validation=0.2)
    assert task.info.sizes == {"train": 48, "validation": 12, "test": 12}
    assert (task.info.shape, task.info.class_names) == ((3, 9, 9), ("0", "1", "2"))
    for split in ("train", "validation", "test"):
        for batch in task.batches(split, Feed()):
            for x, y, index in zip(batch.x, batch.y.tolist(), batch.index.tolist(), strict=True):
                name = task.sample_name(split, index)
                number = int(Path(name.rpartition(":")[2]).stem)
                assert y == number % 3
                assert torch.equal(x[0], torch.tensor(bits(picture(9, 9, seed=number), 8)) / 255)


def test_ranges_keep_their_zeros() -> None:
    with pytest.raises(DataMissing, match="a-08-1"):
        list(find_shards("a-{08..11}-{1..2}"))


def test_one_file_is_split_by_shares(folder: Path) -> None:
    task = shards(train=folder / "test.tar", validation=0.25, test=0.25)
    assert task.info.sizes == {"train": 6, "validation": 3, "test": 3}
    assert shards(test=folder / "test.tar").info.sizes == {"test": 12}


def test_labels_may_be_names(tmp_path: Path) -> None:
    named = write_shard(tmp_path / "a.tar", *(sample(n, f"{NAMES[n % 3]}\n") for n in range(12)))
    task = shards(train=named)
    assert task.info.class_names == NAMES
    other = [{f"{n}.jpg": encoded(n, kind="JPEG"), f"{n}.txt": str(n % 3 + 1).encode()} for n in range(12)]
    task = shards(train=write_shard(tmp_path / "b.tar", *other), label="txt")
    assert task.info.class_names == ("1", "2", "3")


def test_folders_other_entries_and_leftovers_in_shards(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(12):
            entries = {f"./set/{name}": content for name, content in sample(number).items()}
            entries |= {f"./set/{number:06}.json": b"{}", f"./set/._{number:06}.png": b"\0\5\26\7"}
            for name, content in entries.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        for kind, name in ((tarfile.DIRTYPE, "set"), (tarfile.SYMTYPE, "set/x.png")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    assert sum(shards(train=path).info.sizes.values()) == 12


def test_16_bits_in_shards(tmp_path: Path) -> None:
    deep = [{f"{n}.png": encoded(n, 16), f"{n}.cls": str(n % 3).encode()} for n in range(12)]
    flat = [{f"{n}.png": encoded(n, 8), f"{n}.cls": str(n % 3).encode()} for n in range(12)]
    one, other = (
        torch.cat([b.x for b in shards(train=write_shard(tmp_path / name, *found)).batches("train", Feed())])
        for name, found in (("a.tar", deep), ("b.tar", flat))
    )
    assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"99.png": encoded(99)},
        {"99.cls": b"1"},
        {"99.png": encoded(99), "99.jpg": encoded(99, kind="JPEG"), "99.cls": b"1"},
        {"99.png": encoded(99)[:50], "99.cls": b"1"},
    ],
    ids=["no label", "no image", "two images", "broken image"],
)
def test_samples_that_cannot_be_used_are_named_or_skipped(tmp_path: Path, wrong: Mapping[str, bytes]) -> None:
    path = write_shard(tmp_path / "a.tar", *(sample(n) for n in range(12)), wrong)
    with pytest.raises(BrokenData, match=r'1 of 13 samples .*broken = "skip"(.|\n)*a\.tar.*99'):
        shards(train=path)
    task = shards(train=path, broken="skip")
    assert sum(task.info.sizes.values()) == 12
    assert "broken samples skipped: 1" in task.notes[0]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_a_shard_that_is_cut_off_is_named(tmp_path: Path, share: float) -> None:
    path = write_shard(tmp_path / "a.tar", *(sample(n) for n in range(30)))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content)) - (7 if share else 0)])
    with pytest.raises((BrokenData, DataMissing), match=r"a\.tar"):
        shards(train=path)


def test_a_packed_shard_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    with pytest.raises(BrokenData, match="gunzip"):
        shards(train=tmp_path / "a.tar")


def test_a_shard_that_changes_later_is_named(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", *(sample(n) for n in range(12)))
    task = shards(train=path)
    path.write_bytes(b"x")
    with pytest.raises(BrokenData, match=r"a\.tar:0000"):
        list(task.batches("train", Feed()))
    path.unlink()
    with pytest.raises(BrokenData, match=r"a\.tar:0000.*No such file"):
        list(task.batches("train", Feed()))


def test_missing_shards_and_single_classes(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"task\.train.*task\.test"):
        shards()
    for path in ("no.tar", "no-{0..3}.tar", "no-*.tar"):
        with pytest.raises(DataMissing, match="no-?"):
            shards(train=tmp_path / path)
    with pytest.raises(ValueError, match="of the class 7: a classification needs two"):
        shards(train=write_shard(tmp_path / "a.tar", *(sample(n, 7) for n in range(12))))
    test = write_shard(tmp_path / "b.tar", *(sample(n, 5) for n in range(3)))
    train = write_shard(tmp_path / "c.tar", *(sample(n) for n in range(12)))
    with pytest.raises(ValueError, match="test samples have classes that the training samples lack: 5"):
        shards(train=train, test=test)
    empty = write_shard(tmp_path / "d.tar", {"0.png": encoded(0), "0.cls": b" "}, sample(1), sample(2))
    with pytest.raises(ValueError, match="label of sample 0 .* is missing"):
        shards(train=empty)


def test_workers_change_no_bit(folder: Path) -> None:
    one, other = (
        torch.cat(
            [b.x for b in shards(train=folder / "test.tar", workers=n).batches("train", Feed(augment=True))]
        )
        for n in (0, 2)
    )
    assert torch.equal(one, other)


def test_the_conformance_kit_passes(folder: Path) -> None:
    outcomes = run_checks("webdataset", "task", {"train": str(folder / "train-*.tar"), "workers": 0})
    assert [(each.check, each.detail) for each in outcomes if not each.passed or each.skipped] == []
    assert np.isfinite(shards(train=folder / "test.tar").info.mean).all()
