"""Progress of a study in the terminal: a table of its runs, and a line for each run that ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..core.types import EpochReport, RunInfo
from ..core.types import Progress as Position
from .console import loss_parts, validation_text

if TYPE_CHECKING:
    from ..studies.outcome import Outcome

# Lines of the terminal that are not rows of the table.
_AROUND = 6
# At most this many waiting runs, and this many finished runs, are listed.
_LISTED = 5
# Below this share of a training, an estimate of its duration is too rough.
_TELLING = 0.02


@dataclass
class Line:
    """Hold the state of one run.

    Attributes:
        name: name of the run.
        state: "waiting", "running", "done" or "failed".
        note: current activity, result, or reason of the failure.
        began: start time in seconds; 0 before the start.
        share: finished share of its training.
        seconds: duration of the run.
    """

    name: str
    state: str = "waiting"
    note: str = ""
    began: float = 0.0
    share: float = 0.0
    seconds: float = 0.0


class RunReporter:
    """Record the progress of one run in its line.

    Args:
        line: line of the run.
        console: console for warnings.
    """

    def __init__(self, line: Line, console: Console) -> None:
        self.line, self._console = line, console
        self._done = self._validation = ""
        self._score = "accuracy"

    def begin(self, run: RunInfo, progress: Position) -> None:
        """Record that training starts or resumes."""
        self._score = run.score
        self._at(progress)

    def batch(self, progress: Position, means: Mapping[str, float]) -> None:
        """Record the progress of training."""
        self._at(progress, loss_parts(means, self._score))

    def _at(self, progress: Position, said: str = "") -> None:
        self.line.share = (progress.epoch + progress.batch / max(1, progress.batches)) / max(
            1, progress.epochs
        )
        parts = [
            f"epoch {min(progress.epoch + 1, progress.epochs)}/{progress.epochs}",
            said,
            self._validation,
        ]
        self.line.note = " · ".join(part for part in parts if part)

    def epoch(self, report: EpochReport, epochs: int) -> None:
        """Record the validation."""
        said = validation_text(report.validation, self._score)
        self._validation = f"validation {said}" if report.validation else ""
        self.line.share = (report.epoch + 1) / epochs

    def attack(self, name: str, done: int, total: int) -> None:
        """Record the progress of the evaluation."""
        self.line.note = f"evaluating: {name} {done}/{total}"

    def warn(self, message: str) -> None:
        """Print a yellow line."""
        self._console.print(Text(f"{self.line.name}: {message}", style="yellow"))


def left(lines: Sequence[Line], places: int, now: float) -> tuple[float | None, bool]:
    """Return the estimated seconds until all runs are done, and whether it is likely too low.

    The mean duration of the runs that ended is the estimate for each run. Before the first run ends, the
    estimate comes from the trainings in progress; it then excludes evaluations and is too low.

    Args:
        lines: lines of all runs.
        places: number of runs at a time.
        now: current time, on the clock of `Line.began`.
    """
    ended = [line.seconds for line in lines if line.state in ("done", "failed") and line.seconds]
    running = [line for line in lines if line.state == "running"]
    if ended:
        whole = sum(ended) / len(ended)
    else:
        guesses = [(now - line.began) / line.share for line in running if line.share >= _TELLING]
        if not guesses:
            return None, True
        whole = sum(guesses) / len(guesses)
    waiting = sum(line.state == "waiting" for line in lines)
    rest = [max(0.0, whole - (now - line.began)) for line in running]
    total = sum(rest) + waiting * whole
    return max([total / max(1, places), *rest]), not ended


def duration(seconds: float) -> str:
    """Return "48 s", "12 min", "3 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class StudyBoard:
    """Show the runs of a study in a live table, or line by line without a terminal.

    Args:
        console: console to write to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.lines: list[Line] = []
        self._places, self._began = 1, time.perf_counter()
        self._live: Live | None = None

    def __enter__(self) -> StudyBoard:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def plan(self, outcomes: Sequence[Outcome], places: int) -> None:
        """List the runs, and start the live table."""
        self._places, self._began = places, time.perf_counter()
        self.lines = [
            Line(each.run.name, "done" if each.status == "finished" else "waiting") for each in outcomes
        ]
        waiting = sum(line.state == "waiting" for line in self.lines)
        if waiting and self.console.is_terminal and not self.console.quiet:
            self._live = Live(
                get_renderable=self.render, console=self.console, refresh_per_second=4, transient=True
            )
            self._live.start()

    def start(self, number: int, name: str) -> RunReporter:
        """Mark a run as running, and return its reporter."""
        line = self.lines[number - 1]
        line.state, line.note, line.began = "running", "starting", time.perf_counter()
        return RunReporter(line, self.console)

    def done(self, number: int, outcome: Outcome) -> None:
        """Print a line for a run that ended."""
        line = self.lines[number - 1]
        line.seconds = time.perf_counter() - line.began
        head = f"{number}/{len(self.lines)} {line.name} · "
        if outcome.status == "failed":
            line.state, line.note = "failed", outcome.reason
            self._print(Text(f"{head}failed: {outcome.reason}", style="red"))
            return
        said = [f"{name} {value:.1%}" for name, value in outcome.accuracies.items()]
        said += [f"{name} {value:.4g}" for name, value in outcome.measures.items()]
        parts = [", ".join(said[:3])]
        if outcome.seconds is not None:
            parts.append(f"trained in {outcome.seconds:.1f} s")
        line.state, line.note = "done", " · ".join(part for part in parts if part)
        self._print(Text(head + line.note))

    def _print(self, line: Text) -> None:
        """Print a line; without a terminal, it is not wrapped."""
        self.console.print(line, soft_wrap=not self.console.is_terminal)

    def render(self) -> Group:
        """Return the table of runs with their states and notes, and a line with counts and the time left."""
        now = time.perf_counter()
        counts = {state: sum(line.state == state for line in self.lines) for state in _STYLES}
        said = [f"{count} {state}" for state, count in counts.items() if count]
        seconds, more = left(self.lines, self._places, now)
        said.append(f"{duration(now - self._began)} so far")
        said.append("time left unknown" if seconds is None else f"{'over ' * more}{duration(seconds)} left")
        table = Table(box=None, pad_edge=False, expand=True, show_header=False)
        table.add_column(no_wrap=True, width=8)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True, justify="right", width=11)
        table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
        for line in self._listed():
            took = now - line.began if line.state == "running" else line.seconds
            style = _STYLES[line.state]
            cells = (line.state, line.name, duration(took) if took else "", line.note)
            table.add_row(*(Text(cell, style=style) for cell in cells))
        return Group(Text(" · ".join(said), style="bold"), table)

    def _listed(self) -> list[Line]:
        """Choose the lines that fit: running and failed runs first, then some of the others."""
        room = max(3, self.console.height - _AROUND)
        by_state = {state: [line for line in self.lines if line.state == state] for state in _STYLES}
        ended = sorted(by_state["done"], key=lambda line: line.began)
        chosen = [*by_state["running"], *by_state["failed"]][:room]
        chosen += by_state["waiting"][: min(_LISTED, room - len(chosen))]
        return chosen + ended[::-1][: min(_LISTED, room - len(chosen))]


_STYLES = {"running": "bold", "failed": "red", "waiting": "dim", "done": "green"}
