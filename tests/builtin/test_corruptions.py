"""The corruptions: what each does, what it depends on, and the published files."""

from __future__ import annotations

import colorsys
import io
import itertools
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import nn

from robustplug.builtin import BallOptions
from robustplug.builtin.shifts import CorruptionKind, CorruptionOptions, blur, digital, spatter, weather
from robustplug.builtin.shifts.arrays import pixel_scale
from robustplug.builtin.shifts.corruption import KINDS, Corruption, corrupt
from robustplug.builtin.vicinities import Linf
from robustplug.core.random import stream
from robustplug.core.step import Step
from robustplug.core.types import Batch
from robustplug.errors import Refused
from robustplug.testing.toys import ToyTask

Levels = NDArray[np.uint8]

NAMES: tuple[CorruptionKind, ...] = get_args(CorruptionKind)
ANY_CHANNELS = [name for name in NAMES if not KINDS[name].channels]
SEVERITIES = range(1, 6)
GREY = 128


def pictures(size: int = 8, channels: int = 3, height: int = 32, width: int = 32) -> Levels:
    """Return smooth coloured images with some edges, uint8 (N, C, H, W)."""
    rng = np.random.default_rng(0)
    x = ndimage.gaussian_filter(rng.standard_normal((size, channels, height, width)), (0, 0, 3, 3))
    x += 0.1 * ndimage.gaussian_filter(rng.standard_normal((size, 1, height, width)), (0, 0, 1.5, 1.5))
    x = (x - x.min()) / (x.max() - x.min())
    for image in x:
        top, left = rng.integers(2, (height - 2, width - 2))
        image[:, top:, left:] *= 0.4
    levels: Levels = np.rint(x * 255).astype(np.uint8)
    return levels


def flat(level: int = GREY, size: int = 4, channels: int = 3) -> Levels:
    return np.full((size, channels, 32, 32), level, dtype=np.uint8)


def shift(kind: CorruptionKind, severity: int = 3, **options: Any) -> Corruption:
    ball: Any = Linf(BallOptions(eps=0))
    return Corruption(CorruptionOptions(kind=kind, severity=severity, **options), ball=ball)


def sampled(vicinity: Corruption, batch: Batch) -> torch.Tensor:
    step = Step(nn.Identity(), None, ToyTask(), batch, stream(0, "step"))  # type: ignore[arg-type]
    result: torch.Tensor = vicinity.sample(step, batch).x
    return result


def batch_of(levels: Levels, index: Sequence[int] | None = None) -> Batch:
    rows = torch.arange(len(levels)) if index is None else torch.tensor(index)
    return Batch(torch.from_numpy(levels).float() / 255, rows % 10, rows)


# --- all kinds


def test_there_are_nineteen_kinds_of_five_severities() -> None:
    assert len(NAMES) == 19
    assert set(KINDS) == set(NAMES)
    assert all(len(kind.severities) == 5 for kind in KINDS.values())


@pytest.mark.parametrize("kind", NAMES)
def test_each_severity_changes_the_images_and_gives_levels(kind: CorruptionKind) -> None:
    batch = batch_of(pictures())
    before = batch.x.clone()
    for severity in SEVERITIES:
        x = sampled(shift(kind, severity), batch)
        assert x.shape == before.shape
        assert x.dtype == torch.float32
        assert x.min() >= 0
        assert x.max() <= 1
        assert torch.allclose(x * 255, (x * 255).round(), atol=1e-4)
        assert (x != before).flatten(1).any(1).all()
    assert torch.equal(batch.x, before)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (64, 64), (24, 40), (70, 33)], ids=str)
@pytest.mark.parametrize("kind", NAMES)
def test_any_size_and_one_or_three_channels(kind: CorruptionKind, size: tuple[int, int]) -> None:
    for channels in (1, 3):
        levels = pictures(2, channels, *size)
        if kind == "saturate" and channels == 1:
            with pytest.raises(Refused, match="needs images with 3 channels, not 1"):
                sampled(shift(kind), batch_of(levels))
            continue
        x = sampled(shift(kind, 5), batch_of(levels))
        assert x.shape == levels.shape
        assert x.isfinite().all()
        # A small image may be without a single drop.
        assert kind == "spatter" or not torch.equal(x, batch_of(levels).x)


