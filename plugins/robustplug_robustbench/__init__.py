"""The robust models of RobustBench's zoo: `use = "robustbench:Carmon2019Unlabeled"`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from robustplug.api import Component, hookimpl


@dataclass(frozen=True)
class RobustBenchOptions:
    """Options of `robustbench`.

    Attributes:
        name: name of a model in the zoo, such as "Carmon2019Unlabeled".
        dataset: data set that it was trained on.
        threat: threat model that it was trained for.
        root: folder of the files of the zoo, in which a missing file is downloaded.
    """

    name: str
    dataset: Literal["cifar10", "cifar100", "imagenet"] = "cifar10"
    threat: Literal["Linf", "L2", "corruptions"] = "Linf"
    root: str = "models"


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer the models of RobustBench."""
    yield Component(
        "robustbench",
        "robustplug_robustbench.model:zoo_model",
        RobustBenchOptions,
        "a robust model of RobustBench's zoo, with its weights",
        "Croce et al. 2021, RobustBench, arXiv:2010.09670",
        {"name": "Wong2020Fast"},
        weights="robustplug_robustbench.model:zoo_weights",
    )
