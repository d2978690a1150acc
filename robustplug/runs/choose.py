"""Choose the run of a command: its folder and its recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..plugin.options import parse_fraction
from ..recipe.errors import Problem, RecipeError
from ..recipe.load import read_recipe, recipe_from_mapping
from ..recipe.options import Recipe
from ..recipe.toml.overrides import parse_value
from ..recipe.write import recipe_to_mapping
from .folder import (
    CHECKPOINTS,
    ENVIRONMENT,
    MANIFEST,
    RECIPE,
    is_finished,
    latest_folder,
    new_folder,
    numbered,
)
from .heads import names
from .launch import agent, began
from .stored import open_stored, with_epochs

RUNS = Path("runs")
# The key of the option of a task that names the file of its test samples.
TEST = "task.test"


def as_recipe(
    recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), starts: bool = True
) -> Recipe:
    """Read a recipe from a file, a bundled name, or a mapping; see `read_recipe`."""
    if isinstance(recipe, Mapping):
        return recipe_from_mapping(recipe, overrides, starts=starts)
    return read_recipe(recipe, overrides, starts=starts)


def differences(asked: Recipe, stored: Recipe) -> list[str]:
    """List the keys in which a recipe differs from that of a run, with both values.

    Values that were chosen when the run started ("auto", an absent model) do not count.
    """

    def flat(table: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(table, Mapping):
            items = table.items()
        elif isinstance(table, list):
            items = {str(number): value for number, value in enumerate(table)}.items()
        else:
            return {prefix: table}
        return {
            k: v for key, value in items for k, v in flat(value, f"{prefix}.{key}" if prefix else key).items()
        }

    train = stored.train
    if asked.train.precision == "auto":
        asked = dataclasses.replace(asked, train=dataclasses.replace(asked.train, precision=train.precision))
    if asked.train.channels_last == "auto":
        kept = dataclasses.replace(asked.train, channels_last=train.channels_last)
        asked = dataclasses.replace(asked, train=kept)
    if asked.train.fast in (None, "auto"):
        asked = dataclasses.replace(asked, train=dataclasses.replace(asked.train, fast=train.fast))
    if asked.model is None:
        asked = dataclasses.replace(asked, model=stored.model)
    new, old = flat(recipe_to_mapping(asked)), flat(recipe_to_mapping(stored))
    keys = sorted(key for key in new.keys() | old.keys() if new.get(key) != old.get(key))
    return [f"{key}: the run has {old.get(key)}, the recipe {new.get(key)}" for key in keys]


def choose_run(
    recipe: str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool | str | Path = False,
    epochs: int | None = None,
) -> tuple[Recipe, Path]:
    """Return the recipe to train and the folder to train it in.

    Args:
        recipe: file, bundled name or mapping; may be left out when a folder is resumed.
        overrides: changes of the recipe, "key=value" each.
        out: run folder; None for the first free one of runs/NAME, runs/NAME-2, ….
        resume: False, a run folder, or True for the recipe's newest run.
        epochs: new number of epochs of the run that is resumed; None to keep it.

    Raises:
        RecipeError: the recipe has problems.
        RunError: there is nothing to resume, or the recipe differs from that of the run.
    """
    asked = None if recipe is None else as_recipe(recipe, overrides, starts=resume is False)
    if resume is False:
        if asked is None:
            raise RunError("no recipe is given; name one: robustplug train --recipe cat")
        return asked, Path(out) if out is not None else new_folder(RUNS, asked.name)
    if isinstance(resume, bool):
        if out is None and asked is None:
            raise RunError("no run to resume is given; name one: robustplug train --resume runs/NAME")
        folder = Path(out) if out is not None else latest_folder(RUNS, asked.name if asked else "")
    else:
        folder = Path(resume)
    if epochs is not None and epochs < 1:
        raise RunError(f"epochs = {epochs} is not a number of epochs: give at least 1")
    stored = refuse_edited(folder)
    before = stored.train.epochs
    if is_finished(folder) and epochs in (None, before):
        raise RunError(
            f"{folder} is finished; evaluate it with: robustplug evaluate {folder}\n"
            f"  or train more epochs: robustplug train --resume {folder} --epochs {2 * before}"
        )
    if asked is None and overrides:
        raise RunError("a resumed run keeps the recipe that it was started with: leave out --set")
    if asked is not None and epochs is not None:
        asked = with_epochs(asked, before)
    changed = [] if asked is None else differences(asked, stored)
    if changed:
        raise RunError(
            f"the recipe differs from the one that {folder} was started with; leave out --recipe and --set "
            "to continue with that one, or start a new run with --out:\n  " + "\n  ".join(changed)
        )
    return stored if epochs is None else with_epochs(stored, epochs), folder


def begun_run(
    recipe: str | Path | Mapping[str, Any] | None, overrides: Sequence[str], out: str | Path | None
) -> Path | None:
    """Return the unfinished run that this launch has begun before; None without one, see `began`.

    All processes must call it, and one that knows the run suffices: where nodes join a launch, the first
    process may be one of a node that was not there when it began.

    Args:
        recipe, overrides, out: as for `choose_run`, of a new run.
    """
    if recipe is None or not agent():
        return None
    from ..devices.processes import start

    asked = as_recipe(recipe, overrides)
    known = numbered(RUNS, asked.name) if out is None else [Path(out)]
    found = [str(folder) for folder in known[-1:] if began(folder) and not is_finished(folder)]
    captured = "capture" in (asked.train.fast or "")  # the processes meet here for the first time
    agreed = start(asked.train.device, "float32", captured).gather_lines(found)
    return Path(agreed[0]) if agreed else None


def stored_recipe(folder: Path) -> Recipe:
    """Return the resolved recipe that the run of a folder was started with.

    Raises:
        RunError: the folder is not a run folder.
        RecipeError: its recipe cannot be read.
    """
    return open_stored(folder).recipe


def refuse_edited(folder: Path) -> Recipe:
    """Return the recipe of a run that is resumed.

    Raises:
        RunError: recipe.toml was edited after the run started, or no program of ours wrote it.
    """
    found = open_stored(folder)
    path = folder / RECIPE
    if found.edited:
        raise RunError(
            f"{path} was edited after the run started, and a run keeps its recipe: put it back (delete the "
            f"file, and it is written again from {MANIFEST}), or start a new run with --recipe {path} --out"
        )
    own = found.sealed or (folder / ENVIRONMENT).exists() or names(folder / CHECKPOINTS)
    if not own:
        raise RunError(
            f"{folder} is no run that can be resumed: it holds a {RECIPE}, but neither {MANIFEST} nor "
            f"{ENVIRONMENT}; start a run with --recipe {path}"
        )
    return found.recipe


def only_evaluate_changed(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Refuse overrides of a finished run that change anything other than its evaluation.

    `task.test` may name another test file. A number there would be a share or a count to hold out, and its
    test samples may be those that the run was trained on.

    Returns:
        The test file by its key, if it is one of the overrides.

    Raises:
        RecipeError: there are such overrides; each is one problem.
    """
    problems, data = [], dict[str, Any]()
    for text in overrides:
        key, value = (part.strip() for part in (text + "=").split("=", 1))
        read = parse_value(value.removesuffix("="))
        if key == TEST and isinstance(read, str) and not _is_number(read):
            data[TEST] = read
        elif key == TEST:
            why = f"names the file of other test samples, not {read}: what was held out stays as it is"
            problems.append(Problem(TEST, why, override=text))
        elif not text.startswith("evaluate."):
            why = f"only evaluate.* and {TEST} can be set for a finished run"
            problems.append(Problem(key, why, override=text))
    if problems:
        raise RecipeError(problems, name)
    return data


def _is_number(text: str) -> bool:
    try:
        parse_fraction(text)
    except ValueError:
        return False
    return True
