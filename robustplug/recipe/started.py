"""Models that start from a run: the run says what they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.reading import is_file
from .errors import RecipeError
from .options import ModelKeys
from .shape import shape
from .toml.files import parse, read_text


def with_model_of_run(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of a model; one that starts from a run and names no model gets that of the run.

    Args:
        table: the table of a recipe; `from` may be anything.
    """
    start = table.get("from")
    if "use" in table or not isinstance(start, str):
        return dict(table)
    path = Path(start) / "recipe.toml"
    try:
        found = parse(read_text(path), str(path)).get("model") if is_file(path) else None
    except RecipeError:
        found = None
    own = found if isinstance(found, Mapping) else {}
    left = {"from", *shape(ModelKeys).names}
    return {**{key: value for key, value in own.items() if key not in left}, **table}
