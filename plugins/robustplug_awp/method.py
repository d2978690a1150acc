"""Adversarial weight perturbation, Wu et al. 2020 (arXiv:2004.05884)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robustplug.api import Cost, Progress, Step, View, Wrapper

from . import AwpOptions

# Below any norm of weights that train; keeps the move of a layer without a gradient finite.
_TINY = 1e-20


def worst_move(weight: Tensor, gradient: Tensor, gamma: float) -> Tensor:
    """Return v = γ · ‖w‖ · ∇/‖∇‖ of a layer: the first ascent step from v = 0, projected to ‖v‖ ≤ γ‖w‖.

    As `diff_in_weights` of the authors' code. Norms are L2, over the whole layer.

    Args:
        weight: w.
        gradient: gradient of the loss at w, of the same shape.
        gamma: γ.
    """
    move: Tensor = gamma * weight.norm() / (gradient.norm() + _TINY) * gradient
    return move


class Awp(Wrapper[AwpOptions]):
    """min_w max_v of the inner method's loss at w + v, with ‖v_l‖ ≤ γ‖w_l‖ in each layer l.

    The inner method makes its perturbed samples at w. The weights are put back before the optimizer's
    update.
    """

    whole_batch = "awp moves the weights along the gradient of the whole batch"

    @contextlib.contextmanager
    def around_loss(self, step: Step, views: Sequence[View]) -> Iterator[None]:
        """Move the weights for the loss and its gradient, from the warm-up's end on."""
        with contextlib.ExitStack() as stack:
            if step.progress.epoch >= self.options.warmup and self._moves(step.pass_.update):
                stack.enter_context(step.moved(self._worst(step, views)))
            stack.enter_context(self.inner.around_loss(step, views))
            yield

    def _moves(self, update: frozenset[str]) -> bool:
        return "model" in update

    def _worst(self, step: Step, views: Sequence[View]) -> Mapping[torch.nn.Parameter, Tensor]:
        # As in the authors' code: biases, and the parameters of normalisation layers, stay.
        layers = [weight for weight in step.model.parameters() if weight.dim() > 1 and weight.requires_grad]
        with step.rehearsal(), self.inner.around_loss(step, views):
            gradients = step.weight_gradients(step.total(views), layers)
        with torch.no_grad():
            moves = [worst_move(*each, self.options.gamma) for each in zip(layers, gradients, strict=True)]
            sizes = [move.norm() / (w.norm() + _TINY) for w, move in zip(layers, moves, strict=True)]
        step.log("weights", torch.stack(sizes))
        return dict(zip(layers, moves, strict=True))

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the mean size of the layers' moves, relative to their weights."""
        moved = step.logged.get("weights", torch.zeros((), device=views[0].index.device))
        return {**self.inner.mechanism(step, views), "weights": moved[None]}

    def cost(self) -> Cost:
        """Count the inner method, and once more its loss for each update of the model.

        A method of this kind inside moves the weights for that loss, too, and so makes it twice.
        """
        once, updates = self.loss_cost(), sum(self._moves(p.update) for p in self.inner.passes(Progress()))
        part: Any = self.inner
        while isinstance(part, Wrapper):
            updates *= 2 if isinstance(part, Awp) else 1
            part = part.inner
        return self.inner.cost() + (updates * once.forwards, updates * once.backwards)
