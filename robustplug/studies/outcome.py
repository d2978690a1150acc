"""The runs of a study, and how far each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..core.reporting import headlines, nothing_stated, stated
from ..errors import RunError
from ..files.reading import Unreadable
from ..recipe.errors import RecipeError
from ..recipe.load import read_suite
from ..recipe.study import run_name
from ..recipe.toml.cells import in_order
from ..recipe.toml.started import starting_from, starts_of
from ..recipe.write import digest, options_to_mapping, use_to_mapping
from ..runs.choose import differences, stored_recipe
from ..runs.folder import holds_run, is_finished
from ..runs.result_file import AUDIT, Stored, evaluation_file, read_result
from .stored import RUNS

if TYPE_CHECKING:
    from ..core.types import AttackResult, Result
    from ..recipe.options import Recipe
    from ..recipe.study import Cell, Study

Status = Literal["not started", "unfinished", "damaged", "trained", "finished", "another recipe", "failed"]


@dataclass(frozen=True)
class Run:
    """Describe one cell with one seed.

    Attributes:
        cell: the cell of the study.
        seed: the seed of the run.
        folder: the run folder.
        needs: folders of the runs whose weights it starts from, by `from`; their training comes before.
        starts: what is said for some of these in the recipe, if it is not that folder.
    """

    cell: Cell
    seed: int
    folder: Path
    needs: Mapping[str, Path] = field(default_factory=dict)
    starts: Mapping[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """Return the recipe of the run; see `Cell.recipe`."""
        starts = {start: self.starts.get(start, str(folder)) for start, folder in self.needs.items()}
        return starting_from(self.cell.with_seed(self.seed), starts)

    @property
    def name(self) -> str:
        """Return the name for display."""
        return f"{self.cell.name}, seed={self.seed}" if self.cell.name else f"seed={self.seed}"


@dataclass(frozen=True)
class Outcome:
    """Hold the state of a run.

    Attributes:
        run: the run.
        status: state of the run; "trained" means that the suite or the audit is missing, "damaged" that its
            result cannot be believed, "failed" that it stopped, or no attack of a result states a number.
        reason: why the run failed, how its recipe differs, or which of its files are damaged.
        seconds: training time.
        accuracies: accuracy by row, without skipped rows, whose accuracy is NaN.
        threats: threat model by row.
        audit: grade and verdict; None for no audit.
        lacks: names of the results that are missing, or state nothing: the suite, the audit.
        measures: of a task that shows measures in the place of accuracies, those by "ROW: MEASURE".
    """

    run: Run
    status: Status
    reason: str = ""
    seconds: float | None = None
    accuracies: Mapping[str, float] = field(default_factory=dict)
    threats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    audit: Mapping[str, str] | None = None
    lacks: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)


def runs_of(study: Study, folder: Path) -> list[Run]:
    """List the runs of a study in their order of execution, with the seeds of a cell in sequence."""
    at = {cell.slug: number for number, cell in enumerate(study.cells)}
    runs = []
    for number in in_order([{start: at[slug] for start, slug in c.needs.items()} for c in study.cells]):
        cell = study.cells[number]
        for seed in study.seeds:
            needs = {start: folder / RUNS / run_name(slug, seed) for start, slug in cell.needs.items()}
            runs.append(Run(cell, seed, folder / RUNS / run_name(cell.slug, seed), needs))
    return runs


def _where_it_was(run: Run, stored: Recipe) -> Run:
    """Return a run whose recipe starts from where its stored recipe does, if the study's folder was moved."""
    kept = [Path(start) for _, start in starts_of(stored)]
    starts = {
        start: str(next((place for place in kept if place.parts[-2:] == need.parts[-2:]), need))
        for start, need in run.needs.items()
    }
    return replace(run, starts=starts)


