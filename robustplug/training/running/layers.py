"""Layers that compute the same in another way while a run trains: over all processes, or in less memory.

A module gets another class for the time of the training and stays the same object, with the same parameters,
so that copies of it, and what holds it, keep working.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...recipe.errors import Problem, RecipeError

_SYNCHRONISED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Dressed(nn.Module):
    """A module that has another class for a time."""

    plain: ClassVar[type[nn.Module]]


_CLASSES: dict[tuple[type[Dressed], type[nn.Module]], type[Dressed]] = {}


def dress(module: nn.Module, kind: type[Dressed]) -> None:
    """Let a module compute as `kind` says, until `undress`."""
    own = type(module)
    made = _CLASSES.get((kind, own))
    if made is None:
        made = _CLASSES[kind, own] = type(own.__name__, (kind, own), {"plain": own})
    module.__class__ = made


def undress(model: nn.Module) -> None:
    """Give all parts of a model the classes back that they had."""
    for part in model.modules():
        while isinstance(part, Dressed):
            part.__class__ = part.plain  # type: ignore[assignment]


@contextlib.contextmanager
def plain(*models: nn.Module) -> Iterator[None]:
    """Give all parts of models their own classes back for a block, in which processes go their own ways."""
    worn = [(part, type(part)) for model in models for part in model.modules() if isinstance(part, Dressed)]
    for model in models:
        undress(model)
    try:
        yield
    finally:
        for part, kind in worn:
            part.__class__ = kind


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total_of(gradient.contiguous())


def total_of(own: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, differentiable any number of times."""
    total: Tensor = _Sum.apply(own)
    return total


class Synchronised(Dressed, nn.SyncBatchNorm):
    """BatchNorm with the statistics of the rows of all processes.

    On CUDA it is torch's SyncBatchNorm, which computes nowhere else. Elsewhere two sums are exchanged, that
    of the inputs and that of their squared distances from the mean, through differentiable operations.
    """

    process_group = None

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, …); all processes must call it."""
        if input.is_cuda or not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        x = input if input.dtype == torch.float64 else input.float()
        axes, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        own = torch.cat([x.sum(axes), x.new_full((1,), x.numel() / x.shape[1])])
        sums = total_of(own)
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = x - mean.view(shape)
        variance = total_of(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * count / (count - 1))
        result = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            # No write for autograd, as in torch's own layers: a graph may hold these values unused.
            running.data.mul_(1 - factor).add_(factor * new)


def synchronise(model: nn.Module) -> None:
    """Let the BatchNorm layers of a model use the statistics of all processes, until `undress`.

    Raises:
        RecipeError: it has none, or layers of a kind that cannot.
    """
    layers = [part for part in model.modules() if isinstance(part, _BatchNorm)]
    others = sorted({type(layer).__name__ for layer in layers if type(layer) not in _SYNCHRONISED})
    if others:
        _refuse(
            "train.sync_batch_norm", f"only serves torch's own BatchNorm layers, and the model has {others}"
        )
    if not layers:
        _refuse("train.sync_batch_norm", "has no effect: the model has no BatchNorm layer")
    for layer in layers:
        dress(layer, Synchronised)


class Recomputed(Dressed):
    """A block whose activations are not kept for the backward pass, but computed again there."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the block; its random numbers, switches and statistics are the same when it is repeated."""
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        switches = _switches(self)
        return checkpoint(
            super().forward,
            *args,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), _AsBefore(switches)),
            **kwargs,
        )


_Switches = Mapping[nn.Module, Mapping[str, Any]]


def _switches(block: nn.Module) -> _Switches:
    """Return the attributes of a block that determine what it computes, besides weights and statistics."""
    return {
        part: {name: value for name, value in vars(part).items() if not name.startswith("_")}
        for part in block.modules()
    }


class _AsBefore:
    """Compute a block again as it was, without a trace in its running statistics.

    torch enters the same context for each gradient that is taken from one output.
    """

    def __init__(self, switches: _Switches) -> None:
        self._switches, self._entered = switches, list[contextlib.ExitStack]()

    def __enter__(self) -> None:
        stack = contextlib.ExitStack()
        for part, old in self._switches.items():
            stack.callback(_put_back, part, {name: vars(part)[name] for name in old}, dict(part._buffers))
            vars(part).update(old)
            for name, value in part._buffers.items():
                part._buffers[name] = None if value is None else value.clone()
        self._entered.append(stack)

    def __exit__(self, *_: object) -> None:
        self._entered.pop().close()


def _put_back(part: nn.Module, own: Mapping[str, Any], buffers: Mapping[str, Tensor | None]) -> None:
    vars(part).update(own)
    part._buffers.update(buffers)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the outermost modules in the sequences and lists of a model that have parts themselves."""
    found: list[nn.Module] = []
    for part in model.children():
        inside = isinstance(model, nn.Sequential | nn.ModuleList)
        container = isinstance(part, nn.Sequential | nn.ModuleList)
        if inside and not container and next(part.children(), None) is not None and _trained(part):
            found.append(part)
        else:
            found += blocks_of(part)
    return found


def _trained(part: nn.Module) -> bool:
    return next(part.parameters(), None) is not None


def recompute(model: nn.Module) -> None:
    """Let the blocks of a model compute their activations again in the backward pass, until `undress`.

    Raises:
        RecipeError: the model is not made of blocks.
    """
    blocks = blocks_of(model)
    if not blocks:
        why = "has no effect: the model has no blocks, which are modules in an nn.Sequential or nn.ModuleList"
        _refuse("train.checkpoint_activations", why)
    for block in blocks:
        dress(block, Recomputed)


def _refuse(key: str, why: str) -> None:
    raise RecipeError([Problem(key, f"{why}; leave it out")], "recipe")
