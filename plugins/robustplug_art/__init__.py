"""Every evasion attack of the Adversarial Robustness Toolbox: `use = "art:HopSkipJump"`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, LibraryOptions, Traits, hookimpl


@dataclass(frozen=True)
class ArtOptions(LibraryOptions):
    """Options of `art`.

    Attributes:
        name: name of a class in art.attacks.evasion, for example "ProjectedGradientDescent".
        arguments: arguments of its constructor, by the library's own names; the adapter passes the
            classifier, eps and the norm.
    """

    def __post_init__(self) -> None:
        # Only a recipe that uses ART pays for its import.
        from .attack import LIBRARY, refuse_targets

        LIBRARY.checked(self)
        refuse_targets(self.name, self.arguments)


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer the evasion attacks of ART."""
    yield Component(
        "art",
        "robustplug_art.attack:Art",
        ArtOptions,
        "an evasion attack of the Adversarial Robustness Toolbox, by its class name",
        "Nicolae et al. 2018, arXiv:1807.01069",
        {"name": "FastGradientMethod"},
        traits=Traits(
            needs={"norm-ball": "the library knows whole norm balls alone, and this set is none"},
            excludes={"mixtures": "it needs one label for each sample, and a mixture has several"},
        ),
    )