def look(study: Study, run: Run) -> Outcome:
    """Return the state of a run, without running anything."""
    if not holds_run(run.folder):
        return Outcome(run, "not started")
    try:
        stored = stored_recipe(run.folder)
        run = _where_it_was(run, stored)
        changed = differences(run.recipe, stored)
    except (RecipeError, RunError) as error:
        changed = [str(error)]
    if changed:
        found = "; ".join(changed)
        reason = f"was created with another recipe: {found}; use another --out or delete {run.folder}"
        return Outcome(run, "another recipe", reason)
    if not is_finished(run.folder):
        return Outcome(run, "unfinished")
    damaged: list[str] = []
    own = _read(run, "", damaged)
    if own is None:
        return Outcome(run, "damaged", damaged[0])
    more = {name: _current(study, run, name, damaged) for name in asked_of(study)}
    suites = [(name, each.result) for name, each in more.items() if each is not None and name != AUDIT]
    rows, shown = rows_of([("", own.result), *suites]), headlines(own.result)
    numbers = {
        (name, part): value for name, row in rows.items() for part, value in stated(row, shown).items()
    }
    audit = more.get(AUDIT)
    known = {"": own, **{name: each for name, each in more.items() if each is not None}}
    empty = {name: why for name, each in known.items() if (why := nothing_stated(each.result))}
    lacks = tuple(name for name, each in more.items() if each is None or name in empty)
    return Outcome(
        run,
        "failed" if empty else "trained" if lacks else "finished",
        " ".join(damaged) or "; ".join(f"{name or 'evaluation'}: {why}" for name, why in empty.items()),
        (own.result.meta.get("training") or {}).get("seconds"),
        {name: value for (name, part), value in numbers.items() if not part},
        {name: row.threat for name, row in rows.items() if row.threat},
        None if audit is None else {key: audit.body[AUDIT][key] for key in ("grade", "verdict")},
        lacks,
        {f"{name}: {part}": value for (name, part), value in numbers.items() if part},
    )


def asked_of(study: Study) -> list[str]:
    """List the results that the study requires of a run besides its own."""
    return [*([study.suite_name] if study.suite else []), *([AUDIT] if study.audit else [])]


def _read(run: Run, name: str, damaged: list[str]) -> Stored | None:
    """Read a result of a run; None if it is missing or damaged, and must be computed (again)."""
    path = evaluation_file(run.folder, name)
    try:
        return read_result(path, run.folder)
    except FileNotFoundError:
        return None
    except Unreadable as error:
        damaged.append(f"{path} {str(error).partition(';')[0]}; it is not used, and computed again.")
        return None


def _current(study: Study, run: Run, name: str, damaged: list[str]) -> Stored | None:
    """Read the result of the study's suite, or of an audit; None if it must be computed (again).

    A result with other rows, samples, seed or threat model does not meet the study.
    """
    from ..evaluation.results import evaluation_digest
    from ..subjects.assemble import threat_of

    found = _read(run, name, damaged)
    asked = {} if found is None else found.result.meta.get("asked", {})
    if asked.get("evaluation") != evaluation_digest(run.recipe):
        return None
    if name == AUDIT:
        return found if found is not None and found.body.get(AUDIT) else None
    if study.suite is not None:
        suite = read_suite(study.suite, use_to_mapping(threat_of(run.recipe)))
        if asked.get("rows") != digest(options_to_mapping(suite)):
            return None
    return found


def rows_of(results: Sequence[tuple[str, Result]]) -> dict[str, AttackResult]:
    """Return the rows of results by name.

    The names of equal rows are extended by their suite, and then by a number. The clean accuracy of a suite
    is left out, since it is that of the run.

    Args:
        results: results, each with the name of its suite, "" for the run's own, which comes first.
    """
    found: dict[str, AttackResult] = {}
    for suite, result in results:
        for row in result.attacks:
            if row.skipped or row.bound == "none" or (suite and row.name == "clean"):
                continue
            name = row.name if row.name not in found or not suite else f"{row.name} ({suite})"
            number, unique = 1, name
            while unique in found:
                number += 1
                unique = f"{name} {number}"
            found[unique] = row
    return found
