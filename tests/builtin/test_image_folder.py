"""The task image-folder on trees as people have them: leftovers, bit depths, sizes, broken files."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustplug.builtin.tasks import picture_task
from robustplug.builtin.tasks.decoded import Decoded
from robustplug.builtin.tasks.image_folder import ImageFolderTask
from robustplug.core.reporting import Silent
from robustplug.core.types import Feed, Split
from robustplug.errors import BrokenData, DataMissing
from robustplug.run import build, evaluate, train

from ..subjects.pictures import SIXTEEN, bits, picture, save_8, save_png

CLASSES = ("cat", "dog", "owl")
SPLITS = ("train", "validation", "test")


def write_tree(root: Path, save: Callable[..., None] = save_8, ending: str = ".png", count: int = 6) -> Path:
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for at in range(count):
            save(picture(8, 8, seed=100 * number + at), root / name / f"{at}{ending}")
    return root


def folder_task(root: Path, **options: Any) -> ImageFolderTask:
    task: ImageFolderTask = build("task", "image-folder", root=str(root), **{"workers": 0, **options})
    return task


def served(task: ImageFolderTask) -> dict[str, torch.Tensor]:
    """Return the inputs of all splits."""
    return {split: torch.cat([batch.x for batch in task.batches(split, Feed())]) for split in task.info.sizes}


def assert_close(one: ImageFolderTask, other: ImageFolderTask, atol: float) -> None:
    first, second = served(one), served(other)
    assert first.keys() == second.keys()
    for split, x in first.items():
        assert torch.allclose(x, second[split], atol=atol), split


# What file managers, archives, disks and notebooks leave behind

LEFT_BEHIND = [
    ".ipynb_checkpoints/0-checkpoint.png",
    "cat/.ipynb_checkpoints/0-checkpoint.png",
    ".DS_Store",
    "cat/.DS_Store",
    "dog/._0.png",
    "._dog",
    "dog/Thumbs.db",
    "dog/desktop.ini",
    "desktop.ini",
    "__MACOSX/cat/._0.png",
    "__MACOSX/cat/0.png",
    "owl/@eaDir/0.png/thumb.jpg",
    "@eaDir/owl.png",
    ".git/objects/a.png",
    ".thumbnails/normal/a.png",
    "$RECYCLE.BIN/a.png",
    "System Volume Information/a.png",
    "lost+found/a.png",
    "owl/.hidden.png",
    "owl/THUMBS.DB",
]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("clean"))


@pytest.mark.parametrize("left", LEFT_BEHIND)
def test_what_is_left_behind_is_no_class_and_no_picture(tmp_path: Path, clean: Path, left: str) -> None:
    root = tmp_path / "root"
    shutil.copytree(clean, root)
    (root / left).parent.mkdir(parents=True, exist_ok=True)
    (root / left).write_bytes(b"\0\5\26\7" if "._" in left else (root / "cat" / "0.png").read_bytes())
    task = folder_task(root)
    assert task.info.class_names == CLASSES
    assert_close(task, folder_task(clean), 0)
    assert task.notes == ()


def test_leftovers_make_no_splits(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root")
    write_tree(root / "train")
    shutil.rmtree(root / "train")
    # A class named "train", in which a notebook left a folder.
    shutil.copytree(root / "cat", root / "train")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    task = folder_task(root)
    assert task.info.class_names == (*CLASSES, "train")


def test_leftovers_in_the_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_tree(tmp_path / split)
        (tmp_path / split / ".ipynb_checkpoints").mkdir()
        (tmp_path / split / "__MACOSX").mkdir()
        (tmp_path / split / "cat" / ".DS_Store").write_bytes(b"x")
    assert folder_task(tmp_path).info.sizes == {"train": 18, "validation": 18, "test": 18}


def test_files_with_other_endings_are_counted(tmp_path: Path) -> None:
    write_tree(tmp_path)
    for name in ("a.heic", "b.HEIC", "notes.txt", "README"):
        (tmp_path / "cat" / name).write_text("x")
    (note,) = folder_task(tmp_path).notes
    assert note == "4 files with other endings were ignored: 2 .heic, 1 (none), 1 .txt"


# Bit depth, palettes, transparency, rotation


@pytest.mark.parametrize("kind", SIXTEEN)
def test_a_tree_of_16_bits_holds_the_same_pictures(tmp_path: Path, clean: Path, kind: str) -> None:
    save, ending = SIXTEEN[kind]
    task = folder_task(write_tree(tmp_path, save, ending))
    assert task.info.shape == (3, 8, 8)
    right = folder_task(clean)
    assert_close(task, right, 1 / 255)
    assert task.info.mean == pytest.approx(right.info.mean, abs=1 / 255)
    assert task.info.std == pytest.approx(right.info.std, abs=1 / 255)


def test_8_and_16_bits_in_one_tree(tmp_path: Path, clean: Path) -> None:
    write_tree(tmp_path)
    for at in (0, 2, 4):
        save, ending = SIXTEEN["png"]
        save(picture(8, 8, seed=at), tmp_path / "cat" / f"{at}{ending}")
    assert_close(folder_task(tmp_path), folder_task(clean), 1e-6)
    mixed = list(folder_task(tmp_path).batches("train", Feed(augment=True, shuffle=True)))
    assert all(batch.x.dtype == torch.float32 and 0 <= batch.x.min() < batch.x.max() <= 1 for batch in mixed)


@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize("augment", [False, True])
def test_16_bits_are_resized_and_augmented_like_8(
    tmp_path: Path, clean: Path, size: int, augment: bool
) -> None:
    save, ending = SIXTEEN["png"]
    deep = folder_task(write_tree(tmp_path, save, ending), size=size)
    flat = folder_task(clean, size=size)
    feed = Feed(augment=augment, shuffle=True, seed=3)
    for one, other in zip(deep.batches("train", feed), flat.batches("train", feed), strict=True):
        assert torch.equal(one.y, other.y)
        assert torch.allclose(one.x, other.x, atol=1.5 / 255)
        assert one.x.max() <= 1


def test_floats_outside_their_range_name_the_file(tmp_path: Path) -> None:
    write_tree(tmp_path)
    Image.fromarray(np.full((8, 8), 300, np.float32)).save(tmp_path / "owl" / "x.tif")
    with pytest.raises(BrokenData, match=r"x\.tif.*range from 300 to 300: rescale"):
        folder_task(tmp_path)


def test_palettes_and_grey_become_colours(tmp_path: Path) -> None:
    write_tree(tmp_path)
    for path in tmp_path.rglob("*.png"):
        Image.open(path).convert("RGB").quantize(256).save(path)
    task = folder_task(tmp_path)
    x = served(task)["train"]
    assert x.shape[1:] == (3, 8, 8)
    assert torch.equal(x[:, 0], x[:, 2])


def test_transparency_is_refused_before_training_or_composited(tmp_path: Path) -> None:
    write_tree(tmp_path)
    clear = np.zeros((8, 8, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "dog" / "clear.png")
    with pytest.raises(BrokenData, match=r'clear\.png.*transparent pixels.*alpha = "white"'):
        folder_task(tmp_path)
    for alpha, level in (("white", 1), ("black", 0)):
        x = torch.cat(list(served(folder_task(tmp_path, alpha=alpha)).values()))
        assert sum(bool((image == level).all()) for image in x) == 1
    clear[..., 3] = 255
    Image.fromarray(clear).save(tmp_path / "dog" / "clear.png")
    assert sum(folder_task(tmp_path).info.sizes.values()) == 19


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for at in range(6):
            turned = at % 2
            pixels = bits(picture(12, 8, 3, seed=at), 8)
            image = Image.fromarray(np.rot90(pixels).copy() if turned else pixels)
            image.save(tmp_path / name / f"{at}.png", exif=exif if turned else b"")
    task = folder_task(tmp_path)
    assert task.info.shape == (3, 12, 8)
    right = {
        tuple(bits(picture(12, 8, 3, seed=at), 8).transpose(2, 0, 1).flatten().tolist()) for at in range(6)
    }
    found = torch.cat(list(served(task).values())).mul(255).round().long()
    assert {tuple(image.flatten().tolist()) for image in found} == right


# Sizes


def write_sizes(root: Path, sizes: dict[str, tuple[int, int]], count: int = 6) -> Path:
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for at in range(count):
            Image.new("RGB", (24, 24), (at, 0, 0)).save(root / name / f"{at}.png")
    for name, (width, height) in sizes.items():
        Image.new("RGB", (width, height)).save(root / name)
    return root


def test_the_size_is_taken_from_files_that_agree(clean: Path, tmp_path: Path) -> None:
    assert folder_task(clean).info.shape == (3, 8, 8)
    for path in write_tree(tmp_path).rglob("*.png"):
        save_png(picture(10, 14, 3), path, 8)
    task = folder_task(tmp_path)
    assert task.info.shape == (3, 10, 14)
    expected = torch.tensor(bits(picture(10, 14, 3), 8)).permute(2, 0, 1).float() / 255
    assert torch.equal(served(task)["test"][0], expected)
    for batch in task.batches("train", Feed(augment=True)):
        assert batch.x.shape[1:] == (3, 10, 14)


def test_the_size_is_asked_for_where_files_differ(tmp_path: Path) -> None:
    write_sizes(tmp_path, {"a/wide.png": (40, 24), "b/low.png": (30, 20)})
    with pytest.raises(ValueError, match=r"3 different sizes.*task\.size = 20, which enlarges none"):
        folder_task(tmp_path)
    assert folder_task(tmp_path, size=20).info.shape == (3, 20, 20)


def test_small_pictures_are_not_enlarged_silently(tmp_path: Path) -> None:
    write_sizes(tmp_path, {"b/thin.png": (40, 9)})
    with pytest.raises(ValueError, match=r"thin\.png, has 40 x 9 pixels: .*at most 9, or set task\.upsample"):
        folder_task(tmp_path, size=24)
    assert folder_task(tmp_path, size=24, upsample=True).info.shape == (3, 24, 24)
    assert folder_task(tmp_path, size=9).info.shape == (3, 9, 9)


def test_large_pictures_that_agree_are_augmented_to_their_shape(tmp_path: Path) -> None:
    for path in write_tree(tmp_path).rglob("*.png"):
        save_png(picture(70, 90, 3), path, 8)
    task = folder_task(tmp_path)
    assert (task.info.shape, task.default_model) == ((3, 70, 90), "torchvision")
    assert {tuple(b.x.shape[1:]) for b in task.batches("train", Feed(augment=True))} == {(3, 70, 90)}


# Broken files and classes


def break_files(root: Path) -> list[Path]:
    broken = [root / "cat" / "1.png", root / "owl" / "3.png"]
    broken[0].write_bytes(broken[0].read_bytes()[:60])
    broken[1].write_bytes(b"")
    return broken


def test_broken_files_name_themselves_before_training(tmp_path: Path) -> None:
    broken = break_files(write_tree(tmp_path))
    with pytest.raises(BrokenData, match='2 of 18 samples.*task.broken = "skip"') as caught:
        folder_task(tmp_path)
    assert all(str(path) in str(caught.value) for path in broken)


def test_many_broken_files_are_counted(tmp_path: Path) -> None:
    for path in write_tree(tmp_path).rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(BrokenData, match=r"18 of 18(.|\n)*and 13 more"):
        folder_task(tmp_path)
    with pytest.raises(BrokenData, match="18 of 18"):
        folder_task(tmp_path, broken="skip")


def test_broken_files_are_skipped_and_counted(tmp_path: Path) -> None:
    broken = break_files(write_tree(tmp_path))
    task = folder_task(tmp_path, broken="skip")
    assert sum(task.info.sizes.values()) == 16
    assert [str(path) in message for path, message in zip(broken, task.broken, strict=True)] == [True, True]
    (note,) = task.notes
    assert "broken samples skipped: 2" in note
    assert sum(map(len, served(task).values())) == 16


class Notes(Silent):
    def __init__(self) -> None:
        self.found: list[str] = []

    def warn(self, message: str) -> None:
        self.found.append(message)


def test_training_and_evaluation_tell_what_was_skipped(tmp_path: Path) -> None:
    break_files(write_tree(tmp_path / "tree"))
    task = {"use": "image-folder", "root": str(tmp_path / "tree"), "broken": "skip", "workers": 0}
    recipe = {
        "name": "r",
        "task": task,
        "model": {"use": "small-cnn", "width": 4},
        "method": {"use": "erm"},
        "train": {"epochs": 1},
        "evaluate": {"attack": []},
    }
    trained = Notes()
    run = train(recipe, out=tmp_path / "run", reporter=trained)
    assert sum("broken samples skipped: 2" in note for note in trained.found) == 1
    for model, more in ((run.folder, {}), (run.model, {"task": task})):
        evaluated = Notes()
        evaluate(model, attacks=["fgsm"], reporter=evaluated, **more)  # type: ignore[arg-type]
        assert sum("broken samples skipped: 2" in note for note in evaluated.found) == 1


def test_a_class_of_broken_files_is_named(tmp_path: Path) -> None:
    for path in (write_tree(tmp_path) / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BrokenData, match="no picture of the class dog"):
        folder_task(tmp_path, broken="skip")


def test_a_set_of_one_class_is_refused(tmp_path: Path, clean: Path) -> None:
    shutil.copytree(clean, tmp_path / "images")  # one folder too high
    with pytest.raises(ValueError, match="one class, images.*deeper"):
        folder_task(tmp_path)


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    (write_tree(tmp_path) / "emu").mkdir()
    with pytest.raises(DataMissing, match="no picture in emu"):
        folder_task(tmp_path)


def test_labels_and_names_of_samples(clean: Path) -> None:
    task = folder_task(clean)
    for split in SPLITS:
        for batch in task.batches(split, Feed()):  # type: ignore[arg-type]
            assert torch.equal(batch.y, task.labels(split)[batch.index])  # type: ignore[arg-type]
            for label, index in zip(batch.y.tolist(), batch.index.tolist(), strict=True):
                path = Path(task.sample_name(split, index))  # type: ignore[arg-type]
                assert path.is_file()
                assert path.parent.name == CLASSES[label]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_no_bit_of_16_bits(tmp_path: Path, workers: int) -> None:
    save, ending = SIXTEEN["tiff"]
    root = write_tree(tmp_path, save, ending)
    first, again = (
        torch.cat([batch.x for batch in folder_task(root, workers=w).batches("train", Feed(augment=True))])
        for w in (0, workers)
    )
    assert torch.equal(first, again)


def test_a_sample_that_occurs_twice_in_an_epoch_is_augmented_twice(clean: Path) -> None:
    task = folder_task(clean)
    feed = Feed(augment=True, shuffle=True, batch_size=4, order=torch.tensor([3, 1, 3, 3, 1, 3, 3, 3]))
    first, second = task.batches("train", feed)
    assert first.index.tolist() == [3, 1, 3, 3]
    x = torch.cat([first.x, second.x])[[0, 2, 3, 5, 6, 7]]
    assert len({image.numpy().tobytes() for image in x}) > 2
    (resumed,) = task.batches("train", dataclasses.replace(feed, skip=1))
    assert torch.equal(resumed.x, second.x)
    for rank in range(2):
        parts = list(task.batches("train", dataclasses.replace(feed, rank=rank, world=2)))
        assert torch.equal(parts[1].x, second.x[rank::2])


def test_the_conformance_kit_passes_on_a_tree(clean: Path) -> None:
    from robustplug.testing.kit import run_checks

    outcomes = run_checks("image-folder", "task", {"root": str(clean), "workers": 0})
    assert [(each.check, each.detail) for each in outcomes if not each.passed or each.skipped] == []


# Decoded once, or no larger than needed


FEEDS = [
    Feed(batch_size=4),
    Feed(batch_size=5, shuffle=True, augment=True, seed=3, skip=1),
    Feed(batch_size=4, shuffle=True, augment=True, epoch=1, rank=1, world=2),
    Feed(batch_size=4, shuffle=True, augment=True, order=torch.tensor([3, 3, 0, 7, 3, 1])),
]


def all_batches(task: ImageFolderTask) -> list[torch.Tensor]:
    """Return what a task serves in several epochs, of which some are broken off."""
    next(task.batches("train", FEEDS[1]))
    served = [batch for feed in (*FEEDS, *FEEDS) for batch in task.batches("train", feed)]
    return [tensor for batch in served for tensor in (batch.x, batch.y, batch.index)]


@pytest.mark.table(2)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mixed", [False, True])
def test_pictures_that_are_kept_change_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, mixed: bool
) -> None:
    write_tree(tmp_path)
    if mixed:
        save, ending = SIXTEEN["png"]
        for name in CLASSES:
            save(picture(8, 8, seed=5), tmp_path / name / f"2{ending}")
    kept = all_batches(folder_task(tmp_path, augment=True, workers=workers))
    monkeypatch.setattr(Decoded, "fits", lambda count, size: False)
    anew = all_batches(folder_task(tmp_path, augment=True, workers=workers))
    assert len(kept) == len(anew)
    assert all(torch.equal(one, other) for one, other in zip(kept, anew, strict=True))


def test_small_pictures_are_decoded_once(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    decode = picture_task.decode

    def counted(source: str, *arguments: Any) -> torch.Tensor:
        decoded.append(source)
        return decode(source, *arguments)

    monkeypatch.setattr(picture_task, "decode", counted)
    monkeypatch.setattr(picture_task, "STATISTICS_SAMPLES", 3)
    task = folder_task(clean)
    assert len(decoded) == 3  # for the mean and deviation
    decoded.clear()
    list(task.batches("test", Feed(batch_size=2, samples=2)))
    assert len(decoded) == 2
    for epoch in range(3):
        list(task.batches("train", Feed(batch_size=4, shuffle=True, augment=True, epoch=epoch)))
    list(task.batches("test", Feed()))
    assert sorted(decoded) == sorted(set(decoded))
    assert len(decoded) == task.info.sizes["train"] + task.info.sizes["test"]


@pytest.mark.parametrize("free", [10**9, 100])
def test_pictures_that_are_all_known_are_copied_to_a_gpu_once(
    monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    x = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    asked, copied = list[str](), list[torch.Tensor]()

    def to(tensor: torch.Tensor, device: str) -> torch.Tensor:
        copied.append(tensor)
        return tensor.clone()

    def memory(device: str) -> tuple[int, int]:
        asked.append(device)
        return free, 10**9

    monkeypatch.setattr("robustplug.builtin.tasks.decoded.to_device", lambda tensor, device: tensor)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    kept = Decoded(5, (4, 4))
    kept.put([0, 2], x[[0, 2]])
    assert torch.equal(kept.take(torch.tensor([2]), "cuda"), x[[2]])
    assert (asked, copied) == ([], [])
    kept.put([1, 3, 4], x[[1, 3, 4]])
    for positions in ([0, 3], [4, 1]):
        assert torch.equal(kept.take(torch.tensor(positions), "cuda"), x[positions])
    assert asked == ["cuda"]
    assert [len(tensor) for tensor in copied] == ([5] if free > 1000 else [])


def test_jpeg_files_can_be_decoded_no_larger_than_needed(tmp_path: Path) -> None:
    for number, name in enumerate(CLASSES):
        (tmp_path / name).mkdir()
        for at in range(4):
            x = picture(9, 11, seed=10 * number + at)
            image = Image.fromarray(bits(x, 8)).resize((440, 360), Image.Resampling.BICUBIC)
            exif = Image.Exif()
            exif[0x0112] = 1 + at  # turned, mirrored
            image.save(tmp_path / name / f"{at}.jpg", quality=95, exif=exif)
    size = {"size": 40, "augment": True}
    feed = Feed(batch_size=4, shuffle=True, augment=True)
    splits: tuple[tuple[Split, Feed], ...] = (("train", feed), ("test", Feed()))
    for split, how in splits:
        whole, less = (
            torch.cat([batch.x for batch in folder_task(tmp_path, **size, **more).batches(split, how)])
            for more in ({}, {"decoding": "scaled"})
        )
        assert not torch.equal(whole, less)
        assert (whole - less).abs().mean() < 0.05 < (whole - whole.roll(1, 0)).abs().mean()
    large = {"size": 80, "augment": True}
    whole, less = (
        torch.cat([batch.x for batch in folder_task(tmp_path, **large, **more).batches("train", feed)])
        for more in ({}, {"decoding": "scaled"})
    )
    assert not torch.equal(whole, less)
    assert (whole - less).abs().mean() < 0.05
