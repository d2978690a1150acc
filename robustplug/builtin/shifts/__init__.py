"""Built-in distribution shifts: vicinities whose samples are shifted images.

The radius of a shift is the radius of its `ball`, an inner vicinity around the shifted sample. With the
default, eps = 0, only the shifted sample is legal. Importing this module does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ...api import Bounds, Component, NonNegative, Real, Seed, Traits, Use, use

CorruptionKind = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
]
"""File names of CIFAR-10-C: the 15 kinds of the benchmark, then the 4 for choosing hyperparameters."""

Severity = Annotated[int, Bounds(ge=1, le=5)]


@dataclass(frozen=True)
class RotateOptions:
    """Options of `rotate`.

    Attributes:
        degrees: rotation angle in degrees, counter-clockwise.
        ball: vicinity of legal points around a rotated sample.
    """

    degrees: Real = 10
    ball: Annotated[Use, "vicinity"] = use("linf", eps=0)


@dataclass(frozen=True)
class BrightnessOptions:
    """Options of `brightness`.

    Attributes:
        factor: factor on every pixel; 1 for no change.
        ball: vicinity of legal points around a brightened sample.
    """

    factor: NonNegative = 1.5
    ball: Annotated[Use, "vicinity"] = use("linf", eps=0)


@dataclass(frozen=True)
class ContrastOptions:
    """Options of `contrast`.

    Attributes:
        factor: factor on the distance to the image's mean grey; 1 for no change.
        ball: vicinity of legal points around a changed sample.
    """

    factor: NonNegative = 2
    ball: Annotated[Use, "vicinity"] = use("linf", eps=0)


@dataclass(frozen=True)
class GreyOptions:
    """Options of `grey`.

    Attributes:
        ball: vicinity of legal points around a grey sample.
    """

    ball: Annotated[Use, "vicinity"] = use("linf", eps=0)


@dataclass(frozen=True)
class CorruptionOptions:
    """Options of `corruption`.

    Attributes:
        kind: name of the corruption.
        severity: severity from 1 (slight) to 5 (strong).
        seed: seed of the random part of the corruption; a sample's corruption depends only on the seed,
            kind, severity and the sample's index.
        root: folder of published files (`<kind>.npy` and `labels.npy`, as in CIFAR-10-C) to read instead
            of computing the corruption.
        ball: vicinity of legal points around a corrupted sample.
    """

    kind: CorruptionKind
    severity: Severity = 3
    seed: Seed = 0
    root: str | None = None
    ball: Annotated[Use, "vicinity"] = use("linf", eps=0)


# The conformance kit needs a ball with more than one point.
_TRIAL = {"ball": {"use": "linf", "eps": 0.1}}
_AROUND = Traits(gives=frozenset({"draws-around"}))
_HERE = "robustplug.builtin.shifts"
_SPROUT = "the invariance tests of Cheng et al. 2020, arXiv:2012.11769"

SHIFTS = (
    Component(
        "rotate",
        f"{_HERE}.invariance:Rotate",
        RotateOptions,
        "rotated images",
        _SPROUT,
        _TRIAL,
        traits=_AROUND,
    ),
    Component(
        "brightness",
        f"{_HERE}.invariance:Brightness",
        BrightnessOptions,
        "brighter images",
        _SPROUT,
        _TRIAL,
        traits=_AROUND,
    ),
    Component(
        "contrast",
        f"{_HERE}.invariance:Contrast",
        ContrastOptions,
        "images with more contrast",
        _SPROUT,
        _TRIAL,
        traits=_AROUND,
    ),
    Component(
        "grey",
        f"{_HERE}.invariance:Grey",
        GreyOptions,
        "images without colour",
        _SPROUT,
        _TRIAL,
        traits=_AROUND,
    ),
    Component(
        "corruption",
        f"{_HERE}.corruption:Corruption",
        CorruptionOptions,
        "images with one of 19 common corruptions, computed or read from CIFAR-10-C",
        "Hendrycks & Dietterich 2019, arXiv:1903.12261",
        {"kind": "gaussian_noise", **_TRIAL},
        traits=_AROUND,
    ),
)
