"""The launcher: submitit submits and queues again; squeue says how far the jobs are."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustplug.api import JobState, RunError, Unreadable, read_bytes

from .work import Work

if TYPE_CHECKING:
    from . import SlurmOptions

_PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
_NUMBER = re.compile(r"\d+(_\d+)?")
# What sbatch says where the queue has room again later.
_FULL = re.compile("temporarily un|MaxSubmitJob", re.IGNORECASE)
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"}
_QUEUED = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
# Looks for which the controller may be out of reach, and numbers of jobs in one command.
_UNREACHED, _AT_ONCE = 30, 500
# Bytes of a log that are kept of a job that died.
_KEPT = 4000


class Slurm:
    """Do jobs on a Slurm cluster, in arrays; they go on when the command that submitted them ends.

    Args:
        options: what the jobs ask for.
        folder: the folder of the jobs, which the nodes must see at the same path.
        gpus: whether jobs may use a GPU.

    Raises:
        RunError: Slurm or submitit is missing.
    """

    lasting = True

    def __init__(self, options: SlurmOptions, *, folder: Path, gpus: bool) -> None:
        missing = [name for name in _PROGRAMS if shutil.which(name) is None]
        if missing:
            raise RunError(
                f"the launcher slurm needs {', '.join(missing)}: start it on a login node of a Slurm cluster"
            )
        try:
            import submitit
        except ImportError as error:
            raise RunError('the launcher slurm needs submitit: pip install "robustplug[slurm]"') from error
        self._submitit, self._options = submitit, options
        self._folder, self.places, self.pause = folder / "slurm", options.at_a_time, options.pause
        self._array, self._before = options.array, ""
        self._known: dict[str, JobState] = {}
        self._unreached = 0

    def submit(self, jobs: Sequence[Path]) -> Sequence[str]:
        """Submit jobs as arrays, one after the other, so that the limit at a time holds for all."""
        numbers: list[str] = []
        while len(numbers) < len(jobs):
            part = jobs[len(numbers) : len(numbers) + self._array]
            try:
                numbers += self._submitted(part)
            except self._submitit.core.utils.FailedJobError as error:
                said = " ".join(str(error).split())
                if _FULL.search(said):
                    if len(part) == 1:
                        self._array = self._options.array
                        break
                    self._array = len(part) // 2
                elif numbers:
                    break  # what is submitted must be known; the next call meets the same error
                else:
                    raise RunError(
                        f"Slurm refuses the jobs: {_reason(said)}; change [launcher] and try again"
                    ) from error
        return numbers

    def _submitted(self, jobs: Sequence[Path]) -> list[str]:
        executor = self._submitit.SlurmExecutor(self._folder, max_num_timeout=self._options.requeues)
        executor.update_parameters(**self._parameters())
        # What sbatch says is in the exception, too.
        with contextlib.redirect_stderr(io.StringIO()):
            found = executor.map_array(Work(), [str(job) for job in jobs])
        self._before = found[0].job_id.partition("_")[0]
        return [job.job_id for job in found]

    def _parameters(self) -> dict[str, Any]:
        chosen = self._options
        asked = {
            "partition": chosen.partition,
            "account": chosen.account,
            "qos": chosen.qos,
            "constraint": chosen.constraint,
            "gpus_per_node": chosen.gpus,
            "dependency": f"afterany:{self._before}" if self._before else None,
            "setup": list(chosen.setup) or None,
        }
        memory = {} if chosen.memory is None else {"mem": f"{round(1024 * chosen.memory)}M"}
        return {
            **{name: value for name, value in asked.items() if value is not None},
            "job_name": "robustplug",
            "time": chosen.minutes,
            "cpus_per_task": chosen.cpus,
            "signal_delay_s": chosen.notice,
            "array_parallelism": chosen.at_a_time,
            "stderr_to_stdout": True,
            # Of a job whose node died, or that was preempted, whatever the cluster's default.
            "additional_parameters": {"requeue": True, **memory, **chosen.more},
        }

    def states(self, numbers: Sequence[str]) -> Mapping[str, JobState]:
        """Return the state of each job, by squeue: not every cluster keeps accounts, which sacct reads."""
        done = _run("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T")
        if done.returncode:
            self._unreached += 1
            if not self._known or self._unreached > _UNREACHED:
                raise RunError(f"squeue fails: {_reason(done.stderr)}; the jobs go on: try --follow later")
            return {number: self._known.get(number, JobState("queued")) for number in numbers}
        self._unreached = 0
        listed = dict(line.strip().partition("|")[::2] for line in done.stdout.splitlines())
        self._known = {number: self._state(number, listed.get(number, "")) for number in numbers}
        return self._known

    def _state(self, number: str, state: str) -> JobState:
        if state in _QUEUED:
            return JobState("queued")
        if state in _RUNNING:
            return JobState("running")
        log = self._folder / f"{number}_0_log.out"
        with contextlib.suppress(FileNotFoundError, Unreadable):
            reason = f"its Slurm job {number} ended{f' as {state}' if state else ''}, see {log}"
            return JobState("ended", reason, read_bytes(log)[-_KEPT:].decode(errors="replace"))
        return JobState("ended", f"its Slurm job {number} ended{f' as {state}' if state else ''}")

    def cancel(self, numbers: Sequence[str]) -> None:
        """Cancel jobs: Slurm sends SIGTERM to those that run, at which they write a checkpoint."""
        for some in _parts([number for number in numbers if _NUMBER.fullmatch(number)]):
            _run("scancel", *some)

    def close(self) -> None:
        """Hold nothing."""


def _parts(numbers: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(numbers), _AT_ONCE):
        yield numbers[first : first + _AT_ONCE]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _reason(said: str) -> str:
    """Return the last error that a program of Slurm wrote, without what stands before it."""
    return re.split(r"\b(?:sbatch|squeue): error: ", said.strip())[-1].strip() or "it gives no reason"
