"""Made-up data in the forms of CIFAR-10, for a dry run."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from .device import TINY

CLASSES, _ROWS, _PIXELS = 10, 20, 3 * 32 * 32


def write_pickles(folder: Path) -> None:
    """Write batches of the Python version."""
    for name, pixels, labels in _batches():
        place = folder / "cifar-10-batches-py"
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels.tolist()}))


def write_binary(folder: Path) -> None:
    """Write batches of the binary version."""
    for name, pixels, labels in _batches():
        place = folder / "cifar-10-batches-bin"
        place.mkdir(parents=True, exist_ok=True)
        rows = np.concatenate([labels[:, None].astype(np.uint8), pixels], 1)
        (place / f"{name}.bin").write_bytes(rows.tobytes())


def _batches() -> list[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return [
        (name, rng.integers(0, 256, (_ROWS, _PIXELS), dtype=np.uint8), np.arange(_ROWS) % CLASSES)
        for name in names
    ]


def write_pictures(folder: Path) -> None:
    """Write train/ and test/, each with a folder of JPEG files for each class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for label in range(CLASSES):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (TINY.side, TINY.side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.jpg", quality=95)
