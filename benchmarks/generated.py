"""Generate extra training samples as SMOTE does, for the task `mix`: points between neighbours of a class.

    python benchmarks/generated.py --task digits --out generated-digits.npz
    python benchmarks/generated.py --task mnist --train-samples 4000 --out generated-mnist.npz

The samples lie between training samples alone, so that they say nothing of the validation and test samples.
The file has the arrays "image", float32 (N, C, H, W), and "label", int64 (N,); the same seed gives the same.
Chawla et al. 2002, SMOTE, arXiv:1106.1813.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import robustplug
from robustplug.api import Feed


def smote(x: Tensor, y: Tensor, count: int, rng: torch.Generator, near: int = 5) -> tuple[Tensor, Tensor]:
    """Draw samples between one of x and one of the nearest others of its class.

    Args:
        x: samples, (N, …).
        y: their classes, int64 (N,).
        count: number of samples to draw.
        rng: draws the samples.
        near: number of nearest others.

    Returns:
        The samples (count, …), and their classes (count,).
    """
    chosen = torch.randint(len(x), (count,), generator=rng)
    apart = torch.cdist(x.flatten(1)[chosen], x.flatten(1))
    apart[(y[chosen][:, None] != y) | (torch.arange(len(x)) == chosen[:, None])] = torch.inf
    others = apart.topk(near, largest=False).indices
    other = others[torch.arange(count), torch.randint(near, (count,), generator=rng)]
    between = torch.rand(count, *(1,) * (x.dim() - 1), generator=rng)
    return x[chosen] + between * (x[other] - x[chosen]), y[chosen]


def training_samples(task: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the training inputs and classes of a task, given as the table of a recipe."""
    options = {key: value for key, value in task.items() if key != "use"}
    built = robustplug.build("task", task["use"], **options)
    batches = list(built.batches("train", Feed(batch_size=1024)))
    return torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", required=True, help="name of the task whose training samples are used")
    parser.add_argument("--path", help="its file, for the task arrays")
    parser.add_argument("--train-samples", type=int, help="number of them (default: all)")
    parser.add_argument("--count", type=int, default=5000, help="number of samples to generate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    few = {"train_samples": options.train_samples} if options.train_samples else {}
    task = {"use": options.task, **few, **({"path": options.path} if options.path else {})}
    rng = torch.Generator().manual_seed(options.seed)
    x, y = smote(*training_samples(task), options.count, rng)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(options.out, image=x.numpy(), label=y.numpy())
    print(f"{options.out}: {len(x)} samples between {task['use']}'s training samples")


if __name__ == "__main__":
    main()
