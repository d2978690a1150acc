"""Make the pages of the site that are written elsewhere: README, method cards, the registry and the API."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import robustplug.api
from robustplug.api import Component
from robustplug.plugin.component import Kind
from robustplug.plugin.host import registry
from robustplug.recipe.options import default_of

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# The kinds of component that have a page, with its title.
KINDS: dict[Kind, str] = {
    "perturbation": "Attacks",
    "vicinity": "Threat models and distribution shifts",
    "label_map": "Label maps",
    "output_map": "Output maps",
    "loss": "Losses",
    "task": "Tasks",
    "model": "Models",
    "optimizer": "Optimizers",
    "schedule": "Schedules",
    "augmentation": "Augmentations",
}
PYTHON = (
    *(f"robustplug.run.{name}" for name in ("train", "evaluate", "audit", "build", "study", "tune")),
    "robustplug.report.tables.comparison.compare",
    "robustplug.run.report",
    "robustplug.subjects.opening.Opening",
)
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?!https?:|#|mailto:)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def cards() -> dict[str, Path]:
    """Return the method cards by the name of their page."""
    return {
        path.parent.name.removeprefix("robustplug_").replace("_", "-"): path
        for path in sorted(ROOT.glob("plugins/robustplug_*/README.md"))
    }


def moved(text: str, source: str, target: str) -> str:
    """Rewrite the relative links of a page that is shown elsewhere; drop those that leave the site.

    Args:
        text: Markdown.
        source: path of the file in the repository.
        target: path of the page in the site.
    """
    pages = {path.relative_to(ROOT).as_posix(): f"methods/{name}.md" for name, path in cards().items()}
    pages |= {
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix()
        for path in (ROOT / "docs").glob("*.md")
    }
    pages["README.md"] = "index.md"

    def link(match: re.Match[str]) -> str:
        parts: list[str] = []
        for part in (PurePosixPath(source).parent / match["path"]).parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        page = pages.get("/".join(parts))
        if page is None:
            return match["text"]
        up = "../" * (len(PurePosixPath(target).parts) - 1)
        return f"[{match['text']}]({up}{page}{match['anchor'] or ''})"

    return _LINK.sub(link, text)


def options_table(component: Component) -> Iterator[str]:
    """Yield the lines of a table of a component's options and defaults."""
    fields = dataclasses.fields(component.options)
    if not fields:
        return
    yield from ("| option | type | default |", "|---|---|---|")
    for item in fields:
        default = default_of(item, "required")
        shown = getattr(default, "name", default)
        kind = str(item.type).replace("|", "\\|")
        yield f"| `{item.name}` | `{kind}` | `{shown}` |"


def component_page(kind: Kind, title: str) -> str:
    """Return the page of all components of a kind."""
    known = registry()
    lines = [f"# {title}", ""]
    for component in known.by_kind()[kind]:
        owner = known.owners[kind, component.name]
        lines += [f"## {component.name}", "", f"{component.summary}. From the plugin `{owner}`.", ""]
        if component.paper:
            lines += [component.paper, ""]
        lines += [*options_table(component), ""]
        explained = inspect.getdoc(component.options) or ""
        _, _, attributes = explained.partition("Attributes:\n")
        lines += [
            f"- {' '.join(text.split())}"
            for text in re.split(r"\n    (?=\S)", "\n" + attributes)
            if text.strip()
        ]
        lines.append("")
    return "\n".join(lines)


def reference_page(title: str, paths: Iterable[str]) -> str:
    """Return a page that documents objects, by their dotted paths."""
    parts = [f"# {title}", ""]
    for path in paths:
        parts += [f"::: {path}", ""]
    return "\n".join(parts)


def api_names() -> dict[str, list[str]]:
    """Return the dotted paths of the classes and functions of robustplug.api, by room."""
    rooms: dict[str, list[str]] = {}
    for name in robustplug.api.__all__:
        found = getattr(robustplug.api, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            room = found.__module__.split(".")[1]
            rooms.setdefault(room, []).append(f"{found.__module__}.{found.__qualname__}")
    return rooms


def made_pages() -> dict[str, str]:
    """Return the Markdown of every page that is made, by its path in the site."""
    pages = {"index.md": moved((ROOT / "README.md").read_text(encoding="utf-8"), "README.md", "index.md")}
    for name, path in cards().items():
        target = f"methods/{name}.md"
        source = path.relative_to(ROOT).as_posix()
        pages[target] = moved(path.read_text(encoding="utf-8"), source, target)
    for kind, title in KINDS.items():
        pages[f"components/{kind.replace('_', '-')}.md"] = component_page(kind, title)
    pages["reference/python.md"] = reference_page("The Python API", PYTHON)
    for room, names in sorted(api_names().items()):
        pages[f"reference/{room}.md"] = reference_page(f"robustplug.api: {room}", names)
    return pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the sections of the navigation that end in a slash, and state the version."""
    config.extra["version"] = metadata.version("robustplug")
    pages = sorted(made_pages())
    for entry in config.nav or []:
        for title, value in entry.items():
            if isinstance(value, str) and value.endswith("/"):
                entry[title] = [page for page in pages if page.startswith(value)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for path, text in made_pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links of the guides to files of the repository lead to their pages."""
    source = page.file.src_uri
    return (
        moved(markdown, f"docs/{source}", source) if "/" not in source and source != "index.md" else markdown
    )
