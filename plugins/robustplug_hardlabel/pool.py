"""Many searches at once: each requests the decisions it needs, and one model call serves them all."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

Search = Generator[Array, Any, None]
"""Yields points (q, D) and receives the model's reply to each: whether it is adversarial, bool (q,), or in
score-based searches the log-probabilities, float32 (q, K)."""


class SearchFailed(RuntimeError):
    """Report that the model failed during a search.

    Attributes:
        samples: the samples, with the best points found so far.
    """

    def __init__(self, message: str, samples: Sequence[Sample]) -> None:
        super().__init__(message)
        self.samples = samples


# Input numbers of one model call on a CPU: with more, caches overflow and convolutions take twice as long.
NUMBERS = 2**18
# Input numbers of all samples searched at once; their requests have up to some hundred times as many.
AT_ONCE = 2**20
# ROWS: rows of one model call on other devices, and at most on a CPU. FEWEST: at least on a CPU.
ROWS, FEWEST = 1024, 32


class Objective(Protocol):
    """The objective that a search minimises: an increasing function of the length along each direction."""

    def value(self, theta: Array, length: float) -> float:
        """Return the objective at length · θ, for a direction (D,) of length 1."""
        ...

    def lengths(self, thetas: Array, value: float) -> Any:
        """Return the lengths (q,) along directions (q, D) at which the objective takes a value."""
        ...


class Plain:
    """The length itself: Eq. (2.13)."""

    def value(self, theta: Array, length: float) -> float:
        """Return the length."""
        return length

    def lengths(self, thetas: Array, value: float) -> Any:
        """Return the value, for each direction."""
        return np.full(len(thetas), value)


@dataclass
class Sample:
    """Hold the state of one sample's search: its remaining budget and its best point.

    Attributes:
        x: the sample, (D,).
        rng: the sample's own random generator, so that results do not depend on the batch.
        norm: 2 or math.inf, the norm of distances.
        left: number of queries left.
        radius: radius of the threat model in that norm.
        label: class of the sample; −1 if labels are not classes.
        goal: target class; −1 for an untargeted attack.
        starts: images of the target class to start from, (n, D); None for random directions.
        objective: the objective to minimise.
        best: the nearest adversarial point queried, as the model saw it, (D,); None for none.
        distance: distance of that point.
        trace: (queries so far, distance) at each improvement.
        path: the points of the trace; None if they are not kept.
        asked: number of queries so far.
    """

    x: Array
    rng: np.random.Generator
    norm: float
    left: int
    radius: float = math.inf
    label: int = -1
    goal: int = -1
    starts: Array | None = None
    objective: Objective = field(default_factory=Plain)
    best: Array | None = None
    distance: float = math.inf
    trace: list[tuple[int, float]] = field(default_factory=list)
    path: list[Array] | None = None
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
        """Count an answered request, and keep its best point."""
        self.asked += len(points)
        self.left -= len(points)
        if adversarial.any():
            found = points[adversarial]
            distances = self.lengths(found - self.x)
            least = int(distances.argmin())
            if distances[least] < self.distance:
                self.best, self.distance = found[least].copy(), float(distances[least])
                self.trace.append((self.asked, self.distance))
                if self.path is not None:
                    self.path.append(self.best)


Oracle = Callable[[Array, npt.NDArray[np.int64]], tuple[Flags, Any]]
"""(points (M, D) in [0, 1], sample number of each (M,)) -> adversarial, bool (M,), and the replies."""


def rows_of_call(width: int, cpu: bool) -> int:
    """Return the number of points of a width in one model call, unless one request has more."""
    return min(ROWS, max(FEWEST, NUMBERS // width)) if cpu else ROWS


def run(
    samples: Sequence[Sample],
    search: Callable[[Sample], Search],
    oracle: Oracle,
    enough: Callable[[int, Sample], bool],
    rows: int = ROWS,
) -> None:
    """Run a search for each sample until all are done, and serve their requests in shared model calls.

    A search ends when it returns, when its request exceeds its budget, or when its result is good enough.

    Args:
        samples: the samples; their `best` and `left` are updated.
        search: factory of the search of a sample.
        oracle: queries the model.
        enough: (number, sample) -> whether the best point is good enough.
        rows: number of rows of one call, unless one request has more.

    Raises:
        SearchFailed: the oracle raised.
    """
    waiting = deque(number for number, sample in enumerate(samples) if sample.left > 0)
    searches: dict[int, Search] = {}
    pending: dict[int, Array] = {}
    while waiting or pending:
        # Large inputs are searched in groups: the requests of all would not fit into memory.
        while waiting and len(searches) < _room(samples):
            number = waiting.popleft()
            searches[number] = search(samples[number])
            _advance(number, searches[number], None, samples, searches, pending)
        for numbers in _calls(pending, rows):
            points = np.concatenate([pending[number] for number in numbers]).clip(0, 1)
            counts = [len(pending[number]) for number in numbers]
            try:
                flags, replies = oracle(points, np.repeat(np.array(numbers, dtype=np.int64), counts))
            except Exception as error:  # a model may run any code
                raise failed(error, samples) from error
            start = 0
            for number, count in zip(numbers, counts, strict=True):
                part = slice(start, start + count)
                start += count
                samples[number].note(points[part], flags[part])
                del pending[number]
                if enough(number, samples[number]):
                    searches.pop(number).close()
                else:
                    _advance(number, searches[number], replies[part], samples, searches, pending)


def _room(samples: Sequence[Sample]) -> int:
    """Return the number of searches that may run at once."""
    return max(1, AT_ONCE // len(samples[0].x))


def failed(error: Exception, samples: Sequence[Sample]) -> SearchFailed:
    """Return an error that reports after how many queries the model failed, with the samples so far."""
    said = next((line for line in str(error).splitlines() if line.strip()), "no message").strip()
    found = sum(sample.best is not None for sample in samples)
    asked = sum(sample.asked for sample in samples)
    return SearchFailed(
        f"the model failed after {asked:,} queries: {type(error).__name__}: {said}; adversarial points were "
        f"found for {found} of {len(samples)} samples before that",
        samples,
    )


def _advance(
    number: int,
    one: Search,
    replies: Any,
    samples: Sequence[Sample],
    searches: dict[int, Search],
    pending: dict[int, Array],
) -> None:
    """Send a search its replies, and store its next request."""
    try:
        request = next(one) if replies is None else one.send(replies)
    except StopIteration:
        del searches[number]
        return
    if len(request) > samples[number].left:
        searches.pop(number).close()
        return
    pending[number] = request


def _calls(pending: dict[int, Array], most: int) -> Iterator[list[int]]:
    """Yield the numbers of the samples that share a model call, in order."""
    numbers: list[int] = []
    rows = 0
    for number, request in list(pending.items()):
        if numbers and rows + len(request) > most:
            yield numbers
            numbers, rows = [], 0
        numbers.append(number)
        rows += len(request)
    if numbers:
        yield numbers
