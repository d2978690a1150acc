"""The problems of a recipe: all reported at once, each with its place and a way to fix it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

KeyPath = tuple[str | int, ...]
"""Keys from the top of a recipe; whole numbers index arrays."""

# Problems that a message lists.
_LISTED = 100
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dotted(path: Iterable[str | int]) -> str:
    """Write a key path in the form of `--set`, for example "evaluate.attack.0.steps"."""
    parts = (str(part) for part in path)
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part) for part in parts)


class Finding(NamedTuple):
    """Hold a problem before its place in a file is known."""

    path: KeyPath
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class Problem:
    """Describe one problem of a recipe.

    Attributes:
        key: dotted key path; "" for the recipe as a whole.
        message: description of the problem.
        line: line in the file, from 1; None if the problem has no line.
        hint: how to fix the problem.
        override: the "key=value" of the `--set` that caused the problem, instead of a line.
    """

    key: str
    message: str
    line: int | None = None
    hint: str | None = None
    override: str | None = None


class RecipeError(Exception):
    """A recipe, or a reference to a component, cannot be used.

    Attributes:
        problems: all problems.
        source: the file, or another source that was read.
    """

    def __init__(self, problems: Sequence[Problem], source: str) -> None:
        super().__init__(problems, source)
        self.problems, self.source = list(problems), source

    def __str__(self) -> str:
        blocks = [self._block(problem) for problem in self.problems[:_LISTED]]
        more = len(self.problems) - len(blocks)
        return "\n".join([*blocks, *([f"{self.source}: and {more} more problems"] if more else [])])

    def _block(self, problem: Problem) -> str:
        place = self.source if problem.line is None else f"{self.source}:{problem.line}"
        if problem.override is not None:
            place = f"--set {problem.override}"
        head = f"{place}: {problem.key}" if problem.key else place
        texts = [problem.message, *([problem.hint] if problem.hint else [])]
        return "\n".join([head, *(f"  {line}" for text in texts for line in text.splitlines())])
