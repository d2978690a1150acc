"""Search: Optuna proposes the options of each trial, and the trials decide what it proposes next."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.reporting import Reporter
from ...errors import Interrupted, RunError
from ...files.reading import Unreadable
from ...recipe.errors import RecipeError
from ...recipe.options import Recipe
from ...recipe.toml.overrides import parse_key
from ...runs.folder import EVALUATIONS, RESULT, holds_run, write_json, writing
from ...runs.lock import locked
from ...runs.result_file import evaluation_file, read_result, seal_result
from ..work import Commands
from .front import front
from .kept import TRIALS, Trial, tried_again
from .options import Tuning
from .space import Choices, value_at
from .trial import carry_out

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

FORMAT, TUNINGS = 1, Path("tunings")
# The finalists' evaluation, a suite of one row.
FINAL = {"name": "tuned", "row": [{"attack": {"use": "autoattack"}}]}
# After so many trials in a row that cannot be trained, the search ends.
_FAILURES = 10
# Fewer finished trials say nothing about what mattered.
_TELLING = 8
_OWN = re.compile(r"trials|report|result\.json|\.lock(\.exists)?|\.result\.json\.\d+\.tmp")


def distributions(tuning: Tuning) -> dict[str, BaseDistribution]:
    """Return the ranges of a tuning as Optuna's."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for key, each in tuning.ranges.items():
        if isinstance(each, Choices):
            found[key] = CategoricalDistribution(each.values)
        elif each.whole:
            found[key] = IntDistribution(int(each.low), int(each.high), log=each.log)
        else:
            found[key] = FloatDistribution(each.low, each.high, log=each.log)
    return found


