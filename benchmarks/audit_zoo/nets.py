"""The networks of the zoo, small enough to be trained in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


class Sine(nn.Module):
    """Apply sin(3x), as networks with periodic activations do."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(3 * x)


class Winners(nn.Module):
    """Keep the largest share of the activations of each sample, and zero the others.

    Xiao et al. 2020, Enhancing Adversarial Defense by k-Winners-Take-All, arXiv:1905.10510.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        count = max(1, round(self.share * flat.shape[1]))
        least = flat.topk(count, 1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


class Normalised(nn.Module):
    """Shift and scale the inputs as the first layer of a network."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Transformer(nn.Module):
    """Classify 8x8 images as 16 patches of four pixels, with two layers of attention."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, 2)
        self.place = nn.Parameter(0.02 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2) + self.place
        result: Tensor = self.head(self.layers(patches).mean(1))
        return result


def mlp(sizes: Sequence[int] = (64, 64), activation: Activation = nn.ReLU, dropout: float = 0.0) -> nn.Module:
    """Build fully connected layers for 8x8 images; without hidden sizes, a linear model."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = 64
    for size in sizes:
        layers += [nn.Linear(width, size), activation()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 10))


def cnn(
    width: int = 8,
    activation: Activation = nn.ReLU,
    pool: Activation = lambda: nn.MaxPool2d(2),
    norm: bool = False,
    channels: int = 1,
    side: int = 8,
    first: Sequence[nn.Module] = (),
) -> nn.Module:
    """Build two convolutions, each with pooling, and one hidden layer; `first` comes before them."""
    layers: list[nn.Module] = list(first)
    for size in (width, 2 * width):
        layers.append(nn.Conv2d(channels, size, 3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(size))
        layers += [activation(), pool()]
        channels = size
    features = channels * (side // 4) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 64), activation(), nn.Linear(64, 10))


class Giant(nn.Module):
    """Multiply by a fixed random matrix of large numbers, and squash: most features are exactly 0 or 1.

    Args:
        scale: size of the weights; 1 for about the variance of common initialisations.
        size: number of features.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, scale: float, size: int = 256) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("weight", torch.randn(64, size) / math.sqrt(64))
        self.register_buffer("bias", -0.5 * self.weight.sum(0))
        self.rest = mlp_on(size)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.sigmoid(self.scale * (x.flatten(1) @ self.weight + self.bias))
        result: Tensor = self.rest(features)
        return result


def mlp_on(size: int) -> nn.Module:
    """Build one hidden layer on features (N, size)."""
    return nn.Sequential(nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, 10))


class Thermometer(nn.Module):
    """Encode each pixel by which of some thresholds it exceeds: (N, 1, H, W) to (N, levels, H, W).

    Buckman et al. 2018, Thermometer Encoding. The code has no gradient.

    Args:
        levels: number of thresholds.
        slope: None for the hard code; else the slope of its smooth stand-in.
    """

    thresholds: Tensor

    def __init__(self, levels: int, slope: float | None = None) -> None:
        super().__init__()
        self.slope = slope
        self.register_buffer("thresholds", ((torch.arange(levels) + 0.5) / levels).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        above = x - self.thresholds
        return (above > 0).float() if self.slope is None else torch.sigmoid(self.slope * above)


class Autoencoder(nn.Module):
    """Compress 8x8 images to a few numbers and back, (N, 1, 8, 8) to the same."""

    def __init__(self, code: int = 20) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, code), nn.Linear(code, 64), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x).view_as(x)
        return result
