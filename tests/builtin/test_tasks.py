"""The built-in tasks: splits, stable indices, sharding, skipping, and data on disk."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robustplug.builtin.tasks import (
    TASKS,
    AugmentedOptions,
    DigitsOptions,
    DownloadedOptions,
    ImageFolderOptions,
)
from robustplug.builtin.tasks.digits import digits, read_digits
from robustplug.builtin.tasks.image_folder import ImageFolderTask
from robustplug.builtin.tasks.picture_task import centre_box, decode, random_box
from robustplug.builtin.tasks.torchvision_sets import cifar10, cifar100, fashion_mnist, mnist, read_idx, svhn
from robustplug.core.random import stream
from robustplug.core.task import Task
from robustplug.core.types import Batch, Feed, Split, View
from robustplug.errors import BrokenData, DataMissing
from robustplug.subjects.data.statistics import channel_statistics, classification_score, stratified_split
from robustplug.subjects.data.task import ArrayTask

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits_task() -> ArrayTask:
    return digits(DigitsOptions(augment=True))


def all_of(task: Task, split: Split, **feed: Any) -> Batch:
    batches = list(task.batches(split, Feed(**feed)))
    x, y, index = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("x", "y", "index"))
    return Batch(x, y, index)


def assert_same(one: Batch, other: Batch) -> None:
    for name in ("x", "y", "index"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def view_of(y: Tensor) -> View:
    return View.of(Batch(torch.zeros(len(y), 1), y, torch.arange(len(y))))


# What tasks share


def test_score_compares_the_largest_output_with_hard_and_soft_labels() -> None:
    output = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert classification_score(view_of(torch.tensor([0, 1])), output).tolist() == [True, False]
    soft = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    assert classification_score(view_of(soft), output).tolist() == [False, True]


def test_outputs_that_are_not_finite_are_never_right() -> None:
    nan, inf = torch.nan, torch.inf
    output = torch.tensor(
        [[nan] * 3, [nan, 1.0, 0.0], [0.0, nan, 1.0], [inf, 0.0, 0.0], [-inf] * 3, [0.0, -inf, -inf]]
    )
    labels = torch.tensor([0, 0, 2, 0, 0, 0])
    assert classification_score(view_of(labels), output).tolist() == [False] * 5 + [True]
    assert classification_score(view_of(labels), output.half()).tolist() == [False] * 5 + [True]
    # The first of equal outputs counts, as ever.
    assert classification_score(view_of(torch.tensor([0, 1])), torch.ones(2, 3)).tolist() == [True, False]


def test_stratified_split_keeps_proportions_in_every_part_and_prefix() -> None:
    labels = torch.tensor([0] * 600 + [1] * 300 + [2] * 100)
    parts = stratified_split(labels, (100, 200), stream(0))
    assert [len(part) for part in parts] == [700, 100, 200]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1000))
    for part in (*parts, parts[0][:50]):
        expected = torch.tensor([0.6, 0.3, 0.1]) * len(part)
        assert (torch.bincount(labels[part], minlength=3) - expected).abs().max() <= 1


def test_stratified_split_depends_on_the_generator_only_and_leaves_something_to_train_on() -> None:
    labels = torch.arange(20) % 2
    first, again, other = (stratified_split(labels, (5,), stream(seed)) for seed in (0, 0, 1))
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    with pytest.raises(ValueError, match="none for training"):
        stratified_split(labels, (10, 10), stream(0))


def test_statistics_agree_for_bytes_and_floats_and_a_constant_channel_has_no_zero_deviation() -> None:
    x = torch.randint(256, (5000, 2, 3, 3), generator=stream(0)).to(torch.uint8)
    x[:, 1] = 51
    mean, std = channel_statistics(x)
    assert mean == pytest.approx([float(x[:, 0].double().mean()) / 255, 0.2])
    assert std == pytest.approx([float(x[:, 0].double().std(correction=0)) / 255, 1 / 255])
    for one, other in zip(channel_statistics(x.double() / 255), (mean, std), strict=True):
        assert one == pytest.approx(other)


# ArrayTask, by way of the digits


def test_digits_splits_are_disjoint_stratified_and_cover_everything(digits_task: ArrayTask) -> None:
    from sklearn.datasets import load_digits

    pixels, _ = load_digits(return_X_y=True)
    parts = [all_of(digits_task, split) for split in SPLITS]
    assert [len(part) for part in parts] == [1257, 180, 360]
    assert digits_task.info.sizes == dict(zip(SPLITS, (1257, 180, 360), strict=True))
    served = torch.cat([part.x for part in parts]).flatten(1).mul(16).round().to(torch.int64)
    assert sorted(served.tolist()) == sorted(torch.tensor(pixels).long().tolist())
    for part in parts:
        share = torch.bincount(part.y, minlength=10) / len(part)
        assert (share - 0.1).abs().max() < 0.02


def test_digits_are_read_without_scikit_learn_and_with_it_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from robustplug.builtin.tasks.digits import read_digits as r; import sys; r(); print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "numpy" in shown.split()
    assert "sklearn" not in shown.split()
    own = read_digits()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    theirs = read_digits()
    for one, other in zip(own, theirs, strict=True):
        assert np.array_equal(one, other)


def test_digits_info_and_range(digits_task: ArrayTask) -> None:
    info, train = digits_task.info, all_of(digits_task, "train")
    assert (info.shape, info.classes, info.class_names) == ((1, 8, 8), 10, tuple("0123456789"))
    assert train.x.dtype == torch.float32
    assert (train.x.min(), train.x.max()) == (0, 1)
    assert info.mean == pytest.approx([float(train.x.mean())])
    assert info.std == pytest.approx([float(train.x.std(correction=0))], rel=1e-5)
    assert digits_task.default_model == "small-cnn"


def test_digits_split_follows_the_split_seed_not_the_seed_of_the_run(digits_task: ArrayTask) -> None:
    other = digits(DigitsOptions(split_seed=1))
    assert not torch.equal(all_of(digits_task, "test").x, all_of(other, "test").x)
    assert_same(all_of(digits_task, "test", seed=0), all_of(digits_task, "test", seed=1))


def test_index_names_the_same_image_in_every_order(digits_task: ArrayTask) -> None:
    for split in SPLITS:
        stored = all_of(digits_task, split)
        assert torch.equal(stored.index, torch.arange(len(stored)))
        for batch in digits_task.batches(split, Feed(shuffle=True, epoch=3, seed=5)):
            assert batch.index.dtype == torch.int64
            assert torch.equal(batch.x, stored.x[batch.index])
            assert torch.equal(batch.y, stored.y[batch.index])


@pytest.mark.parametrize("world", [2, 3])
def test_rows_of_the_ranks_interleave_to_the_batches_of_one_process(
    digits_task: ArrayTask, world: int
) -> None:
    feed = Feed(shuffle=True, augment=True, batch_size=100, epoch=1)
    whole = list(digits_task.batches("train", feed))
    parts = [
        list(digits_task.batches("train", dataclasses.replace(feed, rank=rank, world=world)))
        for rank in range(world)
    ]
    assert {len(part) for part in parts} == {len(whole)} == {13}
    for number, batch in enumerate(whole):
        for rank in range(world):
            for name in ("x", "y", "index"):
                assert torch.equal(getattr(parts[rank][number], name), getattr(batch, name)[rank::world])


def test_skip_drops_the_first_batches_and_changes_nothing_else(digits_task: ArrayTask) -> None:
    feed = Feed(shuffle=True, augment=True, batch_size=100)
    rest = list(digits_task.batches("train", feed))[4:]
    skipped = list(digits_task.batches("train", dataclasses.replace(feed, skip=4)))
    assert len(skipped) == len(rest) == 9
    for one, other in zip(skipped, rest, strict=True):
        assert_same(one, other)


def test_same_seed_same_bits_and_another_seed_or_epoch_another_order(digits_task: ArrayTask) -> None:
    feed: dict[str, Any] = {"shuffle": True, "augment": True}
    base = all_of(digits_task, "train", **feed)
    assert_same(base, all_of(digits(DigitsOptions(augment=True)), "train", **feed))
    for change in ({"epoch": 1}, {"seed": 1}):
        other = all_of(digits_task, "train", **feed, **change)
        assert not torch.equal(base.index, other.index)
        assert torch.equal(base.index.sort().values, other.index.sort().values)


def test_samples_takes_the_first_of_the_stored_order_and_the_last_batch_may_be_ragged(
    digits_task: ArrayTask,
) -> None:
    batches = list(digits_task.batches("train", Feed(shuffle=True, samples=50, batch_size=16)))
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    assert torch.cat([batch.index for batch in batches]).sort().values.tolist() == list(range(50))


def test_augmentation_needs_the_option_and_the_feed(digits_task: ArrayTask) -> None:
    stored = all_of(digits_task, "train")
    augmented = all_of(digits_task, "train", augment=True)
    assert not torch.equal(augmented.x, stored.x)
    assert torch.equal(augmented.y, stored.y)
    assert_same(all_of(digits(DigitsOptions()), "train", augment=True), stored)


def np_state() -> str:
    return repr(np.random.get_state(legacy=False))


def test_global_generators_are_left_alone(digits_task: ArrayTask) -> None:
    before = torch.get_rng_state(), random.getstate(), np_state()
    digits(DigitsOptions(split_seed=3))
    all_of(digits_task, "train", shuffle=True, augment=True)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np_state() == before[2]


def small_task(test: tuple[Tensor, Tensor]) -> ArrayTask:
    good = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4) % 2
    data: dict[Split, tuple[Tensor, Tensor]] = {"train": good, "validation": good, "test": test}
    return ArrayTask(data, class_names=("a", "b"), default_model="small-cnn")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(4), torch.zeros(4).long(), "N, C, H, W"),
        (torch.zeros(4, 1, 2, 2).to(torch.complex64), torch.zeros(4).long(), "uint8 or floating"),
        (torch.zeros(4, 1, 2, 2), torch.full((4,), 0.5), "whole numbers"),
        (torch.zeros(4, 1, 2, 2), torch.zeros(3).long(), "4 inputs"),
        (torch.zeros(4, 1, 2, 2), torch.full((4,), -1), "start at 0"),
        (torch.zeros(4, 1, 2, 2), torch.ones(4, 2), "one-hot"),
        (torch.zeros(0, 1, 2, 2), torch.zeros(0).long(), "empty"),
        (torch.full((4, 1, 2, 2), 1.5), torch.zeros(4).long(), r"\[0, 1\]"),
        (torch.full((4, 1, 2, 2), float("nan")), torch.zeros(4).long(), "NaN"),
        (torch.zeros(4, 1, 2, 2), torch.full((4,), 2), "0 to 1"),
    ],
)
def test_tensors_that_are_no_images_with_labels_are_refused(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        small_task(test=(x, y))
    assert "test" in str(caught.value)


# Downloaded data sets


def write_idx(path: Path, values: Tensor, packed: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content = header + values.to(torch.uint8).numpy().tobytes()
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_mnist(root: Path, name: str = "MNIST", packed: bool = False) -> dict[str, Tensor]:
    written = {}
    for part, count in (("train", 40), ("t10k", 10)):
        x = torch.randint(256, (count, 28, 28), generator=stream(0, part))
        y = torch.arange(count) % 10
        write_idx(root / name / "raw" / f"{part}-images-idx3-ubyte", x, packed)
        write_idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", y, packed)
        written[part] = x
    return written


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "factory"), [("MNIST", mnist), ("FashionMNIST", fashion_mnist)])
def test_mnist_is_read_from_torchvisions_layout(
    tmp_path: Path, packed: bool, name: str, factory: Callable[[DownloadedOptions], ArrayTask]
) -> None:
    written = write_mnist(tmp_path, name, packed)
    task = factory(DownloadedOptions(root=str(tmp_path), validation=10))
    assert (task.info.sizes, task.info.shape) == ({"train": 30, "validation": 10, "test": 10}, (1, 28, 28))
    assert torch.equal(all_of(task, "test").x[:, 0], written["t10k"].float() / 255)
    assert all_of(task, "test").y.tolist() == list(range(10))
    held = torch.cat([all_of(task, split).x for split in ("train", "validation")])[:, 0].mul(255).round()
    assert sorted(held.flatten(1).tolist()) == sorted(written["train"].float().flatten(1).tolist())
    assert all_of(task, "validation").y.bincount().tolist() == [1] * 10


def test_mnist_agrees_with_torchvision(tmp_path: Path) -> None:
    import torchvision

    write_mnist(tmp_path)
    reference = torchvision.datasets.MNIST(tmp_path, train=False)
    test = all_of(mnist(DownloadedOptions(root=str(tmp_path), validation=10)), "test")
    assert torch.equal(test.x[:, 0], reference.data.float() / 255)
    assert torch.equal(test.y, reference.targets)


def test_train_samples_are_the_first_of_the_same_order(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    options = DownloadedOptions(root=str(tmp_path), validation=10)
    few = mnist(dataclasses.replace(options, train_samples=20))
    everything = mnist(options)
    assert torch.equal(all_of(few, "train").x, all_of(everything, "train").x[:20])
    assert_same(all_of(few, "validation"), all_of(everything, "validation"))
    with pytest.raises(ValueError, match=r"train_samples = 31.*30 are left"):
        mnist(dataclasses.replace(options, train_samples=31))


def test_the_root_is_found_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    monkeypatch.setenv("ROBUSTPLUG_DATA", str(tmp_path))
    assert mnist(DownloadedOptions(validation=10)).info.sizes["test"] == 10


@pytest.mark.parametrize("factory", [mnist, fashion_mnist, cifar10, cifar100, svhn])
def test_missing_data_is_reported_at_construction_with_the_ways_out(
    tmp_path: Path, factory: Callable[[DownloadedOptions], ArrayTask]
) -> None:
    folder = tmp_path / "nowhere"
    with pytest.raises(DataMissing) as caught:
        factory(AugmentedOptions(root=str(folder)))
    for part in (str(folder), "task.root", "ROBUSTPLUG_DATA", "task.download = true"):
        assert part in str(caught.value)
    assert not folder.exists()


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x0d\x01\0\0\0\0", b"\0\0\x08\x01\0\0\0\x05abc", b"\0\0\x08\x03\0\0\0\x05"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes, packed: bool) -> None:
    path = tmp_path / ("labels.gz" if packed else "labels")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(BrokenData, match="labels"):
        read_idx(path)


def test_a_truncated_gz_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(bytes(range(256)))[:40])
    with pytest.raises(BrokenData, match="labels"):
        read_idx(path)


class FakeCifar:
    classes = ("cat", "dog")

    def __init__(self, root: Path, train: bool, download: bool) -> None:
        count = 20 if train else 6
        self.data = np.arange(count * 32 * 32 * 3).reshape(count, 32, 32, 3).astype(np.uint8)
        self.targets = [number % 2 for number in range(count)]


class FakeSvhn:
    def __init__(self, root: Path, split: str, download: bool) -> None:
        count = 20 if split == "train" else 6
        self.data = np.arange(count * 32 * 32 * 3).reshape(count, 3, 32, 32).astype(np.uint8)
        self.labels = np.arange(count) % 10


def test_cifar_and_svhn_images_become_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCifar)
    monkeypatch.setattr(torchvision.datasets, "SVHN", FakeSvhn)
    options = AugmentedOptions(validation=4)
    task = cifar10(options)
    assert (task.info.shape, task.info.class_names) == ((3, 32, 32), ("cat", "dog"))
    pixels = FakeCifar(Path(), False, False).data
    assert torch.equal(all_of(task, "test").x, torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255)
    house = svhn(options)
    assert house.info.shape == (3, 32, 32)
    assert torch.equal(
        all_of(house, "test").x, torch.tensor(FakeSvhn(Path(), "test", False).data).float() / 255
    )


# Image folders

CLASSES = ("cat", "dog", "train")


def write_images(folder: Path, classes: Sequence[str], count: int, size: tuple[int, int] = (20, 16)) -> None:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            shape = (size[1], size[0], 3)
            pixels = torch.randint(256, shape, generator=stream(number, name, folder.name))
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / name / f"{number:03}.png")


def folder_task(root: Path, **options: Any) -> ImageFolderTask:
    return ImageFolderTask(ImageFolderOptions(root=str(root), **{"size": 16, "workers": 0, **options}))


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flat")
    write_images(root, CLASSES, 10)
    return root


def test_a_flat_tree_is_split_by_class(flat: Path) -> None:
    task = folder_task(flat)
    assert task.info.sizes == {"train": 21, "validation": 3, "test": 6}
    assert (task.info.class_names, task.info.classes) == (CLASSES, 3)
    assert (task.info.shape, task.default_model) == ((3, 16, 16), "preact-resnet18")
    parts = [all_of(task, split) for split in SPLITS]
    assert [part.y.bincount().tolist() for part in parts] == [[7] * 3, [1] * 3, [2] * 3]
    served = torch.cat([part.x for part in parts])
    assert len({image.numpy().tobytes() for image in served}) == 30
    assert task.info.mean == pytest.approx(parts[0].x.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert task.info.std == pytest.approx(parts[0].x.std((0, 2, 3), correction=0).tolist(), abs=1e-6)


def test_a_png_of_the_right_size_is_served_pixel_by_pixel(tmp_path: Path) -> None:
    write_images(tmp_path, ("a", "b"), 4, size=(16, 16))
    expected = {
        tuple(torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).flatten().tolist())
        for path in tmp_path.rglob("*.png")
    }
    task = folder_task(tmp_path)
    served = torch.cat([all_of(task, split).x for split in SPLITS])
    assert {tuple(image.flatten().mul(255).round().long().tolist()) for image in served} == expected


@pytest.mark.parametrize("name", ["val", "validation"])
def test_folders_for_all_splits_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    for folder, count in (("train", 4), (name, 3), ("test", 2)):
        write_images(tmp_path / folder, CLASSES, count)
    task = folder_task(tmp_path)
    assert task.info.sizes == {"train": 12, "validation": 9, "test": 6}
    # Classes are mixed in the stored order, so that its first samples represent the split.
    assert sorted(all_of(task, "test", samples=3).y.tolist()) == [0, 1, 2]


def test_the_imagenet_layout_tests_on_val_and_holds_validation_out_of_train(tmp_path: Path) -> None:
    write_images(tmp_path / "train", CLASSES, 10)
    write_images(tmp_path / "val", CLASSES[1:], 2)
    task = folder_task(tmp_path)
    assert task.info.sizes == {"train": 27, "validation": 3, "test": 4}
    # Labels are those of the training classes though val/ lacks the first of them.
    assert all_of(task, "test").y.bincount().tolist() == [0, 2, 2]


def test_folders_train_and_test_hold_validation_out_of_train(tmp_path: Path) -> None:
    write_images(tmp_path / "train", CLASSES, 10)
    write_images(tmp_path / "test", CLASSES, 2)
    assert folder_task(tmp_path).info.sizes == {"train": 27, "validation": 3, "test": 6}


def test_a_split_with_unknown_classes_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train", ("cat", "dog"), 3)
    write_images(tmp_path / "test", ("cat", "horse"), 3)
    with pytest.raises(ValueError, match="horse"):
        folder_task(tmp_path)


def test_splits_without_a_training_folder_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "test", ("cat", "dog"), 3)
    with pytest.raises(DataMissing, match="no class folders in train"):
        folder_task(tmp_path)


@pytest.mark.parametrize(
    "make", [lambda _: None, lambda root: root.mkdir(), lambda root: (root / "a").mkdir(parents=True)]
)
def test_a_folder_without_images_is_reported(tmp_path: Path, make: Callable[[Path], None]) -> None:
    root = tmp_path / "pictures"
    make(root)
    with pytest.raises(DataMissing, match=r"pictures.*task\.root.*ROBUSTPLUG_DATA"):
        folder_task(root)


@pytest.mark.parametrize("size", [16, 72])
def test_workers_ranks_and_skip_change_no_bit(flat: Path, size: int) -> None:
    feed = Feed(shuffle=True, augment=True, batch_size=6, epoch=2)
    before = torch.get_rng_state()
    whole = list(folder_task(flat, size=size, upsample=True).batches("train", feed))
    assert [len(batch) for batch in whole] == [6, 6, 6, 3]
    with_workers = folder_task(flat, size=size, upsample=True, workers=2)
    for one, other in zip(with_workers.batches("train", feed), whole, strict=True):
        assert_same(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    alone = folder_task(flat, size=size, upsample=True)
    skipped = list(alone.batches("train", dataclasses.replace(feed, skip=3)))
    assert len(skipped) == 1
    assert_same(skipped[0], whole[3])
    for rank in range(2):
        half = list(alone.batches("train", dataclasses.replace(feed, rank=rank, world=2)))
        for part, batch in zip(half, whole, strict=True):
            assert torch.equal(part.x, batch.x[rank::2])
            assert torch.equal(part.index, batch.index[rank::2])


@pytest.mark.parametrize("size", [16, 72])
def test_folder_augmentation_follows_seed_and_epoch_and_the_option(flat: Path, size: int) -> None:
    task = folder_task(flat, size=size, upsample=True)
    stored, base = all_of(task, "train"), all_of(task, "train", augment=True)
    for other in (
        stored,
        all_of(task, "train", augment=True, epoch=1),
        all_of(task, "train", augment=True, seed=1),
    ):
        assert torch.equal(other.index, base.index)
        assert not torch.equal(other.x, base.x)
    assert_same(base, all_of(task, "train", augment=True))
    plain = folder_task(flat, size=size, upsample=True, augment=False)
    assert_same(stored, all_of(plain, "train", augment=True))


def test_folder_index_names_the_same_image_in_every_order(flat: Path) -> None:
    task = folder_task(flat)
    stored = all_of(task, "train")
    shuffled = all_of(task, "train", shuffle=True)
    assert not torch.equal(shuffled.index, stored.index)
    assert torch.equal(shuffled.x, stored.x[shuffled.index])
    assert torch.equal(shuffled.y, stored.y[shuffled.index])


def test_skipped_images_are_never_decoded(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, opened = folder_task(flat), []

    def counted(path: str, *rest: Any) -> Tensor:
        opened.append(path)
        return decode(path, *rest)

    monkeypatch.setattr("robustplug.builtin.tasks.picture_task.decode", counted)
    batches = list(task.batches("train", Feed(batch_size=6, skip=2)))
    assert len(opened) == sum(map(len, batches)) == 9


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", [0, 100])
def test_a_broken_image_is_named(tmp_path: Path, workers: int, cut: int) -> None:
    write_images(tmp_path / "train", ("a", "b"), 10)
    write_images(tmp_path / "test", ("a", "b"), 3)
    broken = tmp_path / "test" / "b" / "001.png"
    task = folder_task(tmp_path, workers=workers)
    broken.write_bytes(broken.read_bytes()[:cut])  # after the check
    with pytest.raises(BrokenData, match=r"001\.png") as caught:
        all_of(task, "test")
    assert "Traceback" not in str(caught.value)


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P"):
        path = tmp_path / f"{mode}.png"
        Image.new(mode, (8, 8), 3).save(path)
        assert decode(str(path), (8, 8), "white").shape == (3, 8, 8)


def test_boxes_lie_in_the_image_and_vary() -> None:
    assert centre_box(20, 10) == (5, 0, 15, 10)
    rng = stream(0)
    boxes = [random_box(50, 30, rng) for _ in range(300)]
    areas = []
    for left, upper, right, lower in boxes:
        assert 0 <= left < right <= 50
        assert 0 <= upper < lower <= 30
        areas.append((right - left) * (lower - upper) / 1500)
        assert 0.7 < (right - left) / (lower - upper) < 1.45
    assert min(areas) < 0.15
    assert max(areas) > 0.75
    # Nothing of these proportions fits into a strip.
    assert random_box(1000, 1, rng) == (499, 0, 500, 1)


# Declarations


def test_every_component_loads_and_its_defaults_build() -> None:
    assert [task.name for task in TASKS] == [
        "mix",
        "digits",
        "mnist",
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "svhn",
        "image-folder",
        "arrays",
        "huggingface",
        "webdataset",
    ]
    for component in TASKS:
        assert callable(component.load())
        assert component.summary
        component.options(**component.trial)


def test_declarations_import_no_heavy_library() -> None:
    code = "import json, sys, robustplug.builtin.tasks; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "sklearn", "numpy", "PIL", "pydantic"} & set(json.loads(done.stdout))
