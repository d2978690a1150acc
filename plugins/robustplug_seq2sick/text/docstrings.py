"""Summaries that people wrote: the first sentence of a documentation string, and the text below it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from robustplug.api import DataMissing, Split, read_bytes

from .data import Pair

# Words of a text, and of its summary.
BODY, SUMMARY = range(8, 81), range(4, 21)
LARGEST = 2**21
"""Largest file that is read, in bytes."""
# Folders whose strings are generated, or document tests.
_LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__", "_vendor"}
_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
# Lines that are no prose: examples, markup, lists of arguments, and tables.
_NO_PROSE = re.compile(r"^\s*(>>>|\.\.\.|\.\. |:\w|[-=~^*+|#]|\w+\s*:|\w+ -- |@)|::$|^\s{4,}|[<>{}\\|=_`]")
_ENDS = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def read_docstrings(packages: tuple[str, ...]) -> dict[Split, list[Pair]]:
    """Read the documentation strings of installed packages.

    The strings of a file are in one split: of ten files, one is for validation and one for the test, by the
    digest of its path. What is read depends on the installed versions. No code is run.

    Args:
        packages: names of packages; "python" is the standard library.

    Returns:
        For each split, pairs of a text and its first sentence, in lower case, with spaces between tokens.

    Raises:
        DataMissing: a package is not installed, or a split would be empty.
    """
    found: dict[Split, list[Pair]] = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    for name, root in _roots(packages):
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root)
            if _LEFT_OUT & set(inside.parts):
                continue
            share = hashlib.sha256(f"{name}/{inside.as_posix()}".encode()).digest()[0] * 10 // 256
            split: Split = "test" if share == 0 else "validation" if share == 1 else "train"
            for pair in pairs_in(path):
                # The same text in two classes must not be in two splits.
                if pair.source not in seen and pair.target not in seen:
                    seen |= {pair.source, pair.target}
                    found[split].append(pair)
    empty = [split for split, pairs in found.items() if not pairs]
    if empty:
        raise DataMissing(
            f"{', '.join(packages)}: no text with a summary for {', '.join(empty)}: name more packages in "
            "task.packages"
        )
    return found


def _roots(packages: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name in packages:
        if name == "python":
            yield name, Path(sysconfig.get_paths()["stdlib"])
            continue
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or spec.origin is None:
            raise DataMissing(f"{name} is not an installed package: correct task.packages")
        yield name, Path(spec.origin).parent


def pairs_in(path: Path) -> Iterator[Pair]:
    """Yield the pairs of a file; none if it is no Python file of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(read_bytes(path, LARGEST))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            pair = None if text is None else pair_of(text)
            if pair is not None:
                yield pair


def pair_of(text: str) -> Pair | None:
    """Return the prose of a documentation string, without its first sentence, and that sentence.

    None if it is too short or too long (see BODY and SUMMARY), or the first paragraph is no sentence.
    """
    first, _, rest = inspect.cleandoc(text).partition("\n\n")
    sentences = _ENDS.split(" ".join(first.split()))
    if not sentences[0].endswith(".") or _NO_PROSE.search(first):
        return None
    prose = [*sentences[1:], *_prose(rest)]
    summary, body = tokens(sentences[0]), tokens(" ".join(prose))
    if len(summary) not in SUMMARY or len(body) not in BODY:
        return None
    return Pair(" ".join(body), " ".join(summary))


def _prose(text: str) -> Iterator[str]:
    """Yield the paragraphs that are sentences, up to the first that is not."""
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        if not lines or any(_NO_PROSE.search(line) for line in lines) or not paragraph.rstrip().endswith("."):
            return
        yield " ".join(paragraph.split())


def tokens(text: str) -> list[str]:
    """Return words and punctuation of a text, in lower case."""
    return _TOKEN.findall(text.lower())
