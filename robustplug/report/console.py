"""Progress of a run or an evaluation in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.text import Text

from ..core.types import EpochReport, RunInfo
from ..core.types import Progress as Position


def loss_parts(means: Mapping[str, float], score: str = "accuracy") -> str:
    """Return "loss 1.23 (ce 0.9, margin 0.3)" and the scores of a step's means.

    Args:
        means: the means.
        score: what the task calls its score.
    """
    parts = {name.removeprefix("loss/"): value for name, value in means.items() if name.startswith("loss/")}
    text = f"loss {means['loss']:.3f}"
    if len(parts) > 1:
        text += " (" + ", ".join(f"{name} {value:.3f}" for name, value in parts.items()) + ")"
    shown = "acc" if score == "accuracy" else score
    rest = [
        f"{name.removeprefix(f'{score}/')} {shown} {means[name]:.1%}"
        for name in means
        if name.startswith(f"{score}/")
    ]
    rest += [f"{name} {value:.4g}" for name, value in means.items() if "/" not in name and name != "loss"]
    return " · ".join([text, *rest])


def validation_text(validation: Mapping[str, float], score: str = "accuracy") -> str:
    """Return "clean 97.2%, robust 61.1%", or "BLEU 31.4, clean exact match 1.2%"."""
    parts = []
    for name, value in validation.items():
        prefix, _, role = name.rpartition("/")
        share = role in ("clean", "robust") and prefix in ("", score)
        own = f"{role} {prefix}".rstrip() if share else name
        parts.append(f"{own} {value:.1%}" if share else f"{own} {value:.4g}")
    return ", ".join(parts)


class RichReporter:
    """Show training and evaluation with a progress bar, or line by line without a terminal.

    Args:
        console: console to write to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeft(),
            console=console,
            expand=True,
        )
        self._line, self._validation = "", ""
        self._live: Live | None = None
        self._task: TaskID | None = None
        self._attack = ""
        self._score = "accuracy"

    def __enter__(self) -> RichReporter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, description: str, total: int, done: int = 0) -> None:
        """Start a bar; the first bar starts the live display, so that silent processes have none."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(description, total=total, completed=done)
        if self._live is None and self.console.is_terminal and not self.console.quiet:
            self._live = Live(
                get_renderable=self._render, console=self.console, refresh_per_second=5, transient=True
            )
            self._live.start()

    def _render(self) -> Group:
        lines = [
            Text(text, style="dim", overflow="ellipsis", no_wrap=True)
            for text in (self._line, self._validation)
        ]
        return Group(self._bar, *(line for line in lines if line.plain))

    def begin(self, run: RunInfo, progress: Position) -> None:
        """Print what is trained and where, and start the bar."""
        self._score = run.score
        again = "" if run.resumed_at_epoch is None else f", resuming at epoch {progress.epoch + 1}"
        epochs = f"{run.epochs} epoch{'s' * (run.epochs != 1)}"
        said = f" on {run.task} with {run.model}, {epochs} → {run.folder}{again}"
        self._print(Text.assemble((run.method, "bold"), said))
        total = progress.epochs * progress.batches
        done = progress.epoch * progress.batches + progress.batch
        self._show(f"epoch {progress.epoch + 1}/{progress.epochs}", total, done)

    def batch(self, progress: Position, means: Mapping[str, float]) -> None:
        """Update the bar."""
        self._line = loss_parts(means, self._score)
        if self._task is not None:
            done = progress.epoch * progress.batches + progress.batch
            self._bar.update(
                self._task, completed=done, description=f"epoch {progress.epoch + 1}/{progress.epochs}"
            )

    def epoch(self, report: EpochReport, epochs: int) -> None:
        """Print one line for the epoch."""
        said = validation_text(report.validation, self._score)
        self._validation = f"validation {said}" if report.validation else ""
        width = len(str(epochs))
        line = f"epoch {report.epoch + 1:{width}}/{epochs} · {loss_parts(report.train, self._score)}"
        if report.validation:
            line += f" · {self._validation}"
        line += f" · {report.seconds:.1f} s"
        self._print(Text(line + (" · best" if report.best else ""), style="" if report.best else "dim"))

    def attack(self, name: str, done: int, total: int) -> None:
        """Update the bar of the evaluation."""
        if name != self._attack:
            self._attack, self._line, self._validation = name, "", ""
            self._show(f"evaluating: {name}", total)
        if self._task is not None:
            self._bar.update(self._task, completed=min(done, total))

    def warn(self, message: str) -> None:
        """Print a yellow line."""
        self._print(Text(message, style="yellow"))

    def _print(self, line: Text) -> None:
        """Print a line; without a terminal, it is not wrapped."""
        self.console.print(line, soft_wrap=not self.console.is_terminal)
