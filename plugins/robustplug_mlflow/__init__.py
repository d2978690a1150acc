"""Log runs to MLflow: an observer that is asked for with `--observe mlflow`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustplug.api import hookimpl

if TYPE_CHECKING:
    from robustplug.api import EpochReport, Result, RunInfo

NAME = "mlflow"


@hookimpl
def robustplug_run_start(run: RunInfo) -> None:
    """Start a run in MLflow, or go on with that of a resumed run."""
    if NAME in run.observers:
        from .log import start

        start(run)


@hookimpl
def robustplug_epoch_end(run: RunInfo, report: EpochReport) -> None:
    """Log the numbers of an epoch."""
    if NAME in run.observers:
        from .log import epoch

        epoch(run, report)


@hookimpl
def robustplug_run_end(run: RunInfo, result: Result) -> None:
    """Log the accuracies of the evaluation, recipe and result, and end the run."""
    if NAME in run.observers:
        from .log import end

        end(run, result)
