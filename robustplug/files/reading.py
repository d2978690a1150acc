"""Read files within limits: regular files only, of a bounded size, and JSON of a bounded depth."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import IO, Any

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

    @classmethod
    def of(cls, error: Exception, what: str = "it", save: str = "arrays of numbers") -> Unreadable:
        """Return what the error of a library that reads arrays means to whoever wrote the file.

        Args:
            error: what was raised; NumPy's about pickles says that something was switched off.
            what: what is unreadable, in the words of the file's author.
            save: what to save in the place of Python objects.
        """
        why = str(error) or type(error).__name__
        if "pickle" in why or "Python objects" in why:
            why = f"{what} is damaged, or holds Python objects, which are not unpickled: save {save}"
        return cls(f"cannot be read: {why}")


def is_file(path: str | Path) -> bool:
    """Return whether a path leads to a regular file; unlike Path.is_file, also of names that are too long."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str | Path) -> bool:
    """Return whether a path leads to a folder; unlike Path.is_dir, also of names that are too long."""
    return os.path.isdir(path)  # noqa: PTH112


def open_file(path: str | Path) -> IO[bytes]:
    """Open a regular file to be read.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it is a folder, a pipe or a device, or the system cannot open it.
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
    return os.fdopen(number, "rb")


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """Read a regular file.

    Args:
        path: path of the file; a link is followed.
        largest: largest size in bytes.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: as for `open_file`, or it is too large, or the system cannot read it.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise Unreadable(f"is too large: {size} bytes, of at most {largest}")
        try:
            # `read` reserves as much memory as it is asked for.
            parts = [file.read(size + 1)]
            # A file can grow, and files of /proc state a size of 0.
            while sum(map(len, parts)) <= largest and parts[-1]:
                parts.append(file.read(2**20) or b"")
            data = b"".join(parts)
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
    check_depth(tree)
    return tree


def check_depth(tree: Any, deepest: int = DEEPEST) -> None:
    """Check how deep the tables and lists of a tree are nested.

    Raises:
        Unreadable: they are nested deeper than `deepest`.
    """
    level: list[Any] = [tree]
    for _ in range(deepest):
        # By identity: a list that holds itself twice would double at each level.
        inner = {
            id(item): item
            for value in level
            if isinstance(value, dict | list | tuple)
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list | tuple)
        }
        if not inner:
            return
        level = list(inner.values())
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
