"""Find the line of each key in a TOML text, which tomllib does not report."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import KeyPath

# Characters that are parsed again because a statement is not complete.
_BUDGET = 2**20
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"""(?<![\w"'-]){_PART}(?:\.[ \t]*+{_PART}){{64}}""")


def long_key(text: str) -> int | None:
    """Return the place of a key of more than 64 parts; tomllib's time grows with the square of them."""
    found = _LONG_KEY.search(text)
    return None if found is None else found.start()


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (line, text, parsed value) of each statement or header of a valid TOML text.

    A statement on several lines, such as an array, can be parsed alone only when it is complete. Where that
    takes too long, for an array of thousands of lines, the rest is left out.
    """
    start, pending, budget = 1, "", _BUDGET
    for number, line in enumerate(text.split("\n"), start=1):
        if not pending:
            start = number
        pending += line + "\n"
        budget -= len(pending) - len(line)
        if budget < 0:
            return
        try:
            parsed = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue
        if parsed:
            yield start, pending.lstrip(), parsed
        pending = ""


def _paths(value: Any, prefix: KeyPath) -> Iterator[KeyPath]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, child in items:
        yield (*prefix, key)
        yield from _paths(child, (*prefix, key))


def key_lines(text: str) -> dict[KeyPath, int]:
    """Map the key paths of a valid TOML text to line numbers, from 1.

    Keys within a value (an inline table, an array) get the line on which its statement begins.
    """
    lines: dict[KeyPath, int] = {}
    implied: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for line, source, parsed in _statements(text):
        if source.startswith("["):
            table = _header(parsed, counts, implied, line)
            lines[table] = line
            continue
        for path in _paths(parsed, table):
            lines.setdefault(path, line)
    return {**implied, **lines}


def _header(
    parsed: dict[str, Any], counts: dict[KeyPath, int], implied: dict[KeyPath, int], line: int
) -> KeyPath:
    """Return the path of a table header; in an array of tables, keys refer to its last table."""
    path: KeyPath = ()
    node: Any = parsed
    while node:
        ((key, node),) = node.items()
        path = (*path, key)
        implied.setdefault(path, line)
        if isinstance(node, list):
            counts[path] = counts.get(path, 0) + 1
            node = node[0]
        if path in counts:
            path = (*path, counts[path] - 1)
            implied.setdefault(path, line)
    return path


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line of a key, or of the nearest table around it, or None."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None
