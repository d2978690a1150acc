"""The stored result of a tuning: parsed and checked before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from ...errors import RunError
from ...files.reading import Unreadable, is_file, is_folder
from ...files.seals import parsed
from ...runs.folder import RESULT, holds_run
from ...runs.result_file import note_on_seals, read_sealed
from ...runs.result_types import Amount, Count, Open, Share
from .kept import TRIALS


class StoredTrial(Open):
    """A trial; shares of the validation split."""

    number: int
    values: dict[str, Any]
    status: Literal["finished", "stopped early", "failed"]
    clean: Share | None
    robust: Share | None
    epochs: int
    passes: Amount
    seconds: Amount
    reason: str
    base: bool


class StoredFinalist(Open):
    """A trial on the test split; None where AutoAttack was skipped."""

    number: int
    clean: Share | None
    autoattack: Share | None


class StoredBudget(Open):
    """What all trials may take together, and took."""

    unit: Literal["passes", "minutes"]
    given: Amount
    spent: Amount


class StoredTuning(Open):
    """The result of a tuning."""

    format: Literal[1]
    name: str
    base: str
    seed: int
    epochs: Count
    budget: StoredBudget
    ranges: dict[str, str]
    trials: list[StoredTrial]
    front: list[int]
    finalists: list[StoredFinalist]
    best: int | None
    importances: dict[str, dict[str, float]]

    @model_validator(mode="after")
    def agrees(self) -> StoredTuning:
        """Compare the parts with one another."""
        if [trial.number for trial in self.trials] != list(range(len(self.trials))):
            raise ValueError("the trials are not numbered from 0")
        named = {*self.front, *(each.number for each in self.finalists)} | ({self.best} - {None})
        if not named <= {trial.number for trial in self.trials if trial.clean is not None}:
            raise ValueError("the front names a trial that did not finish")
        if any(trial.values.keys() != self.ranges.keys() for trial in self.trials):
            raise ValueError("a trial has other options than those that are searched")
        return self


def holds_tuning(folder: Path) -> bool:
    """Return whether a folder is that of a tuning with a result, finished or not."""
    return not holds_run(folder) and is_folder(folder / TRIALS) and is_file(folder / RESULT)


def read_tuning_body(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Read the result of a tuning as JSON values, and notes on it.

    Raises:
        RunError: there is none, it was changed after it was written, or it is not that of a tuning.
    """
    path = folder / RESULT
    try:
        body, is_sealed = read_sealed(path)
        parsed(StoredTuning, body)
    except FileNotFoundError as error:
        raise RunError(f"{folder} contains no tuning") from error
    except Unreadable as error:
        raise RunError(
            f"{path} {error}; give the tuning's command again: it keeps the trials, and makes this file anew"
        ) from error
    return body, [] if is_sealed else note_on_seals([path])
