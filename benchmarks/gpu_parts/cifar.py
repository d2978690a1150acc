"""CIFAR-10 from a folder, in any of its usual forms, as tensors."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from robustplug.api import ArrayTask

Part = tuple[Tensor, Tensor]
# Samples of the training part that are held out for validation, where no folder holds any.
HELD_OUT = 1000
_PIXELS = 3 * 32 * 32


class Arrays(pickle.Unpickler):
    """Read pickled NumPy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what rebuilds an array.

        Raises:
            UnpicklingError: it is anything else.
        """
        if module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of CIFAR-10")


def unpickled(file: IO[bytes]) -> Part:
    """Return the images and labels of a batch of the Python version."""
    table = Arrays(file, encoding="bytes").load()
    return _part(np.asarray(table[b"data"], np.uint8), np.asarray(table[b"labels"]))


def binary(file: IO[bytes]) -> Part:
    """Return the images and labels of a file of the binary version: a label, then the pixels, by rows."""
    rows = np.frombuffer(file.read(), np.uint8).reshape(-1, 1 + _PIXELS)
    return _part(rows[:, 1:], rows[:, 0])


def _part(pixels: np.ndarray, labels: np.ndarray) -> Part:
    x = torch.from_numpy(np.array(pixels)).reshape(-1, 3, 32, 32)
    return x, torch.from_numpy(labels.astype(np.int64))


def find(folder: Path) -> tuple[str, Path]:
    """Return the form of the data in a folder, and where they are.

    Raises:
        ValueError: there are none.
    """
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        if (place / "data_batch_1").is_file():
            return "python", place
        if (place / "data_batch_1.bin").is_file():
            return "binary", place
    if folder.is_dir() and any(child.is_dir() for child in folder.iterdir()):
        return "pictures", folder
    raise ValueError(
        f"{folder} holds neither cifar-10-batches-py, nor cifar-10-batches-bin, nor folders train and test "
        "with a folder of pictures for each class"
    )


def read(folder: Path, workers: int) -> ArrayTask:
    """Return CIFAR-10, or pictures in class folders, in memory as uint8, with its usual augmentation.

    Args:
        folder: where the data are.
        workers: processes that decode pictures.

    Raises:
        ValueError: there are none, or they cannot be used.
    """
    from robustplug.api import ArrayTask, stratified_split, stream
    from robustplug.builtin.tasks.augment import Augmentation

    form, place = find(folder)
    if form == "pictures":
        data, names = _pictures(place, workers)
    else:
        ending, load = ("", unpickled) if form == "python" else (".bin", binary)

        def joined(*files: str) -> Part:
            parts = [load(io.BytesIO((place / f"{name}{ending}").read_bytes())) for name in files]
            return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

        x, y = joined(*(f"data_batch_{number}" for number in range(1, 6)))
        held = min(HELD_OUT, len(y) // 2)
        kept, validation = stratified_split(y, (held,), stream(0, "split"))
        data = {
            "train": (x[kept], y[kept]),
            "validation": (x[validation], y[validation]),
            "test": joined("test_batch"),
        }
        names = ()
    augmentation = Augmentation(pad=4, flip=True)
    return ArrayTask(data, classes=max(10, len(names)), class_names=names, augmentation=augmentation)  # type: ignore[arg-type]


def _pictures(folder: Path, workers: int) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Decode pictures in class folders; see the task image-folder for the folders of the splits."""
    import robustplug
    from robustplug.api import Feed

    task = robustplug.build("task", "image-folder", root=str(folder), workers=workers, validation="1/50")
    data = {}
    for split in ("train", "validation", "test"):
        batches = list(task.batches(split, Feed(batch_size=500)))
        x = torch.cat([batch.x for batch in batches])
        # They were divided by 255.
        data[split] = (x * 255).round().to(torch.uint8), torch.cat([batch.y for batch in batches])
    return data, task.info.class_names
