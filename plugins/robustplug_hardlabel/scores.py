"""The score-based searches ZOO and NES, for comparison with the decision-based ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import NesOptions, ZooOptions
from .pool import Array, Sample, Search

# A log-probability below this is 0 as a probability in any precision.
LEAST = -1e4


def gain(sample: Sample, logs: Array) -> Any:
    """Return the margin of the adversarial classes, (q,): a point above 0 is adversarial.

    Chen et al. 2017, Eq. (4) and (6): untargeted max_{k≠y} log p_k − log p_y, targeted
    log p_t − max_{k≠t} log p_k.

    Args:
        sample: the sample under attack.
        logs: log-probabilities, (q, K).
    """
    wanted = sample.label if sample.goal < 0 else sample.goal
    logs = logs.clip(LEAST, 0)
    lead = logs[:, wanted] - np.delete(logs, wanted, axis=1).max(1)
    return -lead if sample.goal < 0 else lead


def likelihood(sample: Sample, logs: Array) -> Any:
    """Return −log p_y if untargeted, log p_t of the target class t otherwise, (q,)."""
    logs = logs.clip(LEAST, 0)
    return -logs[:, sample.label] if sample.goal < 0 else logs[:, sample.goal]


def zoo(options: ZooOptions) -> Callable[[Sample], Search]:
    """Return ZOO's search."""
    return lambda sample: _zoo(sample, options)


def _zoo(sample: Sample, options: ZooOptions) -> Search:
    """Minimise ‖δ‖² + c · [−gain]₊ by coordinate-wise Adam, Chen et al. 2017, Algorithms 1 and 2.

    Points are clipped to [0, 1] after each step, as the paper does for large images. The search for c is that
    of §3.5; each value receives an equal part of the queries.
    """
    size = len(sample.x)
    low, high, c = 0.0, np.inf, options.c
    part = sample.left // options.search_steps
    # A step takes two queries per coordinate, and one at the new point.
    count = min(options.coordinates, size, (part - 1) // 2)
    if count < 1:
        return
    for _ in range(options.search_steps):
        end = max(0, sample.left - part)
        x, steps = sample.x.copy(), np.zeros(size)
        first, second = np.zeros(size), np.zeros(size)
        coordinates = _shuffled(sample, count)
        success = False
        while sample.left - end >= 2 * count + 1:
            at = next(coordinates)
            points = np.repeat(x[None], 2 * count, 0)
            rows = np.arange(count)
            points[rows, at] += np.float32(options.h)
            points[count + rows, at] -= np.float32(options.h)
            hinge = np.maximum(-gain(sample, (yield points)), 0)
            slope = c * (hinge[:count] - hinge[count:]) / (2 * options.h) + 2 * (x - sample.x)[at]
            steps[at] += 1
            first[at] = 0.9 * first[at] + 0.1 * slope
            second[at] = 0.999 * second[at] + 0.001 * slope**2
            rate = np.sqrt(1 - 0.999 ** steps[at]) / (1 - 0.9 ** steps[at])
            x[at] -= (options.lr * rate * first[at] / (np.sqrt(second[at]) + 1e-8)).astype(np.float32)
            x = x.clip(0, 1)
            success |= bool(gain(sample, (yield x[None]))[0] > 0)
        low, high = (low, c) if success else (c, high)
        c = (low + high) / 2 if np.isfinite(high) else 10 * c


def _shuffled(sample: Sample, count: int) -> Iterator[Any]:
    """Yield `count` coordinates at a time, each once before any repeats."""
    while True:
        order = sample.rng.permutation(len(sample.x))
        for start in range(0, len(order) - count + 1, count):
            yield order[start : start + count]


def nes(options: NesOptions) -> Callable[[Sample], Search]:
    """Return NES's search."""
    return lambda sample: _nes(sample, options)


def _nes(sample: Sample, options: NesOptions) -> Search:
    """Ascend the loss within the radius with gradients from antithetic samples.

    Ilyas et al. 2018, Algorithm 1 and §2.2.
    """
    half, sigma = max(1, options.directions // 2), np.float32(options.sigma)
    # Inside the ball despite rounding.
    eps = np.float32(min(sample.radius, np.sqrt(len(sample.x))) * (1 - 1e-5))
    x, momentum = sample.x.copy(), np.zeros_like(sample.x)
    # The points of an estimate may be adversarial, too, but beyond the radius.
    while sample.distance > sample.radius:
        drawn = sample.gaussian(half)
        losses = likelihood(sample, (yield np.concatenate([x + sigma * drawn, x - sigma * drawn])))
        weights = (losses[:half] - losses[half:]) / (2 * half * sigma)
        momentum = 0.9 * momentum + 0.1 * (weights @ drawn)
        step = np.sign(momentum) if sample.norm != 2 else sample.unit(momentum)
        delta = x + np.float32(options.step_ratio) * eps * step - sample.x
        if sample.norm == 2:
            delta *= min(1.0, float(eps) / max(sample.length(delta), 1e-12))
        else:
            delta = delta.clip(-eps, eps)
        x = (sample.x + delta).clip(0, 1).astype(np.float32)
        yield x[None]
