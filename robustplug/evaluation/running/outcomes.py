"""What the batches of a row hold, in a few bytes for each sample, however many there are."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...devices.processes import Processes
    from ...text.records import TextRecord
    from ..kept.records import Chunk
    from ..measuring.bounds import Reached


@dataclass
class Outcomes:
    """Collect what the batches of a row hold; see Chunk.

    Attributes:
        right: indices of the samples that are still correct.
        counts: numbers of rows, rejected results, forward passes and backward passes.
        distances: L∞ and L2 of each successful adversarial example, one after the other.
        broken, reached: indices and distances of the samples that were broken, where both are known.
        seconds: wall time.
        measures: values of each sample, by name.
        told: the broken sample of the lowest index, or else the sample of the lowest.
        index, predicted: indices of samples, and the class that each is taken for.
        sure, confidence: indices of samples, and the probability of the prediction, of the clean row.
        texts: of a task of texts, index and record of each sample.
        prepared: forward passes that the attack spent once for all batches.
    """

    right: array[int] = field(default_factory=lambda: array("q"))
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    distances: array[float] = field(default_factory=lambda: array("d"))
    broken: array[int] = field(default_factory=lambda: array("q"))
    reached: array[float] = field(default_factory=lambda: array("d"))
    seconds: float = 0.0
    measures: dict[str, array[float]] = field(default_factory=dict)
    told: tuple[bool, int, str] | None = None
    index: array[int] = field(default_factory=lambda: array("q"))
    predicted: array[int] = field(default_factory=lambda: array("q"))
    sure: array[int] = field(default_factory=lambda: array("q"))
    confidence: array[float] = field(default_factory=lambda: array("d"))
    texts: list[tuple[int, TextRecord]] = field(default_factory=list)
    prepared: int = 0

    def add(self, chunk: Chunk) -> None:
        """Add what a batch holds."""
        right = set(chunk.right)
        self.right.extend(chunk.right)
        self.counts = [a + b for a, b in zip(self.counts, chunk.counts, strict=True)]
        pairs = [value for pair in chunk.distances for value in pair]
        self.distances.extend(pairs)
        broken = [index for index in chunk.index if index not in right]
        if len(broken) == len(chunk.distances):
            self.broken.extend(broken)
            self.reached.extend(pairs)
        self.seconds += chunk.seconds
        for name, values in chunk.measures.items():
            self.measures.setdefault(name, array("d")).extend(values)
        known = [each for each in (self.told, chunk.told) if each is not None]
        self.told = min(known, key=lambda said: (not said[0], said[1])) if known else None
        self.index.extend(chunk.index)
        self.predicted.extend(chunk.predicted)
        if chunk.confidence:
            self.sure.extend(chunk.index)
            self.confidence.extend(chunk.confidence)
        self.texts += chunk.texts
        self.prepared = max(self.prepared, chunk.prepared)

    def medians(self, processes: Processes) -> dict[str, float]:
        """Return the median distances of the successful adversarial examples; none if there are none."""
        pairs = processes.gather_numbers(self.distances).float().view(-1, 2)
        if not len(pairs):
            return {}
        linf, l2 = pairs.median(0).values.tolist()
        return {"linf": linf, "l2": l2}

    def example(self, processes: Processes) -> str:
        """Return the description of one sample; "" for none."""
        told = [] if self.told is None else [json.dumps(self.told)]
        known = [json.loads(line) for line in processes.gather_lines(told)]
        return min(known, key=lambda said: (not said[0], said[1]))[2] if known else ""

    def how_far(self, processes: Processes) -> Reached:
        """Return how far the inputs are that broke a sample; nothing for a task without classes."""
        index = processes.gather_numbers(self.broken).tolist()
        pairs = processes.gather_numbers(self.reached).view(-1, 2).tolist()
        return {sample: (linf, l2) for sample, (linf, l2) in zip(index, pairs, strict=True)}
