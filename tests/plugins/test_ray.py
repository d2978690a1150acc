"""The launcher for Ray, on a Ray of threads that has its functions; tests/clusters has the real one."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from robustplug.api import JobState
from robustplug.errors import RunError
from robustplug_ray import RayOptions

OPTIONS = RayOptions(address="auto", at_a_time=2, gpus=0.5)


class Handle:
    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            # As in Ray, an actor that is still being made is waited for.
            while self.target is None:
                time.sleep(0.001)
            done: Future[Any] = Future()
            done.set_result(getattr(self.target, name)(*arguments))
            return done

        return SimpleNamespace(remote=call)


class FakeRay(ModuleType):
    """Carry out tasks in threads; an actor is an object."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(
            RayError=OSError,
            TaskCancelledError=InterruptedError,
            ActorDiedError=ChildProcessError,
            RuntimeEnvSetupError=PermissionError,
        )
        self.pool, self.actors, self.asked = ThreadPoolExecutor(4), dict[str, Handle](), list[Any]()
        self.up, self.current = False, threading.local()

    def is_initialized(self) -> bool:
        return self.up

    def init(self, address: str, **options: Any) -> None:
        if address == "nowhere":
            raise ConnectionError("no cluster\nat nowhere")
        self.up = True

    def shutdown(self) -> None:
        self.up = False

    def nodes(self) -> list[dict[str, Any]]:
        dead = {"Alive": False, "Resources": {"GPU": 64.0, "a100": 9.0}}
        one = {"CPU": 2.0, "GPU": 1.0, "memory": 4.0 * 2**30}
        return [dead, *({"Alive": True, "Resources": each} for each in (one, {"CPU": 5.0}))]

    def remote(self, target: Any) -> Any:
        def options(**chosen: Any) -> Any:
            self.asked.append(chosen)
            if not isinstance(target, type):
                return SimpleNamespace(remote=lambda *given: self.pool.submit(target, *given))

            def make(*given: Any) -> Handle:
                handle = self.actors[chosen["name"]] = Handle(None)
                self.made = handle
                handle.target = target(*given)
                return handle

            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(current_actor=self.made)

    def get_actor(self, name: str, namespace: str) -> Handle:
        if name not in self.actors:
            raise ValueError(name)
        return self.actors[name]

    def get(self, future: Any, timeout: float | None = None) -> Any:
        return future.result(timeout)

    def wait(self, futures: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        done = wait(futures, timeout, "FIRST_COMPLETED").done
        return list(done), []

    def kill(self, actor: Handle) -> None:
        self.actors = {name: each for name, each in self.actors.items() if each is not actor}

    def cancel(self, task: Any, force: bool) -> None:
        task.cancel()


class Worker:
    """Stand in for a worker process: a job's name says how it ends, and a file when."""

    def __init__(self, keep_errors: bool = False) -> None:
        pass

    def do(self, job: Path) -> str:
        while not job.with_name("go").exists():
            time.sleep(0.005)
        return "" if job.stem == "dies" else "done"

    def death(self) -> tuple[str, str]:
        return "its process was killed by signal 9: no error output", ""

    def end(self) -> int:
        return 0


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delitem(sys.modules, "robustplug_ray.work", raising=False)
    work = importlib.import_module("robustplug_ray.work")
    monkeypatch.setattr(work, "WorkerProcess", Worker)
    monkeypatch.setattr(work, "_STAYS", 30.0)
    monkeypatch.setattr(work, "_NODE_GOES", 0.05)
    yield fake
    monkeypatch.delitem(sys.modules, "robustplug_ray.work", raising=False)


def opened(options: RayOptions, folder: Path) -> Any:
    return importlib.import_module("robustplug_ray.launcher").RayCluster(options, folder=folder, gpus=False)


def test_jobs_are_tasks_some_at_a_time_and_their_ends_are_known(ray: Any, tmp_path: Path) -> None:
    launcher = opened(OPTIONS, tmp_path)
    assert (launcher.lasting, launcher.places) == (True, 2)
    jobs = [tmp_path / f"{name}.json" for name in ("a", "dies", "c", "finished")]
    (tmp_path / "finished.jsonl").write_text('{"kind": "done"}\n')
    numbers = launcher.submit(jobs)
    deadline = time.monotonic() + 30
    while [each.name for each in launcher.states(numbers).values()].count("running") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    names = [each.name for each in launcher.states(numbers).values()]
    assert names == ["running", "running", "queued", "ended"]
    # Another process finds them by their numbers.
    assert opened(OPTIONS, tmp_path).states(numbers)[numbers[0]].name == "running"
    (tmp_path / "go").touch()
    states = launcher.states(numbers)
    while any(each.name != "ended" for each in states.values()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
        states = launcher.states(numbers)
    reason = "its Ray task ended: its process was killed by signal 9: no error output"
    assert [states[number].reason for number in numbers] == ["", reason, "", ""]
    # The actor is gone; how its jobs ended is remembered, and what is not known has ended.
    assert not ray.actors
    states = launcher.states([numbers[1], "other/0"])
    assert states == {numbers[1]: JobState("ended", reason), "other/0": JobState("ended")}
    assert ray.asked[0]["max_restarts"] == -1
    task = {"num_cpus": 1.0, "num_gpus": 0.5, "resources": {}, "max_retries": 10}
    assert ray.asked[1] == {**task, "scheduling_strategy": "DEFAULT"}


def test_what_waits_is_withdrawn(ray: Any, tmp_path: Path) -> None:
    launcher = opened(RayOptions(address="auto", at_a_time=1), tmp_path)
    numbers = launcher.submit([tmp_path / f"{name}.json" for name in ("a", "b")])
    launcher.cancel(numbers[1:])
    assert launcher.states(numbers)[numbers[1]].name == "ended"
    (tmp_path / "go").touch()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            RayOptions(address="nowhere"),
            "cannot use the Ray cluster nowhere: no cluster at nowhere; start",
        ),
        (
            RayOptions(resources={"a100": 2.0}),
            "of 2 nodes cannot take a run: a run asks for 2 a100, and has 0 a100 on a node at most; change",
        ),
        (RayOptions(gpus=2), "a run asks for 2 GPU, and has 1 GPU on a node at most"),
        (RayOptions(cpus=6), "a run asks for 6 CPU, and has 5 CPU on a node at most"),
        (RayOptions(memory=16), "asks for 16 GB of memory, and has 4 GB of memory on a node at most"),
        (RayOptions(cpus=5, gpus=0.5), "asks for 5 CPU, 0.5 GPU, and no node has all of it; change"),
    ],
)
def test_a_cluster_that_does_not_fit_is_refused(
    ray: Any, tmp_path: Path, options: RayOptions, why: str
) -> None:
    with pytest.raises(RunError) as error:
        opened(options, tmp_path)
    assert why in str(error.value)
    assert not ray.up


def test_an_actor_that_cannot_be_made_is_one_sentence(ray: Any, tmp_path: Path) -> None:
    launcher = opened(OPTIONS, tmp_path)
    numbers = launcher.submit([tmp_path / "a.json"])
    said = (
        "The actor died because of an error raised in its creation task, \x1b[36mray::Queue\n"
        "  File \"work.py\", line 13, in <module>\nModuleNotFoundError: No module named 'robustplug_ray'"
    )

    def dead(name: str, namespace: str) -> Any:
        raise ChildProcessError(said)

    ray.get_actor = dead
    with pytest.raises(RunError) as error:
        launcher.states(numbers)
    cause = "ModuleNotFoundError: No module named 'robustplug_ray'; "
    assert str(error.value).startswith(f"Ray cannot make the actor that starts the runs: {cause}")
    assert "\n" not in str(error.value)
    (tmp_path / "go").touch()


def test_places_are_those_of_the_nodes(ray: Any, tmp_path: Path) -> None:
    assert opened(RayOptions(address="auto", cpus=2), tmp_path).places == 3
    assert opened(RayOptions(address="auto", cpus=1, gpus=0.5), tmp_path).places == 2
