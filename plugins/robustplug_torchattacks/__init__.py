"""Every attack of torchattacks: `use = "torchattacks:PGD"`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from robustplug.api import Component, Rest, Traits, hookimpl


@dataclass(frozen=True)
class TorchattacksOptions:
    """Options of `torchattacks`.

    Attributes:
        name: of a class of torchattacks, for example "PGD".
        arguments: of its constructor, by the library's own names; the model, eps, the norm and the number
            of classes are passed by the adapter.
    """

    name: str
    arguments: Annotated[Mapping[str, Any], Rest()] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Only a recipe that uses torchattacks pays for its import.
        from .attack import constructor_arguments

        constructor_arguments(self.name, self.arguments)


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
        traits=Traits(excludes={"mixtures": "it needs one label for each sample, and a mixture has several"}),
    )
