"""The digits bundled with scikit-learn."""

from __future__ import annotations

import torch

from ...api import ArrayTask, stratified_split, stream
from . import DigitsOptions
from .augment import Augmentation


def digits(options: DigitsOptions) -> ArrayTask:
    """Build the task: 1,797 images (1, 8, 8) in [0, 1] with 17 grey levels, 10 classes.

    Raises:
        ValueError: the held-out splits leave no samples for training.
    """
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32).div(16).reshape(-1, 1, 8, 8)
    y = torch.tensor(targets, dtype=torch.int64)
    rng = stream(options.split_seed, "split")
    train, validation, test = stratified_split(y, (options.validation, options.test), rng)
    return ArrayTask(
        {
            "train": (x[train], y[train]),
            "validation": (x[validation], y[validation]),
            "test": (x[test], y[test]),
        },
        class_names=[str(digit) for digit in range(10)],
        default_model="small-cnn",
        augmentation=Augmentation(pad=1 if options.augment else 0),
    )
