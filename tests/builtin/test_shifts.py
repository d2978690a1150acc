"""The shifts as vicinities, the invariance tests of SPROUT, and published files of corrupted images."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from robustplug.builtin import BallOptions
from robustplug.builtin.shifts import (
    SHIFTS,
    BrightnessOptions,
    ContrastOptions,
    CorruptionOptions,
    GreyOptions,
    RotateOptions,
)
from robustplug.builtin.shifts.base import Shift
from robustplug.builtin.shifts.corruption import Corruption
from robustplug.builtin.shifts.invariance import Brightness, Contrast, Grey, Rotate
from robustplug.builtin.vicinities import L2, Linf
from robustplug.core.random import stream
from robustplug.core.step import Step
from robustplug.core.types import Batch
from robustplug.errors import BrokenData, DataMissing, Refused
from robustplug.plugin.host import registry
from robustplug.testing.toys import ToyTask

ROTATE = RotateOptions(degrees=10)
FOG = CorruptionOptions(kind="fog", severity=5)


def ball(eps: float = 0.0) -> Any:
    return Linf(BallOptions(eps=eps))


def shifts(inner: Any) -> list[Shift]:
    return [
        Rotate(ROTATE, ball=inner),
        Brightness(BrightnessOptions(), ball=inner),
        Contrast(ContrastOptions(), ball=inner),
        Grey(GreyOptions(), ball=inner),
        Corruption(FOG, ball=inner),
    ]


def levels(size: int = 4, channels: int = 3, side: int = 32) -> Tensor:
    """Return random images of 8-bit levels, uint8 (N, C, H, W)."""
    rng = stream(0, "levels", channels, side)
    return torch.randint(256, (size, channels, side, side), generator=rng, dtype=torch.uint8)


def batch_of(x: Any, size: int = 4) -> Batch:
    return Batch(x, torch.arange(size) % 3, torch.arange(size))


def step_of(batch: Batch) -> Step:
    return Step(nn.Identity(), None, ToyTask(), batch, stream(0, "step"))  # type: ignore[arg-type]


def sample(shift: Shift, batch: Batch) -> Tensor:
    result: Tensor = shift.sample(step_of(batch), batch).x
    return result


def sampled(shift: Shift, x: Any) -> Tensor:
    return sample(shift, batch_of(x))


def test_all_shifts_are_registered() -> None:
    for component in SHIFTS:
        assert registry().get("vicinity", component.name) is component


@pytest.mark.parametrize("number", range(5))
def test_only_the_images_change_and_they_are_fresh(number: int) -> None:
    shift, x = shifts(ball())[number], levels().float() / 255
    batch, before = batch_of(x), x.clone()
    result = shift.sample(step_of(batch), batch)
    assert torch.equal(batch.x, before)
    assert result.y is batch.y
    assert result.index is batch.index
    assert result.x.shape == x.shape
    assert result.x.dtype == torch.float32
    assert result.x.min() >= 0
    assert result.x.max() <= 1
    assert not torch.equal(result.x, before)
    result.x.add_(1)
    assert torch.equal(batch.x, before)


@pytest.mark.parametrize("inner", [ball(0.1), L2(BallOptions(eps=0.5))], ids=["linf", "l2"])
@pytest.mark.parametrize("number", range(5))
def test_the_ball_is_that_of_the_inner_vicinity(number: int, inner: Any) -> None:
    shift = shifts(inner)[number]
    origin = torch.full((4, 3, 8, 8), 0.5)
    far = origin + torch.linspace(-0.4, 0.4, 64).view(1, 1, 8, 8)
    radius = torch.tensor([0.0, 0.05, 0.1, 0.3])
    assert (shift.eps, shift.norm) == (inner.eps, inner.norm)
    assert torch.equal(shift.project(far, origin, radius), inner.project(far, origin, radius))
    assert torch.equal(shift.contains(far, origin, radius), inner.contains(far, origin, radius))
    assert torch.equal(shift.steepest(far), inner.steepest(far))
    draws = [v.random_point(origin, radius, stream(0, "draw")) for v in (shift, inner)]
    assert torch.equal(*draws)


def test_the_radius_can_be_set_as_that_of_any_vicinity() -> None:
    inner = ball(0.1)
    shift = Rotate(ROTATE, ball=inner)
    shift.eps = 0.2
    assert inner.eps == shift.eps == 0.2
    assert shift.norm == math.inf


def test_a_shift_inside_a_shift_comes_second() -> None:
    x = levels().float() / 255
    rotated = functional.rotate(x, 10)
    both = Rotate(ROTATE, ball=Corruption(FOG, ball=ball()))
    assert torch.equal(sampled(both, x), sampled(Corruption(FOG, ball=ball()), rotated))


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(
    "x",
    [torch.zeros(4, 64), torch.zeros(4, 3, 8, 8, dtype=torch.uint8), {"tokens": torch.zeros(4, 7)}],
    ids=["vectors", "bytes", "mapping"],
)
def test_what_is_no_image_is_refused(number: int, x: Any) -> None:
    with pytest.raises(Refused, match=r"\(N, C, H, W\).*leave it out"):
        sampled(shifts(ball())[number], x)


@pytest.mark.parametrize("number", [1, 2])
def test_colour_transforms_refuse_two_channels(number: int) -> None:
    with pytest.raises(Refused, match="1 or 3 channels, not 2"):
        sampled(shifts(ball())[number], torch.zeros(4, 2, 8, 8))


def test_grey_leaves_one_channel_as_it_is() -> None:
    x = levels(channels=1).float() / 255
    assert torch.equal(sampled(Grey(GreyOptions(), ball=ball()), x), x)


def test_grey_makes_the_channels_equal() -> None:
    grey = sampled(
        Grey(GreyOptions(), ball=ball()), torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(4, -1, 2, 2)
    )
    assert torch.allclose(grey, torch.tensor(1 / 3))


def test_brightness_and_contrast_follow_their_formulas() -> None:
    x = levels().float() / 255
    bright = sampled(Brightness(BrightnessOptions(), ball=ball()), x)
    assert torch.allclose(bright, (1.5 * x).clamp(0, 1), atol=1e-6)
    mean = (x * torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1).mean((1, 2)).view(4, 1, 1, 1)
    contrast = sampled(Contrast(ContrastOptions(), ball=ball()), x)
    assert torch.allclose(contrast, (mean + 2 * (x - mean)).clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["rotate", "brightness", "contrast"])
def test_the_transforms_agree_with_torchvision_on_pil_images(name: str, channels: int) -> None:
    raw = levels(channels=channels)
    shift, transform, arguments, rounding = {
        "rotate": (Rotate(ROTATE, ball=ball()), functional.rotate, (10,), 0.0),
        "brightness": (
            Brightness(BrightnessOptions(), ball=ball()),
            functional.adjust_brightness,
            (1.5,),
            1.0,
        ),
        # PIL rounds the mean grey too, before the factor 2 − 1.
        "contrast": (Contrast(ContrastOptions(), ball=ball()), functional.adjust_contrast, (2,), 1.5),
    }[name]
    result = sampled(shift, raw.float() / 255)
    for image, expected in zip(result, raw.numpy(), strict=True):
        pil = Image.fromarray(expected[0] if channels == 1 else expected.transpose(1, 2, 0))
        changed = np.atleast_3d(np.asarray(transform(pil, *arguments))).transpose(2, 0, 1)
        assert (image - torch.from_numpy(changed / 255)).abs().max() <= (rounding + 1e-3) / 255


def test_rotation_takes_any_number_of_channels_and_any_angle() -> None:
    x = levels(channels=2, side=9).float() / 255
    turned = sampled(Rotate(RotateOptions(degrees=-90), ball=ball()), x)
    assert torch.equal(turned, x.rot90(-1, (2, 3)))
    assert torch.equal(sampled(Rotate(RotateOptions(degrees=0), ball=ball()), x), x)


# --- published files


def published(folder: Path, n: int = 6) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Write small files in the layout of CIFAR-10-C; return their images and the labels of one severity."""
    images = np.random.default_rng(0).integers(0, 256, (5 * n, 32, 32, 3), dtype=np.uint8)
    labels = (np.arange(n) * 7 % 10).astype(np.uint8)
    np.save(folder / "fog.npy", images)
    np.save(folder / "labels.npy", np.tile(labels, 5))
    return images, labels


