"""Run studies on a Slurm cluster: `robustplug study mine.toml --launcher slurm`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from robustplug.api import Bounds, Component, Count, Natural, Positive, Size, hookimpl


@dataclass(frozen=True)
class SlurmOptions:
    """Options of `slurm`.

    Attributes:
        partition: partition; None for the cluster's default.
        account: account to charge; None for the user's default.
        qos: quality of service; None for the default.
        constraint: features that the nodes must have.
        gpus: GPUs that a run reserves, of which its one process uses one; None for none.
        cpus: CPU cores of a run. It determines the number of threads, and so the last bits of sums.
        memory: memory of a run in GB; None for the cluster's default.
        minutes: time limit of a run. Before it is reached, the run writes a checkpoint and is queued again.
        notice: seconds before the time limit, or before it is preempted where the cluster says so, at which a
            run stops at its next batch and writes a checkpoint.
        requeues: how often a run that reaches the time limit is queued again.
        at_a_time: number of runs at a time.
        array: largest number of runs in one job array; the cluster's MaxArraySize limits it.
        pause: seconds between two looks at the queue.
        setup: lines of shell that each job starts with, for example ["module load cuda"].
        more: further options of sbatch by their names, for example {reservation = "mine"}.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: Size | None = None
    cpus: Size = 1
    memory: Positive | None = None
    minutes: Count = 60
    notice: Natural = 120
    requeues: Natural = 10
    at_a_time: Count = 64
    array: Count = 1000
    pause: Annotated[float, Bounds(ge=0.1, le=3600)] = 10.0
    setup: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@hookimpl
def robustplug_launchers() -> Iterable[Component]:
    """Offer Slurm."""
    yield Component(
        "slurm",
        "robustplug_slurm.launcher:Slurm",
        SlurmOptions,
        "job arrays of a Slurm cluster, through submitit",
        trial={"minutes": 5, "pause": 1},
    )
