"""The gallery: recipes of ten to thirty lines, each with the table or the picture that belongs to it.

`python -m tests.docs.gallery` trains them all, some minutes on two cores, and writes docs/gallery.md and the
pictures in docs/gallery/; with names of recipes, those alone. A slow test runs every recipe.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import robustplug
from robustplug.core.types import AttackResult, Result
from robustplug.evaluation.opened_run import open_run

ROOT = Path(robustplug.__file__).parents[1]
RECIPES = ROOT / "recipes" / "gallery"
PAGE, PICTURES = ROOT / "docs" / "gallery.md", ROOT / "docs" / "gallery"
LARGEST = 30_000
"""Bytes of a picture."""

ORDER = (
    *(
        "table",
        "trees",
        "regression",
        "ordinal",
        "multi-label",
        "segmentation",
        "patch",
        "few-pixels",
        "mask",
    ),
    *("certificate", "text", "agent"),
)
TITLES = {
    "few-pixels": "Few pixels",
    "multi-label": "Several labels",
    "regression": "Numbers",
    "table": "A table",
}
INTRO = """# Gallery

Problems beyond one class of an image in a ball, each a recipe of ten to thirty lines that trains and is
attacked within half a minute on one core: `robustplug train --recipe recipes/gallery/table.toml`.
`python -m tests.docs.gallery` makes this page, its tables and its pictures; a slow test runs every recipe.
The samples are few: the numbers show what a result looks like, not how good a method is.
"""
_PART = re.compile(r"<!-- of (?P<name>[\w-]+) -->\n.*?<!-- end -->\n", re.S)
# Shades of the pixel classes.
_SHADES = np.array([[40, 40, 40], [86, 180, 233], [230, 159, 0], [0, 158, 115]], dtype=np.uint8)


def train(name: str, out: Path) -> Result:
    """Train and evaluate a recipe of the gallery."""
    return robustplug.train(RECIPES / f"{name}.toml", out=out).result


def section(name: str, out: Path, pictures: Path) -> str:
    """Return the part of the page about a recipe, and write its picture."""
    result = train(name, out)
    first = (RECIPES / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    title = TITLES.get(name, name.capitalize())
    parts = [
        f"## {title}",
        first,
        f"[recipes/gallery/{name}.toml](../recipes/gallery/{name}.toml)",
        table(result),
    ]
    if name in ("table", "trees"):
        parts.append(moves(out))
    elif name in ("text", "agent"):
        parts.append(f"```text\n{result.attacks[-1].example.strip()[:700]}\n```")
    elif (drawn := picture(name, out)) is not None:
        image, says = drawn
        path = pictures / f"{name}.png"
        pictures.mkdir(parents=True, exist_ok=True)
        image.quantize(64).save(path, optimize=True)
        assert path.stat().st_size <= LARGEST, (name, path.stat().st_size)
        parts.append(f"![{says}](gallery/{name}.png)\n\n{says}")
    return f"<!-- of {name} -->\n" + "\n\n".join(parts) + "\n<!-- end -->\n"


def table(result: Result) -> str:
    """Return the rows of a result as a table in Markdown."""
    shown = [each["name"] for each in result.meta.get("quantities", ()) if each["headline"]]
    extra = [] if shown else sorted({name for row in result.attacks for name in row.measures})[:3]
    head = ["row", *(shown or ["accuracy"]), *extra, "broken"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in result.attacks:
        cells = [measured(row, name) for name in shown] if shown else [accuracy(row)]
        cells += [measured(row, name) for name in extra]
        broken = "" if row.name == "clean" or row.bound != "upper" else f"{row.broken} of {row.attempted}"
        lines.append(f"| {row.name} | {' | '.join([*cells, broken])} |")
    return "\n".join(lines)


def measured(row: AttackResult, name: str) -> str:
    """Return the mean of a measure of a row; "" for none."""
    found = row.measures.get(name)
    return "" if found is None or not found.count else f"{found.mean:.2f}"


def accuracy(row: AttackResult) -> str:
    """Return the accuracy of a row as text."""
    return f"{row.accuracy:.1%}" + (" certified" if row.bound == "lower" else "")


def moves(out: Path) -> str:
    """Return which columns adversaries move, as the command `robustplug moves` says it."""
    from robustplug.api import open_evaluation
    from robustplug_tasks.moves import found_moves, lines

    said = "\n".join(lines(found_moves(open_evaluation(out))))
    return (
        f"`robustplug moves` says which columns the attacks move, in their own units:\n\n```text\n{said}\n```"
    )


def picture(name: str, out: Path) -> tuple[Image.Image, str] | None:
    """Return a picture of broken samples, and what it shows; None where a table says all."""
    run = open_run(out)
    if run.task.info.shape is None or len(run.task.info.shape) != 3 or name == "certificate":
        return None
    found = robustplug.evaluate(out, keep_examples=True).examples
    if found is None:
        return None
    chosen = slice(0, 8)
    rows = [grey(found.origin[chosen]), grey(found.x[chosen])]
    says = "Images, and what an attack makes of them"
    if name == "segmentation":
        with torch.no_grad():
            seen = [run.model(each[chosen]).argmax(1) for each in (found.origin, found.x)]
        rows = [rows[0], _SHADES[seen[0].numpy()], rows[1], _SHADES[seen[1].numpy()]]
        says = "Images and the classes that the model sees; below, the same under attack"
    tall = 64 // rows[0].shape[1]
    strips = [np.concatenate([np.pad(each, ((0, 1), (0, 1), (0, 0))) for each in row], 1) for row in rows]
    return Image.fromarray(np.concatenate(strips, 0).repeat(tall, 0).repeat(tall, 1)), says


def grey(x: Tensor) -> Any:
    """Return grey images (N, 1, H, W) in [0, 1] as uint8 (N, H, W, 3)."""
    return (255 * x[:, 0]).round().byte().numpy()[..., None].repeat(3, 3)


def parts_of(text: str) -> Mapping[str, str]:
    """Return the parts of the page by recipe."""
    return {match["name"]: match[0] for match in _PART.finditer(text)}


def write(names: list[str]) -> None:
    """Write the page anew, with new parts for some recipes."""
    known = dict(parts_of(PAGE.read_text(encoding="utf-8"))) if PAGE.exists() else {}
    for name in names or ORDER:
        with tempfile.TemporaryDirectory() as folder:
            known[name] = section(name, Path(folder, "run"), PICTURES)
        text = "\n".join([INTRO, *(known[each] for each in ORDER if each in known)])
        PAGE.write_text(text, encoding="utf-8")
        print(name, flush=True)


if __name__ == "__main__":
    write(sys.argv[1:])