@pytest.mark.parametrize("kind", NAMES)
def test_other_numbers_of_channels_where_colour_plays_no_part(kind: CorruptionKind) -> None:
    batch = batch_of(pictures(2, 2))
    if kind in ANY_CHANNELS:
        assert sampled(shift(kind), batch).shape == batch.x.shape
    else:
        with pytest.raises(Refused, match="channels, not 2; leave it out"):
            sampled(shift(kind), batch)


@pytest.mark.parametrize("kind", NAMES)
def test_a_sample_depends_on_its_index_and_not_on_its_batch(kind: CorruptionKind) -> None:
    levels, vicinity = pictures(5), shift(kind)
    together = sampled(vicinity, batch_of(levels, [7, 3, 0, 90, 4]))
    assert torch.equal(sampled(vicinity, batch_of(levels, [7, 3, 0, 90, 4])), together)
    assert torch.equal(sampled(shift(kind), batch_of(levels[3:4], [90])), together[3:4])
    turned = sampled(vicinity, batch_of(levels[::-1].copy(), [4, 90, 0, 3, 7]))
    assert torch.equal(turned.flip(0), together)


RANDOM = [name for name in NAMES if name.endswith("noise")]
RANDOM += ["glass_blur", "motion_blur", "snow", "frost", "fog", "elastic_transform", "spatter"]


@pytest.mark.parametrize("kind", NAMES)
def test_what_is_random_depends_on_index_and_seed(kind: CorruptionKind) -> None:
    same = np.repeat(pictures(1), 2, 0)
    x = sampled(shift(kind), batch_of(same, [0, 1]))
    other = sampled(shift(kind, seed=1), batch_of(same, [0, 1]))
    assert torch.equal(x[0], x[1]) == (kind not in RANDOM)
    assert torch.equal(x, other) == (kind not in RANDOM)


def test_severity_and_kind_change_the_draws() -> None:
    base = flat(GREY, 1)
    signs = [
        np.sign(corrupted.astype(int) - GREY)
        for kind, severity in (("gaussian_noise", 4), ("gaussian_noise", 5), ("speckle_noise", 5))
        for corrupted in [(sampled(shift(kind, severity), batch_of(base)) * 255).round().numpy()]  # type: ignore[arg-type]
    ]
    assert abs(np.corrcoef(signs[0].ravel(), signs[1].ravel())[0, 1]) < 0.1
    assert abs(np.corrcoef(signs[1].ravel(), signs[2].ravel())[0, 1]) < 0.1


def test_the_global_generators_are_left_alone() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    for kind in NAMES:
        corrupt(pictures(1), kind, 3, [0])
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]


NOT_MONOTONE = {"glass_blur", "frost", "elastic_transform", "spatter", "saturate"}


@pytest.mark.parametrize("kind", [name for name in NAMES if name not in NOT_MONOTONE])
def test_distortion_grows_with_severity(kind: CorruptionKind) -> None:
    levels = pictures(32)
    seeds = range(32)
    distances = [
        float(np.abs(corrupt(levels, kind, severity, seeds).astype(float) - levels).mean())
        for severity in SEVERITIES
    ]
    # Severities 3 and 4 of the motion blur differ only far out in the trail.
    slack = 0.97 if kind == "motion_blur" else 1.0
    assert all(later >= slack * sooner for sooner, later in itertools.pairwise(distances))
    assert distances[-1] > 1.3 * distances[0]


