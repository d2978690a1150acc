"""Defaults of a recipe that its task declares: a threat model for the modality of its samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...plugin.component import Component, Kind, Use
from ...plugin.registry import Registry
from ..layers import split_name
from ..shape import shape


def with_defaults_of_task(data: Mapping[str, Any], registry: Registry) -> Mapping[str, Any]:
    """Return the tables of a recipe with the defaults of its task.

    The task's `evaluate` table, without its attacks, lies below that of the recipe. A method whose vicinity
    is not stated, and by default of another modality than the task, has the task's.

    Args:
        data: tables of a recipe; not changed.
        registry: the available components.
    """
    task = _component(registry, "task", data.get("task"))
    if task is None or not task.evaluate:
        return data
    below = {key: value for key, value in task.evaluate.items() if key != "attack"}
    given = data.get("evaluate", {})
    if not isinstance(given, Mapping):
        return data
    filled = {**data, "evaluate": {**below, **given}}
    method, threat = data.get("method"), below.get("vicinity")
    if threat is not None and isinstance(method, Mapping) and "vicinity" not in method:
        component = _component(registry, "method", method)
        default = None if component is None else shape(component.options).defaults.get("vicinity")
        own = _component(registry, "vicinity", default)
        if own is not None and own.modality != task.modality:
            filled["method"] = {**method, "vicinity": threat}
    return filled


def default_attacks(task: Any, registry: Registry) -> list[Any] | None:
    """Return the attacks that a task declares for models without a recipe, as tables; None for none.

    Args:
        task: table of the task.
        registry: the available components.
    """
    component = _component(registry, "task", task)
    return None if component is None else component.evaluate.get("attack")


def fitting_task(task: Mapping[str, Any], model: Any, registry: Registry) -> Mapping[str, Any]:
    """Return the table of a task with the options that a model needs, such as its tokenizer.

    Args:
        task, model: tables of both.
        registry: the available components.
    """
    own, network = _component(registry, "task", task), _component(registry, "model", model)
    if own is None or network is None:
        return task
    needed = network.options_of_task(model)
    fits = needed.keys() <= set(shape(own.options).names) and not needed.keys() & task.keys()
    return {**task, **needed} if fits else task


def _component(registry: Registry, kind: Kind, reference: Any) -> Component | None:
    name = reference.name if isinstance(reference, Use) else None
    if isinstance(reference, Mapping):
        name = reference.get("use")
    return registry.components.get((kind, split_name(name)[0])) if isinstance(name, str) else None
