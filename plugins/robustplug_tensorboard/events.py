"""Write TensorBoard's event files with torch.utils.tensorboard."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustplug.api import EpochReport, Result, RunInfo

FOLDER = "tensorboard"

# The start of a run looks as in robustplug_wandb, on purpose: the calls are those of two libraries.
_open: dict[str, Any] = {}


def start(run: RunInfo) -> None:
    """Open the event file of a run; of a run that goes on, what comes after its checkpoint is dropped.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ModuleNotFoundError('TensorBoard is not installed: pip install "robustplug[tensorboard]"')
    from torch.utils.tensorboard import SummaryWriter

    if run.folder in _open:  # an interrupted run that goes on in the same process
        _open.pop(run.folder).close()
    folder = str(Path(run.folder) / FOLDER)
    _open[run.folder] = SummaryWriter(folder, purge_step=run.resumed_at_epoch)


def epoch(run: RunInfo, report: EpochReport) -> None:
    """Write the numbers of an epoch; its step is its number."""
    writer = _open[run.folder]
    for split, numbers in (("train", report.train), ("validation", report.validation)):
        for name, value in numbers.items():
            writer.add_scalar(f"{split}/{name}", value, report.epoch)
    writer.add_scalar("lr", report.lr, report.epoch)
    writer.add_scalar("seconds", report.seconds, report.epoch)
    writer.flush()


def end(run: RunInfo, result: Result) -> None:
    """Write the numbers of the evaluation, at the step after the last epoch, and close the file."""
    from robustplug.api import result_numbers

    writer = _open.pop(run.folder)
    for name, value in result_numbers(result).items():
        writer.add_scalar(name, value, run.epochs)
    writer.close()
