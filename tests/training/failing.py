"""A perturbation that fails as it is told to, and a recipe of one epoch that trains with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robustplug.core.types import Cost
from robustplug.plugin.component import Component

from .runs import tiny

Raise = Callable[[Any], object]
raising: list[Raise] = []


@dataclass(frozen=True)
class FailingOptions:
    only_training: bool = True


class Failing:
    def __init__(self, options: FailingOptions) -> None:
        self.options = options

    def __call__(self, step: Any, view: Any, vicinity: Any) -> Any:
        if not (self.options.only_training and step.evaluating):
            for each in raising:
                each(step)
        return view

    def cost(self, target: Cost) -> Cost:
        return Cost(0, 0)


FAILING = Component("failing", Failing, FailingOptions, "fails as it is told to")


def recipe(**tables: Any) -> dict[str, Any]:
    """Return a recipe whose method trains on the failing perturbation."""
    method = {"use": "pgd-at", "perturbation": {"use": "failing"}}
    validate = {"attack": {"use": "none"}}
    return {**tiny(validate=validate, **tables), "method": method}
