"""Many searches at once: each asks for the decisions it needs, and one model call answers all."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

Search = Generator[Array, Flags, None]
"""Yields points (q, D), and is sent for each whether it is adversarial, bool (q,)."""

# Rows of one model call.
ROWS = 1024


@dataclass
class Sample:
    """Hold one sample's search: what it may ask, and the best that it has found.

    Attributes:
        x: the sample, (D,).
        rng: its own generator, so that nothing depends on who shares a batch.
        norm: 2 or math.inf: how distances are measured.
        left: queries that it may still ask.
        best: the nearest adversarial point that was asked, as the model saw it, (D,); None for none.
        distance: of that point.
        trace: (queries so far, distance) at each improvement.
    """

    x: Array
    rng: np.random.Generator
    norm: float
    left: int
    best: Array | None = None
    distance: float = math.inf
    trace: list[tuple[int, float]] = field(default_factory=list)
    asked: int = 0

    def length(self, delta: Array) -> float:
        """Return the norm of a vector (D,)."""
        if self.norm == 2:
            return math.sqrt(float(delta @ delta))
        return float(np.abs(delta).max(initial=0.0))

    def lengths(self, deltas: Array) -> Any:
        """Return the norm of each row of (q, D)."""
        if self.norm == 2:
            return np.sqrt(np.einsum("qd,qd->q", deltas, deltas))
        return np.abs(deltas).max(1, initial=0.0)

    def unit(self, direction: Array) -> Array:
        """Scale a direction to length 1."""
        scaled: Array = direction / np.float32(max(self.length(direction), 1e-12))
        return scaled

    def gaussian(self, count: int) -> Array:
        """Draw directions from N(0, 1), (count, D)."""
        return self.rng.standard_normal((count, len(self.x)), dtype=np.float32)

    def note(self, points: Array, adversarial: Flags) -> None:
        """Count an answered request, and keep the best of it."""
        self.asked += len(points)
        self.left -= len(points)
        if adversarial.any():
            found = points[adversarial]
            distances = self.lengths(found - self.x)
            least = int(distances.argmin())
            if distances[least] < self.distance:
                self.best, self.distance = found[least].copy(), float(distances[least])
                self.trace.append((self.asked, self.distance))


def run(
    samples: Sequence[Sample],
    search: Callable[[Sample], Search],
    oracle: Callable[[Array, npt.NDArray[np.int64]], Flags],
    enough: Callable[[int, Sample], bool],
) -> None:
    """Run a search for each sample until all are done, serving the requests of all in common calls.

    A search ends when it returns, when it asks for more than it has left, or when its result is enough.

    Args:
        samples: whose `best` and `left` are updated.
        search: makes the search of a sample.
        oracle: (points (M, D) in [0, 1], number of the sample of each (M,)) -> adversarial, bool (M,).
        enough: (number, sample) -> its best point will do.
    """
    searches = {number: search(sample) for number, sample in enumerate(samples) if sample.left > 0}
    pending: dict[int, Array] = {}
    for number, one in list(searches.items()):
        _advance(number, one, None, samples, searches, pending)
    while pending:
        for numbers in _calls(pending):
            points = np.concatenate([pending[number] for number in numbers]).clip(0, 1)
            counts = [len(pending[number]) for number in numbers]
            flags = oracle(points, np.repeat(np.array(numbers, dtype=np.int64), counts))
            start = 0
            for number, count in zip(numbers, counts, strict=True):
                asked, answers = points[start : start + count], flags[start : start + count]
                start += count
                samples[number].note(asked, answers)
                del pending[number]
                if enough(number, samples[number]):
                    searches.pop(number).close()
                else:
                    _advance(number, searches[number], answers, samples, searches, pending)


def _advance(
    number: int,
    one: Search,
    answers: Flags | None,
    samples: Sequence[Sample],
    searches: dict[int, Search],
    pending: dict[int, Array],
) -> None:
    """Send a search its answers, and note what it asks for next."""
    try:
        request = next(one) if answers is None else one.send(answers)
    except StopIteration:
        del searches[number]
        return
    if len(request) > samples[number].left:
        searches.pop(number).close()
        return
    pending[number] = request


def _calls(pending: dict[int, Array]) -> Iterator[list[int]]:
    """Yield the samples that share a model call, in order."""
    numbers: list[int] = []
    rows = 0
    for number, request in list(pending.items()):
        if numbers and rows + len(request) > ROWS:
            yield numbers
            numbers, rows = [], 0
        numbers.append(number)
        rows += len(request)
    if numbers:
        yield numbers
