"""The structure of UBJ files, which XGBoost writes: XGBoost reads past the end of those that are cut off."""

from __future__ import annotations

from ...files.reading import DEEPEST, Unreadable

# Sizes in bytes of values, and of them those that are whole numbers.
_WHOLE = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8}
_FIXED = {**_WHOLE, b"Z": 0, b"N": 0, b"T": 0, b"F": 0, b"C": 1, b"d": 4, b"D": 8}


def check_ubj(data: bytes) -> None:
    """Walk through a UBJ document without building it.

    Raises:
        Unreadable: it is cut off, is nested deeper than `DEEPEST`, or contains something else.
    """
    place = 0
    # What ends each table or array: its last character, or a number of values that are left.
    ends: list[bytes | int] = []

    def take(size: int) -> bytes:
        nonlocal place
        if not 0 <= size <= len(data) - place:
            raise Unreadable("is damaged or cut off")
        place += size
        return data[place - size : place]

    def number() -> int:
        kind = take(1)
        if kind not in _WHOLE:
            raise Unreadable("is damaged: a length is no whole number")
        return int.from_bytes(take(_WHOLE[kind]), "big", signed=kind != b"U")

    def skip(kind: bytes) -> None:
        if kind in _FIXED:
            take(_FIXED[kind])
        elif kind in (b"S", b"H"):
            take(number())
        elif kind == b"[" and data[place : place + 1] == b"$":
            take(1)
            size = _FIXED.get(take(1), 0)
            if not size or take(1) != b"#":
                raise Unreadable("is damaged: an array has no type or length")
            take(size * number())
        elif kind == b"[" and data[place : place + 1] == b"#":
            take(1)
            ends.append(number())
        elif kind in (b"[", b"{"):
            ends.append(b"]" if kind == b"[" else b"}")
        else:
            raise Unreadable("is damaged: it contains something else than UBJ")

    skip(take(1))
    while ends:
        if len(ends) > DEEPEST:
            raise Unreadable("is nested too deeply")
        end = ends[-1]
        if end == 0 or data[place : place + 1] == end:
            ends.pop()
            take(0 if isinstance(end, int) else 1)
            continue
        if isinstance(end, int):
            ends[-1] = end - 1
        elif end == b"}":
            take(number())
        skip(take(1))
