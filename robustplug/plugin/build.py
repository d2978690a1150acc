"""Build a resolved reference to a component. Importing this does not import torch."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .component import Kind, Use, slots
from .host import registry

if TYPE_CHECKING:
    from ..core.types import TaskInfo

# What was built, so that an exception can be traced to a component; see `culprit`.
BUILT: WeakKeyDictionary[Any, tuple[Kind, str]] = WeakKeyDictionary()


# Kinds that are built for a task, wherever they stand in a recipe.
_FOR_A_TASK: tuple[Kind, ...] = ("model", "augmentation", "wrapper")


def build(reference: Use, kind: Kind, info: TaskInfo | None = None, **context: Any) -> Any:
    """Build a resolved reference: call its factory with its options and its built slots.

    A slot that holds several components is passed as a tuple, an empty optional slot as None.

    Args:
        reference: the reference.
        kind: kind of the component.
        info: the task that models, augmentations and wrappers are built for, also those within others.
        context: further arguments of the factory.

    Raises:
        TypeError: the reference has not been resolved, the factory does not accept its arguments, or there is
            no info for a model.
    """
    if kind in _FOR_A_TASK:
        if info is None:
            raise TypeError(f"{kind} {reference.name} is built for a task: give its info")
        context = {"info": info, **context}
    component = registry().get(kind, reference.name)
    if not isinstance(reference.options, component.options):
        raise TypeError(f"{kind} {reference.name}: resolve the reference before building it")
    parts: dict[str, Any] = {}
    for slot in slots(component.options).values():
        value = getattr(reference.options, slot.name)
        if slot.many:
            parts[slot.name] = tuple(build(item, slot.kind, info) for item in value or ())
        else:
            parts[slot.name] = None if value is None else build(value, slot.kind, info)
    built = component.load()(reference.options, **parts, **context)
    with contextlib.suppress(TypeError):  # not everything can be hashed and referred to weakly
        # An object that is given under another name is still what it was built as.
        BUILT.setdefault(built, (kind, reference.name))
    return built
