"""Find state that a replayed graph could not change: whatever is not in the device's own tensors."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from ..state import PerSample

# Class attribute of an object that stands for another: the name of the attribute that holds that one.
STANDS_FOR = "_stands_for"
# Containers of more items are data, not state: they are told apart by identity and length.
_MANY = 1000
# What the engine itself keeps on modules.
_OURS = {"_compiled_call_impl"}
# What counts as state where a class has it; and libraries whose classes have none.
_VALUES = (bool, int, float, str, list, dict, set, deque, Tensor)
_LIBRARIES = ("builtins", "torch", "typing", "abc", "functools")


class Same:
    """Be equal to what refers to the same object, which is kept alive: no other one can get its address."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


def state_of(parts: Mapping[str, Any], device: torch.device) -> dict[str, Hashable]:
    """Describe the state of components that a replayed graph could not change, by place.

    These are numbers, texts and containers of Python, which tensors are used, and the values of tensors on
    other devices. The values of the device's own tensors, which a graph reads and writes, are not among them.

    Args:
        parts: the components, by name.
        device: the device of the graph.
    """
    found: dict[str, Hashable] = {}
    known: set[int] = set()
    for name, part in parts.items():
        _walk(part, name, found, known, device)
    return found


def other_draws() -> dict[str, Hashable]:
    """Return the states of the global generators of Python and NumPy, by name."""
    numpy = sys.modules.get("numpy")
    found: dict[str, Hashable] = {"Python's random generator": random.getstate()}
    if numpy is not None:
        _, keys, *rest = numpy.random.get_state()
        found["NumPy's random generator"] = (keys.tobytes(), *rest)
    return found


def change(before: Mapping[str, Hashable], after: Mapping[str, Hashable]) -> str | None:
    """Return the first place in which two states differ; None if there is none."""
    for place in (*after, *before):
        if place not in before or place not in after or before[place] != after[place]:
            return place
    return None


def _walk(value: Any, place: str, found: dict[str, Hashable], known: set[int], device: torch.device) -> None:
    if isinstance(value, Tensor):
        elsewhere = value.device.type != device.type
        written = value._version if elsewhere and not value.is_inference() else None
        found[place] = (Same(value), value.data_ptr() if value.layout is torch.strided else 0, written)
        return
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        found[place] = repr(value)
        return
    if id(value) in known:
        found[place] = id(value)
        return
    known.add(id(value))
    for name, each in _inside(value, place, found):
        _walk(each, name, found, known, device)


def _inside(value: Any, place: str, found: dict[str, Hashable]) -> Iterable[tuple[str, Any]]:
    """Return what an object consists of, by place; note it as a whole where that would be too much."""
    if isinstance(value, Mapping | list | tuple | set | frozenset | deque):
        found[place] = len(value)
        if len(value) > _MANY:
            found[place] = (id(value), len(value))
        elif isinstance(value, Mapping):
            return [(f"{place}[{_label(key)}]", each) for key, each in value.items()]
        elif isinstance(value, set | frozenset):
            found[place] = frozenset(map(repr, value))
        else:
            return [(f"{place}[{number}]", each) for number, each in enumerate(value)]
        return ()
    if isinstance(value, MethodType):
        return [(place, value.__self__)]
    if isinstance(value, FunctionType):
        cells = value.__closure__ or ()
        filled = [(name, cell) for name, cell in zip(value.__code__.co_freevars, cells, strict=True)]
        return [(f"{place}.{name}", cell.cell_contents) for name, cell in filled if _is_filled(cell)]
    if watched := getattr(type(value), STANDS_FOR, ""):
        return [(place, vars(value)[watched])]
    if isinstance(value, torch.Generator | type) or type(value).__module__.startswith("robustplug.training"):
        return ()
    if isinstance(value, Iterator):
        found[place] = Same(object())  # where it stands cannot be seen: count it as changed
        return ()
    if isinstance(value, random.Random):
        found[place] = value.getstate()
        return ()
    if hasattr(value, "tobytes") or hasattr(value, "bit_generator"):  # NumPy's
        found[place] = value.tobytes() if hasattr(value, "tobytes") else repr(value.bit_generator.state)
        return ()
    # A process without others exchanges nothing: the record of writes is cleared after every update.
    ours = {*_OURS, "_written"} if isinstance(value, PerSample) else _OURS
    own = {key: each for key, each in _attributes(value).items() if key not in ours}
    return [(f"{place}.{key}", each) for key, each in own.items()]


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object: those of its class, as far as they are values, and its own."""
    found: dict[str, Any] = {}
    for kind in reversed(type(value).__mro__):
        if not kind.__module__.startswith(_LIBRARIES):
            found |= {
                k: each for k, each in vars(kind).items() if isinstance(each, _VALUES) and k[:2] != "__"
            }
        slots = vars(kind).get("__slots__", ())
        for key in (slots,) if isinstance(slots, str) else slots:
            if key[:2] != "__" and hasattr(value, key):
                found[key] = getattr(value, key)
    return found | dict(getattr(value, "__dict__", {}))


def _label(key: Any) -> str:
    return repr(key) if isinstance(key, str | int) else str(id(key))


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
