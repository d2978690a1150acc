"""The launcher: a detached actor starts the jobs as tasks, and goes on when the command has ended."""

from __future__ import annotations

import importlib
import itertools
import logging
import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustplug.api import JobState, RunError

if TYPE_CHECKING:
    from . import RayOptions

_SPACE = "robustplug"
# Seconds to wait for the actor, whose node may have died.
_PATIENCE = 30.0
# The line of a traceback that names the exception.
_ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt): ")
# Seconds that the address of a cluster has to answer; Ray itself tries for minutes.
_ANSWER = 10.0


def refuse_silent(address: str | None) -> None:
    """Refuse an address "host:port" at which nothing listens.

    Raises:
        OSError: nothing does.
    """
    host, _, port = (address or "").rpartition(":")
    if "/" not in host and host and port.isdigit():
        socket.create_connection((host, int(port)), _ANSWER).close()


def refuse_too_large(asked: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse a run that no node has enough for: it would wait for ever, as a run takes place on one node.

    Args:
        asked: amounts that a run asks for, by resource.
        nodes: what each node of the cluster has.

    Raises:
        RunError: no node has all of it.
    """
    if any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes):
        return
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in asked}
    lacking = [name for name, amount in asked.items() if amount > most[name]]
    if lacking:
        said = ", ".join(
            f"{_shown(name, asked[name])}, and has {_shown(name, most[name])}" for name in lacking
        )
        why = f"a run asks for {said} on a node at most"
    else:
        why = (
            f"a run asks for {', '.join(itertools.starmap(_shown, asked.items()))}, and no node has all of it"
        )
    raise RunError(f"the Ray cluster of {len(nodes)} nodes cannot take a run: {why}; change [launcher]")


def _shown(name: str, amount: float) -> str:
    return f"{amount / 2**30:.3g} GB of memory" if name == "memory" else f"{amount:g} {name}"


class RayCluster:
    """Do jobs as tasks of a Ray cluster; those of an existing cluster go on when this process ends.

    Args:
        options: the cluster, and what the jobs ask for.
        folder: the folder of the jobs, which the nodes must see at the same path.
        gpus: whether jobs may use a GPU.

    Raises:
        RunError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, options: RayOptions, *, folder: Path, gpus: bool) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise RunError('the launcher ray needs Ray: pip install "robustplug[ray]"') from error
        self._ray, self._options = ray, options
        self.lasting, self.pause = options.address is not None, options.pause
        self._connected = not ray.is_initialized()
        if self._connected:
            try:
                refuse_silent(options.address)
                ray.init(
                    options.address or "local",
                    namespace=_SPACE,
                    runtime_env=dict(options.runtime_env) or None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (OSError, RuntimeError, ValueError, TypeError) as error:
                where = options.address or "of this machine"
                raise RunError(
                    f"cannot use the Ray cluster {where}: {' '.join(str(error).split())}; start it with `ray "
                    "start --head`, or give another launcher.address"
                ) from error
        asked = {"CPU": options.cpus, "GPU": options.gpus, **options.resources}
        if options.memory is not None:
            asked["memory"] = options.memory * 2**30
        asked = {name: amount for name, amount in asked.items() if amount > 0}
        nodes = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
        try:
            refuse_too_large(asked, nodes)
        except RunError:
            self.close()
            raise
        # Of each node, how many runs it has room for.
        room = [min(int(node.get(name, 0) / each) for name, each in asked.items()) for node in nodes if asked]
        self.places = max(1, min(options.at_a_time, sum(room))) if asked else options.at_a_time
        self._known: dict[str, JobState] = {}
        # An actor that is not detached lives as long as its handle.
        self._handles: list[Any] = []

    def submit(self, jobs: Sequence[Path]) -> Sequence[str]:
        """Submit jobs to an actor of their own, which Ray starts again if its node dies."""
        from .work import Queue

        chosen = self._options
        task: dict[str, Any] = {
            "num_cpus": chosen.cpus,
            "num_gpus": chosen.gpus,
            "resources": dict(chosen.resources),
            "max_retries": chosen.retries,
            "scheduling_strategy": "SPREAD" if chosen.spread == "spread" else "DEFAULT",
        }
        if chosen.memory is not None:
            task["memory"] = int(chosen.memory * 2**30)
        name = f"robustplug-{uuid.uuid4().hex}"
        lasts: dict[str, Any] = {"lifetime": "detached"} if self.lasting else {}
        queue = self._ray.remote(Queue).options(
            name=name, namespace=_SPACE, num_cpus=0, max_restarts=-1, max_task_retries=-1, **lasts
        )
        handle = queue.remote([str(job) for job in jobs], task, chosen.at_a_time)
        self._handles.append(handle)
        return [f"{name}/{number}" for number in range(len(jobs))]

    def states(self, numbers: Sequence[str]) -> Mapping[str, JobState]:
        """Return the state of each job, as its actor says.

        Raises:
            RunError: the actor cannot be made.
        """
        found: dict[str, JobState] = {}
        for name in dict.fromkeys(number.partition("/")[0] for number in numbers):
            own = [number for number in numbers if number.partition("/")[0] == name]
            try:
                said = self._ask(name)
            except (
                self._ray.exceptions.ActorDiedError,
                self._ray.exceptions.RuntimeEnvSetupError,
            ) as error:
                # One whose node died is made anew elsewhere, and is no error.
                raise RunError(
                    f"Ray cannot make the actor that starts the runs: {cause_of(error)}; install robustplug "
                    "and its plugins on every node, at the same path, or ship them with launcher.runtime_env"
                ) from error
            except ValueError:  # there is no such actor, or not any more
                known = {number: self._known.get(number, JobState("ended")) for number in own}
                found |= {n: each if each.name == "ended" else JobState("ended") for n, each in known.items()}
                continue
            except (self._ray.exceptions.RayError, TimeoutError):
                # It is started again elsewhere.
                found |= {number: self._known.get(number, JobState("queued")) for number in own}
                continue
            for number in own:
                state, reason = said.get(int(number.partition("/")[2] or -1), ("ended", ""))
                found[number] = JobState(state, reason)
        self._known |= found
        return found

    def _ask(self, name: str) -> dict[int, tuple[Any, str]]:
        actor = self._ray.get_actor(name, namespace=_SPACE)
        said: dict[int, tuple[Any, str]] = self._ray.get(actor.states.remote(), timeout=_PATIENCE)
        if all(state == "ended" for state, _ in said.values()):
            self._ray.kill(actor)
        return said

    def cancel(self, numbers: Sequence[str]) -> None:
        """Withdraw what is queued, and stop what is running at its next batch."""
        for name in dict.fromkeys(number.partition("/")[0] for number in numbers):
            own = [int(each.partition("/")[2] or -1) for each in numbers if each.partition("/")[0] == name]
            try:
                actor = self._ray.get_actor(name, namespace=_SPACE)
            except ValueError:
                continue
            self._ray.get(actor.cancel.remote(own), timeout=_PATIENCE)

    def close(self) -> None:
        """Leave the cluster; a local one ends, and its runs with it."""
        if self._connected:
            self._ray.shutdown()


def cause_of(error: Exception) -> str:
    """Return in a line what Ray says of an error, without the traceback that it repeats."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.match(line)]
    return (named[-1:] or lines[:1] or [type(error).__name__])[0]
