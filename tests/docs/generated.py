"""Parts of the documentation that are made from the code: what stands between two marks in a file.

`python -m tests.docs.generated` writes them anew; a test fails where they are not what would be written.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
import tomllib
from collections.abc import Callable
from functools import reduce
from importlib import metadata
from pathlib import Path
from typing import Any

import robustplug
from robustplug.plugin.host import registry

ROOT = Path(robustplug.__file__).parents[1]
FILES = (ROOT / "README.md", ROOT / "docs" / "the-loop.md", ROOT / "docs" / "architecture.md")

_PART = re.compile(
    r"(?P<begin><!-- made: (?P<what>\S+)(?: (?P<of>\S+))? -->\n).*?(?P<end><!-- end -->)", re.S
)


def source(of: str) -> str:
    """Return the code of "package.module:attribute" without its docstring, as a block."""
    module, _, attribute = of.partition(":")
    found: Any = reduce(getattr, attribute.split("."), importlib.import_module(module))
    text = textwrap.dedent(inspect.getsource(found))
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    lines, first = text.splitlines(), function.body[0]
    if ast.get_docstring(function) is not None:
        del lines[first.lineno - 1 : first.end_lineno]
    return "```py\n" + "\n".join(lines).replace("\n\n\n", "\n\n") + "\n```\n"


def card_of(owner: str) -> str:
    """Return the path of a plugin's method card, "" for none."""
    for point in metadata.entry_points(group="robustplug", name=owner):
        path = Path("plugins", point.module, "README.md")
        return path.as_posix() if (ROOT / path).is_file() else ""
    return ""


def arxiv(paper: str) -> str:
    """Return a citation with its arXiv number as a link."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)


def methods(_: str) -> str:
    """Return the table of the methods of this repository."""
    known = registry()
    rows = ["| method | what it does | paper |", "|---|---|---|"]
    for component in known.by_kind()["method"]:
        card = card_of(known.owners["method", component.name])
        name = f"[`{component.name}`]({card})" if card else f"`{component.name}`"
        rows.append(f"| {name} | {component.summary} | {arxiv(component.paper)} |")
    return "\n".join(rows) + "\n"


def layers() -> list[list[str]]:
    """Return the layers of the core, highest first; rooms of one layer do not import each other."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (found,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [layer.split(" | ") for layer in found]


def rooms(_: str) -> str:
    """Return the table of the rooms, from the highest to the lowest, with what each says of itself."""
    rows = ["| room | what it is for | its own rooms |", "|---|---|---|"]
    for name in (name for layer in layers() for name in layer if name not in ("__main__", "worker")):
        folder = ROOT / "robustplug" / name
        module = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        lines = (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").splitlines()
        inner = sorted(path.parent.name for path in folder.glob("*/__init__.py"))
        shown = f"`{name}/`" if folder.is_dir() else f"`{name}.py`"
        rows.append(f"| {shown} | {lines[0]} | {', '.join(f'`{each}/`' for each in inner)} |")
    return "\n".join(rows) + "\n"


MAKERS: dict[str, Callable[[str], str]] = {"source": source, "methods": methods, "rooms": rooms}


def made(text: str) -> str:
    """Return a file's text with all its parts written anew."""
    return _PART.sub(lambda m: m["begin"] + MAKERS[m["what"]](m["of"] or "") + m["end"], text)


def parts(text: str) -> list[tuple[str, str]]:
    """List what a file's parts are made of."""
    return [(match["what"], match["of"] or "") for match in _PART.finditer(text)]


if __name__ == "__main__":
    for file in FILES:
        file.write_text(made(file.read_text(encoding="utf-8")), encoding="utf-8")
