"""Open what a run folder says about its run: the manifest, and the recipe that the run was started with."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files.reading import Unreadable, is_file, read_bytes, read_json
from ..recipe.errors import RecipeError
from ..recipe.load import finish, read_recipe, recipe_converter
from ..recipe.options import Recipe
from ..recipe.toml.files import parse
from ..recipe.write import recipe_hash, write_recipe
from .folder import CHECKPOINTS, ENVIRONMENT, MANIFEST, RECIPE, holds_run
from .heads import names, read_head
from .manifest import Earlier, Manifest, new_id, read_manifest

# Key of environment.json with the numbers of epochs that the recipe had before.
EXTENDED = "extended_from"


@dataclass(frozen=True)
class Stored:
    """Hold what a run folder says about its run.

    Attributes:
        recipe: the resolved recipe that the run was started with.
        manifest: the manifest; where the folder has none that is sound, one that fits its checkpoints.
        sealed: whether the folder has a sound manifest.
        edited: whether recipe.toml is another recipe.
        stale: whether recipe.toml is missing, or the recipe before the run was extended.
        notes: a sentence on each thing that is missing, damaged or edited.
    """

    recipe: Recipe
    manifest: Manifest
    sealed: bool = True
    edited: bool = False
    stale: bool = False
    notes: Sequence[str] = ()


def open_stored(folder: Path) -> Stored:
    """Read manifest and recipe of a run folder; the recipe of the manifest counts.

    Raises:
        RunError: the folder is not a run folder.
        RecipeError: its recipe cannot be read.
    """
    if not holds_run(folder):
        if not os.path.exists(folder):  # noqa: PTH110, which takes names that are too long
            raise RunError(f"{folder} is not a run folder: it does not exist")
        raise RunError(f"{folder} is not a run folder: it contains no {RECIPE}")
    path = folder / RECIPE
    try:
        manifest = read_manifest(folder)
        note = (
            f"{folder} has no {MANIFEST}: files of an earlier version carry no seal, and could not be checked"
        )
    except Unreadable as error:
        manifest, note = (
            None,
            f"{folder / MANIFEST} {error}: it is not used, and {RECIPE} could not be checked",
        )
    if manifest is None:
        if not is_file(path):
            raise RunError(f"{note}; {path}, which states the recipe, is missing, too: put one of them back")
        recipe = read_recipe(path, starts=False)
        return Stored(recipe, _fitting(folder, recipe), sealed=False, notes=[note])
    text = None
    with contextlib.suppress(OSError, Unreadable):
        text = read_bytes(path)
    if text == manifest.recipe.encode():
        return Stored(read_recipe(path, starts=False), manifest)
    source = f"the recipe in {folder / MANIFEST}"
    tables = parse(manifest.recipe, source)
    recipe = finish(tables, (), source, dict, recipe_converter(None, starts=False))
    if text is None:
        note = f"{path} is missing: the recipe in {MANIFEST} is used"
        return Stored(recipe, manifest, stale=True, notes=[note])
    known = _hash(path)
    if known in manifest.recipes:
        return Stored(recipe, manifest, stale=known != manifest.digest)
    note = f"{path} was edited after the run started: the recipe in {MANIFEST} is used"
    return Stored(recipe, manifest, edited=True, notes=[note])


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """Return a recipe with another number of epochs."""
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, epochs=epochs))


def new_manifest(recipe: Recipe, threads: int | None) -> Manifest:
    """Return the manifest of a new run.

    Args:
        recipe: the resolved recipe.
        threads: number of threads of the training; None if it is not known.
    """
    return Manifest(run=new_id(), recipe=write_recipe(recipe), digest=recipe_hash(recipe), threads=threads)


def extended(manifest: Manifest, recipe: Recipe, before: int) -> Manifest:
    """Return the manifest of a run with another number of epochs.

    Args:
        manifest: the manifest so far.
        recipe: the resolved recipe.
        before: number of epochs so far.
    """
    earlier = [each for each in manifest.earlier if each.digest != manifest.digest]
    earlier.append(Earlier(epochs=before, digest=manifest.digest))
    changes = {"recipe": write_recipe(recipe), "digest": recipe_hash(recipe), "earlier": tuple(earlier)}
    return manifest.model_copy(update=changes)


def _hash(path: Path) -> str | None:
    try:
        return recipe_hash(read_recipe(path, starts=False))
    except RecipeError:
        return None


def _fitting(folder: Path, recipe: Recipe) -> Manifest:
    """Return a manifest that fits recipe.toml and the newest checkpoints, for a folder that has none."""
    environment: Any = {}
    with contextlib.suppress(OSError, Unreadable):
        environment = read_json(folder / ENVIRONMENT)
    environment = environment if isinstance(environment, dict) else {}
    numbers = environment.get(EXTENDED)
    whole = [n for n in numbers if type(n) is int and n > 0] if isinstance(numbers, list) else []
    threads = environment.get("threads")
    made = new_manifest(recipe, threads if type(threads) is int and 0 < threads <= 2**16 else None)
    earlier = tuple(Earlier(epochs=n, digest=recipe_hash(with_epochs(recipe, n))) for n in whole)
    made = made.model_copy(update={"earlier": earlier})
    run, unsealed = "", {}
    for name in reversed(names(folder / CHECKPOINTS)):
        with contextlib.suppress(Unreadable):
            head = read_head(folder / CHECKPOINTS, name)
            if not head.run:
                unsealed[name] = head.digest
            elif not run and head.meta.recipe in made.recipes:
                run = head.run
    return made.model_copy(update={"unsealed": unsealed, **({"run": run} if run else {})})
