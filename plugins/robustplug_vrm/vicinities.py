"""Vicinities that draw virtual samples around those of another vicinity."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from robustplug.api import Batch, Step, Vicinity, as_rows, beta, normal_like

from . import GaussianOptions, MixupOptions


def mix(values: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """Return λ·v_i + (1 − λ)·v_j, shape of the values (N, …).

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
        a: above 0.
        rng: says the device, too.
    """
    shape = torch.tensor(a, device=rng.device)
    return torch.randperm(size, generator=rng, device=rng.device), beta(shape, shape, rng)


class Around:
    """Draw samples around those of another vicinity, and leave the legal perturbations to that one.

    Args:
        inner: the other vicinity.
    """

    def __init__(self, inner: Vicinity) -> None:
        self.inner = inner

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

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest point that is legal in the inner vicinity."""
        return self.inner.project(x, origin, radius)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Tell for each sample whether x is legal in the inner vicinity: bool (N,)."""
        return self.inner.contains(x, origin, radius)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction of the inner vicinity."""
        return self.inner.steepest(gradient)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a legal point of the inner vicinity."""
        return self.inner.random_point(origin, radius, rng)


class Gaussian(Around):
    """x̃ = x + Δ·N(0, 1), not clipped, as in the code of SPROUT.

    A perturbation of a noisy sample is legal if the same one of the sample clipped to [0, 1] is: where
    noise has left the pixel range, the sample's own value takes the place of the bound.

    Args:
        options: see GaussianOptions.
        inner: says what a legal perturbation of a clipped sample is.
    """

    def __init__(self, options: GaussianOptions, *, inner: Vicinity) -> None:
        super().__init__(inner)
        self.sigma = options.sigma

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Draw noise for each pixel; Δ = 0 leaves the samples as they are."""
        batch = self.inner.sample(step, batch)
        if not self.sigma:
            return batch
        noise = normal_like(batch.x, step.rng)
        return dataclasses.replace(batch, x=torch.add(batch.x, noise, alpha=self.sigma))

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Project the perturbation of the clipped sample onto the inner vicinity."""
        clipped = origin.clamp(0, 1)
        return _shift(self.inner.project(x - (origin - clipped), clipped, radius), clipped, origin)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Tell for each sample whether its perturbation is legal for the clipped one: bool (N,)."""
        clipped = origin.clamp(0, 1)
        return self.inner.contains(_shift(x, origin, clipped), clipped, radius)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a legal perturbation of the clipped sample."""
        clipped = origin.clamp(0, 1)
        return _shift(self.inner.random_point(clipped, radius, rng), clipped, origin)


def _shift(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Move x as start moves to end; where that is nowhere, x stays to the bit, as does start."""
    return torch.where(start == end, x, end + (x - start))


class Mixup(Around):
    """x̃ = λ·x_i + (1 − λ)·x_j, ỹ = λ·y_i + (1 − λ)·y_j with one λ ~ Beta(a, a) for each batch.

    What the two labels were, and λ, travel in `info` as "partner-labels", rows (N, 2, K), and
    "shares", (N, 2).

    Args:
        options: see MixupOptions.
        inner: draws the samples that are mixed.
    """

    def __init__(self, options: MixupOptions, *, inner: Vicinity) -> None:
        super().__init__(inner)
        self.a = options.a

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Mix each sample with another of the batch; a = 0 leaves the samples as they are.

        Raises:
            ValueError: the task is no classification.
        """
        batch = self.inner.sample(step, batch)
        if not self.a:
            return batch
        classes = step.task.info.classes
        if classes is None:
            raise ValueError("mixup needs a classification task")
        partner, share = draw_partners(len(batch), self.a, step.rng)
        rows = as_rows(batch.y, classes)
        info = {
            **batch.info,
            "partner-labels": torch.stack([rows, rows[partner]], 1),
            "shares": torch.stack([share, 1 - share]).expand(len(batch), 2),
        }
        return dataclasses.replace(
            batch, x=mix(batch.x, partner, share), y=mix(rows, partner, share), info=info
        )
