"""Read a journal while it grows: where its sound records are, and each of them when it is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ...files.reading import Unreadable, open_file
from .records import LONGEST, Chunk, Foreign, Place, check_line, read_head, read_line


@dataclass(frozen=True)
class Spot:
    """Say where in a file a record is.

    Attributes:
        path: the journal.
        at: first byte of the line.
    """

    path: Path
    at: int

    def read(self, key: str) -> Chunk | None:
        """Return the outcome there; None if the file was changed since it was looked at.

        Args:
            key: digest of the evaluation that it belongs to.
        """
        try:
            with open_file(self.path) as file:
                file.seek(self.at)
                return read_line(file.readline(LONGEST)).decoded(key).chunk()
        except (FileNotFoundError, Unreadable):
            return None


@dataclass
class Tail:
    """Find the records of a journal that this or another process writes, each of them once.

    Attributes:
        path: path of the file; it need not exist yet.
        key: digest of the evaluation that it must belong to.
        foreign: why the journal is not used, as a clause; "" if it is.
    """

    path: Path
    key: str
    foreign: str = ""
    _file: int = 0
    _at: int = 0
    _last: str = ""
    _lines: int = field(default=0, repr=False)

    def news(self) -> list[tuple[Place, Spot]]:
        """Return the sound records that were added since the last call; damaged ones are left out."""
        found: list[tuple[Place, Spot]] = []
        try:
            file = open_file(self.path)
        except (FileNotFoundError, Unreadable):
            return found
        with file:
            state = os.fstat(file.fileno())
            if state.st_ino != self._file or state.st_size < self._at:
                # Written anew, by a process that found it damaged.
                self._file, self._at, self._last, self._lines, self.foreign = state.st_ino, 0, "", 0, ""
            file.seek(self._at)
            while not self.foreign and (line := file.readline(LONGEST)).endswith(b"\n"):
                at, self._at, self._lines = self._at, self._at + len(line), self._lines + 1
                try:
                    if self._lines == 1:
                        self._last = read_head(line, self.key)
                        continue
                    body = read_line(line)
                    before, self._last = self._last, body.chain
                    found.append((check_line(body, before, self.key).place, Spot(self.path, at)))
                except Foreign as error:
                    self.foreign = str(error)
                except Unreadable:
                    continue
        return found
