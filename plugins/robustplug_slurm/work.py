"""What runs on a node: a worker, which is told to stop when the job has to go, and the job's way back."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from robustplug.api import WorkerProcess


class Work:
    """Do a job in a worker process; submitit calls this on the node, with the path of the job.

    It is all that submitit pickles, besides the path: a name of this module. Submitit reads that on the node,
    from the jobs' folder, for itself; what it writes as a result is not read back.
    """

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None

    def __call__(self, job: str) -> None:
        """Do a job; one that has to go writes a checkpoint and is queued again.

        Raises:
            RuntimeError: the worker died.
        """
        worker = self._worker = WorkerProcess()
        # SIGUSR2 is submitit's: it calls `checkpoint`, queues the job again, and ends the process.
        again = signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
        signal.signal(signal.SIGUSR1, signal.getsignal(again))
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        answer = worker.do(Path(job))
        if answer == "stopped" and _is_running():
            # It was told to stop, and Slurm does not queue the job again by itself.
            signal.raise_signal(again)
        if not answer:
            raise RuntimeError(worker.death()[0])
        worker.end()

    def checkpoint(self, job: str) -> Any:
        """Let the worker write a checkpoint, and return what is to be queued."""
        from submitit.helpers import DelayedSubmission

        if self._worker is not None:
            self._worker.end()
        return DelayedSubmission(Work(), job)


def _is_running() -> bool:
    """Return whether the job runs still, for Slurm: it was neither cancelled nor preempted by it."""
    command = ["squeue", "--noheader", "--format=%T", "--jobs", os.environ["SLURM_JOB_ID"]]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "RUNNING"
