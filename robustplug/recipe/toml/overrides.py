"""`--set key=value`: changes to a recipe from the command line."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import KeyPath, dotted
from .lines import long_key


def parse_value(text: str) -> Any:
    """Parse a value as TOML, or else as a plain string: 10, true, [1, 2], 8/255, robust.

    Dates stay strings: no option is a date, and a name may look like one.
    """
    try:
        parsed = {} if long_key(text) is not None else tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    if set(parsed) != {"value"} or isinstance(parsed["value"], datetime.date | datetime.time):
        return text
    return parsed["value"]


def parse_key(text: str) -> tuple[str, ...]:
    """Split a dotted key; parts with special characters are quoted, as in TOML.

    Raises:
        ValueError: the text is not a key.
    """
    try:
        node: Any = {} if long_key(text) is not None else tomllib.loads(f"{text} = 0")
    except (ValueError, RecursionError):
        raise ValueError(f"{text!r} is not a key: write for example --set train.epochs=5") from None
    parts = []
    while isinstance(node, dict) and len(node) == 1:
        ((part, node),) = node.items()
        parts.append(part)
    if node != 0:
        raise ValueError(f"{text!r} is not a key: write for example --set train.epochs=5")
    return tuple(parts)


class LateVariant(str):
    """Hold the name of a variant that was set after the options of its table, and that overrides them.

    Attributes:
        below: the options that were set before the variant.
    """

    below: Mapping[str, Any]

    def __new__(cls, name: str, below: Mapping[str, Any]) -> LateVariant:
        """Return the name, together with the options."""
        late = super().__new__(cls, name)
        late.below = below
        return late


def apply_override(data: dict[str, Any], override: str) -> KeyPath:
    """Change the data of a recipe in place, and return the outermost key path that is new or changed.

    Raises:
        ValueError: the override is not "key=value", or its place does not exist.
    """
    key, equals, text = override.partition("=")
    text = text.strip()
    if not equals or not text:
        raise ValueError("write key=value, for example --set train.epochs=5")
    return apply_change(data, parse_key(key.strip()), parse_value(text))


def apply_change(data: dict[str, Any], key: Sequence[str], value: Any) -> KeyPath:
    """Put a value at a place of a recipe, and return the outermost key path that is new or changed.

    Whole numbers index arrays of tables: evaluate.attack.0.steps. Missing tables are created.

    Args:
        data: data of the recipe; changed in place.
        key: key path of at least one part.
        value: value to set; not copied.

    Raises:
        ValueError: the place does not exist.
    """
    *parents, last = key
    node: Any = data
    path: KeyPath = ()
    changed: KeyPath | None = None
    for part in parents:
        step = _step(node, part, path)
        path = (*path, step)
        if isinstance(node, dict) and part not in node:
            node[part] = {}
            changed = changed or path
        node = node[step]
    step = _step(node, last, path)
    if last == "variant" and isinstance(node, dict) and isinstance(value, str):
        below = {name: item for name, item in node.items() if name not in ("use", "variant")}
        for name in below:
            del node[name]
        value = LateVariant(value, below)
    node[step] = value
    return changed or (*path, step)


def _step(node: Any, part: str, path: KeyPath) -> str | int:
    """Return the key or index of a part within the node."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise ValueError(f"{dotted(path)} is not a table, so it has no {dotted([part])}")
    if not (part.isascii() and part.isdigit() and int(part) < len(node)):
        has = f"its entries are 0 to {len(node) - 1}" if node else "it is empty"
        raise ValueError(f"{dotted(path)} is an array and has no entry {dotted([part])}: {has}")
    return int(part)
