"""The outcome of a tuning as typed rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.reporting import Reporter, Silent
from ...errors import RunError
from .kept import TRIALS, Status, Trial
from .stored import read_tuning_body

if TYPE_CHECKING:
    from ...recipe.options import Recipe
    from ..work import Commands


@dataclass(frozen=True)
class Tested:
    """Accuracies of a finalist on the test split.

    Attributes:
        clean: clean accuracy.
        autoattack: accuracy under AutoAttack; NaN where it was skipped.
    """

    clean: float
    autoattack: float


@dataclass(frozen=True)
class TunedTrial:
    """One trial of a tuning.

    Attributes:
        number: number of the trial, from 0.
        folder: its run folder.
        values: values of the searched options, by dotted key.
        status: how it ended.
        clean, robust: accuracies on the validation split; NaN if it did not finish.
        epochs: epochs that were trained.
        passes: forward and backward passes of a training sample; 0 if unknown.
        seconds: training time.
        reason: why it failed; "" if it did not.
        base: whether its options are those of the base recipe.
        tested: accuracies on the test split; None if it is no finalist.
    """

    number: int
    folder: Path
    values: Mapping[str, Any]
    status: Status
    clean: float
    robust: float
    epochs: int
    passes: float
    seconds: float
    reason: str
    base: bool
    tested: Tested | None


@dataclass(frozen=True)
class Tuned:
    """The outcome of a tuning.

    Attributes:
        folder: the folder of the tuning.
        result: the content of its result.json.
        trials: all trials, by number.
        front: the trials that no other exceeds in both accuracies, the most robust first.
        best: the finalist with the highest accuracy under AutoAttack; None if it was skipped for all.
    """

    folder: Path
    result: Mapping[str, Any]
    trials: tuple[TunedTrial, ...]
    front: tuple[TunedTrial, ...]
    best: TunedTrial | None

    @property
    def finalists(self) -> tuple[TunedTrial, ...]:
        """Return the trials that were attacked on the test split."""
        return tuple(each for each in self.trials if each.tested is not None)


def read_tuned(folder: Path) -> Tuned:
    """Read the outcome of a tuning from its folder; one that is not finished has no finalists.

    Raises:
        RunError: the folder holds no tuning, or its result was changed after it was written.
    """
    body, _ = read_tuning_body(folder)
    tested = {
        each["number"]: Tested(_number(each["clean"]), _number(each["autoattack"]))
        for each in body["finalists"]
    }
    trials = tuple(
        TunedTrial(
            trial["number"],
            folder / TRIALS / f"{trial['number']:04d}",
            trial["values"],
            trial["status"],
            _number(trial["clean"]),
            _number(trial["robust"]),
            trial["epochs"],
            trial["passes"],
            trial["seconds"],
            trial["reason"],
            trial["base"],
            tested.get(trial["number"]),
        )
        for trial in body["trials"]
    )
    front = tuple(trials[number] for number in body["front"])
    return Tuned(folder, body, trials, front, None if body["best"] is None else trials[body["best"]])


def _number(share: float | None) -> float:
    return math.nan if share is None else share


def carried_out(
    source: str | Path | Mapping[str, Any],
    folder: Path | None,
    commands: Commands,
    reporter: Reporter | None,
    done: Callable[[Trial], None],
) -> Tuned:
    """Read a tuning, carry it out, and return its outcome.

    Args:
        source: TOML file, or a mapping with the same tables.
        folder: the folder of the tuning; None for tunings/NAME.
        commands: the functions that train and evaluate.
        reporter: receives the progress of the trials; None for no output.
        done: receives each trial that ends.

    Raises:
        RecipeError, RunError, Interrupted: see `robustplug.tune`.
    """
    from ...subjects.assemble import build_method, build_part
    from .options import read_tuning
    from .search import TUNINGS, run_tuning

    tuning = read_tuning(source)
    if find_spec("optuna") is None:
        raise RunError('tuning needs Optuna: pip install "robustplug[tune]"')
    folder = TUNINGS / tuning.name if folder is None else folder
    info = build_part(tuning.recipe.task, "task", "task").info

    def passes_of_epoch(recipe: Recipe) -> float:
        cost: Any = build_method(recipe, info).cost()
        return float(cost.forwards + cost.backwards)

    run_tuning(tuning, folder, commands, passes_of_epoch, reporter or Silent(), done)
    return read_tuned(folder)
