"""Inputs and labels as tensors, checked: shapes, types and ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Bounds = tuple[float | Sequence[float], float | Sequence[float]]

UNIT: Bounds = (0.0, 1.0)
# Elements that are compared with the bounds at a time.
_AT_ONCE = 1 << 24


def as_inputs(x: Any, name: str = "the inputs") -> Tensor:
    """Return inputs as a tensor on the CPU: uint8 as they are, all other numbers as float32.

    Images without channels (N, H, W) become (N, 1, H, W).

    Args:
        x: a tensor, a NumPy array, or nested sequences: images (N, C, H, W) or (N, H, W), tables (N, F).
        name: name of the inputs, for errors.

    Raises:
        ValueError: they are no numbers, have another shape, are empty, or are not finite.
    """
    try:
        tensor = x.detach().cpu() if isinstance(x, Tensor) else torch.from_numpy(np.ascontiguousarray(x))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are not an array of numbers: {error}") from error
    if tensor.ndim not in (2, 3, 4):
        raise ValueError(
            f"{name} have the shape {tuple(tensor.shape)}: give images (N, C, H, W) or (N, H, W), or tables "
            "(N, F)"
        )
    if not len(tensor):
        raise ValueError(f"{name} are empty")
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise ValueError(f"{name} are {tensor.dtype}: give uint8 or floating-point numbers")
    if tensor.dtype != torch.uint8:
        tensor = tensor.float()
        if not all(bool(part.isfinite().all()) for part in torch.split(tensor, 4096)):
            raise ValueError(
                f"{name} contain NaN or infinite values: remove these samples or replace the values"
            )
    return tensor[:, None] if tensor.ndim == 3 else tensor


def as_labels(y: Any, count: int, name: str = "the labels") -> Tensor:
    """Return labels as class numbers, int64 (N,), on the CPU.

    Args:
        y: integers of any width (N,) or (N, 1), floats that are whole numbers, or one-hot rows (N, K).
        count: number of inputs.
        name: name of the labels, for errors.

    Raises:
        ValueError: they are none of these, are negative, or are not as many as the inputs.
    """
    try:
        tensor = y.detach().cpu() if isinstance(y, Tensor) else torch.from_numpy(np.ascontiguousarray(y))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are not an array of numbers: {error}") from error
    if len(tensor.shape) == 0 or len(tensor) != count:
        raise ValueError(f"{name} have the shape {tuple(tensor.shape)}, but there are {count} inputs")
    if tensor.ndim == 2 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    if tensor.ndim == 2:
        rows = tensor.double()
        if not bool(((rows == 0) | (rows == 1)).all() & (rows.sum(1) == 1).all()):
            raise ValueError(
                f"{name} have the shape {tuple(tensor.shape)} and are not one-hot: give class numbers (N,), "
                "or rows with a single 1"
            )
        return rows.argmax(1)
    if tensor.ndim != 1:
        raise ValueError(
            f"{name} have the shape {tuple(tensor.shape)}: give class numbers (N,), or one-hot rows"
        )
    whole = tensor.double()
    if not bool((whole == whole.round()).all()):
        raise ValueError(f"{name} are no whole numbers: give class numbers from 0")
    if float(whole.min()) < 0:
        raise ValueError(f"{name} start at {int(whole.min())}: class numbers start at 0")
    return whole.long()


def checked_bounds(bounds: Any, shape: Sequence[int]) -> Bounds:
    """Return bounds of inputs: two numbers, or for each channel or feature two.

    Args:
        bounds: (low, high).
        shape: shape of one input: (C, H, W) or (F,).

    Raises:
        ValueError: they are no such pair, do not fit the inputs, or low is not below high.
    """
    try:
        low, high = ([float(v) for v in np.atleast_1d(np.asarray(side, dtype=float))] for side in bounds)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"bounds = {bounds!r} must be a pair (low, high), numbers or one for each channel or feature"
        ) from error
    for side in (low, high):
        if len(side) not in (1, shape[0]):
            raise ValueError(
                f"bounds have {len(side)} numbers, but the inputs have {shape[0]} channels or features"
            )
    size = max(len(low), len(high))
    low, high = (side * size if len(side) == 1 else side for side in (low, high))
    if not all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(low, high, strict=True)):
        raise ValueError(f"bounds = {bounds!r}: each low must be below its high")
    return (low[0], high[0]) if size == 1 else (tuple(low), tuple(high))


def outside(x: Tensor, bounds: Bounds) -> str:
    """Return why inputs are not inside bounds, with their range and the mend; "" if they are.

    Args:
        x: inputs (N, …) as `as_inputs` returns them; uint8 counts as [0, 1] with the unit bounds.
        bounds: as `checked_bounds` returns them.
    """
    if x.dtype == torch.uint8 and bounds == UNIT:
        return ""
    low, high = (broadcast(side, x.ndim) for side in bounds)
    rows = max(1, _AT_ONCE // max(1, x[0].numel()))
    if all(bool(((part >= low) & (part <= high)).all()) for part in torch.split(x, rows)):
        return ""
    least, most = float(x.min()), float(x.max())
    mend = f"bounds=({least:g}, {most:g})"
    if least >= 0 and 1 < most <= 255 and (x.ndim > 2 or most > 100):
        mend = "bounds=(0, 255), or divide them by 255"
    elif least >= -1 and most <= 1:
        mend = "bounds=(-1, 1)"
    elif least < 0:
        mend = (
            "bounds=(low, high) for each channel; if they are normalised, give the raw values and put the "
            "normalisation into the model: mean=…, std=…"
        )
    return f"they range from {least:g} to {most:g}, outside their bounds {shown(bounds)}: give {mend}"


def broadcast(side: float | Sequence[float], ndim: int) -> Tensor:
    """Return one side of bounds in a shape that broadcasts over inputs (N, C, …)."""
    values = torch.as_tensor(side, dtype=torch.float32)
    return values.view(1, -1, *(1,) * (ndim - 2)) if values.ndim else values


def shown(bounds: Bounds) -> str:
    """Return bounds as text: "[0, 1]", or their extremes where channels differ."""
    low, high = extremes(bounds)
    several = any(np.size(side) > 1 for side in bounds)
    return f"[{low:g}, {high:g}]" + " (for each channel or feature its own)" * several


def extremes(bounds: Bounds) -> list[float]:
    """Return the lowest and the highest value that bounds allow."""
    return [float(np.min(bounds[0])), float(np.max(bounds[1]))]
