"""What two processes do in one launch; test_processes.py starts it and judges what they report.

Usage: python -m torch.distributed.run --nproc-per-node 2 -m engine.two_processes FOLDER quick|slow
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.core.state import PerSample
from robustplug.devices.graphs import Uncapturable
from robustplug.devices.processes import Processes
from robustplug.runs.heads import names
from robustplug.subjects.assemble import Parts
from robustplug.training import store
from robustplug.training import train as engine_train
from robustplug.training.loop import Loop
from robustplug.training.session import Session
from robustplug.training.train import Training
from robustplug.training.validate import validate

from .capturing import Told, capturing, replays
from .learned import DRAWS, LEARNED
from .recording import Recordings
from .runs import merged, offered, timeless, tiny

# By the part of the tests that waits for them.
COMPARED = {
    "quick": ("cat", "learned", "ibp"),
    "slow": ("data", "parts", "norms", "erm", "pgd-at", "trades"),
}
# Stands for erm with everything that changes which samples come, what they look like and what they weigh.
DATA = {
    "train": {
        "sampling": "balanced",
        "class_weights": [1.0, 2.0, 0.5, *[1.0] * 7],
        "augment": [
            {"use": "torchvision:RandomErasing", "p": 0.5},
            {"use": "torchvision:RandomCrop", "size": 8, "padding": 1},
        ],
    },
    "optimizer": {"use": "torch:SGD", "lr": 0.02, "momentum": 0.9},
    "schedule": {"use": "torch:OneCycleLR"},
}
CAPTURED = {"quick": ("cat",), "slow": ("learned",)}
# Changed by these names: the data; micro-batches; BatchNorm over all processes, under an attack with it.
VARIANTS = {"data": "erm", "parts": "free-at", "norms": "pgd-at"}
RESUMED = {"quick": ("cat",), "slow": ("free-at", "fast-at", "erm", "pgd-at", "trades")}
SAMPLES = 200
RANK = int(os.environ.get("RANK", 0))

State = dict[str, torch.Tensor]


class Killed(BaseException):
    """Stands for a process that dies."""


def exact(method: str, together: bool = True) -> dict[str, Any]:
    """Return a recipe in which nothing depends on the number of processes; the last batch is ragged.

    Args:
        method: a method, or one of VARIANTS.
        together: whether it is for two processes; one alone computes batches as a whole.
    """
    recipe = tiny() if method in ("learned", *VARIANTS) else tiny(method)
    recipe["method"]["use"] = VARIANTS.get(method, method)
    model = {"batchnorm": method == "norms"}
    recipe = merged(recipe, {"model": model, "train": {"batch_size": 30}, "optimizer": {"lr": 0.02}})
    if method == "data":
        recipe = merged({**recipe, "optimizer": {}}, DATA)
    recipe["evaluate"] = {"batch_size": 16, "samples": SAMPLES, "attack": [{"use": "fgsm"}]}
    if method in ("pgd-at", "trades", "cat", "norms"):
        recipe["method"]["perturbation"] = {"steps": 2, "start": "zero"}
    if method == "norms":
        recipe["method"]["perturbation"] |= {"batchnorm": "train"}
        recipe["train"]["sync_batch_norm"] = True
    if method == "parts" and together:
        recipe["train"]["micro_batch"] = 4
    if method == "trades":
        # At the sample itself the gradient of its own divergence is nothing but rounding.
        recipe["method"]["perturbation"]["loss"] = {"use": "ce"}
    if method == "cat":
        recipe["method"]["label_map"] = {"c": 0.0}
    if method == "ibp":  # bounds alone: the loss reads the weights and does not run the model
        recipe["method"] |= {"kappa": 0.0, "warmup": 0.0, "rampup": 0.0}
    return recipe


def noisy(method: str, **train: Any) -> dict[str, Any]:
    """Return a recipe with noise and running statistics; the processes get batches of unequal sizes."""
    train = {"checkpoint_batches": 1, "batch_size": 41, **train}
    return merged(tiny(method), {"train": train, "task": {"augment": True}})


class Spy:
    """Watch what this process writes, and whether both processes agree."""

    def __init__(self, runs: Path, patch: pytest.MonkeyPatch) -> None:
        self.written: list[str] = []
        self.report: dict[str, Any] = {}
        self.mismatches, self.compared, self.weights = 0, 0, list[bool]()
        self.root = str(runs)
        sys.addaudithook(self.audit)
        synchronize = Processes.synchronize

        def compare(processes: Processes, memories: Iterable[PerSample]) -> None:
            memories = list(memories)
            synchronize(processes, memories)
            for memory in memories:
                one, two = processes.gather(memory.values[None])
                self.compared, self.mismatches = (
                    self.compared + 1,
                    self.mismatches + (not torch.equal(one, two)),
                )

        def agree(
            parts: Parts, session: Session, processes: Processes, kept: Callable[[], str]
        ) -> dict[str, float]:
            for value in session.weights().state_dict().values():
                one, two = processes.gather(value[None])
                self.weights.append(torch.equal(one, two))
            return validate(parts, session, processes, kept)

        patch.setattr(Processes, "synchronize", compare)
        patch.setattr(engine_train, "validate", agree)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int):
            writes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            writes = event in ("os.mkdir", "os.rename", "os.remove")
        if writes and str(arguments[0]).startswith(self.root):
            self.written.append(f"{event} {arguments[0]}")


def killed(recipe: dict[str, Any], out: Path, count: int) -> None:
    """Train until both processes die after a number of checkpoints."""
    save, saved = Training._save, []

    def save_and_die(self: Training, session: Session) -> None:
        save(self, session)
        saved.append(session.name)
        if len(saved) == count:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Training, "_save", save_and_die)
        robustplug.train(recipe, out=out)


def told_to_stop(recipe: dict[str, Any], out: Path) -> str:
    """Train while the second process, and only it, gets a signal."""
    update = Loop._update

    def update_and_signal(self: Loop, *rest: Any) -> None:
        update(self, *rest)
        if RANK == 1 and self.update == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Exception, match="resume with") as caught:
        patch.setattr(Loop, "_update", update_and_signal)
        robustplug.train(recipe, out=out)
    return type(caught.value).__name__


def jobs(runs: Path, spy: Spy, part: str) -> dict[str, Callable[[], Any]]:
    """Return what to do in one part of the tests; the first failure ends the launch."""

    def compare(method: str) -> Any:
        trained = robustplug.train(exact(method), out=runs / method)
        training = trained.result.meta["training"]
        return {
            "main": trained.main,
            "attacks": timeless([row.__dict__ for row in trained.result.attacks]),
            "passes": [training["forwards_per_sample"], training["backwards_per_sample"]],
            "history": timeless([report.__dict__ for report in trained.history]),
        }

    def resume(method: str) -> None:
        robustplug.train(noisy(method), out=runs / f"{method}-whole")
        killed(noisy(method), runs / f"{method}-killed", 6)
        with pytest.MonkeyPatch.context() as patch:
            if RANK == 1:  # on a network file system the newest checkpoint may not be there yet
                patch.setattr(store, "names", lambda folder: names(folder)[:-1])
            robustplug.train(resume=runs / f"{method}-killed")

    def stop() -> str:
        recipe = tiny("pgd-at", train={"batch_size": 10}, method={"perturbation": {"steps": 1}})
        robustplug.train(recipe, out=runs / "stopped-whole")
        kind = told_to_stop(recipe, runs / "stopped-killed")
        spy.report["stopped"] = sorted(
            path.stem for path in (runs / "stopped-killed/checkpoints").glob("*.json")
        )
        robustplug.train(resume=runs / "stopped-killed")
        return kind

    def captured(method: str) -> list[Any]:
        # The processes get 7 and 6 rows of each batch.
        recipe = noisy("erm" if method == "learned" else method, batch_size=13)
        recipe["method"]["use"], before = method, len(DRAWS)
        robustplug.train(recipe, out=runs / f"captured {method}-eager")
        told = Told()
        with capturing() as made:
            robustplug.train(recipe, out=runs / f"captured {method}-replayed", reporter=told)
        del DRAWS[before:]
        return [replays(made), told.slower]

    def refused() -> list[Any]:
        """Train captured, where the second process cannot capture."""
        capture = Recordings.capture

        def fails(self: Recordings, function: Callable[[], Any]) -> Any:
            found = capture(self, function)
            if RANK == 1:
                raise Uncapturable("no memory")
            return found

        told = Told()
        with capturing() as made, pytest.MonkeyPatch.context() as patch:
            patch.setattr(Recordings, "capture", fails)
            robustplug.train(noisy("erm", batch_size=13), out=runs / "refused", reporter=told)
        return [replays(made), told.slower]

    def averaged() -> None:
        recipe = noisy("erm", ema_decay=0.5)
        robustplug.train(recipe, out=runs / "averaged-whole")
        killed(recipe, runs / "averaged-killed", 6)
        robustplug.train(resume=runs / "averaged-killed")

    work: dict[str, Callable[[], Any]] = {each: partial(compare, each) for each in COMPARED[part]}
    work |= {f"captured {each}": partial(captured, each) for each in CAPTURED[part]}
    work |= {f"resume {each}": partial(resume, each) for each in RESUMED[part]}
    return {**work, **({"refused": refused} if part == "quick" else {"stop": stop, "averaged": averaged})}


def main() -> None:
    torch.set_num_threads(1)
    top = Path(sys.argv[1])
    with pytest.MonkeyPatch.context() as patch, offered("method", LEARNED):
        spy = Spy(top / "runs", patch)
        report = spy.report
        for name, job in jobs(top / "runs", spy, sys.argv[2]).items():
            spy.mismatches = spy.compared = 0
            spy.weights.clear()
            report[name] = job()
            report[f"{name} memory"] = [spy.compared, spy.mismatches]
            report[f"{name} weights agree"] = all(spy.weights) and bool(spy.weights)
            report["draws"], report["written"] = DRAWS, spy.written
            (top / f"rank-{RANK}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
