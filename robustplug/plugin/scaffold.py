"""Write a new plugin: a separate package that installs and passes its tests without changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .component import KINDS
from .host import host, registry

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Prefix of dotfiles in the template, since packaging tools tend to leave out files with a leading dot.
# Files that have one are caches of tools, which take a template for a project.
_DOT = "dot-"
# Each template is a plugin with the name my-part; what all of them share is in "common".
_TEMPLATES = Path(__file__).parent / "templates"


def problems_of(name: str, folder: Path) -> list[str]:
    """List the reasons why no plugin of this name can be written to a folder."""
    found = []
    if not _NAME.fullmatch(name):
        found.append(f'the name "{name}" is not kebab-case, starting with a letter, for example "my-method"')
    kinds = [kind for kind in KINDS if name in registry().names(kind)]
    if name in {report.name for report in host().reports}:
        found.append(f'a plugin named "{name}" is installed: choose another name')
    elif kinds:
        found.append(
            f'there is a {" and a ".join(kinds).replace("_", " ")} named "{name}": choose another name'
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found.append(f"{folder} already exists: choose another folder with --out")
    return found


def write_plugin(name: str, folder: Path, what: str = "method") -> list[Path]:
    """Write a template under a name, and return the written files.

    Args:
        name: name of the plugin and its component, kebab-case.
        folder: folder of the plugin; created if it does not exist.
        what: what the plugin offers, one of `names.SCAFFOLDS`.

    Raises:
        OSError: a file cannot be written.
    """
    names = {
        "my-part": name,
        "my_part": name.replace("-", "_"),
        "MyPart": "".join(part.capitalize() for part in name.split("-")),
        "my-kind": what,
    }

    def named(text: str) -> str:
        for old, new in names.items():
            text = text.replace(old, new)
        return text

    written = []
    for source, parts in sorted([*_files("common"), *_files(what)], key=lambda found: found[1]):
        plain = (f".{part.removeprefix(_DOT)}" if part.startswith(_DOT) else part for part in parts)
        target = folder.joinpath(*map(named, plain))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(named(source.read_text(encoding="utf-8")), encoding="utf-8")
        written.append(target)
    return written


def _files(template: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield the files of a template, each with the parts of its place."""
    for source in (_TEMPLATES / template).rglob("*"):
        parts = source.relative_to(_TEMPLATES / template).parts
        if source.is_file() and not any(part.startswith((".", "__pycache__")) for part in parts):
            yield source, parts
