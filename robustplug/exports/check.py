"""Compare an exported file with the model that it was exported from."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..core.reporting import Silent
from ..core.task import score_name
from ..core.types import Batch, Feed, View
from ..errors import RunError
from ..subjects.subject import open_subject
from .writers import of_transformers

if TYPE_CHECKING:
    from ..core.task import Task
    from ..core.types import Split
    from .content import Content

BATCHES = 10
# Largest difference of two logits, in units of the largest logit of the model, or of 1 if that is larger.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Agreement:
    """Hold how far a file and its model agree.

    Attributes:
        batches, samples: number of batches and samples that both were run on.
        same: number of samples with the same prediction.
        difference: largest difference of two logits.
        tolerance: largest difference that is accepted.
        accuracies: accuracy of the model, and of the file, in [0, 1].
        score: what the accuracy is called; see `score_name`.
    """

    batches: int
    samples: int
    same: int
    difference: float
    tolerance: float
    accuracies: tuple[float, float]
    score: str = "accuracy"

    @property
    def holds(self) -> bool:
        """Return whether the logits agree; then predictions differ only where two classes are tied."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        """Return the numbers as a sentence without an end."""
        before, after = self.accuracies
        return (
            f"{self.same} of {self.samples} predictions in {self.batches} batches agree, the logits differ "
            f"by at most {self.difference:.2g} (accepted: {self.tolerance:.2g}), and the {self.score} is "
            f"{before:.1%} before and {after:.1%} after"
        )


def batches_of(task: Task, split: Split, batch_size: int) -> Iterator[Batch]:
    """Yield ten batches from the start of a split, or fewer if it has fewer samples.

    Args:
        task: the task of the run.
        split: the split that the run is evaluated on.
        batch_size: most rows of a batch.
    """
    rows = max(1, min(batch_size, math.ceil(task.info.sizes[split] / BATCHES)))
    return islice(task.batches(split, Feed(batch_size=rows)), BATCHES)


def reopened(content: Content, path: Path, task: Task) -> nn.Module:
    """Open an exported file again, as an evaluation does.

    Raises:
        RunError: it cannot be opened.
    """
    inner = of_transformers(content.module)
    if path.is_dir() and inner is not None:
        module = copy.deepcopy(content.module)
        loaded = type(inner).from_pretrained(path, local_files_only=True).eval()
        return _with_part(module, of_transformers(module), loaded)
    opening: Any = {"data": task, "device": "cpu", "reporter": Silent()}
    return open_subject(path, opening).exported


def _with_part(module: nn.Module, part: nn.Module, other: nn.Module) -> nn.Module:
    """Return a module with another module in the place of one of its parts, or of itself."""
    for above in module.modules():
        for name, child in above.named_children():
            if child is part:
                setattr(above, name, other)
                return module
    return other


def compare(one: nn.Module, other: nn.Module, task: Task, split: Split, batch_size: int) -> Agreement:
    """Run a model and its exported file on ten batches.

    Args:
        one, other: modules from inputs to logits, in eval mode.
        task, split, batch_size: as for `batches_of`.

    Raises:
        RunError: their outputs differ in shape.
    """
    count = samples = same = 0
    difference = largest = 0.0
    right = [0, 0]
    with torch.no_grad():
        for batch in batches_of(task, split, batch_size):
            before, after = one(batch.x), other(batch.x)
            if before.shape != after.shape:
                raise RunError(f"it returns {tuple(after.shape)}, the model {tuple(before.shape)}")
            gap = (before - after).abs().max()
            # A number that is not finite never agrees.
            difference = max(difference, float(gap) if gap.isfinite() else math.inf)
            largest = max(largest, float(before.abs().max()))
            same += int((before.argmax(1) == after.argmax(1)).sum())
            for place, output in enumerate((before, after)):
                right[place] += int(task.score(View.of(batch, "clean"), output).sum())
            count, samples = count + 1, samples + len(batch)
    accuracies = (right[0] / samples, right[1] / samples)
    tolerance = TOLERANCE * max(1.0, largest)
    return Agreement(count, samples, same, difference, tolerance, accuracies, score_name(task))
