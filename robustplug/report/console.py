"""What a person sees in the terminal: progress, epochs, results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.table import Table
from rich.text import Text

from ..types import EpochReport, Result, RunInfo
from ..types import Progress as Position


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a share, 95 % by default.

    Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    if not total:
        return 0.0, 1.0
    share, weight = right / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def loss_parts(means: Mapping[str, float]) -> str:
    """Return "loss 1.23 (ce 0.9, margin 0.3)" and the accuracies of a step's means."""
    parts = {name.removeprefix("loss/"): value for name, value in means.items() if name.startswith("loss/")}
    text = f"loss {means['loss']:.3f}"
    if len(parts) > 1:
        text += " (" + ", ".join(f"{name} {value:.3f}" for name, value in parts.items()) + ")"
    rest = [
        f"{name.removeprefix('accuracy/')} acc {means[name]:.1%}" for name in means if "accuracy/" in name
    ]
    rest += [f"{name} {value:.4g}" for name, value in means.items() if "/" not in name and name != "loss"]
    return " · ".join([text, *rest])


def validation_text(validation: Mapping[str, float]) -> str:
    """Return "clean 97.2%, robust 61.1%"."""
    return ", ".join(f"{name} {value:.1%}" for name, value in validation.items())


class RichReporter:
    """Show training and evaluation with a progress bar, or line by line where there is no terminal.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
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

    def __enter__(self) -> RichReporter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, description: str, total: int, done: int = 0) -> None:
        """Start a bar; the first one starts the live display, so that silent processes have none."""
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
        """Say what is trained and where."""
        again = "" if run.resumed_at_epoch is None else f", going on at epoch {progress.epoch + 1}"
        self.console.print(
            Text.assemble(
                (run.method, "bold"),
                f" on {run.task} with {run.model}, {run.epochs} epochs → {run.folder}{again}",
            )
        )
        total = progress.epochs * progress.batches
        done = progress.epoch * progress.batches + progress.batch
        self._show(f"epoch {progress.epoch + 1}/{progress.epochs}", total, done)

    def batch(self, progress: Position, means: Mapping[str, float]) -> None:
        """Move the bar."""
        self._line = loss_parts(means)
        if self._task is not None:
            done = progress.epoch * progress.batches + progress.batch
            self._bar.update(
                self._task, completed=done, description=f"epoch {progress.epoch + 1}/{progress.epochs}"
            )

    def epoch(self, report: EpochReport, epochs: int) -> None:
        """Print one line for the epoch."""
        self._validation = f"validation {validation_text(report.validation)}" if report.validation else ""
        width = len(str(epochs))
        line = f"epoch {report.epoch + 1:{width}}/{epochs} · {loss_parts(report.train)}"
        if report.validation:
            line += f" · validation {validation_text(report.validation)}"
        line += f" · {report.seconds:.1f} s"
        self.console.print(
            Text(line + (" · best" if report.best else ""), style="" if report.best else "dim")
        )

    def attack(self, name: str, done: int, total: int) -> None:
        """Move the bar of the evaluation."""
        if name != self._attack:
            self._attack, self._line, self._validation = name, "", ""
            self._show(f"evaluating: {name}", total)
        if self._task is not None:
            self._bar.update(self._task, completed=min(done, total))

    def warn(self, message: str) -> None:
        """Print a yellow line."""
        self.console.print(Text(message, style="yellow"))


def threat_text(threat: Mapping[str, Any]) -> str:
    """Return "linf, eps = 0.1 (25.5/255)"."""
    eps = threat.get("eps")
    size = "" if eps is None else f", eps = {eps:.4g} ({eps * 255:.3g}/255)"
    return f"{threat['use']}{size}"


def result_table(result: Result) -> Table:
    """Lay out an evaluation: a row for each attack, each on what the rows above left standing."""
    meta = result.meta
    title = f"{meta['name']} · {meta['task']} {result.split} split, {result.samples} samples"
    table = Table(title=title, caption=caption(result), title_justify="left", caption_justify="left")
    table.add_column("attack", overflow="fold")
    for name in ("accuracy (95 %)", "broken", "forwards", "backwards", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.attacks:
        low, high = wilson_interval(round(row.accuracy * result.samples), result.samples)
        table.add_row(
            row.name,
            Text.assemble((f"{row.accuracy:.1%}", "bold"), f" ({low * 100:.0f}–{high * 100:.0f})"),
            f"{row.broken}/{row.attempted}",
            f"{row.forwards:,.1f}",
            f"{row.backwards:,.1f}",
            f"{row.seconds:.1f} s",
        )
    return table


def caption(result: Result) -> str:
    """Say how to read the table, what training cost, and which results were thrown away."""
    lines = [
        f"Threat model: {threat_text(result.threat)}, inputs in [0, 1]. Each attack runs on the samples "
        "that the rows above left right; accuracy is that of all samples. Forwards and backwards are per "
        "sample of the split."
    ]
    training = result.meta.get("training") or {}
    if training:
        lines.append(
            f"Training: {training['epochs']} epochs in {training['seconds']:.0f} s, "
            f"{training['forwards_per_sample']:.1f} forwards and {training['backwards_per_sample']:.1f} "
            "backwards per sample and epoch."
        )
    lines.append(f"Evaluation: {result.meta['seconds']:.1f} s.")
    rejected = sum(row.rejected for row in result.attacks)
    if rejected:
        lines.append(f"{rejected} results left the threat model and were thrown away.")
    return " ".join(lines)
