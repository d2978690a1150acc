"""Time evaluations against hand-written loops on the same model, data and machine.

    python benchmarks/evaluation_cost.py                 # trains pgd-at on digits first
    python benchmarks/evaluation_cost.py --run runs/mine

- PGD with restarts: `robustplug` drops broken samples from the batch; the naive loop runs every step of
  every restart on every sample, and records for each sample whether any restart broke it.
- AutoAttack: against `pyautoattack` called by hand; the outcomes of each sample are compared.
- Peak memory: with 1 and with 20 restarts, and with twice the batch size.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.core.types import AttackResult, Feed
from robustplug.devices.precision import fitting_threads
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.rows import chain_of_attacks
from robustplug.plugin.build import build
from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.subjects.subject import Subject, open_subject


def naive_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    steps: int,
    restarts: int,
    batch_size: int,
    rng: torch.Generator,
) -> Tensor:
    """Return which samples are still classified correctly after hand-written PGD, bool (N,)."""
    right = []
    for images, labels in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
        held = model(images).argmax(1) == labels
        for _ in range(restarts):
            noise = torch.empty_like(images).uniform_(-eps, eps, generator=rng)
            point = (images + noise).clamp(0, 1)
            for _ in range(steps):
                point.requires_grad_()
                (gradient,) = torch.autograd.grad(F.cross_entropy(model(point), labels), point)
                point = point.detach() + 2.5 * eps / steps * gradient.sign()
                point = torch.min(torch.max(point, images - eps), images + eps).clamp(0, 1)
            with torch.no_grad():
                held &= model(point).argmax(1) == labels
        right.append(held)
    return torch.cat(right)


def by_hand(model: nn.Module, x: Tensor, y: Tensor, eps: float, batch_size: int) -> Tensor:
    """Return which samples pyautoattack's standard evaluation does not break, bool (N,)."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm="Linf", eps=eps, seed=0)
    adversarial, _ = attack.run_standard_evaluation(x, y, batch_size=batch_size)
    with torch.no_grad():
        found = [model(part).argmax(1) for part in torch.split(adversarial, batch_size)]
    return torch.cat(found) == y


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def peak_memory(run: Path, samples: int, batch_size: int, restarts: int) -> float:
    """Return the peak memory in MiB of a process that evaluates with this many restarts."""
    command = [sys.executable, __file__, "--run", str(run), "--samples", str(samples)]
    command += ["--batch", str(batch_size), "--steps", "5", "--restarts", str(restarts), "--peak"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@dataclass
class Bench:
    """A model, its data and the settings of the evaluation."""

    subject: Subject
    x: Tensor
    y: Tensor
    eps: float
    batch_size: int

    @classmethod
    def of(cls, run: Path, samples: int | None, eps: float | None, batch_size: int) -> Bench:
        subject = open_subject(run, {"device": "cpu"})
        task = subject.parts.task
        size = min(task.info.sizes["test"], samples or task.info.sizes["test"])
        (whole,) = task.batches("test", Feed(batch_size=size, samples=size))
        eps = eps or float(subject.parts.method.vicinity.eps)
        subject.exported.eval()
        return cls(subject, whole.x, whole.y, eps, batch_size)

    def ours(self, attack: str, options: dict[str, Any]) -> AttackResult:
        """Return the last row of an evaluation; data and model are already loaded, as by hand."""
        threat = resolve(Use("linf", {"eps": self.eps}), "vicinity")
        vicinity, loss = build(threat, "vicinity"), robustplug.build("loss", "ce")
        task, processes = self.subject.parts.task, self.subject.processes
        attacks = chain_of_attacks([resolve(Use(attack, options), "perturbation")], threat, "attack")
        evaluation = Evaluation(self.subject.exported, task, vicinity, loss, 0, processes)
        return evaluation.run("test", attacks, self.batch_size, len(self.x))[-1]

    def compare(
        self, what: str, attack: str, options: dict[str, Any], by_hand: Callable[[], Tensor], rounds: int
    ) -> dict[str, Any]:
        """Time both in turn and compare their outcomes; times and ratio are medians over the rounds."""
        pairs = []
        for number in range(rounds):
            # The first to run may find the machine in a different state, so the order alternates.
            first = timed(by_hand) if number % 2 else None
            ours, result = timed(lambda: self.ours(attack, options))
            other, right = first or timed(by_hand)
            pairs.append((ours, other, ours / other))
        ours, other, ratio = (statistics.median(column) for column in zip(*pairs, strict=True))
        found = result.right
        same = sum(a == b for a, b in zip(found, right.tolist(), strict=True)) / len(found)
        row = {"what": what, "ours": ours, "by hand": other, "ratio": ratio, "same outcome": same}
        row |= {"accuracy": result.accuracy, "accuracy by hand": float(right.float().mean())}
        print(", ".join(f"{k} {v:.3f}" if isinstance(v, float) else str(v) for k, v in row.items()))
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, help="run folder of an L-infinity model; default: train pgd-at")
    parser.add_argument("--samples", type=int, default=None)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--eps", type=float, nargs="*", default=[], help="default: eps of the run")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="*", default=["pgd", "autoattack", "memory"])
    parser.add_argument("--peak", action="store_true", help="print the peak memory of one evaluation")
    arguments = parser.parse_args()
    steps, restarts, batch_size = arguments.steps, arguments.restarts, arguments.batch
    pgd = {"steps": steps, "restarts": restarts}
    if arguments.peak:
        Bench.of(arguments.run, arguments.samples, None, batch_size).ours("pgd", pgd)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        run = arguments.run
        if run is None:
            run = Path(scratch) / "pgd-at"
            robustplug.train("pgd-at", out=run, overrides=["evaluate.samples=10"])
        for eps in arguments.eps or [None]:
            bench = Bench.of(run, arguments.samples, eps, batch_size)
            model, x, y = bench.subject.exported, bench.x, bench.y
            with fitting_threads(x[:batch_size]):
                print(f"{len(x)} samples, eps {bench.eps:g}, {torch.get_num_threads()} threads")
                if "pgd" in arguments.parts:
                    rng = torch.Generator().manual_seed(0)
                    what = f"PGD-{steps} with {restarts} restarts"
                    loop = partial(naive_pgd, model, x, y, bench.eps, steps, restarts, batch_size, rng)
                    rows.append(bench.compare(what, "pgd", pgd, loop, arguments.rounds))
                if "autoattack" in arguments.parts:
                    loop = partial(by_hand, model, x, y, bench.eps, batch_size)
                    rows.append(bench.compare("AutoAttack", "autoattack", {}, loop, arguments.rounds))
        peaks = {}
        if "memory" in arguments.parts:
            for batch, count in ((batch_size, 1), (batch_size, 20), (2 * batch_size, 1)):
                name = f"batch {batch}, {count} restarts"
                peaks[name] = peak_memory(run, arguments.samples or 100_000, batch, count)
                print(f"peak memory, {name}: {peaks[name]:.0f} MiB")
    print(json.dumps({"torch": torch.__version__, "rows": rows, "peak memory, MiB": peaks}))


if __name__ == "__main__":
    main()