def test_a_batch_may_be_empty() -> None:
    empty = Batch(torch.zeros(0, 3, 32, 32), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    for kind in NAMES:
        assert sampled(shift(kind), empty).shape == (0, 3, 32, 32)


def test_lengths_in_pixels_grow_and_never_shrink() -> None:
    scales = [pixel_scale(np.zeros((1, 1, *size))) for size in ((8, 8), (32, 32), (64, 64), (48, 224))]
    assert scales == [1, 1, 2, 1.5]


# --- noise


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_the_published_deviation(severity: int) -> None:
    sigma = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    x = corrupt(flat(), "gaussian_noise", severity, range(4)) / 255
    # Rounding down to levels takes half a level from the mean.
    assert x.mean() == pytest.approx((GREY - 0.5) / 255, abs=4 * sigma / 110)
    assert x.std() == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_has_the_variance_of_counts(severity: int) -> None:
    photons = (500, 250, 100, 75, 50)[severity - 1]
    x = corrupt(flat(), "shot_noise", severity, range(4)) / 255
    assert x.std() == pytest.approx((GREY / 255 / photons) ** 0.5, rel=0.04)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_speckle_noise_is_proportional(severity: int) -> None:
    sigma = (0.06, 0.1, 0.12, 0.16, 0.2)[severity - 1]
    x = corrupt(flat(100), "speckle_noise", severity, range(4)) / 255
    assert x.std() == pytest.approx(sigma * 100 / 255, rel=0.04)
    assert (corrupt(flat(0), "speckle_noise", severity, range(4)) == 0).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_sets_the_published_share(severity: int) -> None:
    amount = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    x = corrupt(flat(size=20), "impulse_noise", severity, range(20))
    assert set(np.unique(x)) == {0, GREY, 255}
    for level in (0, 255):
        assert (x == level).mean() == pytest.approx(amount / 2, rel=0.15)


# --- blurs


def point(channels: int = 3) -> Levels:
    x = np.zeros((1, channels, 32, 32), dtype=np.uint8)
    x[:, :, 16, 16] = 255
    return x


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_blur_spreads_a_point_as_a_gaussian(severity: int) -> None:
    sigma = (0.4, 0.6, 0.7, 0.8, 1)[severity - 1]
    steps = np.arange(-15, 16)
    taps = np.exp(-(steps**2) / (2 * sigma**2))
    taps /= taps.sum()
    x = corrupt(point(), "gaussian_blur", severity, [0])[0, :, 1:, 1:].astype(float)
    assert np.abs(x - 255 * np.outer(taps, taps)).max() < 1.2


def test_the_widest_defocus_is_the_mean_of_three_by_three() -> None:
    levels = pictures()
    mean = ndimage.uniform_filter(levels / 255, (0, 0, 3, 3), mode="mirror") * 255
    assert np.abs(corrupt(levels, "defocus_blur", 5, range(8)) - (mean - 0.5)).max() <= 0.51


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", [name for name in NAMES if name.endswith("blur")])
def test_a_blur_leaves_flat_images_alone(kind: CorruptionKind, severity: int) -> None:
    for level in (0, 1, GREY, 254, 255):
        assert (corrupt(flat(level, 1), kind, severity, [0]) == level).all()


def test_the_disk_grows_with_the_radius_and_sums_to_one() -> None:
    for radius, alias, reach in ((0.3, 0.4, 1), (1, 0.2, 1), (10.5, 0.7, 7)):
        kernel = blur.disk(radius, alias, reach)
        assert kernel.sum() == pytest.approx(1)
        assert np.allclose(kernel, kernel.T)
        assert np.allclose(kernel, kernel[::-1])
    assert (blur.disk(10.5, 0.1, 1) > 1e-6).sum() == pytest.approx(np.pi * 10.5**2, rel=0.05)


def test_glass_moves_pixels_by_one_away_from_the_border() -> None:
    x = np.arange(1024, dtype=np.float64).reshape(1, 1, 32, 32) / 1023
    # Without the blur, and with levels fine enough to tell pixels apart by their neighbours only.
    levels = np.floor(x * 255 + 1e-3) / 255
    moved = blur.glass_blur(x, [np.random.default_rng(0)], 0.0, 1, 1)
    assert np.array_equal(moved[:, :, :2], levels[:, :, :2])
    assert np.array_equal(moved[:, :, :, :2], levels[:, :, :, :2])
    sources = np.stack([np.roll(levels, (rows, columns), (2, 3)) for rows in (0, 1) for columns in (0, 1)])
    assert (moved == sources).any(0)[:, :, 2:, 2:].all()
    assert (moved != levels)[:, :, 2:, 2:].mean() > 0.4


def test_a_smear_is_half_a_gaussian_along_its_direction() -> None:
    x = point(1) / 255
    weights = np.exp(-(np.arange(13) ** 2) / (2 * 2.0**2))
    weights = np.rint(255 * weights / weights.sum())
    right, down = (np.rint(blur.smear(x, 6, 2, np.array([angle])) * 255)[0, 0] for angle in (0.0, 90.0))
    # A pixel shows what lies ahead of it, so that the trail goes back from the point.
    assert np.array_equal(right[16, 16:3:-1], weights)
    assert np.array_equal(down[16:3:-1, 16], weights)
    assert right.sum() == down.sum() == weights.sum()


def test_motion_directions_stay_within_45_degrees_of_the_horizontal() -> None:
    x = corrupt(np.repeat(point(1), 64, 0), "motion_blur", 5, range(64))[:, 0].astype(float)
    rows = np.abs((x * np.arange(-16, 16)[:, None]).sum((1, 2)))
    columns = (x * np.arange(-16, 16)).sum((1, 2))
    assert (columns < 0).all()
    assert (rows <= 1.2 * np.abs(columns)).all()
    assert rows.max() > 0.6 * np.abs(columns).max()


@pytest.mark.parametrize("factor", [1.0, 1.05, 1.26, 2.25])
def test_zoom_is_that_of_scipy(factor: float) -> None:
    x = pictures(1, 1)[0, 0] / 255
    kept = int(np.ceil(32 / factor))
    start = (32 - kept) // 2
    larger = ndimage.zoom(x[start : start + kept, start : start + kept], factor, order=1)
    trim = (len(larger) - 32) // 2
    assert np.allclose(blur.zoom(x[None, None], factor)[0, 0], larger[trim : trim + 32, trim : trim + 32])
    assert np.allclose(blur.enlargement(32, factor).sum(1), 1)


def test_zoom_blur_averages_the_zooms_and_the_image() -> None:
    x = pictures(2) / 255
    zooms = [blur.zoom(x, 1 + 0.01 * step) for step in range(21)]
    expected = (x + np.sum(zooms, 0)) / 22
    assert np.abs(blur.zoom_blur(x, [], 1.21) - expected).max() < 1e-9


# --- weather


def test_fog_adds_a_cloud_and_scales_the_image_down() -> None:
    x = pictures(2) / 255
    clouds = weather.plasma(32, 1.75, [np.random.default_rng(n) for n in range(2)])[:, None]
    top = x.max((1, 2, 3), keepdims=True)
    fogged = weather.fog(x, [np.random.default_rng(n) for n in range(2)], 1.5, 1.75)
    assert np.allclose(fogged, (x + 1.5 * clouds) * top / (top + 1.5))
    assert (fogged <= top + 1e-12).all()


def test_clouds_fill_the_unit_interval_and_are_smoother_with_decay() -> None:
    rough, smooth = (
        weather.plasma(64, decay, [np.random.default_rng(n) for n in range(8)]) for decay in (1.2, 3.0)
    )
    for clouds in (rough, smooth):
        assert np.allclose(clouds.min((1, 2)), 0)
        assert np.allclose(clouds.max((1, 2)), 1)
    steps = [np.abs(np.diff(clouds, axis=1)).mean() for clouds in (rough, smooth)]
    assert steps[0] > 3 * steps[1]
    # They are periodic: the seam is as smooth as the rest.
    seam = np.abs(smooth[:, 0] - smooth[:, -1]).mean()
    assert seam < 2 * steps[1]


def test_snow_without_flakes_whitens_by_the_luminance() -> None:
    x = pictures(2) / 255
    grey = (x * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdims=True)
    rngs = [np.random.default_rng(n) for n in range(2)]
    snowed = weather.snow(x, rngs, 0.1, 0.2, 1, 99, 8, 3, 0.8)
    assert np.allclose(snowed, 0.8 * x + 0.2 * np.maximum(x, 1.5 * grey + 0.5))


def test_snow_flakes_fall_and_are_as_white_in_all_channels() -> None:
    x = np.zeros((32, 3, 32, 32))
    flakes = weather.snow(x, [np.random.default_rng(n) for n in range(32)], 0.1, 0.2, 1, 0.5, 10, 4, 1.0)
    assert np.array_equal(flakes[:, 0], flakes[:, 2])
    assert np.array_equal(flakes, flakes[:, :, ::-1, ::-1])
    # Steeper than 45 degrees: neighbours above are more alike than neighbours beside.
    assert np.abs(np.diff(flakes, axis=2)).mean() < np.abs(np.diff(flakes, axis=3)).mean()


def test_frost_is_keep_times_image_plus_bluish_ice() -> None:
    rngs = [[np.random.default_rng(n) for n in range(6)] for _ in range(2)]
    x = pictures(6) / 255
    ice = weather.frost(np.zeros_like(x), rngs[0], 0.75, 1.0)
    assert np.allclose(weather.frost(x, rngs[1], 0.75, 0.45), 0.75 * x + 0.45 * ice)
    assert ice.min() > 0.1
    assert ice.max() <= 1
    assert (ice[:, 2] > ice[:, 0]).all()
    assert (ice.std((1, 2, 3)) > 0.05).all()


def test_frost_textures_have_no_seam_and_keep_their_look_when_enlarged() -> None:
    for factor in (1, 3):
        textures = weather.frost_textures(factor)
        assert textures.shape == (5, 128 * factor, 128 * factor)
        inside = np.abs(np.diff(textures, axis=1)).mean()
        assert np.abs(textures[:, 0] - textures[:, -1]).mean() < 1.3 * inside
        assert np.allclose(textures.mean((1, 2)), weather.frost_textures(1).mean((1, 2)), atol=0.01)


def test_water_only_brightens_and_mud_only_mixes_in_brown() -> None:
    dark = flat(0, 8)
    for severity in (1, 2, 3):
        x = corrupt(dark, "spatter", severity, range(8)).astype(float)
        wet = x[:, 1] > 60
        assert 0.001 < wet.mean() < 0.4
        assert np.allclose(x[:, 0][wet] / x[:, 1][wet], 175 / 238, atol=0.02)
        assert np.array_equal(x[:, 1], x[:, 2])
        assert (corrupt(pictures(), "spatter", severity, range(8)) >= pictures()).all()
    for severity in (4, 5):
        x = corrupt(dark, "spatter", severity, range(8))
        assert (x.max((0, 2, 3)) <= (63, 42, 20)).all()
        assert (x.max((0, 2, 3)) >= (58, 38, 18)).all()


def test_drops_take_the_same_share_of_larger_images() -> None:
    shares = []
    for side in (32, 128):
        x = corrupt(np.full((16, 1, side, side), 255, dtype=np.uint8), "spatter", 5, range(16))
        shares.append((x < 255).mean())
    assert shares[1] == pytest.approx(shares[0], rel=0.35)


def test_canny_finds_the_outline_of_a_square() -> None:
    image = np.zeros((16, 16), dtype=np.uint8)
    image[5:11, 5:11] = 200
    edges = spatter.canny(image, 50, 150)
    assert not spatter.canny(np.full((16, 16), 90, dtype=np.uint8), 50, 150).any()
    rows, columns = np.nonzero(edges)
    assert {*rows, *columns} <= {4, 5, 6, 7, 8, 9, 10, 11}
    assert not edges[6:10, 6:10].any()
    assert edges[7, :8].sum() == edges[7, 8:].sum() == 1
    faint = np.zeros((16, 16), dtype=np.uint8)
    faint[:, 8:] = 30
    assert not spatter.canny(faint, 50, 150).any()


def test_equalized_levels_fill_the_range() -> None:
    image = np.array([[10, 10, 20, 30]], dtype=np.uint8)
    assert spatter.equalized(image).tolist() == [[0, 0, 128, 255]]
    assert spatter.equalized(np.full((2, 2), 7, dtype=np.uint8)).tolist() == [[7, 7], [7, 7]]


# --- digital


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_follows_its_formula(severity: int) -> None:
    factor, levels = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1], pictures()
    mean = levels.mean((2, 3), keepdims=True)
    expected = np.floor(mean + factor * (levels - mean) + 1e-3)
    assert np.array_equal(corrupt(levels, "contrast", severity, range(8)), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", ["brightness", "saturate"])
def test_brightness_and_saturation_are_those_of_hsv(kind: CorruptionKind, severity: int) -> None:
    raised = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    factor, amount = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity - 1]
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 256, (200, 3))
    colours[:20] = rng.integers(0, 256, (20, 1))
    colours[0], colours[1] = 0, 255
    result = corrupt(colours.astype(np.uint8)[:, :, None, None], kind, severity, range(200))[:, :, 0, 0]
    for colour, found in zip(colours / 255, result, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        if kind == "brightness":
            value = min(1.0, value + raised)
        else:
            saturation = min(1.0, saturation * factor + amount)
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255
        assert np.abs(found - np.floor(expected + 1e-3)).max() == 0


def test_brightness_of_grey_images_adds_a_constant() -> None:
    x = corrupt(pictures(channels=1), "brightness", 4, range(8))
    assert np.array_equal(x, np.minimum(pictures(channels=1).astype(int) + 51, 255))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_and_pixelate_are_those_of_pil(channels: int, severity: int) -> None:
    quality, share = (80, 65, 58, 50, 40)[severity - 1], (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    levels = pictures(2, channels, 32, 48)
    compressed = corrupt(levels, "jpeg_compression", severity, range(2))
    coarse = corrupt(levels, "pixelate", severity, range(2))
    for number, image in enumerate(levels):
        pil = Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0))
        file = io.BytesIO()
        pil.save(file, "JPEG", quality=quality)
        with Image.open(file) as decoded:
            assert np.array_equal(compressed[number].transpose(1, 2, 0).squeeze(), np.asarray(decoded))
        small = pil.resize((int(48 * share), int(32 * share)), Image.Resampling.BOX)
        large = small.resize((48, 32), Image.Resampling.BOX)
        assert np.array_equal(coarse[number].transpose(1, 2, 0).squeeze(), np.asarray(large))


