"""Write resolved recipes with every option explicit, so that they can be read back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..plugin.component import Use, rest_name, slots
from .errors import KeyPath, dotted
from .options import Recipe, as_mapping, default_of


def recipe_to_mapping(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as the tables of a TOML file; options that are None are left out.

    Raises:
        TypeError: a reference in the recipe has not been resolved.
        ValueError: an option was set to None from Python, though its default is another value. TOML has no
            None, so leaving the option out would mean the default.
    """
    table = options_to_mapping(recipe)
    for path, default in _unsayable(recipe, {}, ()):
        raise ValueError(
            f"{dotted(path)} is None: a recipe can only leave the key out, which means {default!r}"
        )
    return table


def use_to_mapping(use: Use) -> dict[str, Any]:
    """Return a resolved reference as a table: `use` first, then every option.

    Raises:
        TypeError: the reference has not been resolved.
    """
    if not dataclasses.is_dataclass(use.options):
        raise TypeError(f"{use.name}: resolve the reference before writing it")
    start = {} if use.start is None else {"from": use.start}
    more = {} if use.more is None else options_to_mapping(use.more)
    return {"use": use.name, **start, **more, **options_to_mapping(use.options)}


def options_to_mapping(options: Any) -> dict[str, Any]:
    """Return options, whose references are resolved, as the table of a TOML file."""
    known, rest = slots(options.__class__), rest_name(options.__class__)
    table: dict[str, Any] = {}
    for item in dataclasses.fields(options):
        value = getattr(options, item.name)
        if value is None or not item.init:
            continue
        if item.name == rest:
            table |= _plain(value)
        elif item.name not in known:
            table[item.name] = _plain(value)
        elif known[item.name].many:
            table[item.name] = [use_to_mapping(use) for use in value]
        else:
            table[item.name] = use_to_mapping(value)
    return table


def _unsayable(options: Any, inherited: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Find options that are None and would have another value when read back: (path, that value).

    Reading starts from the slot's default if that is the same component; see convert.
    """
    known, rest = slots(options.__class__), rest_name(options.__class__)
    for item in dataclasses.fields(options):
        value, here = getattr(options, item.name), (*path, item.name)
        if item.name == rest:
            continue
        default = inherited.get(item.name, default_of(item, None))
        if value is None:
            if default is not None:
                yield here, default
        elif item.name in known and known[item.name].many:
            for i, use in enumerate(value):
                yield from _unsayable(use.options, {}, (*here, i))
        elif item.name in known:
            same = isinstance(default, Use) and default.name.partition(":")[0] == value.name
            yield from _unsayable(value.options, as_mapping(default.options) if same else {}, here)
        elif dataclasses.is_dataclass(value):
            yield from _unsayable(value, {} if default is None else as_mapping(default), here)


def _plain(value: Any) -> Any:
    """Return a plain value in the types of TOML."""
    if dataclasses.is_dataclass(value):
        return options_to_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    return value


def write_recipe(recipe: Recipe) -> str:
    """Write a resolved recipe as TOML that `read_recipe` reads back to an equal recipe.

    Raises:
        TypeError, ValueError: see `recipe_to_mapping`.
    """
    import tomli_w

    return tomli_w.dumps(recipe_to_mapping(recipe))


def recipe_hash(recipe: Recipe) -> str:
    """Return the SHA-256 of a resolved recipe, in hexadecimal.

    The hash covers the canonical JSON of `recipe_to_mapping`: equal recipes have equal hashes, whatever
    file they were read from.
    """
    return digest(recipe_to_mapping(recipe))


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of a value, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
