"""Tiny tasks, models and an attack, for tests that must be fast and need no files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.batches import index_batches
from ..core.random import stream
from ..core.types import Batch, Cost, Feed, Split, TaskInfo, View

if TYPE_CHECKING:
    from ..core.protocols import Vicinity
    from ..core.step import Step

SHAPE = (3, 6, 6)
SIZES: dict[Split, int] = {"train": 22, "validation": 8, "test": 8}


class ToyTask:
    """Classify images (3, 6, 6) in [0, 1]: one pattern per class plus noise; some pixels are 0 or 1.

    Args:
        seed: seed of the patterns and the noise.
        classes: number of classes; sample i has class i modulo this number.
        sizes: number of samples of each split.
    """

    default_model = "small-cnn"

    def __init__(self, seed: int = 0, classes: int = 3, sizes: dict[Split, int] | None = None) -> None:
        rng = stream(seed, "toy")
        patterns = torch.empty(classes, *SHAPE).uniform_(-0.25, 0.25, generator=rng)
        self._data: dict[Split, tuple[Tensor, Tensor]] = {}
        for split, size in (sizes or SIZES).items():
            y = torch.arange(size) % classes
            noise = torch.empty(size, *SHAPE).normal_(0.0, 0.2, generator=rng)
            self._data[split] = ((0.5 + patterns[y] + noise).clamp(0, 1), y)
        self.info = TaskInfo(
            sizes={split: len(y) for split, (_, y) in self._data.items()}, shape=SHAPE, classes=classes
        )

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of one epoch of a split; see `index_batches`."""
        x, y = self._data[split]
        for index in index_batches(len(y), feed):
            yield Batch(x[index].to(feed.device), y[index].to(feed.device), index.to(feed.device))

    def score(self, view: View, output: Any) -> Tensor:
        """Return for each sample whether the largest output is at the label: bool (N,)."""
        labels = view.y if view.y.dim() == 1 else view.y.argmax(1)
        right: Tensor = output.argmax(1) == labels
        return right


def toy_batchnorm(info: TaskInfo) -> nn.Module:
    """Build a convolution, BatchNorm, dropout and a linear layer: all layers that depend on the mode."""
    channels, height, width = _image(info)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(4 * (height - 2) * (width - 2), info.classes or 1),
    )


def toy_plain(info: TaskInfo) -> nn.Module:
    """Build a smooth network that behaves the same in every mode and accepts a batch of one."""
    channels, height, width = _image(info)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * (height - 2) * (width - 2), info.classes or 1),
    )


def toy_norm(info: TaskInfo) -> nn.Module:
    """Build a smooth network with BatchNorm and no random layers; it accepts a batch of one."""
    channels, height, width = _image(info)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * (height - 2) * (width - 2), info.classes or 1),
    )


def toy_linear(info: TaskInfo) -> nn.Module:
    """Build a linear model, for which the optimal perturbation is known."""
    channels, height, width = _image(info)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, info.classes or 1))


def _image(info: TaskInfo) -> tuple[int, int, int]:
    channels, height, width = info.shape or SHAPE
    return channels, height, width


class OneStep:
    """A stand-in attack: move each sample by its radius in the steepest direction of the objective."""

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with the perturbed x."""
        radius = step.radii(view, vicinity)
        with step.attack_mode():
            x = view.origin.detach().clone().requires_grad_()
            gradient = step.gradient(step.objective(view.replace(x=x)).sum(), x)
        far = x.detach() + radius.view(-1, *(1,) * (x.dim() - 1)) * vicinity.steepest(gradient)
        return view.replace(x=vicinity.project(far, view.origin, radius))

    def cost(self, target: Cost) -> Cost:
        """Count one forward and one backward, plus the cost of the target."""
        return target + (1, 1)
