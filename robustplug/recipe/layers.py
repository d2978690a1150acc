"""Merge tables: the defaults of a slot or of a task, and the options of a recipe on top of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..plugin.component import Component, Kind, Use
from ..plugin.registry import Registry
from .options import as_mapping
from .shape import shape

ABSENT: Any = object()
"""Marks a key that does not exist."""


def split_name(name: str) -> tuple[str, str]:
    """Split "component:NAME" into the component's name and NAME."""
    head, _, variant = name.partition(":")
    return head, variant


def inherited_options(default: Use | None, name: str) -> Mapping[str, Any]:
    """Return the options of a slot's default, if it is the component of this name."""
    if default is None:
        return {}
    head, variant = split_name(default.name)
    if head != name:
        return {}
    options = as_mapping(default.options)
    return {"name": variant, **options} if variant else options


def layered(default: Any, below: Any, above: Any) -> Any:
    """Put one table of a slot over another, if both refer to the same component."""
    if above is ABSENT:
        return below
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    name = below.get("use", default.name if isinstance(default, Use) else ABSENT)
    if above.get("use", name) != name:
        return above
    nested = {
        key: layered(ABSENT, below[key], item) if isinstance(item, Mapping) and key in below else item
        for key, item in above.items()
    }
    return {**below, **nested}


def with_defaults_of_task(data: Mapping[str, Any], registry: Registry) -> Mapping[str, Any]:
    """Return the tables of a recipe with the defaults of its task.

    The task's `evaluate` table, without its attacks, lies below that of the recipe. A method whose vicinity
    is not stated, and by default of another modality than the task, has the task's; likewise one whose loss
    is by default for other labels.

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
    method = data.get("method")
    component = _component(registry, "method", method)
    if not isinstance(method, Mapping) or component is None:
        return filled
    slots: tuple[Kind, ...] = ("vicinity", "loss")
    for slot in slots:
        own = _component(registry, slot, shape(component.options).defaults.get(slot))
        if slot in below and slot not in method and own is not None and _foreign(own, slot, task):
            filled["method"] = {**filled["method"], slot: below[slot]}
    return filled


def _foreign(component: Component, kind: Kind, task: Component) -> bool:
    """Return whether a component is for samples of another modality, or for other labels."""
    if kind == "vicinity":
        return component.modality != task.modality
    return bool(component.for_labels) and task.labels not in component.for_labels


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
