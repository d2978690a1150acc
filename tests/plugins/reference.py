"""A linear classifier and its gradients in NumPy, written from the equations alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def softmax(z: Array) -> Array:
    e: Array = np.exp(z - z.max(1, keepdims=True))
    result: Array = e / e.sum(1, keepdims=True)
    return result


def logits(weight: Array, bias: Array, x: Array) -> Array:
    return x @ weight.T + bias


def cross_entropy(z: Array, target: Array) -> Array:
    result: Array = -(target * np.log(softmax(z))).sum(1)
    return result


def kl(p: Array, q: Array) -> Array:
    result: Array = (p * np.log(p / q)).sum(1)
    return result


def project(x: Array, origin: Array, radius: Array) -> Array:
    """Clip to the L∞ ball of radius (N,) and to [0, 1]."""
    return np.clip(np.clip(x, origin - radius[:, None], origin + radius[:, None]), 0, 1)
