"""A note where the clean accuracy looks as if the model needs other inputs: normalised, times 255, or BGR."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..core.modules import Normalized, evaluating
from ..core.random import isolated
from ..core.types import Batch, Feed, Split, View

if TYPE_CHECKING:
    from ..core.task import Task

# Samples that the inputs are tried on.
_SAMPLES = 128
# Nothing is tried above this accuracy. An alternative must be better by so much, by so many deviations, and
# leave at most this share of the errors.
_POOR, _GAIN, _DEVIATIONS, _ERRORS = 0.8, 0.1, 3.5, 2 / 3
# Mean and deviation that models are usually trained with, for inputs in [0, 1].
_USUAL: dict[int, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    3: {
        "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "CIFAR-10's mean and std": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        "mean and std 0.5": ((0.5,), (0.5,)),
        "times 255": ((0.0,), (1 / 255,)),
        "times 255, minus ImageNet's mean": ((0.485, 0.456, 0.406), (1 / 255,)),
    },
    1: {
        "MNIST's mean and std": ((0.1307,), (0.3081,)),
        "mean and std 0.5": ((0.5,), (0.5,)),
        "ImageNet's mean and std, averaged": ((0.449,), (0.226,)),
        "times 255": ((0.0,), (1 / 255,)),
    },
}


class _Way(NamedTuple):
    """A way to prepare inputs in [0, 1]: its name, its function, and how to ask for it."""

    name: str
    prepare: Callable[[Tensor], Tensor]
    remedy: str


def inputs_hint(module: nn.Module, task: Task, split: Split, device: torch.device) -> str | None:
    """Try the usual ways to prepare inputs on one batch, if the clean accuracy on it is poor.

    Args:
        module: maps images in [0, 1] to logits.
        task: an image classification; other tasks get no hint.
        split: split that the batch is drawn from.
        device: device of the module.

    Returns:
        A note with the accuracies if one way is clearly better, or else None.
    """
    info = task.info
    if info.classes is None or len(info.shape or ()) != 3 or tuple(info.bounds) != (0.0, 1.0):
        return None
    feed = Feed(batch_size=_SAMPLES, shuffle=True, device=str(device))
    batch = next(iter(task.batches(split, feed)), None)
    if batch is None or not isinstance(batch.x, Tensor):
        return None
    now = _right(module, task, batch, batch.x)
    if now is None or float(now.float().mean()) > _POOR:
        return None
    network = module.network if isinstance(module, Normalized) else module
    labels = View.of(batch).y
    labels = labels if labels.ndim == 1 else labels.argmax(1)
    best: tuple[float, str] | None = None
    for way in _ways(batch.x.shape[1], isinstance(module, Normalized)):
        right = _right(network, task, batch, way.prepare(batch.x))
        if right is None or not _clearly_better(right, now, labels):
            continue
        share = float(right.float().mean())
        if best is None or share > best[0]:
            best = share, f"with other inputs ({way.name}) on {share:.0%}: {way.remedy}"
    if best is None:
        return None
    return (
        f"on {len(batch)} clean samples the model is right on {float(now.float().mean()):.0%}, and {best[1]}"
    )


def _ways(channels: int, normalised: bool) -> Iterator[_Way]:
    """Yield the usual ways to prepare inputs, the most usual first."""
    usual = _USUAL.get(channels, {})
    leave_out = "leave out its normalisation (--set model.normalize=false)" if normalised else ""
    ways = [_Way("as they are", lambda x: x, leave_out)] if normalised else []
    for name, (mean, std) in usual.items():
        numbers = [",".join(f"{value:g}" for value in values) for values in (mean, std)]
        if std == (1 / 255,):
            numbers[1] = "1/255"
        asked = f"give --mean {numbers[0]} --std {numbers[1]}"
        remedy = f"{leave_out}, and {asked}" if leave_out else asked
        ways.append(_Way(name, _normaliser(mean, std), remedy))
    yield from ways
    if channels == 3:
        swap = "it seems to take BGR: wrap it, lambda x: model(x.flip(1))"
        for way in [*ways, *([] if normalised else [_Way("as they are", lambda x: x, "")])]:
            remedy = f"{way.remedy}; {swap}" if way.remedy else swap
            yield _Way(f"{way.name}, BGR", functools.partial(_swapped, way.prepare), remedy)


def _swapped(prepare: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return prepare(x.flip(1))


def _normaliser(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    def prepare(x: Tensor) -> Tensor:
        means, stds = (torch.tensor(values, device=x.device).view(1, -1, 1, 1) for values in (mean, std))
        return (x - means) / stds

    return prepare


def _right(module: nn.Module, task: Task, batch: Batch, x: Tensor) -> Tensor | None:
    """Return for each sample whether the model is right, on the CPU; None if it refuses such inputs."""
    try:
        with evaluating(module), torch.no_grad(), isolated(0, x.device):
            return task.score(View.of(batch), module(x.clone())).cpu()
    except Exception:  # the model may run any code
        return None


def _clearly_better(right: Tensor, now: Tensor, labels: Tensor) -> bool:
    """Return whether more samples are right, beyond chance, and not only those of one large class."""
    won, lost = int((right & ~now).sum()), int((now & ~right).sum())
    if won - lost < max(_GAIN * len(now), _DEVIATIONS * math.sqrt(won + lost)):
        return False
    if int((~right).sum()) > _ERRORS * int((~now).sum()):
        return False
    labels = labels.cpu()
    recalls = [
        float(right[labels == each].float().mean() - now[labels == each].float().mean())
        for each in set(labels.tolist())
    ]
    return sum(recalls) / len(recalls) >= _GAIN and len(recalls) > 1