def read_from(folder: Path, severity: int = 3) -> Corruption:
    return Corruption(CorruptionOptions(kind="fog", severity=severity, root=str(folder)), ball=ball())


def rows(labels: NDArray[np.uint8], index: list[int]) -> Batch:
    y = torch.from_numpy(labels.astype(np.int64))[index]
    return Batch(torch.zeros(len(index), 3, 32, 32), y, torch.tensor(index))


@pytest.mark.parametrize("severity", range(1, 6))
def test_files_are_read_by_severity_and_index(tmp_path: Path, severity: int) -> None:
    images, labels = published(tmp_path)
    index = [4, 0, 5]
    x = sample(read_from(tmp_path, severity), rows(labels, index))
    expected = images[(severity - 1) * 6 :][index].transpose(0, 3, 1, 2)
    assert np.array_equal((x * 255).numpy().round(), expected)
    assert x.dtype == torch.float32


def test_labels_may_be_rows(tmp_path: Path) -> None:
    _, labels = published(tmp_path)
    batch = rows(labels, [1, 2])
    hot = dataclasses.replace(batch, y=torch.nn.functional.one_hot(batch.y, 10).float())
    vicinity = read_from(tmp_path)
    assert torch.equal(sample(vicinity, hot), sample(vicinity, batch))


