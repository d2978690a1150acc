"""Merge tables: the options of a slot's default, and the options of a recipe on top of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..plugin.component import Use
from .options import as_mapping

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
