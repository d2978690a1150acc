"""What hides the gradients of a network, or makes them useless: modules around a network."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import median_filter
from torch import Tensor, nn
from torch.nn import functional

Change = Callable[[Tensor], Tensor]


class Front(nn.Module):
    """Change the inputs, as the first layer of a network."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


class Masked(nn.Module):
    """Run a network on changed inputs, and change its outputs.

    Args:
        net: the network, from images to logits.
        before, after: the changes.
        no_grad: whether the network itself runs without a graph, too.
    """

    def __init__(
        self, net: nn.Module, before: Change | None = None, after: Change | None = None, no_grad: bool = False
    ) -> None:
        super().__init__()
        self.net, self.before, self.after, self.no_grad = net, before, after, no_grad

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.no_grad):
            logits: Tensor = self.net(x if self.before is None else self.before(x))
            return logits if self.after is None else self.after(logits)


def rounded(levels: int) -> Change:
    """Return rounding to multiples of 1 / levels."""
    return lambda x: torch.round(x * levels) / levels


def staircase(levels: int) -> Change:
    """Return rounding down to multiples of 1 / levels."""
    return lambda x: torch.floor(x * levels + 1e-4) / levels


def noisy(size: float) -> Change:
    """Return Gaussian noise, new in each call."""
    return lambda x: x + size * torch.randn_like(x)


def moved(x: Tensor) -> Tensor:
    """Resize images by a random factor, and pad them at a random place to their old size."""
    side = x.shape[-1]
    size = int(torch.randint(side - 1, side + 2, ()))
    small = functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    room = side + 2 - size
    left, top = (int(torch.randint(room + 1, ())) for _ in range(2))
    padded = functional.pad(small, (left, room - left, top, room - top))
    return padded[..., 1 : side + 1, 1 : side + 1]


def through_numpy(function: Callable[[Any], Any]) -> Change:
    """Return a change of the images (H, W), one by one, in numpy: it has no gradient."""

    def change(x: Tensor) -> Tensor:
        images = x.detach().cpu().numpy()
        changed = np.stack([function(image[0])[None] for image in images])
        return torch.from_numpy(changed).to(x)

    return change


def jpeg(quality: int) -> Change:
    """Return compression by Pillow."""

    def one(image: Any) -> Any:
        buffer = io.BytesIO()
        levels = (255 * image).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(levels).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer), np.float32) / 255

    return through_numpy(one)


def median(image: Any) -> Any:
    """Return the median of each pixel and of those to its left and right."""
    return median_filter(image, size=(1, 3), mode="nearest")


MEDIAN = through_numpy(median)


def shattered(size: float, frequency: float) -> Change:
    """Return the input plus a fast sine of it: it moves little, its gradient changes sign everywhere."""
    return lambda x: x + size * torch.sin(frequency * x)


class Scaled(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number; by random ones for None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float | None) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return (torch.randn_like(gradient) if ctx.factor is None else ctx.factor * gradient), None


def gradient_times(factor: float | None) -> Change:
    """Return the identity with a changed gradient; see `Scaled`."""

    def change(x: Tensor) -> Tensor:
        result: Tensor = Scaled.apply(x, factor)
        return result

    return change


def not_a_number(x: Tensor) -> Tensor:
    """Return x; the gradient of the branch that is not taken is NaN."""
    return torch.where(x >= -1, x, torch.sqrt(0 * x))


class Neighbours(nn.Module):
    """Count the classes of the nearest training samples in the features of a network.

    Args:
        features: the network without its last layer.
        x, y: training samples.
        count: number of neighbours.
        softness: None to count votes; else the temperature of the smooth stand-in, in units of a distance.
    """

    known: Tensor
    labels: Tensor

    def __init__(
        self, features: nn.Module, x: Tensor, y: Tensor, count: int = 5, softness: float | None = None
    ) -> None:
        super().__init__()
        self.features, self.count, self.softness = features, count, softness
        with torch.no_grad():
            self.register_buffer("known", features(x))
        self.register_buffer("labels", functional.one_hot(y, 10).float())

    def forward(self, x: Tensor) -> Tensor:
        distances = torch.cdist(self.features(x), self.known)
        nearest = distances.topk(self.count if self.softness is None else 50, 1, largest=False)
        labels: Tensor = self.labels[nearest.indices]
        if self.softness is None:
            return labels.sum(1)
        weights = torch.softmax(-nearest.values / self.softness, 1)
        return torch.log((labels * weights[..., None]).sum(1) + 1e-12)


class Pruned(nn.Module):
    """Keep activations that are drawn in proportion to their size, and scale them up.

    Dhillon et al. 2018, Stochastic Activation Pruning, arXiv:1803.01442.
    """

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        draws = self.share * flat.shape[1]
        chance = flat.abs() / flat.abs().sum(1, keepdim=True).clamp_min(1e-12)
        kept = 1 - (1 - chance) ** draws
        mask = torch.rand_like(kept) < kept
        return (flat * mask / kept.clamp_min(1e-12)).view_as(x)


class Detector(nn.Module):
    """Let a second network decide, without gradients, on images that are off the grid of the data.

    It abstains from the decision of the first network wherever a pixel is no multiple of 1 / levels, as
    almost every attacked pixel is. Both decisions are decisions of the model, so each counts.
    """

    def __init__(self, net: nn.Module, second: nn.Module, levels: int = 16) -> None:
        super().__init__()
        self.net, self.second, self.levels = net, second, levels

    def forward(self, x: Tensor) -> Tensor:
        steps = x * self.levels
        off = ((steps - steps.round()).abs() > 0.01).flatten(1).any(1, keepdim=True)
        with torch.no_grad():
            safe: Tensor = self.second(x)
        return torch.where(off, safe, self.net(x))


def hundredths(logits: Tensor) -> Tensor:
    """Return probabilities that are rounded to two places."""
    return (100 * functional.softmax(logits, 1)).round() / 100


def decisions(logits: Tensor) -> Tensor:
    """Return 1 for the class, and 0 for all others."""
    return functional.one_hot(logits.argmax(1), logits.shape[1]).float()
