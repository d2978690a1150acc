"""Read files within limits: regular files only, of a bounded size, and JSON of a bounded depth."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# JSON that the program writes is far smaller and flatter.
LARGEST, DEEPEST = 256 * 2**20, 64

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Unreadable(ValueError):
    """A file cannot be read or believed; the message is a clause that follows the name of the file."""


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """Read a regular file.

    Args:
        path: path of the file; a link is followed.
        largest: largest size in bytes.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it is a folder, a pipe or a device, it is too large, or the system cannot read it.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot be opened: {_reason(error)}") from error
    state = os.fstat(number)
    if not stat.S_ISREG(state.st_mode):
        os.close(number)
        kind = next((name for test, name in _KINDS if test(state.st_mode)), "something else")
        raise Unreadable(f"is {kind}, not a file")
    with os.fdopen(number, "rb") as file:
        if state.st_size > largest:
            raise Unreadable(f"is too large: {state.st_size} bytes, of at most {largest}")
        try:
            # A file can grow, and files of /proc state a size of 0.
            data = file.read(largest + 1)
        except OSError as error:
            raise Unreadable(f"cannot be read: {_reason(error)}") from error
    if len(data) > largest:
        raise Unreadable(f"is too large: more than {largest} bytes")
    return data


def parse_json(data: bytes | str) -> Any:
    """Parse JSON.

    Raises:
        Unreadable: it is not JSON in UTF-8, or is nested deeper than `DEEPEST`.
    """
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        raise Unreadable("is nested too deeply" if deep else f"is not valid JSON: {error}") from error
    level: list[Any] = [tree]
    for _ in range(DEEPEST):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, Mapping) else value)
            if isinstance(item, dict | list)
        ]
        if not level:
            return tree
    raise Unreadable("is nested too deeply")


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: as for `read_bytes` and `parse_json`.
    """
    return parse_json(read_bytes(path, largest))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
