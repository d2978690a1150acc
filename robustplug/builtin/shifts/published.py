"""Corrupted images from files in the layout of CIFAR-10-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...api import BrokenData, DataMissing

if TYPE_CHECKING:
    from ...api import Batch

_SEVERITIES = 5
_MEND = "set root to the unpacked folder CIFAR-10-C (or CIFAR-100-C), or leave it out to compute the images"


class Published:
    """Read the images of one kind and severity, a few rows at a time.

    `<kind>.npy` contains uint8 images (5n, H, W, C): all n test images of severity 1, then those of
    severity 2, and so on; `labels.npy` contains their 5n labels.

    Args:
        root: folder of the files.
        kind: name of the corruption.
        severity: severity from 1 to 5.

    Raises:
        DataMissing: a file is missing.
        BrokenData: a file cannot be read, or has other contents.
    """

    def __init__(self, root: Path, kind: str, severity: int) -> None:
        self.path, labels_path = root / f"{kind}.npy", root / "labels.npy"
        self._images, labels = _load(self.path), _load(labels_path)
        shape = self._images.shape
        if self._images.dtype != np.uint8 or len(shape) != 4 or not shape[0] or shape[0] % _SEVERITIES:
            raise BrokenData(
                f"{self.path} holds {self._images.dtype} {shape}, not uint8 images (5n, H, W, C); {_MEND}"
            )
        if labels.dtype.kind not in "iu" or labels.shape != shape[:1]:
            raise BrokenData(
                f"{labels_path} holds {labels.dtype} {labels.shape}, not the {shape[0]} integer labels "
                f"of {self.path.name}; {_MEND}"
            )
        self._labels, self._size = labels, shape[0] // _SEVERITIES
        self._first = (severity - 1) * self._size

    def images(self, batch: Batch) -> NDArray[np.uint8]:
        """Return the corrupted images of a batch, 8-bit levels (N, C, H, W).

        Raises:
            BrokenData: the files contain fewer images, images of another size, or other labels.
        """
        index = batch.index.cpu().numpy()
        if len(index) and index.max() >= self._size:
            raise BrokenData(
                f"{self.path} holds {self._size} images and none for sample {index.max()}: published files "
                "belong to a test split; evaluate that split, or leave root out to compute the corruption"
            )
        height, width, channels = self._images.shape[1:]
        if tuple(batch.x.shape[1:]) != (channels, height, width):
            raise BrokenData(
                f"{self.path} holds images {(channels, height, width)}, but the task has "
                f"{tuple(batch.x.shape[1:])}; {_MEND}"
            )
        rows = self._first + index
        labels = (batch.y.argmax(1) if batch.y.dim() == 2 else batch.y).cpu().numpy()
        wrong = np.flatnonzero(self._labels[rows] != labels)
        if len(wrong):
            raise BrokenData(
                f"{self.path.with_name('labels.npy')} has label {self._labels[rows[wrong[0]]]} for sample "
                f"{index[wrong[0]]}, but the task has {labels[wrong[0]]}: the files belong to other images "
                "or to another split; evaluate the test split of their data set, or leave root out"
            )
        found: NDArray[np.uint8] = np.ascontiguousarray(self._images[rows].transpose(0, 3, 1, 2))
        return found


def _load(path: Path) -> NDArray[Any]:
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataMissing(f"{path.absolute()} does not exist; {_MEND}") from error
    except (OSError, ValueError, EOFError) as error:
        raise BrokenData(f"{path} is not a complete .npy file ({error}); unpack the archive again") from error
    if not isinstance(array, np.ndarray):
        raise BrokenData(f"{path} is not a .npy file; {_MEND}")
    return array
