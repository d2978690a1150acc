"""Write a part of CIFAR-10 as arrays, for the study modern-cifar10-subset.

    python benchmarks/cifar_subset.py FOLDER --train 2000 --test 1000 --out cifar10-subset.npz

FOLDER holds cifar-10-batches-py, cifar-10-batches-bin, or train/ and test/ with a folder of pictures for each
class. The images are drawn without replacement, with the same seed for everyone, and are in random order.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_parts.cifar import read

from robustplug.api import Feed, Split


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--train", type=int, default=2000, help="number of training images")
    parser.add_argument("--test", type=int, default=1000, help="number of test and of validation images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    task, rng = read(options.folder, workers=0), torch.Generator().manual_seed(options.seed)
    arrays: dict[str, Any] = {}
    parts: Mapping[Split, int] = {"train": options.train, "validation": options.test, "test": options.test}
    for split, most in parts.items():
        batches = list(task.batches(split, Feed(batch_size=500)))
        y = torch.cat([batch.y for batch in batches])
        chosen = torch.randperm(len(y), generator=rng)[:most]
        x = torch.cat([batch.x for batch in batches])[chosen]
        # They were divided by 255.
        arrays |= {f"x_{split}": (255 * x).round().to(torch.uint8).numpy(), f"y_{split}": y[chosen].numpy()}
    np.savez(options.out, **arrays)
    sizes = ", ".join(f"{len(arrays[f'y_{split}'])} {split}" for split in parts)
    print(f"{options.out}: {sizes}")


if __name__ == "__main__":
    main()
