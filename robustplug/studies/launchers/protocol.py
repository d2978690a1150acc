"""What a launcher is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True)
class JobState:
    """Hold what a launcher knows of a job.

    Attributes:
        name: "queued", "running" or "ended"; a job that is stopped to be queued again is "queued".
        reason: why an ended job ended, if it was not by itself, for example "out of memory".
        details: the end of its error output.
    """

    name: Literal["queued", "running", "ended"]
    reason: str = ""
    details: str = ""


class Launcher(Protocol):
    """Carry out jobs somewhere: in processes, in a queue, on a cluster.

    A job is a file. `python -m robustplug.worker` does the jobs whose paths it reads from its standard input,
    and `run_worker` starts it. The worker writes the run folder, and its messages beside the job; a launcher
    passes on neither. It only starts workers, and says which of them are at work.

    Attributes:
        places: number of jobs at a time, as far as it is known, for estimates.
        lasting: whether jobs go on when the process that submitted them ends.
        pause: seconds between two looks at the states of jobs.
    """

    places: int
    lasting: bool
    pause: float

    def submit(self, jobs: Sequence[Path]) -> Sequence[str]:
        """Submit jobs in their order, and return the number of each, by which any process finds it again.

        Args:
            jobs: absolute paths of the job files.

        Returns:
            A number for each of the first jobs; fewer than jobs where the queue takes no more for now.

        Raises:
            RunError: the jobs are refused; the message says why, and what to do.
        """

    def states(self, numbers: Sequence[str]) -> Mapping[str, JobState]:
        """Return the state of each job; a number that is not known, or not any more, has ended.

        Raises:
            RunError: the states cannot be had.
        """

    def cancel(self, numbers: Sequence[str]) -> None:
        """Withdraw what is queued, and ask what is running to stop at its next batch; do not wait for it."""

    def close(self) -> None:
        """Give back what the launcher holds; jobs that do not last are killed."""
