"""Compare our Sign-OPT with ART's SignOPTAttack and with OPT on some runs: time and median distance.

    for seed in 0 1 2 3 4; do robustplug train --recipe erm --set seed=$seed --out runs/erm-$seed; done
    python benchmarks/hardlabel.py runs/erm-? --samples 100 --queries 4000 --art-samples 5

Of several runs, mean and standard deviation of the medians are printed last. ART attacks one image at a time,
so it is timed on fewer images, the first ones, with its PyTorchClassifier. For both, queries are counted and
the nearest adversarial example is recorded at the model's input. The share of the model is the time spent in
its forward passes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from robustplug.api import OpenedEvaluation, open_evaluation
from robustplug_hardlabel.attack import HardLabel
from robustplug_hardlabel.curves import distances_at
from robustplug_hardlabel.pool import Sample

MARKS = (1000, 2000, 4000, 8000)


class Stopwatch:
    """Add up the time of a module's forward passes."""

    def __init__(self, model: nn.Module) -> None:
        self.seconds = self.began = 0.0
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def _end(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self.began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--art-samples", type=int, default=20)
    parser.add_argument("--queries", type=int, default=8000)
    parser.add_argument("--others", nargs="*", default=["opt", "svm-opt"], metavar="ATTACK")
    options = parser.parse_args()

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    names = ["sign-opt", *options.others]
    attacks = [{"use": name, "queries": options.queries} for name in names]
    rows: list[dict[str, Any]] = []
    for run in options.runs:
        print(run)
        for number, name in enumerate(names):
            rows.append(measured(opened(run, attacks, options.samples), number, name))
        ours = rows[-len(names)]["seconds_per_image"]
        rows.append(measured_art(opened(run, attacks, options.art_samples), options.queries))
        theirs = rows[-1]["seconds_per_image"]
        print(f"ART's SignOPTAttack takes {theirs / ours:.1f} times as long per image as sign-opt")
    for name in dict.fromkeys(row["attack"] for row in rows) if len(options.runs) > 1 else ():
        print(name, *(f"{mark}: {spread(rows, name, mark)}" for mark in rows[0]["median"]), sep="  ")
    print(json.dumps(rows))


def spread(rows: list[dict[str, Any]], name: str, mark: int) -> str:
    """Return mean and sample standard deviation over the runs of an attack's median distance."""
    medians = [row["median"][mark] for row in rows if row["attack"] == name]
    return f"{np.mean(medians):.3f} ± {np.std(medians, ddof=1):.3f}"


def opened(run: str, attacks: list[dict[str, Any]], samples: int) -> OpenedEvaluation:
    vicinity = {"use": "l2", "eps": 1.0}
    return open_evaluation(run, attacks=attacks, vicinity=vicinity, samples=samples, batch_size=samples)


def measured(evaluation: OpenedEvaluation, number: int, name: str) -> dict[str, Any]:
    """Run an attack on the correctly classified samples, and return its times and distances."""
    watch = Stopwatch(evaluation.evaluation.model)
    found: list[Sample] = []
    with evaluation.running():
        watch.seconds = 0.0
        began = time.perf_counter()
        for step, view, vicinity in evaluation.steps(evaluation.attacks[number], number):
            search = evaluation.attacks[number].perturbation
            assert isinstance(search, HardLabel)
            found += search.samples(step, view, vicinity)
        seconds = time.perf_counter() - began
    return summed_up(name, found, seconds, watch.seconds)


class Spent(BaseException):
    """End ART's attack when the budget is spent."""


class Counted(nn.Module):
    """Count the rows that reach a model, and record the nearest adversarial example of a sample."""

    def __init__(self, model: nn.Module, sample: Sample, label: int) -> None:
        super().__init__()
        self.model, self.sample, self.label = model, sample, label

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.sample.left:
            raise Spent
        logits: torch.Tensor = self.model(x)
        self.sample.note(x.flatten(1).numpy(), (logits.argmax(1) != self.label).numpy())
        return logits


def measured_art(evaluation: OpenedEvaluation, queries: int) -> dict[str, Any]:
    """Run ART's SignOPTAttack on the correctly classified samples, one at a time, as its users do."""
    from art.attacks.evasion import SignOPTAttack
    from art.estimators.classification import PyTorchClassifier

    model = evaluation.evaluation.model
    watch = Stopwatch(model)
    found: list[Sample] = []
    shape, classes = evaluation.shape, evaluation.evaluation.task.info.classes
    with evaluation.running(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        np.random.seed(0)
        watch.seconds = 0.0
        began = time.perf_counter()
        for _, view, _ in evaluation.steps(evaluation.attacks[0], 0):
            for x, label in zip(view.x, view.y.tolist(), strict=True):
                sample = Sample(x.flatten().numpy(), np.random.default_rng(0), 2.0, queries)
                found.append(sample)
                classifier = PyTorchClassifier(
                    Counted(model, sample, label),
                    nn.CrossEntropyLoss(),
                    shape,
                    classes,
                    clip_values=(0.0, 1.0),
                    device_type="cpu",
                )
                attack = SignOPTAttack(
                    classifier, targeted=False, max_iter=10**6, query_limit=queries, verbose=False
                )
                with contextlib.suppress(Spent):
                    attack.generate(x[None].numpy())
        seconds = time.perf_counter() - began
    return summed_up("ART's SignOPTAttack", found, seconds, watch.seconds)


def summed_up(name: str, found: list[Sample], seconds: float, inside: float) -> dict[str, Any]:
    """Print and return the times and distances of an attack."""
    medians = np.median(distances_at(found, MARKS), axis=0).tolist()
    row: dict[str, Any] = {
        "attack": name,
        "images": len(found),
        "queries": float(np.mean([sample.asked for sample in found])),
        "seconds_per_image": seconds / len(found),
        "model_share": inside / seconds,
        "median": dict(zip(MARKS, medians, strict=True)),
    }
    shown = "  ".join(f"{mark}: {median:.4f}" for mark, median in row["median"].items())
    print(
        f"{name:20} {len(found):4} images  {row['seconds_per_image']:.3f} s per image  "
        f"model {100 * row['model_share']:.0f} %  median L2 at queries {shown}",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
