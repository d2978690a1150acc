"""The digits bundled with scikit-learn."""

from __future__ import annotations

import functools
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...api import ArrayTask, Split, stratified_split, stream
from . import DigitsOptions
from .augment import Augmentation


def digits(options: DigitsOptions) -> ArrayTask:
    """Build the task: 1,797 images (1, 8, 8) in [0, 1] with 17 grey levels, 10 classes or fewer.

    Raises:
        ValueError: the held-out splits leave no samples for training, or a split has none of the classes.
    """
    pixels, targets = _kept()
    x = torch.tensor(pixels, dtype=torch.float32).div(16).reshape(-1, 1, 8, 8)
    y = torch.tensor(targets, dtype=torch.int64)
    rng = stream(options.split_seed, "split")
    train, validation, test = stratified_split(y, (options.validation, options.test), rng)
    kept = range(10) if options.classes is None else options.classes
    renumbered = torch.full((10,), -1).index_copy_(0, torch.tensor(kept), torch.arange(len(kept)))[y]
    splits: dict[Split, Tensor] = {"train": train, "validation": validation, "test": test}
    chosen = {name: rows[renumbered[rows] >= 0] for name, rows in splits.items()}
    return ArrayTask(
        {name: (x[rows], renumbered[rows]) for name, rows in chosen.items()},
        class_names=[str(digit) for digit in kept],
        default_model="small-cnn",
        augmentation=Augmentation(pad=1 if options.augment else 0),
    )


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (1797, 64) in [0, 16] and the digits (1797,), as scikit-learn's `load_digits` does.

    Its file is read without importing scikit-learn, which takes longer than an epoch on these images.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.exists():
            with gzip.open(file, "rt") as text:
                table = np.loadtxt(text, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    return pixels, targets


# To parse them takes longer than many a test; the task copies them.
_kept = functools.cache(read_digits)
