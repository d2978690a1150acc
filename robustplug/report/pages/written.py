"""Write the page of whatever a folder holds."""

from __future__ import annotations

from pathlib import Path

from ...core.reporting import Reporter
from ...runs.folder import REPORT, holds_run, write_atomic, writing
from ...studies.tuning.stored import holds_tuning
from .computed import Commands, LeftOut, Reported
from .run_page import PAGE, run_report
from .study_page import study_report
from .tuning_page import tuning_report


def write_page(
    folder: Path,
    out: Path | None,
    commands: Commands,
    samples: int | None,
    compute: bool,
    device: str,
    reporter: Reporter,
) -> Reported:
    """Write the page of a run, a study or a tuning, and its figures; see `robustplug.run.report`.

    Args:
        folder: folder of the run, the study or the tuning.
        out: folder of the page; None for report/ in it.
        commands: the functions that compute what a run lacks.
        samples: number of samples of what is computed; None for as many as take seconds.
        compute: whether to compute what a run lacks.
        device: "auto", "cpu", "cuda" or "mps".
        reporter: receives progress.

    Raises:
        RunError: the folder holds none of them, or the page cannot be written.
    """
    target = folder / REPORT if out is None else out
    left_out: list[LeftOut] = []
    if holds_run(folder):
        text, left_out = run_report(folder, target, commands, samples, compute, device, reporter)
    elif holds_tuning(folder):
        text = tuning_report(folder, target)
    else:
        text = study_report(folder, target)
    with writing(f"the page in {target}"):
        target.mkdir(parents=True, exist_ok=True)
        write_atomic(target / PAGE, text.encode())
    return Reported(target / PAGE, left_out)