def test_files_of_other_images_are_noticed(tmp_path: Path) -> None:
    _, labels = published(tmp_path)
    vicinity = read_from(tmp_path)
    batch = rows(labels, [1, 2])
    with pytest.raises(
        BrokenData, match=r"labels.npy has label 4 for sample 2, but the task has 5.*test split"
    ):
        sample(vicinity, dataclasses.replace(batch, y=torch.tensor([7, 5])))
    with pytest.raises(BrokenData, match=r"fog.npy holds 6 images and none for sample 6.*test split"):
        sample(vicinity, dataclasses.replace(batch, index=torch.tensor([1, 6])))
    with pytest.raises(BrokenData, match=r"images \(3, 32, 32\), but the task has \(1, 28, 28\)"):
        sample(vicinity, dataclasses.replace(batch, x=torch.zeros(2, 1, 28, 28)))


@pytest.mark.parametrize("name", ["fog.npy", "labels.npy"])
def test_missing_and_broken_files_are_named(tmp_path: Path, name: str) -> None:
    published(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    for bad in (b"", b"no array", content[:-5], content[:40]):
        path.write_bytes(bad)
        with pytest.raises(BrokenData, match=f"{name} is not a complete .npy file"):
            read_from(tmp_path)
    path.unlink()
    with pytest.raises(DataMissing, match=f"{name} does not exist; set root"):
        read_from(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("fog.npy", np.zeros((30, 32, 32, 3), dtype=np.float32), "holds float32"),
        ("fog.npy", np.zeros((31, 32, 32, 3), dtype=np.uint8), "not uint8 images"),
        ("fog.npy", np.zeros((30, 32, 32), dtype=np.uint8), "not uint8 images"),
        ("labels.npy", np.zeros(6, dtype=np.uint8), "not the 30 integer labels of fog.npy"),
        ("labels.npy", np.zeros(30), "holds float64"),
        ("labels.npy", np.array([{}] * 30), "not a complete .npy file"),
    ],
)
def test_files_of_another_layout_are_noticed(tmp_path: Path, name: str, array: Any, message: str) -> None:
    published(tmp_path)
    np.save(tmp_path / name, array, allow_pickle=True)
    with pytest.raises(BrokenData, match=message):
        read_from(tmp_path)
    np.savez(tmp_path / "both", a=np.zeros(1))
    (tmp_path / "both.npz").rename(tmp_path / name)
    with pytest.raises(BrokenData, match=r"is not a \.npy file"):
        read_from(tmp_path)
