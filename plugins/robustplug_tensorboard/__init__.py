"""Watch runs in TensorBoard: an observer that is asked for with `--observe tensorboard`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustplug.api import hookimpl

if TYPE_CHECKING:
    from robustplug.api import EpochReport, Result, RunInfo

NAME = "tensorboard"


@hookimpl
def robustplug_run_start(run: RunInfo) -> None:
    """Open the event file of a run."""
    if NAME in run.observers:
        from .events import start

        start(run)


@hookimpl
def robustplug_epoch_end(run: RunInfo, report: EpochReport) -> None:
    """Write the numbers of an epoch."""
    if NAME in run.observers:
        from .events import epoch

        epoch(run, report)


@hookimpl
def robustplug_run_end(run: RunInfo, result: Result) -> None:
    """Write the accuracies of the evaluation, and close the event file."""
    if NAME in run.observers:
        from .events import end

        end(run, result)
