"""BatchNorm with several rescalings: insert, switch, fold and interpolate them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustplug.api import Refused

Norm = nn.modules.batchnorm._BatchNorm


def encode(strength: float, bases: int, mixture: bool = True) -> list[float]:
    """Return u for a strength p in [0, 1], k numbers that sum to 1: Eq. (6.2).

    For k = 2 it is [1 − p, p]. The thesis does not specify u for k > 2. Here basis j belongs to the
    strength j/(k − 1). A strength between two bases mixes both; with AdvProp's separate norms it uses the
    upper one.

    Args:
        strength: p = ε/ε_max.
        bases: k.
        mixture: whether to mix two bases or to take the upper one.
    """
    if bases == 1:
        return [1.0]
    place = min(max(strength, 0.0), 1.0) * (bases - 1)
    if not mixture:
        place = math.ceil(place - 1e-9)
    return [max(0.0, 1 - abs(place - j)) for j in range(bases)]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A strength p that was drawn on the device, where it stays; equal to no other.

    Attributes:
        p: scalar in [0, 1].
        shares: u, k scalars; see `encode`.
        place: int64 (1,), index of the largest of u.
    """

    p: Tensor
    shares: tuple[Tensor, ...]
    place: Tensor

    @classmethod
    def of(cls, p: Tensor, bases: int, mixture: bool = True) -> Drawn:
        """Return a strength with its u; the other arguments are those of `encode`."""
        place = p.clamp(0, 1) * (bases - 1)
        if not mixture:
            place = (place - 1e-9).ceil()
        all_bases = torch.arange(bases, device=p.device, dtype=p.dtype)
        shares = (1 - (place - all_bases).abs()).clamp_min(0).float()
        return cls(p, shares.unbind(), shares.argmax(0, keepdim=True))


class MaskedNorm(nn.Module):
    """BatchNorm whose rescaling is γ = W u, β = W' u.

    All columns of W start as the weight of the replaced layer, and all columns of W' as its bias. Every mask
    therefore starts as that layer.

    Args:
        norm: the layer to replace; affine.
        bases: k.
        separate: whether each basis is a norm with its own running statistics; there are no mixtures then.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, norm: Norm, bases: int, separate: bool) -> None:
        super().__init__()
        self.kind, self.eps, self.momentum, self.separate = type(norm), norm.eps, norm.momentum, separate
        self.weight = nn.Parameter(norm.weight.detach()[:, None].repeat(1, bases))
        self.bias = nn.Parameter(norm.bias.detach()[:, None].repeat(1, bases))
        if norm.running_mean is None or norm.running_var is None:
            raise Refused("masks need a BatchNorm with running statistics")
        sets = bases if separate else 1
        self.register_buffer("mean", norm.running_mean[None].repeat(sets, 1))
        self.register_buffer("variance", norm.running_var[None].repeat(sets, 1))
        self.register_buffer("batches", torch.zeros(sets, dtype=torch.int64))
        self.encoding: list[float] | Drawn = self.encode(0.0)

    def encode(self, strength: float | Drawn) -> list[float] | Drawn:
        """Return u for a strength p; a drawn one has it."""
        if isinstance(strength, Drawn):
            return strength
        return encode(strength, self.weight.shape[1], mixture=not self.separate)

    def rescaling(self) -> tuple[Tensor, Tensor]:
        """Return γ and β of the current mask, (C,) each."""
        # A sum of columns, not a product with u: autocast would round the product, and u would have to be
        # moved to the device.
        return _mixture(self.weight, self.encoding), _mixture(self.bias, self.encoding)

    @property
    def statistics(self) -> int | Tensor:
        """Return the index of the running statistics in use; under a drawn mask, int64 (1,)."""
        if not self.separate:
            return 0
        if isinstance(self.encoding, Drawn):
            return self.encoding.place
        return self.encoding.index(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and rescale x (N, C, …)."""
        at = self.statistics
        gamma, beta = self.rescaling()
        momentum = self.momentum
        if self.training:
            self.batches[at] += 1
            if momentum is None:
                momentum = 1.0 / float(self.batches[at])
        # Of a drawn mask, these are copies: without its index on the host, there is no view of a row.
        mean, variance = self.mean[at].view(-1), self.variance[at].view(-1)
        result = F.batch_norm(x, mean, variance, gamma, beta, self.training, momentum or 0.0, self.eps)
        if self.training and isinstance(at, Tensor):
            # Not counted as a write: the graph of another mask may hold its own row, which stays.
            self.mean.data[at], self.variance.data[at] = mean, variance
        return result

    @torch.no_grad()
    def folded(self) -> Norm:
        """Return a plain BatchNorm that is equivalent to this layer under its current mask."""
        gamma, beta = self.rescaling()
        norm: Norm = self.kind(len(gamma), self.eps, self.momentum, device=gamma.device, dtype=gamma.dtype)
        norm.weight.copy_(gamma)
        norm.bias.copy_(beta)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        norm.running_mean.copy_(self.mean[self.statistics])
        norm.running_var.copy_(self.variance[self.statistics])
        norm.num_batches_tracked.copy_(self.batches[self.statistics])
        return norm.train(self.training)


