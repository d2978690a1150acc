"""Another vicinity, in which only some pixels, channels or features may change."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustplug.api import (
    Batch,
    BoundedVicinity,
    ProportionalVicinity,
    SparseVicinity,
    Step,
    TaskInfo,
    Unreadable,
    Vicinity,
    open_file,
)

from . import MaskOptions
from .features import inputs_of

# Bytes of a mask file.
_LARGEST = 2**28


def read_mask(path: str) -> Tensor:
    """Read a mask from a .npy file of booleans.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    try:
        with open_file(Path(path).expanduser()) as file:
            found = np.load(file, allow_pickle=False)
    except Unreadable as error:
        raise ValueError(f"file: {path} {error}") from error
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"file: {path} {Unreadable.of(error, save='an array of booleans')}") from error
    if not isinstance(found, np.ndarray) or found.dtype != np.bool_ or found.nbytes > _LARGEST:
        raise ValueError(
            f"file: {path} holds no booleans; save them with numpy.save(FILE, mask.astype(bool))"
        )
    return torch.from_numpy(found.copy())


class Mask:
    """The perturbations of an inner vicinity that change only what a mask allows.

    The nearest legal point has the original's values outside the mask, and inside the nearest of the inner
    vicinity: that is exact where a perturbation stays legal if some of its values are set back.

    Args:
        options: see MaskOptions.
        inner: the vicinity to restrict.
    """

    norm: float | None = None

    def __init__(self, options: MaskOptions, inner: Vicinity) -> None:
        self.options, self.inner = options, inner
        self.read = None if options.file is None else read_mask(options.file)
        self.made: Tensor | None = None
        self.places: Mapping[str, Sequence[int]] = {}

    @property
    def eps(self) -> float:
        """Return the radius of the inner vicinity."""
        return self.inner.eps

    @eps.setter
    def eps(self, value: float) -> None:
        self.inner.eps = value

    def within(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        """Keep inputs in [low, high]; see the inner vicinity.

        Raises:
            ValueError: the inner vicinity supports only [0, 1].
        """
        if not isinstance(self.inner, BoundedVicinity):
            raise ValueError(f"{type(self.inner).__name__} supports only inputs in [0, 1]")
        self.inner.within(low, high)

    def inform(self, info: TaskInfo) -> None:
        """Check that the mask fits the inputs of a task, and tell the inner vicinity.

        Raises:
            ValueError: it does not fit, or nothing may change.
        """
        self.places, self.made = info.places, None
        tell = getattr(self.inner, "inform", None)
        if tell is not None:
            tell(info)
        if info.shape is not None and not bool(self.free(torch.zeros(1, *info.shape)).any()):
            raise ValueError("the mask allows nothing to change")

    def free(self, x: Tensor) -> Tensor:
        """Return what may change, bool (1, C, …).

        Raises:
            ValueError: the mask does not fit the inputs.
        """
        shape = tuple(x.shape[1:])
        if self.made is None or tuple(self.made.shape[1:]) != shape or self.made.device != x.device:
            made = self._made(shape)
            self.made = (~made if self.options.outside else made)[None].to(x.device)
        return self.made

    def _made(self, shape: tuple[int, ...]) -> Tensor:
        o, made = self.options, torch.zeros(shape, dtype=torch.bool)
        if o.columns is not None:
            columns = inputs_of(o.columns, self.places)
            if max(columns) >= shape[0]:
                raise ValueError(f"columns: {max(columns)} is beyond the last, {shape[0] - 1}")
            made[columns] = True
            return made
        if self.read is not None:
            if tuple(self.read.shape) not in (shape, shape[1:]):
                raise ValueError(
                    f"file: the mask has the shape {tuple(self.read.shape)}, and the inputs have {shape}"
                )
            return self.read.expand(shape).clone()
        if len(shape) != 3:
            raise ValueError(f"box and frame are for images (C, H, W), and the inputs have the shape {shape}")
        _, height, width = shape
        if o.frame is not None:
            made |= True
            made[:, o.frame : max(height - o.frame, o.frame), o.frame : max(width - o.frame, o.frame)] = False
        elif o.box is not None:
            top, left, tall, wide = o.box
            if top + tall > height or left + wide > width:
                raise ValueError(f"box: {list(o.box)} reaches beyond images of {height} × {width} pixels")
            made[:, top : top + tall, left : left + wide] = True
        return made

    def facts(self) -> Mapping[str, Any]:
        """Return a digest of the mask's file."""
        if self.read is None:
            return {}
        return {"mask": hashlib.sha256(self.read.numpy().tobytes()).hexdigest()}

    def described(self) -> str:
        """Return what may change, and of how much."""
        o = self.options
        if o.box is not None:
            top, left, tall, wide = o.box
            what = f"rows {top} to {top + tall - 1}, columns {left} to {left + wide - 1}"
        elif o.frame is not None:
            what = f"a frame of {o.frame} pixels"
        elif o.columns is not None:
            what = f"columns {', '.join(map(str, o.columns[:8]))}{', …' * (len(o.columns) > 8)}"
        else:
            what = f"the pixels of {o.file}"
        only = f"only what is outside of {what}" if o.outside else f"only {what}"
        count = (
            "" if self.made is None else f" ({int(self.made.sum())} of {math.prod(self.made.shape)} values)"
        )
        return f"{only} may change{count}"

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Draw samples as the inner vicinity does."""
        return self.inner.sample(step, batch)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest legal point, in origin's dtype."""
        free = self.free(origin)
        found = self.inner.project(torch.where(free, x, origin.to(x.dtype)), origin, radius)
        return torch.where(free, found, origin)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether only what the mask allows is changed, and legally: bool (N,)."""
        still = ((x == origin) | self.free(x)).flatten(1).all(1)
        return still & self.inner.contains(x, origin, radius)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the steepest direction of the inner vicinity along what may change."""
        free = self.free(gradient)
        return self.inner.steepest(torch.where(free, gradient, 0.0)) * free

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a point of the inner vicinity, and set back what may not change."""
        return self.project(self.inner.random_point(origin, radius, rng), origin, radius)


class ProportionalMask(Mask):
    """A mask in a vicinity in which attacks of several steps follow the gradient."""

    def proportional(self, gradient: Tensor) -> Tensor:
        """Return the gradient along what may change, in units of the inner vicinity if it has some."""
        free = self.free(gradient)
        inside = torch.where(free, gradient, 0.0)
        if isinstance(self.inner, ProportionalVicinity):
            return self.inner.proportional(inside) * free
        return self.inner.steepest(inside) * free


class SparseMask(ProportionalMask):
    """A mask in a vicinity with sparse steps."""

    def sparse(self, gradient: Tensor, share: Tensor) -> Tensor:
        """Return a sparse direction of the inner vicinity along what may change."""
        assert isinstance(self.inner, SparseVicinity)
        free = self.free(gradient)
        return self.inner.sparse(torch.where(free, gradient, 0.0), share) * free


def build(options: MaskOptions, *, inner: Vicinity) -> Mask:
    """Build the threat model.

    Raises:
        ValueError: the file of the mask cannot be read.
    """
    if isinstance(inner, SparseVicinity):
        return SparseMask(options, inner)
    return (ProportionalMask if isinstance(inner, ProportionalVicinity) else Mask)(options, inner)
