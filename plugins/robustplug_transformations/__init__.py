"""Threat models of transformed images: rotations, shifts, colours, blur and compression by parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from robustplug.api import Bounds, Component, Count, NonNegative, Positive, Traits, Use, hookimpl, use

_HERE = "robustplug_transformations"
_ENGSTROM = "Engstrom et al. 2019, Exploring the Landscape of Spatial Robustness, arXiv:1712.02779"


@dataclass(frozen=True)
class SpatialOptions:
    """Options of `spatial`.

    Attributes:
        degrees: largest rotation to either side, about the centre.
        shift: largest shift to either side, in each direction, as a share of the image's side.
        zoom: largest magnification, and its inverse the smallest, less 1: 0.1 for sides of 1/1.1 to 1.1.
        eps: radius, in multiples of these ranges.
    """

    degrees: Annotated[float, Bounds(ge=0, le=180)] = 30.0
    shift: Annotated[float, Bounds(ge=0, le=1)] = 0.1
    zoom: NonNegative = 0.0
    eps: Positive = 1.0

    def __post_init__(self) -> None:
        if not (self.degrees or self.shift or self.zoom):
            raise ValueError("degrees, shift and zoom are 0, so nothing may change")


@dataclass(frozen=True)
class ColourOptions:
    """Options of `colour`.

    Attributes:
        brightness: largest amount that is added to all values, as a share of their range.
        contrast: largest relative change of the distance to the image's mean.
        saturation: largest relative change of the distance to the pixel's mean over channels.
        eps: radius, in multiples of these ranges.
    """

    brightness: NonNegative = 0.2
    contrast: NonNegative = 0.3
    saturation: NonNegative = 0.0
    eps: Positive = 1.0

    def __post_init__(self) -> None:
        if not (self.brightness or self.contrast or self.saturation):
            raise ValueError("brightness, contrast and saturation are 0, so nothing may change")


@dataclass(frozen=True)
class BlurOptions:
    """Options of `blur`.

    Attributes:
        sigma: largest standard deviation of the Gaussian kernel, in pixels.
        eps: radius, in multiples of it.
    """

    sigma: Positive = 1.0
    eps: Positive = 1.0


@dataclass(frozen=True)
class JpegOptions:
    """Options of `jpeg`.

    Attributes:
        quality: lowest quality, from 1 to 99; images have any from there to 100, or are not compressed.
        eps: radius, in multiples of the distance from 100.
    """

    quality: Annotated[int, Bounds(ge=1, le=99)] = 50
    eps: Positive = 1.0


@dataclass(frozen=True)
class InParametersOptions:
    """Options of `in-parameters`.

    Attributes:
        attack: attack that moves the parameters, such as angles, instead of the inputs.
    """

    attack: Annotated[Use, "perturbation"] = use("pgd", steps=20, restarts=3)


@dataclass(frozen=True)
class GridOptions:
    """Options of `grid`.

    Attributes:
        points: number of values of each parameter, evenly spaced over its range, and 0.
    """

    points: Count = 7


@dataclass(frozen=True)
class WorstOfKOptions:
    """Options of `worst-of-k`.

    Attributes:
        k: number of random parameters, of which the worst counts.
    """

    k: Count = 10


_SET = frozenset({"plain", "discrete", "parameters"})
_OF_PARAMETERS = {"parameters": "it chooses parameters of images: use vicinity spatial, colour, blur or jpeg"}
_WHOLE = {"whole-parameters": "qualities are whole numbers without gradients: use grid or worst-of-k"}


@hookimpl
def robustplug_vicinities() -> Iterable[Component]:
    """Offer the sets of transformed images."""
    continuous = Traits(gives=_SET)
    yield Component(
        "spatial",
        f"{_HERE}.spatial:Spatial",
        SpatialOptions,
        "images that are rotated, shifted and zoomed by any amounts within ranges",
        _ENGSTROM,
        traits=continuous,
    )
    yield Component(
        "colour",
        f"{_HERE}.colours:Colour",
        ColourOptions,
        "images of any brightness, contrast and saturation within ranges",
        traits=continuous,
    )
    yield Component(
        "blur",
        f"{_HERE}.colours:Blur",
        BlurOptions,
        "images that are blurred by any amount up to a limit",
        traits=continuous,
    )
    yield Component(
        "jpeg",
        f"{_HERE}.colours:Jpeg",
        JpegOptions,
        "images that are compressed with any quality down to a limit",
        traits=Traits(gives=_SET | {"whole-parameters"}),
    )


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer the attacks that choose parameters."""
    yield Component(
        "in-parameters",
        f"{_HERE}.attacks:InParameters",
        InParametersOptions,
        "another attack on the parameters of images, such as angles",
        _ENGSTROM,
        {"attack": {"use": "pgd", "steps": 3}},
        traits=Traits(gives=frozenset({"over-parameters"}), needs=_OF_PARAMETERS, excludes=_WHOLE),
    )
    yield Component(
        "grid",
        f"{_HERE}.attacks:Grid",
        GridOptions,
        "the worst of a grid of parameters",
        _ENGSTROM,
        {"points": 3},
        traits=Traits(needs=_OF_PARAMETERS),
    )
    yield Component(
        "worst-of-k",
        f"{_HERE}.attacks:WorstOfK",
        WorstOfKOptions,
        "the worst of some random parameters",
        _ENGSTROM,
        {"k": 3},
        traits=Traits(needs=_OF_PARAMETERS),
    )
