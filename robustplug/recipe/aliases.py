"""`threat`, the field's word, for what an evaluation calls `vicinity`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import Finding, KeyPath

FIELD, OURS = "threat", "vicinity"


def with_our_names(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[KeyPath], list[Finding]]:
    """Return tables of a recipe or a suite in which `threat` is called `vicinity`.

    Args:
        data: tables; not changed.

    Returns:
        The tables, the paths of the keys that were renamed, and a problem for each table that has both.
    """
    renamed: list[KeyPath] = []
    findings: list[Finding] = []
    result: dict[str, Any] = dict(data)
    for path, table in _tables(data):
        if FIELD not in table:
            continue
        if OURS in table:
            both = f'is another name of "{OURS}", which is there, too'
            findings.append(Finding((*path, FIELD), both, "leave one of them out"))
            continue
        renamed.append((*path, FIELD))
        new = {OURS if key == FIELD else key: value for key, value in table.items()}
        if path[0] == "evaluate":
            result["evaluate"] = new
        else:
            result["row"] = [new if at == path[1] else row for at, row in enumerate(result["row"])]
    return result, renamed, findings


def with_their_names(findings: list[Finding], renamed: list[KeyPath]) -> list[Finding]:
    """Return problems at the keys as they are written."""
    known = {(*path[:-1], OURS): path for path in renamed}
    return [
        finding._replace(path=(*known[head], *finding.path[len(head) :]))
        if (head := next((head for head in known if finding.path[: len(head)] == head), None)) is not None
        else finding
        for finding in findings
    ]


def _tables(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    if isinstance(data.get("evaluate"), Mapping):
        yield ("evaluate",), data["evaluate"]
    rows = data.get("row")
    for at, row in enumerate(rows if isinstance(rows, list | tuple) else ()):
        if isinstance(row, Mapping):
            yield ("row", at), row
