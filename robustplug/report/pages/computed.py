"""What a run's report computes besides what its folder holds, within seconds unless it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import Refused, RunError
from ...recipe.errors import RecipeError
from ..figures.drawn import draw_examples, draw_landscape, title_of
from ..figures.probe import PASSES, examples, landscape, sweep_suite
from ..figures.series import AXES, find_series
from ..material import Material

if TYPE_CHECKING:
    from ...core.reporting import Reporter

# Evaluation that a report makes for itself, beside its page.
MEASURED = "measured"
# Samples of it, and in seconds what a part may take unless a number of samples was asked for.
SAMPLES, LIMIT = 100, 20.0
# Samples that examples are chosen from.
_TRIED = 64
_ATTACK = {"use": "pgd", "steps": 50}
_SHOWS = {
    "eps": "accuracy against ε",
    "steps": "accuracy against the steps of the attack",
    "restarts": "accuracy against its restarts",
    "landscape": "the loss around samples",
    "examples": "adversarial examples",
}


@dataclass(frozen=True)
class LeftOut:
    """Say what a page lacks, why, and the command that brings it."""

    what: str
    why: str = ""
    command: str = ""


@dataclass(frozen=True)
class Commands:
    """Hold the functions of the Python API that a report computes with."""

    evaluate: Callable[..., Any]
    open_evaluation: Callable[..., Any]


@dataclass
class Computing:
    """Compute what a report lacks.

    Attributes:
        material: of the run; what is measured is added to its evaluations.
        out: folder of the report.
        commands: of the Python API.
        samples: to measure accuracy with, however long it takes; None for what takes seconds.
        device: "auto", "cpu", "cuda" or "mps".
        reporter: hears of progress.
        left_out: what was not computed.
    """

    material: Material
    out: Path
    commands: Commands
    samples: int | None
    device: str
    reporter: Reporter
    left_out: list[LeftOut] = field(default_factory=list)

    def sweeps(self) -> None:
        """Measure accuracy against eps, steps and restarts, where no evaluation has."""
        known = {key: value for key, value in self.material.evaluations.items() if key != MEASURED}
        results = known if self.material.result is None else {"": self.material.result, **known}
        lacking = [axis for axis in AXES if not find_series(results, axis)]
        if "eps" in lacking and (self.material.result is None or "eps" not in self.material.result.threat):
            lacking.remove("eps")
            self.left_out.append(LeftOut(_SHOWS["eps"], "the threat model has no ε"))
        before = self.material.evaluations.get(MEASURED)
        if before is not None and self.samples is None:
            # What is made again is made whole: a part would take the place of all.
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
                raise Refused("its inputs have no fixed shape")
            images = len(shape) == 3 and shape[0] in (1, 3)
            with opened.running():
                found = next(opened.steps(attack, 0), None)
                if found is None:
                    raise Refused("none of the first samples is right")
                step, view, vicinity = found
                if "landscape" in parts:
                    surface = landscape(step, view, vicinity, opened.evaluation.seed, images)
                    yield from draw_landscape(surface, name, str(attack.threat.get("use", "ε")), folder)
                    drawn.append("landscape")
                if "examples" in parts and not images:
                    raise Refused("the inputs are no images")
                if "examples" in parts:
                    shown = examples(opened, step, view, vicinity)
                    yield from draw_examples(shown, attack.label, name, folder)
        except Exception as error:  # a part that cannot be computed must not cost the page
            known = isinstance(error, Refused | RecipeError | RunError)
            why = _why(error) if known else f"{type(error).__name__}: {_why(error)}"
            self.left_out += [LeftOut(_SHOWS[part], why) for part in parts if part not in drawn]

    def _affordable(self, parts: Sequence[str], samples: int) -> list[str]:
        """Return the parts that take seconds, going by the run's own evaluation; note the others."""
        pace = None if self.samples is not None else self._pace()
        chosen = []
        for part in parts:
            takes = 0.0 if pace is None else pace * PASSES[part] * samples
            if takes <= LIMIT:
                chosen.append(part)
            else:
                why = f"would take about {_time(takes)} here"
                self.left_out.append(LeftOut(_SHOWS[part], why, self.command(f"--samples {samples}")))
        return chosen

    def command(self, options: str) -> str:
        """Return the command that makes this report with other options."""
        return f"robustplug report {self.material.folder} {options}"

    def _pace(self) -> float | None:
        """Return the seconds of a forward or backward of one sample; None where the run does not tell."""
        result = self.material.result
        rows = [] if result is None else [row for row in result.attacks if row.backwards and row.seconds]
        passes = sum((row.forwards + row.backwards) * result.samples for row in rows) if result else 0.0
        return sum(row.seconds for row in rows) / passes if passes else None


def _why(error: Exception) -> str:
    """Return an error in one line."""
    return " ".join(str(error).split())


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
