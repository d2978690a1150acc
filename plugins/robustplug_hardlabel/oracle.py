"""Create samples from a step of the engine, and the oracle that queries the model for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustplug.api import Feed, Refused, Step, Vicinity, View, derive

from .objective import Smooth
from .pool import Array, Flags, Oracle, Plain, Sample


class Wanted(NamedTuple):
    """Hold the settings of a search.

    Attributes:
        queries: query budget of each sample.
        target: "none", or "random": a target class drawn for each sample, the same for all attacks.
        starts: number of training images of the target class to start from.
        smooth: whether the smooth objective replaces the length.
        scores: whether the search receives probabilities.
        keep: whether to keep the points of the first sample's trace.
    """

    queries: int
    target: str = "none"
    starts: int = 0
    smooth: bool = False
    scores: bool = False
    keep: bool = False


def make_samples(step: Step, view: View, vicinity: Vicinity, norm: float, wanted: Wanted) -> list[Sample]:
    """Create the samples of a view, each with its own random generator.

    Raises:
        Refused: the search needs classes, and the labels are something else.
    """
    labels: list[int] = [-1] * len(view)
    if wanted.target != "none" or wanted.scores:
        if step.task.info.classes is None or view.y.dim() != 1:
            raise Refused("this attack needs a classification task with one label per sample")
        labels = view.y.tolist()
    flat = view.origin.detach().float().cpu().numpy().reshape(len(view), -1)
    radii, indices = step.radii(view, vicinity).tolist(), view.index.tolist()
    goals = labels if wanted.target == "none" else _goals(step, labels, indices)
    images = {} if wanted.target == "none" else training_images(step, set(goals), wanted.starts)
    samples: list[Sample] = []
    for x, label, goal, radius, index in zip(flat, labels, goals, radii, indices, strict=True):
        # A sample that must not move needs no search.
        sample = Sample(
            x,
            np.random.default_rng(derive(step.seed, "hard-label", index)),
            norm,
            wanted.queries if radius else 0,
            radius,
            label,
            objective=Smooth(radius) if wanted.smooth else Plain(),
            path=[] if wanted.keep and not samples else None,
        )
        if wanted.target != "none":
            sample.goal, sample.starts = goal, images[goal]
        samples.append(sample)
    return samples


def _goals(step: Step, labels: list[int], indices: list[int]) -> list[int]:
    """Draw a target class for each sample from its index alone: the same for all attacks."""
    others = (step.task.info.classes or 0) - 1
    if others < 1:
        raise Refused("a targeted attack needs a second class")
    shifts = [1 + derive(0, "target class", index) % others for index in indices]
    return [(label + shift) % (others + 1) for label, shift in zip(labels, shifts, strict=True)]


def training_images(step: Step, classes: set[int], count: int) -> dict[int, Array]:
    """Return the first training images of each class, (n, D) with n up to `count`.

    Raises:
        Refused: a class has no training images.
    """
    found: dict[int, list[Array]] = {label: [] for label in classes}
    for batch in step.task.batches("train", Feed(batch_size=512)):
        rows = batch.x.detach().float().cpu().numpy().reshape(len(batch), -1)
        for row, label in zip(rows, batch.y.tolist(), strict=True):
            if label in found and len(found[label]) < count:
                found[label].append(row)
        if all(len(images) == count for images in found.values()):
            break
    missing = [label for label, images in found.items() if not images]
    if missing:
        raise Refused(f"no training image of class {missing[0]} exists to start from")
    return {label: np.stack(images) for label, images in found.items()}


def make_oracle(step: Step, view: View, samples: list[Sample], scores: bool) -> Oracle:
    """Return the oracle of a view's samples; all their queries pass through it."""
    goals = torch.tensor([sample.goal for sample in samples], device=view.index.device)
    targeted = any(sample.goal >= 0 for sample in samples)

    def look(part: View, goal: Tensor) -> tuple[Tensor, ...]:
        output = step.output(part)
        _check(output, len(part), step.task.info.classes)
        reached = output.argmax(1) == goal if targeted else ~step.score(part, output)
        # −∞ is a valid score, of an impossible class.
        lost = (output.isnan() | output.isposinf()).any(1)
        return lost, reached, output.float().log_softmax(1) if scores else reached

    def ask(points: Array, numbers: Any) -> tuple[Flags, Any]:
        rows = torch.from_numpy(numbers).to(view.index.device)
        x = torch.from_numpy(points).to(view.origin.device, view.origin.dtype)
        part = view.rows(rows).replace(x=x.view(-1, *view.origin.shape[1:]))
        lost, reached, replies = step.iterate(look, part, goals[rows])
        if count := int(lost.sum()):
            raise ValueError(f"it returned NaN or infinite scores for {count} of {len(points)} points")
        flags: Flags = reached.cpu().numpy()
        return flags, replies.cpu().numpy() if scores else flags

    return ask


def _check(output: Any, rows: int, classes: int | None) -> None:
    """Check that an output has one row of scores per point.

    Raises:
        ValueError: the output is something else; the message states what.
    """
    shape = tuple(output.shape) if isinstance(output, Tensor) else ()
    if len(shape) != 2 or shape[0] != rows or (classes is not None and shape[1] != classes):
        what = shape or type(output).__name__
        raise ValueError(
            f"it returned {what} for {rows} points, not a row of {classes or 'K'} scores for each"
        )
