"""Find the numbers of Python that a captured update would freeze."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...core.types import Progress
from ...devices.graphs import Uncapturable

_FIELDS = frozenset(item.name for item in dataclasses.fields(Progress))


class NotedProgress(Progress):
    """A position in a run that notes which of its numbers are read; else it is the position.

    Args:
        progress: the position.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__(**{name: getattr(progress, name) for name in _FIELDS})
        object.__setattr__(self, "_noted", set())

    def __getattribute__(self, name: str) -> Any:
        if name in _FIELDS:
            object.__getattribute__(self, "_noted").add(name)
        elif name == "__dict__":
            object.__getattribute__(self, "_noted").update(_FIELDS)
        return object.__getattribute__(self, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return Progress

    def read(self) -> dict[str, int]:
        """Return the numbers that were read so far, by name."""
        noted = object.__getattribute__(self, "_noted")
        return {name: object.__getattribute__(self, name) for name in sorted(noted)}


class Changing:
    """Stand for a number that every update has anew: whatever reads it cannot be captured.

    Args:
        name: its name.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *_: object) -> Any:
        raise Uncapturable(f"{self._name} is read, which changes from update to update")

    __int__ = __index__ = __float__ = __str__ = __repr__ = __format__ = _refuse
    __hash__ = object.__hash__
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __floordiv__ = _refuse
    __xor__ = __rxor__ = __and__ = __or__ = __lshift__ = __rshift__ = __eq__ = __lt__ = __gt__ = _refuse
