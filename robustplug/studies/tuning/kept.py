"""A trial that has ended, and what its run folder keeps of it where it failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...files.reading import Unreadable, is_file, read_json
from ...files.seals import Strict, opened, parsed, sealed
from ...runs.folder import RESULT, write_json, writing
from ...runs.result_types import Amount, Share
from .front import Point

TRIALS, FAILURE = "trials", "failure.json"
_NUMBER = re.compile(r"\d{4,}")
Status = Literal["finished", "stopped early", "failed"]


@dataclass(frozen=True)
class Trial:
    """Hold a trial that has ended.

    Attributes:
        number: number of the trial, from 0.
        values: values of the searched options, by dotted key.
        status: how it ended.
        course: (clean, robust) validation accuracy by number of epochs.
        selected: number of epochs at the checkpoint that `train.select` chose; None for none.
        epochs: epochs that were trained.
        passes: forward and backward passes of a training sample; 0 if unknown.
        seconds: training time.
        reason: why it failed.
    """

    number: int
    values: Mapping[str, Any]
    status: Status
    course: Mapping[int, Point] = field(default_factory=dict)
    selected: int | None = None
    epochs: int = 0
    passes: float = 0.0
    seconds: float = 0.0
    reason: str = ""

    @property
    def point(self) -> Point | None:
        """Return the accuracies of the selected checkpoint; None for a trial that did not finish."""
        return None if self.status != "finished" or self.selected is None else self.course[self.selected]

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON."""
        point = self.point
        return {
            "number": self.number,
            "values": dict(self.values),
            "status": self.status,
            "clean": None if point is None else point[0],
            "robust": None if point is None else point[1],
            "epochs": self.epochs,
            "passes": self.passes,
            "seconds": self.seconds,
            "reason": self.reason,
        }


class _Failure(Strict):
    values: dict[str, Any]
    reason: str
    details: str
    course: list[tuple[int, Share, Share]]
    selected: int | None
    epochs: int
    passes: Amount
    seconds: Amount


def write_failure(folder: Path, trial: Trial, details: str) -> None:
    """Keep in a trial's folder that it failed, and how far it was.

    Args:
        folder: its run folder, which is made if training did not come so far.
        trial: the trial.
        details: the traceback.

    Raises:
        RunError: the file cannot be written.
    """
    body = {
        "values": dict(trial.values),
        "reason": trial.reason,
        "details": details,
        "course": [[epoch, *point] for epoch, point in trial.course.items()],
        "selected": trial.selected,
        "epochs": trial.epochs,
        "passes": trial.passes,
        "seconds": trial.seconds,
    }
    with writing(f"the failure of the trial in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FAILURE, sealed(body, trial=trial.number))


def read_failure(folder: Path, number: int, values: Mapping[str, Any]) -> Trial | None:
    """Return the trial of a folder that failed; None if it did not, or the file is not that of this trial."""
    try:
        body, belongs = opened(read_json(folder / FAILURE))
        kept = parsed(_Failure, body)
    except (FileNotFoundError, Unreadable):
        return None
    if belongs != {"trial": number} or kept.values != dict(values):
        return None
    course = {epoch: (clean, robust) for epoch, clean, robust in kept.course}
    return Trial(
        number,
        values,
        "failed",
        course,
        kept.selected,
        kept.epochs,
        kept.passes,
        kept.seconds,
        kept.reason,
    )


def tried_again(folder: Path) -> int:
    """Return the number of the first trial that is tried again: after it, there are only trials that failed.

    Of a failed trial with others after it, the outcome is believed: what they were proposed depends on it.

    Args:
        folder: the folder of the tuning.
    """
    root = folder / TRIALS
    names = (
        sorted(each.name for each in root.iterdir() if _NUMBER.fullmatch(each.name)) if root.is_dir() else []
    )
    while names and is_file(root / names[-1] / FAILURE) and not is_file(root / names[-1] / RESULT):
        names.pop()
    return int(names[-1]) + 1 if names else 0
