"""Affine maps: what bounds know of a layer or an operation that sums products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose1d, conv_transpose2d

Map = Callable[..., Tensor]
Back = Callable[[Tensor, tuple[int, ...]], Tensor]
Offset = Callable[[], Tensor | None]


class Affine(NamedTuple):
    """An affine map: itself, |L|, products in a sum, their sizes, L backward, layer, constant; see `Node`."""

    apply: Map
    magnitude: Map
    terms: int
    size: Map | None = None
    back: Back | None = None
    layer: nn.Module | None = None
    offset: Offset | None = None


def nothing() -> None:
    """Return the constant of a map that has none."""


def reshaping(shape: tuple[int, ...]) -> Affine:
    """Return the map of samples to others of a shape."""

    def apply(x: Tensor) -> Tensor:
        return x.reshape(len(x), *shape)

    def back(rows: Tensor, before: tuple[int, ...]) -> Tensor:
        return rows.reshape(len(rows), *before)

    return Affine(apply, apply, 0, None, back, offset=nothing)


def normalisation(layer: Any) -> tuple[Tensor, Tensor]:
    """Return factor and shift of a BatchNorm in eval mode, one for each channel."""
    inverse = (layer.running_var + layer.eps).rsqrt()
    factor = inverse if layer.weight is None else inverse * layer.weight
    shift = -layer.running_mean * factor
    return factor, shift if layer.bias is None else shift + layer.bias


def parameters(layer: Any, norm: Any = None) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a linear layer or a convolution, with a BatchNorm in eval mode behind it.

    Args:
        layer: the layer.
        norm: the BatchNorm of its channels.
    """
    if norm is None:
        return layer.weight, layer.bias
    factor, shift = normalisation(norm)
    weight = layer.weight * factor.view(-1, *(1,) * (layer.weight.dim() - 1))
    return weight, shift if layer.bias is None else torch.addcmul(shift, layer.bias, factor)


def linear(layer: nn.Linear, norm: nn.Module | None = None) -> Affine:
    """Return a linear layer, with a BatchNorm behind it."""

    def apply(x: Tensor) -> Tensor:
        return nn.functional.linear(x, *parameters(layer, norm))

    def magnitude(x: Tensor) -> Tensor:
        return nn.functional.linear(x, parameters(layer, norm)[0].abs())

    def back(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        return rows @ parameters(layer, norm)[0]

    return Affine(
        apply, magnitude, layer.in_features + 1, None, back, layer, lambda: parameters(layer, norm)[1]
    )


def convolution(layer: nn.Conv1d | nn.Conv2d, norm: nn.Module | None = None) -> Affine:
    """Return a convolution that pads with zeros, with a BatchNorm behind it."""

    def apply(x: Tensor) -> Tensor:
        result: Tensor = layer._conv_forward(x, *parameters(layer, norm))
        return result

    def magnitude(x: Tensor) -> Tensor:
        result: Tensor = layer._conv_forward(x, parameters(layer, norm)[0].abs(), None)
        return result

    def back(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        # The rows and columns at the far end that a stride has left out.
        spatial: Any = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        sides: Any = zip(shape[1:], rows.shape[2:], *spatial, strict=True)
        rest = [size - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for size, n, k, s, p, d in sides]
        weight, given = parameters(layer, norm)[0], (layer.groups, layer.dilation)
        moved: Any = conv_transpose2d if isinstance(layer, nn.Conv2d) else conv_transpose1d
        result: Tensor = moved(rows, weight, None, layer.stride, layer.padding, rest, *given)
        return result

    def offset() -> Tensor | None:
        bias = parameters(layer, norm)[1]
        return None if bias is None else bias.view(-1, *(1,) * (layer.weight.dim() - 2))

    terms = layer.weight[0].numel() + 1
    known = None if isinstance(layer.padding, str) else back
    return Affine(apply, magnitude, terms, None, known, layer, offset)


def batchnorm(layer: Any) -> Affine:
    """Return BatchNorm in eval mode."""

    def scale(x: Tensor) -> tuple[Tensor, Tensor]:
        factor, shift = normalisation(layer)
        shape = (1, -1, *(1,) * (x.dim() - 2))
        return factor.view(shape), shift.view(shape)

    def apply(x: Tensor) -> Tensor:
        factor, shift = scale(x)
        return x * factor + shift

    def magnitude(x: Tensor) -> Tensor:
        return x * scale(x)[0].abs()

    def size(x: Tensor) -> Tensor:
        factor, _ = scale(x)
        shape = (1, -1, *(1,) * (x.dim() - 2))
        total: Tensor = (x + layer.running_mean.abs().view(shape)) * factor.abs()
        return total if layer.bias is None else total + layer.bias.abs().view(shape)

    def back(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        return rows * scale(rows)[0]

    # Subtraction, division by a root, product and sum.
    return Affine(apply, magnitude, 8, size, back, layer)


def adding(sign: int) -> Affine:
    """Return the sum of two values, or with sign −1 their difference."""
    return Affine(lambda a, b: a + sign * b, lambda a, b: a + b, 2, offset=nothing)


def shifting(shift: Callable[[], Any], sign: int = 1, own: int = 1) -> Affine:
    """Return own · x + sign · shift, for signs 1 and −1; the shift is asked for each time."""
    return Affine(lambda x: own * x + sign * shift(), lambda x: x + 0 * shift(), 2)


def scaling(factor: Callable[[], Any], divides: bool) -> Affine:
    """Return the product with a constant, or the quotient; the constant is asked for each time."""
    if divides:
        return Affine(lambda x: x / factor(), lambda x: x / abs(factor()), 2, offset=nothing)
    return Affine(lambda x: x * factor(), lambda x: x * abs(factor()), 2, offset=nothing)
