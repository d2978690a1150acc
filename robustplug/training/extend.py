"""Extend a run to another number of epochs than it was started with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.types import EpochReport
from ..errors import RunError
from ..recipe.write import recipe_hash, write_recipe
from ..runs import checkpoint
from ..runs.choose import stored_recipe, with_epochs
from ..runs.folder import (
    CHECKPOINTS,
    ENVIRONMENT,
    EVALUATIONS,
    MODEL,
    RECIPE,
    REPORT,
    RESULT,
    holds_run,
    is_finished,
    write_atomic,
    write_json,
    writing,
)
from .validate import collapsed

if TYPE_CHECKING:
    from ..recipe.options import Recipe
    from .session import Session

# Key of environment.json with the numbers of epochs that the recipe had before.
EXTENDED = "extended_from"
# Points of an epoch at which two schedules are compared.
_POINTS = 8


def earlier_epochs(folder: Path) -> list[int]:
    """Return the numbers of epochs that a run had before it was extended, oldest first.

    Raises:
        RunError: environment.json, which holds them, cannot be read.
    """
    return [int(epochs) for epochs in _environment(folder).get(EXTENDED, [])]


def earlier_hashes(folder: Path, recipe: Recipe) -> frozenset[str]:
    """Return the hashes of the recipes that a run had before it is extended, and before it was.

    Raises:
        RunError: as for `earlier_epochs`.
    """
    if not holds_run(folder):
        return frozenset()
    # In this order: another process may be extending the run, and writes the earlier numbers first.
    numbers = [stored_recipe(folder).train.epochs, *earlier_epochs(folder)]
    return frozenset(recipe_hash(with_epochs(recipe, epochs)) for epochs in numbers)


def check_extension(folder: Path, recipe: Recipe) -> None:
    """Refuse a number of epochs that would train nothing.

    Args:
        folder: run folder.
        recipe: the stored recipe with the new number of epochs.

    Raises:
        RunError: these epochs are trained already, or the run stopped for a collapse.
    """
    before, epochs = stored_recipe(folder).train.epochs, recipe.train.epochs
    if before == epochs or not checkpoint.names(folder / CHECKPOINTS):
        return  # a run that was killed before its first checkpoint starts again
    newest, _ = checkpoint.load_newest(folder / CHECKPOINTS)
    done, batch = newest.meta["epoch"], newest.meta["batch"]
    if epochs < done + (batch > 0) or (is_finished(folder) and epochs == done):
        part = f" and {batch} batches of the next" if batch else ""
        raise RunError(
            f"epochs = {epochs} would train nothing: {folder} has trained {done} epochs{part}; give a larger "
            "number"
        )
    history = [EpochReport(**report) for report in newest.meta["history"]]
    if recipe.train.stop_on_collapse and collapsed(history):
        raise RunError(
            f"{folder} stopped after {done} epochs, when the robust accuracy collapsed "
            "(train.stop_on_collapse), so more epochs would not be trained"
        )


def extend(folder: Path, recipe: Recipe) -> int | None:
    """Give a run folder the recipe's number of epochs, and put results of the earlier number aside.

    Call it with the folder locked. A crash leaves a folder that the same call extends.

    Args:
        folder: run folder.
        recipe: the stored recipe with the new number of epochs.

    Returns:
        The earlier number of epochs; None if it does not change.

    Raises:
        RunError: the folder cannot be written.
    """
    stored = stored_recipe(folder)
    before, epochs = stored.train.epochs, recipe.train.epochs
    if before == epochs:
        return None
    environment = _environment(folder)
    with writing(f"in the run folder {folder}"):
        # The order matters: the checkpoints stay known, and a result never stands beside another recipe.
        if checkpoint.names(folder / CHECKPOINTS):
            numbers = list(dict.fromkeys([*environment.get(EXTENDED, []), before]))
            write_json(folder / ENVIRONMENT, {**environment, EXTENDED: numbers})
        if is_finished(folder):
            for name in (REPORT, EVALUATIONS, MODEL, RESULT):
                _put_aside(folder / name, before)
        write_atomic(folder / RECIPE, write_recipe(recipe).encode())
    return before


def _put_aside(path: Path, epochs: int) -> None:
    """Rename a result of fewer epochs, for example to result-20-epochs.json; overwrite nothing."""
    if not path.exists():
        return
    number = 1
    while True:
        more = "" if number == 1 else f"-{number}"
        kept = path.with_name(f"{path.stem}-{epochs}-epochs{more}{path.suffix}")
        if not kept.exists():
            path.rename(kept)
            return
        number += 1


def _environment(folder: Path) -> dict[str, Any]:
    path = folder / ENVIRONMENT
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}; restore it") from error
    return body if isinstance(body, dict) else {}


def note_on_extension(recipe: Recipe, session: Session, before: int) -> str:
    """Return what another number of epochs means for the learning rate.

    Args:
        recipe: the recipe of the run with its new number of epochs.
        session: the session of the run, after its checkpoint is restored.
        before: number of epochs before.
    """
    name, epochs, optimizers = recipe.schedule.name, recipe.train.epochs, session.loop.optimizers
    done = session.epoch + session.batch / session.loop.batches
    text = f"the run now has {epochs} epochs instead of {before}, {done:.3g} of which are trained"
    moments = [point / _POINTS for point in range(min(before, epochs) * _POINTS)]

    def schedule(moment: float, total: int) -> float:
        return optimizers.factor(moment, total, session.loop.batches)

    if all(schedule(at, before) == schedule(at, epochs) for at in moments):
        return f'{text}; the schedule "{name}" does not depend on their number'
    return (
        f'{text}. The schedule "{name}" was made for {before} epochs: the last update used '
        f"{schedule(done, before):.3g} times the learning rate of the recipe. From here on it is that of "
        f"{epochs} epochs, which continues at {schedule(done, epochs):.3g} times that rate and ends at "
        f"{schedule(epochs, epochs):.3g}: the result differs from that of {epochs} epochs from the start"
    )
