"""Compute what a run's report needs beyond its folder, within seconds unless more is requested."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.reporting import headlines
from ...errors import Refused, RunError
from ...recipe.errors import RecipeError
from ..figures.drawn import draw_examples, draw_landscape, title_of
from ..figures.probe import PASSES, examples, landscape, sweep_suite
from ..figures.series import AXES, find_series
from ..material import Material

if TYPE_CHECKING:
    from ...core.reporting import Reporter

# Name of the evaluation that a report runs itself and stores beside its page.
MEASURED = "measured"
# Number of its samples, and seconds that a part may take; both apply unless --samples is given.
SAMPLES, LIMIT = 100, 20.0
# Number of samples from which examples are chosen.
_TRIED = 64
_ATTACK = {"use": "pgd", "steps": 50}
_SHOWS = {
    "eps": "accuracy against ε",
    "steps": "accuracy against attack steps",
    "restarts": "accuracy against random restarts",
    "landscape": "the loss around samples",
    "examples": "adversarial examples",
}


@dataclass(frozen=True)
class LeftOut:
    """Hold what a page lacks, why, and the command that adds it."""

    what: str
    why: str = ""
    command: str = ""


@dataclass(frozen=True)
class Reported:
    """The outcome of a report.

    Attributes:
        page: the HTML file.
        left_out: the parts that the page lacks, each with the command that adds it, if one exists.
    """

    page: Path
    left_out: Sequence[LeftOut]


@dataclass(frozen=True)
class Commands:
    """Hold the functions of the Python API that a report uses."""

    evaluate: Callable[..., Any]
    open_evaluation: Callable[..., Any]


@dataclass
class Computing:
    """Compute the missing parts of a report.

    Attributes:
        material: content of the run folder; measured accuracies are added to its evaluations.
        out: folder of the report.
        commands: functions of the Python API.
        samples: number of samples for accuracies, without time limit; None to compute what takes seconds.
        device: "auto", "cpu", "cuda" or "mps".
        reporter: reporter that receives progress.
        left_out: parts that were not computed.
    """

    material: Material
    out: Path
    commands: Commands
    samples: int | None
    device: str
    reporter: Reporter
    left_out: list[LeftOut] = field(default_factory=list)

    def sweeps(self) -> None:
        """Measure accuracy against eps, steps and restarts, unless an evaluation contains it.

        Nothing is measured for a task that shows measures in the place of accuracies.
        """
        if self.material.result is not None and headlines(self.material.result):
            return
        known = {key: value for key, value in self.material.evaluations.items() if key != MEASURED}
        results = known if self.material.result is None else {"": self.material.result, **known}
        lacking = [axis for axis in AXES if not find_series(results, axis)]
        if "eps" in lacking and (self.material.result is None or "eps" not in self.material.result.threat):
            lacking.remove("eps")
            self.left_out.append(LeftOut(_SHOWS["eps"], "the threat model has no ε"))
        before = self.material.evaluations.get(MEASURED)
        if before is not None and self.samples is None:
            # A new measurement must be complete, because it replaces the previous one.
            measured = {MEASURED: before}
            lacking = lacking if any(not find_series(measured, axis) for axis in lacking) else []
        affordable = self._affordable(lacking, self.samples or SAMPLES)
        chosen = [axis for axis in lacking if axis in affordable]
        if not chosen:
            return
        try:
            result = self.commands.evaluate(
                self.material.folder,
                suite=sweep_suite(chosen, MEASURED),
                samples=self.samples or SAMPLES,
                out=self.out,
                device=self.device,
                reporter=self.reporter,
            )
        except (RecipeError, RunError) as error:
            self.left_out += [LeftOut(_SHOWS[axis], _why(error)) for axis in chosen]
            return
        self.material.evaluations[MEASURED] = result
        for axis in chosen:
            if not find_series({MEASURED: result}, axis):
                reasons = [row.skipped for row in result.attacks if row.skipped]
                self.left_out.append(LeftOut(_SHOWS[axis], reasons[0] if reasons else "no row could be run"))

    def probes(self, folder: Path) -> Iterator[tuple[Path, str]]:
        """Draw the loss around samples, and adversarial examples; yield paths and notes."""
        parts = self._affordable(["landscape", "examples"], _TRIED)
        name = title_of(self.material)
        drawn: list[str] = []
        try:
            if not parts:
                return
            opened = self.commands.open_evaluation(
                self.material.folder, attacks=[_ATTACK], samples=_TRIED, device=self.device
            )
            attack, shape = opened.attacks[0], opened.shape
            if shape is None:
                raise Refused("the inputs have no fixed shape")
            images = len(shape) == 3 and shape[0] in (1, 3)
            with opened.running():
                found = next(opened.steps(attack, 0), None)
                if found is None:
                    raise Refused("none of the first samples is classified correctly")
                step, view, vicinity = found
                if "landscape" in parts:
                    surface = landscape(step, view, vicinity, opened.evaluation.seed, images)
                    yield from draw_landscape(surface, name, str(attack.threat.get("use", "ε")), folder)
                    drawn.append("landscape")
                if "examples" in parts and not images:
                    raise Refused("the inputs are not images")
                if "examples" in parts:
                    shown = examples(opened, step, view, vicinity)
                    yield from draw_examples(shown, attack.label, name, folder)
        except Exception as error:  # a part that cannot be computed must not prevent the page
            known = isinstance(error, Refused | RecipeError | RunError)
            why = _why(error) if known else f"{type(error).__name__}: {_why(error)}"
            self.left_out += [LeftOut(_SHOWS[part], why) for part in parts if part not in drawn]

    def _affordable(self, parts: Sequence[str], samples: int) -> list[str]:
        """Return the parts that take seconds, estimated from the run's own evaluation; record the others."""
        pace = None if self.samples is not None else self._pace()
        chosen = []
        for part in parts:
            takes = 0.0 if pace is None else pace * PASSES[part] * samples
            if takes <= LIMIT:
                chosen.append(part)
            else:
                why = f"would take about {_time(takes)} on this machine"
                self.left_out.append(LeftOut(_SHOWS[part], why, self.command(f"--samples {samples}")))
        return chosen

    def command(self, options: str) -> str:
        """Return the command that writes this report with other options."""
        return f"robustplug report {self.material.folder} {options}"

    def _pace(self) -> float | None:
        """Return the seconds of a forward or backward pass of one sample; None if unknown."""
        result = self.material.result
        rows = [] if result is None else [row for row in result.attacks if row.backwards and row.seconds]
        passes = sum((row.forwards + row.backwards) * result.samples for row in rows) if result else 0.0
        return sum(row.seconds for row in rows) / passes if passes else None


def _why(error: Exception) -> str:
    """Return an error message as one line."""
    return " ".join(str(error).split())


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
