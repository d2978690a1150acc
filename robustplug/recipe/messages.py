"""Sentences for the errors that pydantic finds in a plain value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ..plugin.registry import did_you_mean
from .errors import KeyPath, dotted

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "an array",
    "tuple_type": "an array",
    "set_type": "an array",
    "frozen_set_type": "an array",
    "dict_type": "a table",
    "dataclass_type": "a table",
    "model_type": "a table",
    "none_required": "left out",
}
_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}


def show(value: Any) -> str:
    """Write a value as in a recipe, shortened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "an array"
    if value is None:
        return "None"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number above 2⁶³"  # Python refuses to write those of over 4,300 digits
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def grouped(error: ValidationError, plain: Mapping[str, Any]) -> dict[KeyPath, list[Any]]:
    """Group pydantic's errors by the value that they refer to.

    Locations also contain names of union members, which are not keys of the recipe.
    """
    groups: dict[KeyPath, list[Any]] = {}
    for item in error.errors(include_url=False):
        path: KeyPath = item["loc"][:1]
        value: Any = plain.get(str(path[0])) if path else None
        for part in item["loc"][1:]:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                continue
            path = (*path, part)
        groups.setdefault(path, []).append(item)
    return groups


def explain(errors: Sequence[Any]) -> tuple[str, str | None]:
    """Return a message for pydantic's errors in one value, and a hint if there is one.

    Args:
        errors: pydantic's error details; several when the value may have one of several types.
    """
    kinds = {error["type"] for error in errors}
    if "missing" in kinds:
        return "is missing, and has no default", None
    for error in errors:
        if error["type"] == "value_error":
            return str(error["ctx"]["error"]), None
    value = errors[0]["input"]
    phrases = [phrase for error in errors if (phrase := _expected(error))]
    if not phrases:
        return errors[0]["msg"][:1].lower() + errors[0]["msg"][1:], None
    message = f"must be {' or '.join(dict.fromkeys(phrases))}, not "
    if isinstance(value, str) and "string_type" not in kinds and _is_scalar(value):
        return f"{message}a string: write {value.strip()} without quotes", None
    message += show(value)
    if kinds & {"int_type", "int_from_float"} and isinstance(value, float) and value.is_integer():
        return f"{message}: write {int(value)}", None
    if kinds == {"string_type"} and not isinstance(value, dict | list | tuple | None):
        return f'{message}: write "{show(value)}"', None
    close = did_you_mean(value, _literals(errors)) if isinstance(value, str) else None
    return message, f'did you mean "{close}"?' if close else None


def _expected(error: Any) -> str | None:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{words} {_limit(context[key])}"
    if kind in ("literal_error", "enum"):
        values = _literals([error])
        if len(values) > 2:
            return "one of " + ", ".join(f'"{item}"' for item in values)
        return str(context["expected"]).replace("'", '"')
    if kind in ("too_short", "too_long"):
        at, count = ("least", "min_length") if kind == "too_short" else ("most", "max_length")
        return f"an array of at {at} {context[count]} (it has {context['actual_length']})"
    return None


def _limit(value: Any) -> str:
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _literals(errors: Sequence[Any]) -> list[str]:
    expected = (error.get("ctx", {}).get("expected") for error in errors)
    return [item for text in expected if text for item in re.findall(r"'([^']*)'", text)]


def _is_scalar(text: str) -> bool:
    """Return whether the string is a number or a truth value that was quoted by mistake."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return False
    return set(parsed) == {"value"} and isinstance(parsed["value"], bool | int | float)


def table_text(path: KeyPath, name: str) -> str:
    """Return how to write a component's table at a place."""
    if all(isinstance(part, str) for part in path):
        return f'write [{dotted(path)}] with use = "{name}" below it'
    return f'write {dotted(path[-1:])} = {{ use = "{name}" }}'


def table_hint(path: KeyPath, given: Any) -> str:
    """Return how to write a component's table in place of another value, perhaps the component's name."""
    name = given if isinstance(given, str) else "…"
    if path and isinstance(path[-1], int):
        return f'write [[{dotted(path[:-1])}]] with use = "{name}" below it'
    return f"{table_text(path, name)} (on the command line: --set {dotted(path)}.use={name})"
