"""Run studies on a Ray cluster: `robustplug study mine.toml --launcher ray`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from robustplug.api import Bounds, Component, Count, NonNegative, hookimpl


@dataclass(frozen=True)
class RayOptions:
    """Options of `ray`.

    Attributes:
        address: address of a cluster, "auto" for the one that this machine belongs to, or
            "ray://HOST:10001"; None for a local one, which ends with the command and its runs.
        gpus: GPUs that a run reserves, of which its one process uses one; a fraction such as 0.25 lets four
            runs share one.
        cpus: CPU cores of a run. It determines the number of threads, and so the last bits of sums.
        memory: memory of a run in GB, for its placement; None for no request.
        resources: custom resources of a run, for example {big-memory = 1}: it is placed where they are.
        spread: "pack" to fill one node after the other, or "spread" to use as many as possible.
        at_a_time: number of runs at a time, if the cluster has room for more.
        retries: how often a run is started again after its node died.
        runtime_env: Ray's runtime environment of the runs, for example {pip = ["robustplug", "my-plugin"]};
            by default code and plugins are expected on each node, in the same Python environment.
        pause: seconds between two looks at the states.
    """

    address: str | None = None
    gpus: NonNegative = 0.0
    cpus: NonNegative = 1.0
    memory: NonNegative | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    spread: Literal["pack", "spread"] = "pack"
    at_a_time: Count = 256
    retries: Annotated[int, Bounds(ge=0, le=1000)] = 10
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    pause: Annotated[float, Bounds(ge=0.1, le=3600)] = 2.0


@hookimpl
def robustplug_launchers() -> Iterable[Component]:
    """Offer Ray."""
    yield Component(
        "ray",
        "robustplug_ray.launcher:RayCluster",
        RayOptions,
        "tasks of a Ray cluster, or of a local one",
        trial={"pause": 0.5},
    )
