"""Extend a run to another number of epochs than it was started with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.types import EpochReport
from ..errors import RunError
from ..runs import checkpoint
from ..runs.folder import (
    CHECKPOINTS,
    EVALUATIONS,
    MODEL,
    REPORT,
    RESULT,
    is_finished,
    put_aside,
    writing,
)
from ..runs.heads import names
from ..runs.history import read_reports
from ..runs.manifest import write_manifest
from ..runs.stored import extended, open_stored
from .validate import collapsed

if TYPE_CHECKING:
    from pathlib import Path

    from ..recipe.options import Recipe
    from .session import Session
    from .store import Store

# Points of an epoch at which two schedules are compared.
_POINTS = 8


def check_extension(folder: Path, recipe: Recipe) -> None:
    """Refuse a number of epochs that would train nothing.

    Args:
        folder: run folder.
        recipe: the stored recipe with the new number of epochs.

    Raises:
        RunError: these epochs are trained already, or the run stopped for a collapse.
    """
    stored = open_stored(folder)
    before, epochs = stored.recipe.train.epochs, recipe.train.epochs
    if before == epochs or not names(folder / CHECKPOINTS):
        return  # a run that was killed before its first checkpoint starts again
    newest, _ = checkpoint.load_newest(folder / CHECKPOINTS, stored.manifest)
    done, batch = newest.meta["epoch"], newest.meta["batch"]
    if epochs < done + (batch > 0) or (is_finished(folder) and epochs == done):
        part = f" and {batch} batches of the next" if batch else ""
        raise RunError(
            f"epochs = {epochs} would train nothing: {folder} has trained {done} epochs{part}; give a larger "
            "number"
        )
    if not recipe.train.stop_on_collapse:
        return
    history = [EpochReport(**report) for report in newest.meta["history"] or ()]
    history = history or read_reports(folder, stored.manifest.run, done)[0]
    if collapsed(history):
        raise RunError(
            f"{folder} stopped after {done} epochs, when the robust accuracy collapsed "
            "(train.stop_on_collapse), so more epochs would not be trained"
        )


def extend(store: Store, recipe: Recipe) -> int | None:
    """Give a run folder the recipe's number of epochs, and put results of the earlier number aside.

    Call it with the folder locked. A crash leaves a folder that the same call extends.

    Args:
        store: the run folder.
        recipe: the stored recipe with the new number of epochs.

    Returns:
        The earlier number of epochs; None if it does not change.

    Raises:
        RunError: the folder cannot be written.
    """
    assert store.stored is not None
    assert store.manifest is not None
    folder, before = store.folder, store.stored.recipe.train.epochs
    if before == recipe.train.epochs:
        return None
    manifest, files = store.manifest, dict(store.manifest.files)
    with writing(f"in the run folder {folder}"):
        # A result never stands beside another recipe.
        if is_finished(folder):
            for name in (REPORT, EVALUATIONS, MODEL, RESULT):
                kept = put_aside(folder / name, f"{before}-epochs")
                if kept is not None and name in files:
                    files[kept.name] = files.pop(name)
        # Without a checkpoint, nothing was trained with the earlier number.
        new = extended(manifest, recipe, before)
        keep = new.earlier if names(folder / CHECKPOINTS) else manifest.earlier
        store.manifest = new.model_copy(update={"earlier": keep, "files": files, "newest": ""})
        write_manifest(folder, store.manifest)
    store.agree(stale=True)
    return before


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
