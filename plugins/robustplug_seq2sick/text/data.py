"""Read aligned text: one sentence a line, the translation in the same line of the other file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from robustplug.api import BrokenData, DataMissing

if TYPE_CHECKING:
    from ..options import TranslationOptions

SHOWN = 20
"""Number of broken lines that an error lists."""


class Pair(NamedTuple):
    """Hold a sentence and its translation."""

    source: str
    target: str


def find_folder(options: TranslationOptions) -> Path:
    """Return the folder of the files: `root`, ROBUSTPLUG_DATA or "data", or its subfolder `folder`.

    Raises:
        DataMissing: files are missing; the message lists all of them.
    """
    root = Path(options.root or os.environ.get("ROBUSTPLUG_DATA") or "data")
    names = [
        f"{name}.{suffix}"
        for name in (options.train, options.validation, options.test)
        for suffix in (options.source, options.target)
    ]
    folders = (root, root / options.folder)
    found = next((path for path in folders if (path / names[0]).is_file()), folders[1])
    missing = [name for name in names if not (found / name).is_file()]
    if missing:
        raise DataMissing(
            f"{', '.join(missing)} not found in {found.absolute()}. Set the option task.root or the variable "
            "ROBUSTPLUG_DATA to the folder that holds the aligned files, name them with task.train, "
            "task.validation, task.test, task.source and task.target, or use the task "
            '"synthetic-translation", which needs no data'
        )
    return found


def read_pairs(source: Path, target: Path) -> list[Pair]:
    """Read two aligned files.

    Sentences are lines of UTF-8; an empty line is an empty sentence.

    Raises:
        BrokenData: a line is not UTF-8 or holds control characters, or the files have different numbers of
            lines; the message gives file and line of the first 20 problems.
    """
    problems: list[str] = []
    first, second = (_lines(path, problems) for path in (source, target))
    if len(first) != len(second):
        longer = source if len(first) > len(second) else target
        problems.append(
            f"{longer}:{min(len(first), len(second)) + 1}: has no counterpart: {source} has {len(first)} "
            f"lines, {target} {len(second)}"
        )
    if problems:
        more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise BrokenData("the files are not aligned text:\n" + "\n".join(problems[:SHOWN]) + more)
    if not first:
        raise BrokenData(f"{source} and {target} are empty")
    return [Pair(*pair) for pair in zip(first, second, strict=True)]


def _lines(path: Path, problems: list[str]) -> list[str]:
    # Not splitlines(): it also splits at characters within sentences, which would misalign the files.
    raw = path.read_bytes()
    found = []
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n") if raw else [], 1):
        try:
            text = line.decode("utf-8").removesuffix("\r").removeprefix("\ufeff" if number == 1 else "")
        except UnicodeDecodeError as error:
            problems.append(f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start})")
            text = ""
        if any(ord(character) < 32 and character != "\t" for character in text):
            problems.append(f"{path}:{number}: holds control characters; is it a text file?")
        found.append(text)
    return found
