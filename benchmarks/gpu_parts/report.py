"""A report that never exceeds its minutes, and is written after every section."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Report:
    """Run sections, and collect their numbers in a JSON file.

    Args:
        path: the JSON file; None for none.
        minutes: minutes that all sections together may take.
        clock: returns seconds.
        say: prints a line.
    """

    def __init__(
        self,
        path: Path | None,
        minutes: float,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> None:
        self.path, self._clock, self.say = path, clock, say
        self._end = self._section_end = clock() + 60 * minutes
        self.results: dict[str, Any] = {}
        self.left_out: list[dict[str, str]] = []
        self.failed = False

    def left(self) -> float:
        """Return the seconds that are left for the section that runs."""
        return min(self._end, self._section_end) - self._clock()

    def section(self, name: str, least: float, most: float, work: Callable[[], None]) -> None:
        """Run a section, unless too little time is left; an error ends the section, not the report.

        Args:
            name: name of the section.
            least: seconds without which it is left out.
            most: seconds after which it should begin nothing more.
            work: does it; it puts its numbers with `put`, and asks `left` before each part.
        """
        began = self._clock()
        self.say(f"\n## {name}")
        if self._end - began < least:
            self.leave_out(name, f"it needs {least:.0f} s, and {max(0.0, self._end - began):.0f} s are left")
        else:
            self._section_end = began + most
            try:
                work()
            except Exception as error:
                self.failed = True
                text = traceback.format_exc()
                self.put("errors", name, text)
                self.leave_out(name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            self._section_end = self._end
        self.put("seconds", name, round(self._clock() - began, 2))

    def put(self, *path_and_value: Any) -> None:
        """Put a value at a path of names, and write the file."""
        *path, last, value = path_and_value
        table = self.results
        for name in path:
            table = table.setdefault(name, {})
        table[last] = value
        self.write()

    def note(self, where: str, notes: Sequence[str]) -> None:
        """Print and keep what training told, if anything."""
        if notes:
            self.say("\n".join(f"{where}: {note}" for note in notes))
            self.put("notes", where, list(notes))

    def leave_out(self, what: str, why: str) -> None:
        """Say what is left out, and why."""
        self.left_out.append({"what": what, "why": why})
        self.say(f"left out: {what}: {why}")
        self.write()

    def write(self) -> None:
        """Write the file: first beside it, so that a cut loses nothing."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.new")
        body = {**self.results, "left_out": self.left_out}
        beside.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.path)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of Markdown with aligned columns, the first one of text."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = [
        f"{'-' * width}" if not column else f"{'-' * (width - 1)}:" for column, width in enumerate(widths)
    ]
    return "\n".join([line(head), f"| {' | '.join(rule)} |", *map(line, rows)])
