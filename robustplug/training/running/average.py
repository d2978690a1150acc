"""The average of the weights that a run leaves: keep it, and estimate its running statistics."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

from ...core.calling.inputs import call
from ...core.method import Averaging
from ...recipe.errors import Problem, RecipeError

if TYPE_CHECKING:
    from ...core.method import Method
    from ...core.types import Progress


def averaging_of(method: Method[Any], ema_decay: float | None) -> Averaging | None:
    """Return how a run averages its weights: as its method says, or with `train.ema_decay`.

    Raises:
        RecipeError: both ask for an average.
    """
    own = method.averaging()
    if ema_decay is None:
        return own
    if own is not None:
        why = "asks for an average of the weights, and so does the method: leave one of them out"
        raise RecipeError([Problem("train.ema_decay", why)], "recipe")
    return Averaging(ema_decay)


def approach(own: list[Tensor], new: list[Tensor], averaged: Tensor, decay: float) -> None:
    """Move an exponential average to new weights, the further the younger it is.

    w̄ ← d·w̄ + (1 − d)·w with d = min(decay, (1 + n)/(10 + n)): with a constant decay of 0.995, half of the
    average of 140 updates would be weights from before the first of them. As in the code of Wang et al. 2023.

    Args:
        own: the average, of one dtype and on one device, changed in place.
        new: the weights.
        averaged: number n of weights in the average, on their device, which is not waited for.
        decay: largest share that the average keeps of itself.
    """
    kept = ((1 + averaged) / (10 + averaged)).clamp(max=decay).to(own[0])
    torch._foreach_mul_(own, kept)
    torch._foreach_add_(own, torch._foreach_mul(new, 1 - kept))


class Average:
    """Keep an average of a model's weights, of which the training knows nothing.

    Args:
        rule: what is averaged.
        model: the model, in the modes in which it is trained.

    Attributes:
        kept: the average, as torch keeps it; a part of the checkpoints.
    """

    def __init__(self, rule: Averaging, model: nn.Module) -> None:
        self.rule, self.kept = rule, AveragedModel(model, use_buffers=True)
        # Beside the weights: a graph of an update that reads the number has to count it, too.
        for value in itertools.islice(model.parameters(), 1):
            self.kept.n_averaged = self.kept.n_averaged.to(value.device)
        self._merge: Any = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
        if rule.decay is not None:
            self._merge = functools.partial(approach, decay=rule.decay)
        self._training = {name for name, module in model.named_modules() if module.training}

    @property
    def begun(self) -> bool:
        """Return whether any weights have been averaged; waits for the device."""
        return int(self.kept.n_averaged) > 0

    def after_update(self, model: nn.Module, progress: Progress, done: int) -> None:
        """Add the weights after an update to an exponential average.

        Args:
            model: the model.
            progress: position of the update.
            done: number of updates before it.
        """
        warmup = self.rule.warmup
        # A graph of an update that reads its epoch is not replayed in another one.
        if self.rule.decay is not None and not (warmup and progress.epoch < warmup):
            self._add(model, first=done == (warmup and warmup * (progress.updates // progress.epochs)))

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Add the weights at the end of an epoch to a mean."""
        late = epoch - self.rule.warmup
        if self.rule.decay is None and late >= 0 and late % self.rule.every == 0:
            self._add(model, first=late == 0)

    def _add(self, model: nn.Module, first: bool) -> None:
        # `AveragedModel.update_parameters` asks the device whether it is the first, and waits for the answer.
        own, new = (
            [value.detach() for value in itertools.chain(part.parameters(), part.buffers())]
            for part in (self.kept.module, model)
        )
        with torch.no_grad():
            kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
            for number, value in enumerate(own):
                if first or not value.is_floating_point():
                    value.copy_(new[number])
                else:
                    kinds.setdefault((value.device, value.dtype), []).append(number)
            for chosen in kinds.values():
                self._merge([own[n] for n in chosen], [new[n] for n in chosen], self.kept.n_averaged)
            self.kept.n_averaged += 1

    def estimate(self, inputs: Iterable[Any]) -> int:
        """Replace the running statistics of the average by means over inputs, and return the rows of these.

        Statistics that belong to the weights of the run do not fit their average. Layers that are in eval
        mode in training keep theirs, and so do those that these inputs do not reach; torch's `update_bn`
        would reset both. All other buffers stay averages, too. Nothing is read if there is no such layer.

        Args:
            inputs: batches of training inputs.
        """
        layers = [
            module
            for name, module in self.kept.module.named_modules()
            if name in self._training and isinstance(module, _BatchNorm) and module.track_running_stats
        ]
        if not layers:
            return 0
        rows = 0
        counted = {id(value) for layer in layers for value in layer.buffers()}
        others = [value for value in self.kept.module.buffers() if id(value) not in counted]
        with self._as_in_training(), _restarted(layers), _left_alone(others), torch.no_grad():
            for x in inputs:
                call(self.kept.module, x)
                rows += len(x)
        return rows

    @contextlib.contextmanager
    def _as_in_training(self) -> Iterator[None]:
        modules = dict(self.kept.module.named_modules())
        before = {name: module.training for name, module in modules.items()}
        try:
            for name, module in modules.items():
                module.training = name in self._training
            yield
        finally:
            for name, module in modules.items():
                module.training = before[name]

    def distance(self, model: nn.Module) -> Tensor:
        """Return ‖w̄ − w‖ / ‖w‖ over all parameters, a scalar; 0 as long as nothing has been averaged."""
        pairs = list(zip(self.kept.module.parameters(), model.parameters(), strict=True))
        own = torch.stack([parameter.detach().float().norm() for _, parameter in pairs]).norm()
        apart = torch.stack([(mean - parameter).detach().float().norm() for mean, parameter in pairs]).norm()
        return apart / own if self.begun else torch.zeros_like(own)


@contextlib.contextmanager
def _left_alone(values: list[Tensor]) -> Iterator[None]:
    """Put back the values of buffers after a block."""
    before = [value.clone() for value in values]
    try:
        yield
    finally:
        for value, old in zip(values, before, strict=True):
            value.copy_(old)


@contextlib.contextmanager
def _restarted(layers: list[_BatchNorm]) -> Iterator[None]:
    """Let layers take the mean of the statistics of all batches of a block, each of the same weight."""
    before = [[value.clone() for value in layer.buffers()] for layer in layers]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        yield
    finally:
        for layer, values, momentum in zip(layers, before, momenta, strict=True):
            layer.momentum = momentum
            if layer.num_batches_tracked is not None and not int(layer.num_batches_tracked):
                for value, old in zip(layer.buffers(), values, strict=True):
                    value.copy_(old)