def test_three_points_that_stay_or_move_alike_give_no_map_or_a_translation() -> None:
    x = pictures(2, 3, 24, 40) / 255
    still = digital.resample(x, digital._affine(np.zeros((2, 3, 2)), 24, 40), "mirror")
    assert np.allclose(still, x)
    moves = np.broadcast_to(np.array([2.0, -3.0]), (2, 3, 2))
    moved = digital.resample(x, digital._affine(moves, 24, 40), "mirror")
    assert np.allclose(moved[:, :, 2:, :-3], x[:, :, :-2, 3:])
    # Beyond the border comes the mirror image.
    assert np.allclose(moved[:, :, 1, :-3], x[:, :, 1, 3:])


def test_an_affine_map_moves_its_three_points_where_it_says() -> None:
    moves = np.random.default_rng(0).uniform(-2, 2, (1, 3, 2))
    places = digital._affine(moves, 32, 32)
    points = np.array([[26, 26], [6, 26], [6, 6]])
    for number in range(2):
        # What is found at the new place of a point comes from its old place.
        plane = places[0, number]
        found = ndimage.map_coordinates(plane, (points + moves[0]).T, order=1)
        assert np.allclose(found, points[:, number])


def test_elastic_fields_are_bounded_by_alpha() -> None:
    ramp = np.broadcast_to(np.arange(32) / 31, (4, 1, 32, 32)).copy()
    rngs = [np.random.default_rng(n) for n in range(4)]
    moved = digital.elastic_transform(ramp, rngs, 0.1, 0.03, 0.0)
    assert 0.2 < np.abs(moved - ramp)[:, :, :, 4:-4].max() * 31 <= 3.2
