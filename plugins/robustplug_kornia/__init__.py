"""Every image transformation of kornia in front of a model: `use = "kornia:GaussianBlur2d"`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from robustplug.api import Component, Count, LibraryOptions, Natural, Use, hookimpl, use

_FACTORY = "robustplug_kornia.behind:Behind"
_PAPER = "Riba et al. 2020, Kornia: an Open Source Differentiable Computer Vision Library, arXiv:1910.02190"
_TRIAL = {"name": "GaussianBlur2d", "kernel_size": [3, 3], "sigma": [0.8, 0.8]}


@dataclass(frozen=True)
class KorniaOptions(LibraryOptions):
    """Options of the wrapper `kornia`.

    Attributes:
        name: name of a class of kornia.augmentation, kornia.filters or kornia.enhance, for example
            "GaussianBlur2d".
        draws: of a random transformation, the number of draws, the same for every image, over which the
            model's probabilities are averaged; None for one that is not random.
        seed: seed of these draws.
        arguments: arguments of the constructor, by kornia's own names.
    """

    draws: Count | None = None
    seed: Natural = 0

    def __post_init__(self) -> None:
        # Only a recipe that uses kornia pays for its import.
        from .behind import made

        made(self)


@dataclass(frozen=True)
class KorniaModelOptions(KorniaOptions):
    """Options of the model `kornia`: those of the wrapper, and a model.

    Attributes:
        model: the model behind the transformation.
    """

    model: Annotated[Use, "model"] = use("small-cnn")


@hookimpl
def robustplug_wrappers() -> Iterable[Component]:
    """Offer transformations in front of the model under test."""
    yield Component(
        "kornia",
        _FACTORY,
        KorniaOptions,
        'the model behind a transformation of kornia, by its name: use = "kornia:NAME"',
        _PAPER,
        _TRIAL,
    )


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer models that are trained behind a transformation."""
    yield Component(
        "kornia",
        _FACTORY,
        KorniaModelOptions,
        'another model behind a transformation of kornia, by its name: use = "kornia:NAME"',
        _PAPER,
        _TRIAL,
    )
