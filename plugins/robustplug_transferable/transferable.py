"""Perturbations for models that are not seen."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustplug.api import Cost, ProportionalVicinity, Refused, open_model, to_unit

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity, View

    from . import TransferableOptions


class MeanLogits(nn.Module):
    """The mean of the logits of several models: the ensemble of Dong et al. 2018, with equal weights.

    Args:
        models: modules from inputs to logits (N, K).
    """

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean logits, (N, K)."""
        return torch.stack([model(x) for model in self.models]).mean(0)


def diverse(x: Tensor, shares: Tensor, places: Tensor, low: Tensor) -> Tensor:
    """Return images at smaller sizes, at other places on a dark ground; differentiable.

    Xie et al. 2019 (arXiv:1803.06978) enlarge images and pad them; models of a fixed size get them shrunk and
    padded to it, as in torchattacks. All sizes are done by one interpolation, bilinear.

    Args:
        x: images (N, C, H, W).
        shares: side of each image, as a share of its own; 1 leaves it where it is, (N,).
        places: where it goes, right and down, from 0 to 1 of the room that is left, (N, 2).
        low: lowest value of the inputs, (1 or C, 1, 1).
    """
    room = 1 - shares
    away = room[:, None] * (2 * places - 1)
    zero = torch.zeros_like(shares)
    rows = torch.stack(
        [
            torch.stack([1 / shares, zero, -away[:, 0] / shares], 1),
            torch.stack([zero, 1 / shares, -away[:, 1] / shares], 1),
        ],
        1,
    )
    grid = F.affine_grid(rows.to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x - low, grid, padding_mode="zeros", align_corners=False) + low


def smooth(gradient: Tensor, side: int) -> Tensor:
    """Return a gradient (N, C, H, W) convolved with a Gaussian kernel that spans three deviations each way.

    The translation-invariant attack of Dong et al. 2019 (arXiv:1904.02884): the convolution stands for the
    mean over shifted images.
    """
    at = torch.linspace(-3, 3, side, device=gradient.device, dtype=gradient.dtype)
    line = torch.exp(-at.square() / 2)
    kernel = torch.outer(line, line) / line.sum().square()
    channels = gradient.shape[1]
    weight = kernel.expand(channels, 1, side, side)
    return F.conv2d(gradient, weight, padding=side // 2, groups=channels)


class Transferable:
    """Ascend with momentum, input diversity and smoothed gradients: MI-, DI- and TI-FGSM in one.

    Unlike other attacks it does not stop where the model that it sees is fooled. Give the models in `models`,
    or run it in a row of a suite with `transfer`, whose examples are made on the models of `--source`.

    Args:
        options: see TransferableOptions.
    """

    # Models are opened at the first batch.
    needs_sync = True

    def __init__(self, options: TransferableOptions) -> None:
        self.options = options
        self._mean: MeanLogits | None = None

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the last iterate.

        Raises:
            Refused: input diversity or smoothing is asked for, and the inputs are no images.
        """
        o, images = self.options, view.origin.dim() == 4
        if not images and (o.diversity or o.kernel > 1):
            raise Refused("the inputs are no images: set diversity = 0 and kernel = 1")
        radius, x = step.radii(view, vicinity), view.origin.detach()
        inner, meter = self._on(step), step.meter
        before, times = (meter.forwards, meter.backwards), max(len(o.models), 1)
        low = torch.as_tensor(step.task.info.bounds[0], dtype=x.dtype, device=x.device)
        low = low.view(-1, 1, 1)
        rows = (-1, *(1,) * (x.dim() - 1))
        momentum = torch.zeros_like(x)
        with inner.attack_mode():
            for _ in range(o.steps):
                leaf = x.clone().requires_grad_()
                seen = leaf
                if images and o.diversity:
                    drawn = torch.rand(4, len(x), generator=step.rng, device=x.device)
                    shares = 1 - (1 - o.smallest) * drawn[0] * (drawn[1] < o.diversity)
                    seen = diverse(leaf, shares, drawn[2:].T, low)
                placed = view.replace(x=seen)
                loss = inner.loss(placed, inner.output(placed), view.y).sum()
                gradient = to_unit(inner.gradient(loss, leaf))
                if images and o.kernel > 1:
                    gradient = smooth(gradient, o.kernel)
                gradient = to_unit(gradient)
                mean = gradient.abs().flatten(1).mean(1).clamp_min(1e-12).view(rows)
                momentum = o.decay * momentum + gradient / mean
                ahead = (
                    vicinity.proportional(momentum)
                    if o.steps > 1 and isinstance(vicinity, ProportionalVicinity)
                    else vicinity.steepest(momentum)
                )
                moved = x + (radius / o.steps).view(rows) * ahead
                x = vicinity.project(moved, view.origin, radius).detach()
        # A pass of the mean is one of each model.
        meter.forwards += (times - 1) * (meter.forwards - before[0])
        meter.backwards += (times - 1) * (meter.backwards - before[1])
        return view.replace(x=x)

    def _on(self, step: Step) -> Step:
        """Return a step on the other models, if there are some."""
        if not self.options.models:
            return step
        if self._mean is None:
            device = step.batch.index.device
            self._mean = MeanLogits(
                *(open_model(folder, step.task.info, device) for folder in self.options.models)
            ).eval()
        return dataclasses.replace(step, model=self._mean, wrapped=None, iterations=None)

    def cost(self, target: Cost) -> Cost:
        """Count a forward and a backward of each model for each step."""
        passes = self.options.steps * max(len(self.options.models), 1)
        return Cost(passes, passes)
