"""Every attack of torchattacks: `use = "torchattacks:PGD"`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, LibraryOptions, Traits, hookimpl


@dataclass(frozen=True)
class TorchattacksOptions(LibraryOptions):
    """Options of `torchattacks`.

    Attributes:
        name: name of a class of torchattacks, for example "PGD".
        arguments: arguments of its constructor, by the library's own names; the adapter passes the model,
            eps, the norm and the number of classes.
    """

    def __post_init__(self) -> None:
        # Only a recipe that uses torchattacks pays for its import.
        from .attack import LIBRARY

        LIBRARY.checked(self)


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer the attacks of torchattacks."""
    yield Component(
        "torchattacks",
        "robustplug_torchattacks.attack:Torchattacks",
        TorchattacksOptions,
        "an attack of torchattacks, by its class name",
        "Kim 2020, arXiv:2010.01950",
        {"name": "FGSM"},
        traits=Traits(
            needs={"norm-ball": "the library knows whole norm balls alone, and this set is none"},
            excludes={
                "l1-ball": "the library knows L∞ and L2 alone",
                "mixtures": "it needs one label for each sample, and a mixture has several",
            },
        ),
    )
