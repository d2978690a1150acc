"""Time evaluations against the loops one writes by hand, on the same model, data and machine.

    python benchmarks/evaluation_cost.py                 # trains pgd-at on digits first
    python benchmarks/evaluation_cost.py --run runs/mine

- PGD with restarts: `robustplug` lets broken samples leave the batch; the naive loop runs every step of
  every restart on every sample, and keeps for each sample whether any restart broke it.
- AutoAttack: against `pyautoattack` called by hand; the outcome of each sample is compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.engine.precision import fitting_threads
from robustplug.engine.reporting import Silent
from robustplug.subject import Network, open_subject
from robustplug.types import Feed


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
    """Return which samples are right after PGD as one writes it by hand, bool (N,)."""
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
    """Return which samples are right after pyautoattack's standard evaluation, bool (N,)."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm="Linf", eps=eps, seed=0, version="standard", verbose=False, device="cpu")
    adversarial = attack.run_standard_evaluation(x, y, batch_size=batch_size)
    adversarial = adversarial[0] if isinstance(adversarial, tuple) else adversarial
    with torch.no_grad():
        found = [model(part).argmax(1) for part in torch.split(adversarial, batch_size)]
    return torch.cat(found) == y


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, help="run folder of an L-infinity model; default: train pgd-at")
    parser.add_argument("--samples", type=int, default=None)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--eps", type=float, default=None, help="default: that of the run")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--only", choices=["pgd", "autoattack"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = arguments.run
        if run is None:
            run = Path(scratch) / "pgd-at"
            robustplug.train("pgd-at", out=run, overrides=["evaluate.samples=10"])
        subject = open_subject(run, Network(), {}, None, (), "cpu", Silent())
    task, model = subject.parts.task, subject.exported.eval()
    eps = arguments.eps or float(subject.parts.method.vicinity.eps)
    size = min(task.info.sizes["test"], arguments.samples or task.info.sizes["test"])
    (whole,) = task.batches("test", Feed(batch_size=size, samples=size))
    settings: dict[str, Any] = {
        "vicinity": {"use": "linf", "eps": eps},
        "split": "test",
        "samples": size,
        "batch_size": arguments.batch,
        "device": "cpu",
    }
    table = robustplug.recipe.recipe_to_mapping(subject.parts.recipe)
    evaluated = model
    rows = []
    with fitting_threads(whole.x[: arguments.batch]):
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {size} samples, eps {eps:g}")
        if arguments.only != "autoattack":
            pgd = {"use": "pgd", "steps": arguments.steps, "restarts": arguments.restarts}
            ours, result = timed(
                lambda: robustplug.evaluate(evaluated, task=table["task"], attacks=[pgd], **settings)
            )
            rng = torch.Generator().manual_seed(0)
            other, right = timed(
                lambda: naive_pgd(
                    model, whole.x, whole.y, eps, arguments.steps, arguments.restarts, arguments.batch, rng
                )
            )
            rows.append(
                {
                    "what": f"PGD-{arguments.steps}, {arguments.restarts} restarts",
                    "ours": ours,
                    "by hand": other,
                    "ratio": ours / other,
                    "accuracy": result.attacks[-1].accuracy,
                    "accuracy by hand": float(right.float().mean()),
                }
            )
            print(rows[-1])
        if arguments.only != "pgd":
            ours, result = timed(
                lambda: robustplug.evaluate(evaluated, task=table["task"], attacks=["autoattack"], **settings)
            )
            other, right = timed(lambda: by_hand(model, whole.x, whole.y, eps, arguments.batch))
            same = [a == b for a, b in zip(result.attacks[-1].right, right.tolist(), strict=True)]
            rows.append(
                {
                    "what": "AutoAttack",
                    "ours": ours,
                    "by hand": other,
                    "ratio": ours / other,
                    "same outcome": sum(same) / len(same),
                    "accuracy": result.attacks[-1].accuracy,
                }
            )
            print(rows[-1])
    print(
        json.dumps(
            {"rows": rows, "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        )
    )


if __name__ == "__main__":
    main()
