"""Check pictures before they are used, and share them out to the splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Protocol

import torch

from ...api import BrokenData, Split, check_picture, stratified_split, stream
from . import PictureOptions

# Files that are checked at a time: more would help slow disks, but costs time on fast ones.
_THREADS = 4
_AT_ONCE = 4096
# Errors name this many files.
_NAMED = 5

Size = tuple[int, int]


class Entry(Protocol):
    """A picture that is no file of its own; its text is its name."""

    def open(self) -> IO[bytes]:
        """Return the encoded picture.

        Raises:
            BrokenData: it cannot be read.
        """
        ...


Source = str | Entry
Samples = list[tuple[Source, int]]


class Inspection:
    """Check pictures before they are used, and collect their sizes and what is broken.

    Args:
        options: what is asked of the pictures.
    """

    def __init__(self, options: PictureOptions) -> None:
        self.options = options
        self.sizes: Counter[Size] = Counter()
        self.broken: list[str] = []
        self._named: dict[Size, str] = {}

    def sound(self, samples: Samples) -> Samples:
        """Return the samples whose pictures can be read.

        Raises:
            BrokenData: some cannot, unless they are to be skipped; the message names them.
        """
        kept, bad = [], []
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(samples), _AT_ONCE):
                block = samples[start : start + _AT_ONCE]
                for sample, found in zip(block, pool.map(self._check, block), strict=True):
                    if isinstance(found, BrokenData):
                        bad.append(str(found))
                        continue
                    kept.append(sample)
                    self.sizes[found] += 1
                    self._named.setdefault(found, str(sample[0]))
        self.reject(bad, len(samples))
        return kept

    def reject(self, broken: Sequence[str], total: int) -> None:
        """Note the samples that cannot be used.

        Args:
            broken: a message for each.
            total: number of samples that were looked at.

        Raises:
            BrokenData: there are some, unless they are to be skipped and others are left.
        """
        self.broken += broken
        if broken and (self.options.broken == "error" or len(broken) == total):
            left = len(broken) - _NAMED
            more = [f"… and {left} more; robustplug describe lists all with --check"] if left > 0 else []
            first = (
                f"{len(broken)} of {total} samples cannot be used; mend or remove them, or leave them out "
                'with task.broken = "skip":'
            )
            raise BrokenData("\n".join([first, *broken[:_NAMED], *more]))

    def size(self) -> Size:
        """Return the height and width that the pictures are brought to.

        Raises:
            ValueError: it is not given and the pictures differ, or a picture would have to be enlarged.
        """
        least = min(self.sizes, key=lambda size: (min(size), size))
        height, width = least
        if self.options.size is None:
            if len(self.sizes) > 1:
                raise ValueError(
                    f"size is not given, and the pictures have {len(self.sizes)} different sizes: say which "
                    f"size they get, for example task.size = {min(least)}, which enlarges none of them"
                )
            return least
        if min(least) < self.options.size and not self.options.upsample:
            raise ValueError(
                f"size = {self.options.size} would enlarge pictures; the smallest, {self._named[least]}, has "
                f"{width} x {height} pixels: choose a size of at most {min(least)}, or set "
                "task.upsample = true"
            )
        return self.options.size, self.options.size

    def notes(self) -> list[str]:
        """Return what the user should read about the pictures."""
        if not self.broken:
            return []
        return [f"broken samples skipped: {len(self.broken)}, the first: {self.broken[0]}"]

    def _check(self, sample: tuple[Source, int]) -> Size | BrokenData:
        source = sample[0]
        try:
            opened = source if isinstance(source, str) else source.open()
            return check_picture(opened, self.options.alpha, str(source))
        except BrokenData as error:
            return error


def held_out(
    train: Samples, validation: Samples | float, test: Samples | float, seed: int
) -> dict[Split, Samples]:
    """Return the samples of each split, in a random order that mixes the classes.

    Args:
        train: all samples that have no split of their own.
        validation, test: samples, or the share of `train` that is held out, stratified; 0 for none.
        seed: seed of the split.

    Raises:
        ValueError: nothing is left for training.
    """
    shares = [
        max(1, round(part * len(train))) if isinstance(part, float) and part else 0
        for part in (validation, test)
    ]
    labels = torch.tensor([label for _, label in train])
    parts = [
        [train[i] for i in part.tolist()] for part in stratified_split(labels, shares, stream(seed, "split"))
    ]
    return {
        "train": parts[0],
        "validation": parts[1] if isinstance(validation, float) else mixed(validation, seed),
        "test": parts[2] if isinstance(test, float) else mixed(test, seed),
    }


def mixed(samples: Samples, seed: int) -> Samples:
    """Return samples in a random order whose beginnings hold the classes in proportion."""
    labels = torch.tensor([label for _, label in samples])
    (order,) = stratified_split(labels, (), stream(seed, "order"))
    return [samples[i] for i in order.tolist()]