def _mixture(columns: Tensor, encoding: list[float] | Drawn) -> Tensor:
    """Return columns · u, (C,), for columns (C, k)."""
    if isinstance(encoding, Drawn):
        parts = [share * columns[:, j] for j, share in enumerate(encoding.shares)]
    else:
        parts = [share * columns[:, j] for j, share in enumerate(encoding) if share]
    mixed: Tensor = sum(parts[1:], parts[0])
    return mixed


def _replace(model: nn.Module, change: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace each submodule, wherever it occurs, by what `change` returns for it; None keeps it."""
    made: dict[int, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is None:
                continue
            if id(child) not in made:
                other = change(child)
                if other is None:
                    continue
                made[id(child)] = other
            setattr(parent, name, made[id(child)])


def put_masks(model: nn.Module, bases: int, separate: bool) -> list[MaskedNorm]:
    """Replace every affine BatchNorm of a model by one with masks, and return the new layers.

    Raises:
        Refused: the model has no affine BatchNorm.
    """

    def change(child: nn.Module) -> nn.Module | None:
        if isinstance(child, Norm) and child.affine:
            return MaskedNorm(child, bases, separate).train(child.training)
        return None

    _replace(model, change)
    found = list(masks(model))
    if not found:
        raise Refused("masks need BatchNorm layers with weight and bias, and this model has none")
    return found


def masks(model: nn.Module) -> Iterator[MaskedNorm]:
    """Yield the layers with masks."""
    return (module for module in model.modules() if isinstance(module, MaskedNorm))


def switch(model: nn.Module, strength: float | Drawn) -> None:
    """Select the mask of a strength p in [0, 1] in all layers."""
    for layer in masks(model):
        layer.encoding = layer.encode(strength)


def fold(model: nn.Module, strength: float) -> nn.Module:
    """Return a copy with the mask of a strength p folded into plain BatchNorm; keep the model's masks."""
    copied = copy.deepcopy(model)
    switch(copied, strength)
    _replace(copied, lambda child: child.folded() if isinstance(child, MaskedNorm) else None)
    return copied


@torch.no_grad()
def interpolate(first: nn.Module, second: nn.Module, p: float) -> nn.Module:
    """Return a copy of a model whose BatchNorm layers interpolate between those of two models: §6.2.2.

    γ̂ = pγ + (1 − p)γ'; β̂ and the running statistics likewise. p = 1 is the first model and p = 0 the
    second, bit for bit.

    Args:
        first, second: modules that differ only in their BatchNorm layers.
        p: share of the first.

    Raises:
        Refused: the modules differ elsewhere, or have different architectures.
    """
    copied = copy.deepcopy(first)
    own, other = copied.state_dict(), second.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in other.items()}:
        raise Refused("the two models have different architectures")
    inside = {
        f"{name}.{key}" if name else key
        for name, module in copied.named_modules()
        if isinstance(module, Norm)
        for key in module.state_dict()
    }
    differing = [key for key in own if key not in inside and not torch.equal(own[key], other[key])]
    if differing:
        raise Refused(
            f"the two models differ outside BatchNorm, in {', '.join(differing[:3])}: fine-tune one from "
            'the other with train.only = "batchnorm"'
        )
    for key in inside:
        if own[key].is_floating_point():
            mixed = p * own[key] + (1 - p) * other[key]
            own[key].copy_(own[key] if p == 1 else other[key] if p == 0 else mixed)
        else:
            own[key].copy_(own[key] if p >= 0.5 else other[key])
    return copied
