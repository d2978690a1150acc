"""Vicinities that draw virtual samples around those of an inner vicinity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from robustplug.api import (
    Batch,
    BoundedVicinity,
    Refused,
    Step,
    TaskInfo,
    Vicinity,
    as_rows,
    beta,
    normal_like,
)

from . import GaussianOptions, MixupOptions


def mix(values: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """Return λ·v_i + (1 − λ)·v_j, in the shape of the values (N, …).

    Args:
        values: (N, …), floating point.
        partner: j for each row i, int64 (N,).
        share: λ, a scalar, or a number for each row (N,).
    """
    weight = share.view(-1, *(1,) * (values.dim() - 1)) if share.dim() else share
    return torch.lerp(values[partner], values, weight.to(values.dtype))


def draw_partners(size: int, a: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a permutation, int64 (N,), and one λ ~ Beta(a, a), a scalar: Zhang et al. 2018, §2.

    Args:
        size: N.
        a: parameter of the distribution, above 0.
        rng: generator; its device is that of the result.
    """
    shape = torch.full((), a, device=rng.device)
    return torch.randperm(size, generator=rng, device=rng.device), beta(shape, shape, rng, least=a)


class Around:
    """Draw samples around those of an inner vicinity, which defines the legal perturbations.

    Args:
        inner: the inner vicinity.
    """

    def __init__(self, inner: Vicinity) -> None:
        self.inner = inner
        self.low, self.high = torch.zeros(()), torch.ones(())
        self._placed: tuple[Tensor, Tensor] | None = None

    @property
    def eps(self) -> float:
        """Return the radius of the inner vicinity."""
        return self.inner.eps

    @eps.setter
    def eps(self, value: float) -> None:
        self.inner.eps = value

    @property
    def norm(self) -> float | None:
        """Return the norm of the inner vicinity."""
        return self.inner.norm

    def within(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        """Keep inputs in [low, high] instead of [0, 1]; numbers, or one for each channel or feature."""
        self.low, self.high = (torch.as_tensor(side, dtype=torch.float32) for side in (low, high))
        self._placed = None
        if isinstance(self.inner, BoundedVicinity):
            self.inner.within(low, high)

    def inform(self, info: TaskInfo) -> None:
        """Tell the inner vicinity what it must know of the task."""
        tell = getattr(self.inner, "inform", None)
        if tell is not None:
            tell(info)

    def clipped(self, x: Tensor) -> Tensor:
        """Clamp inputs (N, C, …) to their valid range."""
        if self._placed is None or self._placed[0].device != x.device:
            self._placed = self.low.to(x.device), self.high.to(x.device)
        shape = (1, -1, *(1,) * (x.dim() - 2)) if self.low.dim() else ()
        return x.clamp(self._placed[0].view(shape), self._placed[1].view(shape))

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest point that is legal in the inner vicinity."""
        return self.inner.project(x, origin, radius)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return whether x is legal in the inner vicinity, bool (N,)."""
        return self.inner.contains(x, origin, radius)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the steepest direction of the inner vicinity."""
        return self.inner.steepest(gradient)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a legal point of the inner vicinity."""
        return self.inner.random_point(origin, radius, rng)


class Gaussian(Around):
    """x̃ = x + Δ·N(0, 1), not clipped, as in the code of SPROUT.

    A perturbation of a noisy sample is legal if the same perturbation is legal for the sample clipped to
    [0, 1]. Where the noise leaves the pixel range, the noisy value itself replaces the bound.

    Args:
        options: see GaussianOptions.
        inner: vicinity that defines the legal perturbations of a clipped sample.
    """

    def __init__(self, options: GaussianOptions, *, inner: Vicinity) -> None:
        super().__init__(inner)
        self.sigma = options.sigma

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Add noise to each pixel; Δ = 0 leaves the samples unchanged."""
        batch = self.inner.sample(step, batch)
        if not self.sigma:
            return batch
        noise = normal_like(batch.x, step.rng)
        return dataclasses.replace(batch, x=torch.add(batch.x, noise, alpha=self.sigma))

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Project the perturbation onto those that are legal for the clipped sample."""
        clipped = self.clipped(origin)
        return _shift(self.inner.project(x - (origin - clipped), clipped, radius), clipped, origin)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return whether each perturbation is legal for the clipped sample, bool (N,)."""
        clipped = self.clipped(origin)
        return self.inner.contains(_shift(x, origin, clipped), clipped, radius)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a legal perturbation of the clipped sample."""
        clipped = self.clipped(origin)
        return _shift(self.inner.random_point(clipped, radius, rng), clipped, origin)


def _shift(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Move x by the step from start to end; exact where x equals start or start equals end."""
    return torch.where(start == end, x, end + (x - start))


class Mixup(Around):
    """x̃ = λ·x_i + (1 − λ)·x_j, ỹ = λ·y_i + (1 − λ)·y_j with one λ ~ Beta(a, a) for each batch.

    `info` carries both labels as "partner-labels", rows (N, 2, K), and λ and 1 − λ as "shares", (N, 2).

    Args:
        options: see MixupOptions.
        inner: vicinity that draws the samples to mix.
    """

    def __init__(self, options: MixupOptions, *, inner: Vicinity) -> None:
        super().__init__(inner)
        self.a = options.a

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Mix each sample with another of the batch; a = 0 leaves the samples unchanged.

        Raises:
            ValueError: the task is not classification.
        """
        batch = self.inner.sample(step, batch)
        if not self.a:
            return batch
        classes = step.task.info.classes
        if classes is None:
            raise ValueError("mixup needs a classification task")
        partner, share = draw_partners(len(batch), self.a, step.rng)
        x, share = self.mixed(batch.x, partner, share, step.rng)
        rows = as_rows(batch.y, classes)
        info = {
            **batch.info,
            "partner-labels": torch.stack([rows, rows[partner]], 1),
            "shares": torch.stack([share, 1 - share]).expand(len(batch), 2),
        }
        return dataclasses.replace(batch, x=x, y=mix(rows, partner, share), info=info)

    def mixed(self, x: Tensor, partner: Tensor, share: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return mixed inputs and the share of each own label, a scalar; see `mix` for the arguments."""
        return mix(x, partner, share), share


def draw_box(height: int, width: int, share: Tensor, rng: torch.Generator) -> Tensor:
    """Draw the box of CutMix, bool (height, width): Yun et al. 2019 §3.1.

    Its sides are √(1 − λ) of the image's, its centre is uniform, and what lies outside the image is cut off.

    Args:
        height, width: size of the image.
        share: λ, a scalar.
        rng: generator; its device is that of the result.
    """
    side = (1 - share).sqrt()
    inside = []
    for size in (height, width):
        centre = torch.rand((), generator=rng, device=rng.device) * size
        half = (size * side / 2).floor()
        place = torch.arange(size, device=rng.device)
        inside.append((place >= (centre - half).floor()) & (place < (centre + half).floor()))
    return inside[0][:, None] & inside[1][None]


class CutMix(Mixup):
    """x̃ = x_i with a box of x_j, ỹ = λ·y_i + (1 − λ)·y_j; λ is the share of the image outside the box.

    The box is the same for a batch; its size follows from one λ ~ Beta(a, a). `info` is as in `Mixup`.

    Args:
        options: see MixupOptions.
        inner: vicinity that draws the samples to mix.
    """

    def mixed(self, x: Tensor, partner: Tensor, share: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return images with the box of another one, and the share of the image outside the box.

        Raises:
            Refused: the inputs are no images (N, C, H, W).
        """
        if x.dim() != 4:
            raise Refused("cutmix is for images (N, C, H, W); for other inputs use mixup")
        box = draw_box(x.shape[2], x.shape[3], share, rng)
        return torch.where(box, x[partner], x), 1 - box.float().mean()
