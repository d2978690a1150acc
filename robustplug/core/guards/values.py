"""Copies of what is handed out, and comparisons with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written in place; 0 for one of inference mode, which does not count."""
    return 0 if tensor.is_inference() else tensor._version


def copied(value: Value) -> Value:
    """Copy all tensors and arrays in a tree of dataclasses, mappings, lists and tuples.

    A tensor that occurs twice has one copy. Other values stay the same objects.
    """
    found: Value = _copied(value, {})
    return found


def _copied(value: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, Tensor) or (hasattr(value, "ndim") and hasattr(value, "copy")):
        if id(value) not in known:
            known[id(value)] = value.detach().clone() if isinstance(value, Tensor) else value.copy()
        return known[id(value)]
    if isinstance(value, Mapping):
        return {key: _copied(each, known) for key, each in value.items()}
    if isinstance(value, list | tuple):
        parts = [_copied(each, known) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [item.name for item in dataclasses.fields(value) if item.init]
        return dataclasses.replace(value, **{name: _copied(getattr(value, name), known) for name in fields})
    return value


def same(one: Any, other: Any) -> bool:
    """Return whether two trees hold the same values, bit by bit; values of other kinds count as the same.

    Args:
        one: a tree, whose mappings may have more keys.
        other: the tree that it must be the same as.
    """
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(key in one and same(one[key], other[key]) for key in other)
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return same_bits(one.detach(), other.detach())
    if hasattr(one, "ndim") and hasattr(one, "tobytes"):
        return bool(
            one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, i.name), getattr(other, i.name)) for i in dataclasses.fields(one))
    return not isinstance(one, bool | int | float | str) or one == other or one != one


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal bit by bit, NaN included."""
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    if one.layout is not torch.strided or one.element_size() not in _INTEGERS:
        return bool(torch.equal(one, other))
    integers = _INTEGERS[one.element_size()]
    return torch.equal(one.view(integers), other.view(integers))


def versions(tree: Any) -> list[int]:
    """Return the versions of all tensors in a tree, in order."""
    if isinstance(tree, Tensor):
        return [version_of(tree)]
    if isinstance(tree, Mapping):
        return [each for value in tree.values() for each in versions(value)]
    if isinstance(tree, list | tuple):
        return [each for value in tree for each in versions(value)]
    return []
