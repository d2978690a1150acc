"""The shape of an options dataclass: plain values, slots for components, and sections."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..plugin.component import Slot, Use, rest_name, slots
from .options import default_of

# Field names of a pydantic model must not hide its methods ("schema", "copy"), so they get a prefix
# that the aliases remove.
PREFIX = "option_"

_CONFIG = ConfigDict(
    extra="forbid",
    strict=True,
    validate_default=True,
    allow_inf_nan=False,
    protected_namespaces=(),
    alias_generator=lambda name: name.removeprefix(PREFIX),
)


@dataclass(frozen=True)
class Shape:
    """Describe an options dataclass.

    Attributes:
        options: the dataclass.
        plain: a pydantic model of the fields that hold plain values.
        plain_names: names of the fields that hold plain values.
        slots: the fields that hold components.
        sections: the fields that hold another options dataclass: tables without `use`.
        arrays: the fields that hold a tuple of another options dataclass: arrays of such tables.
        rest: the field that takes all other keys, if there is one.
        defaults: defaults of the fields that have one; those of plain fields are not validated.
    """

    options: type[Any]
    plain: type[BaseModel]
    plain_names: tuple[str, ...]
    slots: Mapping[str, Slot]
    sections: Mapping[str, type[Any]]
    arrays: Mapping[str, type[Any]]
    rest: str | None
    defaults: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Return all keys of the table, except `use`."""
        return (*self.plain_names, *self.slots, *self.sections, *self.arrays)


def shape(options: type[Any]) -> Shape:
    """Describe an options dataclass.

    Raises:
        Exception: the dataclass is invalid: a name that cannot be resolved, a slot without a kind, or a
            type that pydantic does not support.
    """
    key: Any = options  # mypy considers a type[Any] unhashable
    return _shape(key)


@functools.cache
def _shape(options: Any) -> Shape:
    hints = typing.get_type_hints(options, include_extras=True)
    fields = {item.name: item for item in dataclasses.fields(options) if item.init}
    known = {name: slot for name, slot in slots(options).items() if name in fields}
    sections = {name: hints[name] for name in fields if dataclasses.is_dataclass(hints[name])}
    sections = {name: hint for name, hint in sections.items() if name not in known}
    arrays = {name: inner for name in fields if (inner := _array_of(hints[name])) is not None}
    rest = rest_name(options)
    apart = {*known, *sections, *arrays, rest}
    plain = {name: item for name, item in fields.items() if name not in apart}
    defaults = {name: default_of(item, ...) for name, item in fields.items()}
    definitions: dict[str, Any] = {
        PREFIX + name: (hints[name], Field(default=defaults[name])) for name in plain
    }
    return Shape(
        options=options,
        plain=create_model(options.__name__, __config__=_CONFIG, **definitions),
        plain_names=tuple(plain),
        slots=known,
        sections=sections,
        arrays=arrays,
        rest=rest,
        defaults={name: value for name, value in defaults.items() if value is not ...},
    )


def _array_of(hint: Any) -> type[Any] | None:
    """Return the options dataclass if a hint is a tuple of it of any length, or else None."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or len(inner) != 2 or inner[1] is not ...:
        return None
    one: type[Any] = inner[0]
    return one if dataclasses.is_dataclass(one) and one is not Use else None
