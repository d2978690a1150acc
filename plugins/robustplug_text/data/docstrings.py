"""Sentences that people wrote and that every machine with Python has: the documentation of its library."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

from robustplug.api import DataMissing

PACKAGES = ("asyncio", "email", "importlib", "logging", "multiprocessing", "xml")
"""Packages of the standard library that every version from 3.11 on has, and that document themselves."""
SHORTEST = 4
"""Least number of words of a sentence."""
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def documented() -> list[tuple[str, str]]:
    """Return the first paragraph of each docstring, and the package that it is from.

    Paragraphs that occur in two packages, or twice in one, count once or not at all. They differ between
    versions of Python.

    Raises:
        DataMissing: the standard library is not there as source code.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_bytes())):
                text = ast.get_docstring(node) if isinstance(node, _DOCUMENTED) else None
                sentence = " ".join((text or "").partition("\n\n")[0].split())
                if len(sentence.split()) >= SHORTEST:
                    found.setdefault(sentence, set()).add(package)
    rows = [(text, min(packages)) for text, packages in found.items() if len(packages) == 1]
    if len({package for _, package in rows}) < len(PACKAGES):
        raise DataMissing(
            f"{root} has no source code of {', '.join(PACKAGES)}: use task.data with a table, or with "
            '"synthetic"'
        )
    return rows
