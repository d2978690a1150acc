"""Data sets that are given as Python objects, under names that recipes can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "dataset:"
"""Start of the name of a data set that was given."""
# Kept until the process ends: a recipe may be read at any time.
_GIVEN: dict[str, Any] = {}


def is_data_set(value: Any) -> bool:
    """Return whether an object is a data set of Hugging Face, or behaves as one: columns with features."""
    return all(hasattr(value, name) for name in ("column_names", "features", "select_columns"))


def held(value: Any) -> Any:
    """Return a name for a data set, or for a mapping from splits to data sets; other values as they are.

    Equal data sets of one process have equal names, as far as their library says which are equal.
    """
    splits = value if isinstance(value, Mapping) and value else {"": value}
    if not all(isinstance(name, str) and is_data_set(each) for name, each in splits.items()):
        return value
    parts = [f"{name}{'=' * bool(name)}{_fingerprint(each)}" for name, each in splits.items()]
    name = PREFIX + ",".join(parts)
    _GIVEN[name] = dict(splits) if isinstance(value, Mapping) else value
    return name


def given_data_set(name: str) -> Any:
    """Return the data set, or the mapping of splits, of a name that `held` returned; None for other names."""
    return _GIVEN.get(name)


def _fingerprint(data: Any) -> str:
    return str(getattr(data, "_fingerprint", None) or f"{id(data):x}")