def importances(tuning: Tuning, trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """Return how much each option mattered for clean and for robust accuracy, by PED-ANOVA; shares of 1.

    Watanabe et al. 2023, PED-ANOVA, as Optuna has it; deterministic. Empty where too few trials finished.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    finished = [trial for trial in trials if trial.point is not None]
    if len(finished) < _TELLING:
        return {}
    study, ranges = _study(tuning), distributions(tuning)
    for each in finished:
        study.add_trial(create_trial(params=dict(each.values), distributions=ranges, values=each.point))
    found = {}
    for at, name in enumerate(("clean", "robust")):
        if len({trial.values[at] for trial in study.trials}) < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = PedAnovaImportanceEvaluator()
        # The evaluator asks what low values of the target depend on.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            less = functools.partial(_less, at)
            found[name] = get_param_importances(study, evaluator=evaluator, target=less)
    return {name: {key: float(share) for key, share in shares.items()} for name, shares in found.items()}


def _less(at: int, trial: FrozenTrial) -> float:
    return -float(trial.values[at])


def _study(tuning: Tuning) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=tuning.seed % 2**32)
    return optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)


class Budget:
    """The passes or minutes that are left.

    Args:
        tuning: what is searched.
    """

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self.spent = 0.0
        self._longest = 0.0

    def allows(self, passes: float) -> bool:
        """Return whether a trial of so many passes fits, or, for minutes, one like the longest so far."""
        if self._tuning.passes is not None:
            return self.spent + passes <= self._tuning.passes
        return self.spent + self._longest <= float(self._tuning.minutes or 0)

    def take(self, trial: Trial) -> None:
        """Take a trial from it."""
        used = trial.passes if self._tuning.passes is not None else trial.seconds / 60
        self.spent += used
        self._longest = max(self._longest, used)


def run_tuning(
    tuning: Tuning,
    folder: Path,
    commands: Commands,
    passes_of_epoch: Callable[[Recipe], float],
    reporter: Reporter,
    done: Callable[[Trial], None],
) -> dict[str, Any]:
    """Search until the budget is used, then attack the finalists on the test split.

    The first trial has the base recipe's own values. Trials of an earlier, stopped process are taken from
    their run folders: Optuna is asked for them again, with the same seed, and told what they reached. The
    last ones that failed are tried again; a failed one with others after it stays as it is, as they were
    proposed after its failure.

    Args:
        tuning: what is searched.
        folder: the folder of the tuning.
        commands: the functions that train and evaluate.
        passes_of_epoch: passes of a training sample in an epoch of a recipe; NaN if the model decides them.
        reporter: receives the progress of the trials.
        done: receives each trial that ends.

    Returns:
        The content of result.json.

    Raises:
        RunError: the budget does not suffice for a trial, no trial can be trained, or the folder holds
            something else.
        Interrupted: a stop signal was received; the same command resumes.
    """
    from optuna.trial import TrialState

    _refuse_foreign(folder)
    study, ranges, budget = _study(tuning), distributions(tuning), Budget(tuning)
    own = {key: value_at(tuning.recipe, parse_key(key)) for key in ranges}
    if all(each.holds(own[key]) for key, each in tuning.ranges.items()):
        study.enqueue_trial(own)
    trials: list[Trial] = []
    with locked(folder), _resumable():
        again = tried_again(folder)
        while True:
            asked = study.ask(ranges)
            number, values = len(trials), {key: asked.params[key] for key in ranges}
            place = folder / TRIALS / f"{number:04d}"
            trial = None
            try:
                recipe = tuning.with_values(values, place.name)
                each_epoch = passes_of_epoch(recipe)
            except RecipeError as error:
                trial = Trial(number, values, "failed", reason=str(error))
            if trial is None:
                if tuning.passes is not None and math.isnan(each_epoch):
                    raise RunError(
                        f'the passes of "{recipe.method.name}" depend on the model, so that a budget of them '
                        "cannot be kept: give minutes"
                    )
                if not budget.allows(recipe.train.epochs * each_epoch):
                    break
                known = 0.0 if math.isnan(each_epoch) else each_epoch
                trial = carry_out(
                    number, values, recipe, known, place, trials, commands, reporter, number >= again
                )
            trials.append(trial)
            budget.take(trial)
            if trial.point is not None:
                study.tell(asked, list(trial.point))
            else:
                stopped = trial.status == "stopped early"
                study.tell(asked, state=TrialState.PRUNED if stopped else TrialState.FAIL)
            done(trial)
            _write(tuning, folder, budget, trials, {})
            if all(each.status == "failed" for each in trials[-_FAILURES:]) and len(trials) >= _FAILURES:
                raise RunError(
                    f"{_FAILURES} trials in a row could not be trained; the last one: {trial.reason}"
                )
        if not any(trial.point for trial in trials):
            raise RunError(
                "the budget does not suffice for one trial"
                + (f", which takes {recipe.train.epochs * each_epoch:g} passes" if not trials else "")
                + ": give more"
            )
        finals = {
            number: _final(folder, number, tuning, commands, reporter)
            for number in _finalists(tuning, trials)
        }
        return _write(tuning, folder, budget, trials, finals)


def _finalists(tuning: Tuning, trials: Sequence[Trial]) -> list[int]:
    """Return the trials of the front to attack, the most robust first, and the one of the base recipe."""
    best = _front(trials)[: tuning.finalists]
    base = [
        t.number for t in trials[:1] if t.point is not None and t.number not in best and _is_base(tuning, t)
    ]
    return [*best, *base]


def _is_base(tuning: Tuning, trial: Trial) -> bool:
    return all(value_at(tuning.recipe, parse_key(key)) == value for key, value in trial.values.items())


def _front(trials: Sequence[Trial]) -> list[int]:
    return front({trial.number: trial.point for trial in trials if trial.point is not None})


def _final(
    folder: Path, number: int, tuning: Tuning, commands: Commands, reporter: Reporter
) -> dict[str, float]:
    """Return clean accuracy and that under AutoAttack on the test split, from the folder or by evaluation."""
    run = folder / TRIALS / f"{number:04d}"
    try:
        result = read_result(evaluation_file(run, str(FINAL["name"])), run).result
    except (FileNotFoundError, Unreadable):
        result = commands.evaluate(
            run, suite=FINAL, out=run / EVALUATIONS, device=tuning.recipe.train.device, reporter=reporter
        )
    return {"clean": result.attacks[0].accuracy, "autoattack": result.attacks[-1].accuracy}


def _write(
    tuning: Tuning,
    folder: Path,
    budget: Budget,
    trials: Sequence[Trial],
    finals: Mapping[int, Mapping[str, float]],
) -> dict[str, Any]:
    unit = "passes" if tuning.passes is not None else "minutes"
    body = {
        "format": FORMAT,
        "name": tuning.name,
        "base": tuning.base,
        "seed": tuning.seed,
        "epochs": tuning.recipe.train.epochs,
        "budget": {"unit": unit, "given": tuning.passes or tuning.minutes, "spent": budget.spent},
        "ranges": {key: str(each) for key, each in tuning.ranges.items()},
        "trials": [{**trial.to_json(), "base": _is_base(tuning, trial)} for trial in trials],
        "front": _front(trials),
        "finalists": [{"number": number, **found} for number, found in finals.items()],
        "best": max(
            (number for number, found in finals.items() if not math.isnan(found["autoattack"])),
            key=lambda number: finals[number]["autoattack"],
            default=None,
        ),
        "importances": importances(tuning, trials) if finals else {},
    }
    with writing(f"the result of the tuning in {folder}"):
        write_json(folder / RESULT, seal_result(body, "result"))
    return body


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Add to an interrupt how to resume."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        code = stop.exit_code if isinstance(stop, Interrupted) else 130
        raise Interrupted("stopped; give the same command again to resume", code) from stop


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds anything but a tuning.

    Raises:
        RunError: it holds a run, or files that no tuning wrote.
    """
    names = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
    others = [name for name in names if not _OWN.fullmatch(name)]
    if holds_run(folder) or others or (RESULT in names and TRIALS not in names):
        raise RunError(
            f"{folder} is not empty and holds no tuning ({', '.join(others[:3]) or 'a run'}): choose a new "
            "folder with --out"
        )
