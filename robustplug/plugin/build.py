"""Build a resolved reference to a component. Importing this does not import torch."""

from __future__ import annotations

import contextlib
from typing import Any
from weakref import WeakKeyDictionary

from .component import Kind, Use, slots
from .host import registry

# What was built, so that an exception can be traced to a component; see `culprit`.
BUILT: WeakKeyDictionary[Any, tuple[Kind, str]] = WeakKeyDictionary()


def build(reference: Use, kind: Kind, **context: Any) -> Any:
    """Build a resolved reference: call its factory with its options and its built slots.

    A slot that holds several components is passed as a tuple, an empty optional slot as None.

    Raises:
        TypeError: the reference has not been resolved, or the factory does not accept its arguments.
    """
    component = registry().get(kind, reference.name)
    if not isinstance(reference.options, component.options):
        raise TypeError(f"{kind} {reference.name}: resolve the reference before building it")
    parts: dict[str, Any] = {}
    for slot in slots(component.options).values():
        value = getattr(reference.options, slot.name)
        if slot.many:
            parts[slot.name] = tuple(build(item, slot.kind) for item in value or ())
        else:
            parts[slot.name] = None if value is None else build(value, slot.kind)
    built = component.load()(reference.options, **parts, **context)
    with contextlib.suppress(TypeError):  # not everything can be hashed and referred to weakly
        BUILT[built] = (kind, reference.name)
    return built
