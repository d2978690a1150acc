"""Decoupled and improved KL divergence, Cui et al. 2023 (arXiv:2305.13948)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustplug.api import (
    Batch,
    Cost,
    Method,
    ParamGroup,
    Refused,
    Step,
    Task,
    View,
    as_rows,
    cross_entropy,
)

from . import DklLossOptions, DklOptions

# What the loss takes the samples for while the training attack moves them.
_ATTACK = "attack"


def weighted_squares(difference: Tensor, weights: Tensor) -> Tensor:
    """Return ¼ Σ_{j,k} w_j w_k (d_j − d_k)² of each sample, (N,), which is half the variance of d under w.

    With d = o_m − o_n it is the paper's wMSE, ¼ ‖√w (Δm − Δn)‖². A number added to all d_j changes nothing.

    Args:
        difference: d, (N, K).
        weights: rows w (N, K) that sum to 1.
    """
    mean = (weights * difference).sum(1, keepdim=True)
    return (weights * (difference - mean).square()).sum(1) / 2


class DklLoss:
    """Cross entropy for clean views; wMSE and cross entropy with f(x) for all others.

    The weights of the wMSE are a view's info "class_weights", rows (N, K) that sum to 1; without them, they
    are the clean prediction, as in DKL.
    """

    def __init__(self, options: DklLossOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample, (N,)."""
        if view.kind == "clean" or target.dim() == 1:
            return cross_entropy(output, target)
        attacked, o = view.kind == _ATTACK, self.options
        there, constant = F.log_softmax(output.float(), 1), target.detach()
        weights = view.info.get("class_weights", constant)
        squares = weighted_squares(
            self._clean(step, view, target) - (there if o.symmetric else there.detach()), weights
        )
        if not attacked:
            step.log("squares", o.mse_weight * squares)
        factors = (o.attack_mse_weight, 1.0) if attacked else (o.mse_weight, o.entropy_weight)
        losses: Tensor = factors[0] * squares - factors[1] * (constant * there).sum(1)
        return losses

    def _clean(self, step: Step, view: View, target: Tensor) -> Tensor:
        """Return log f(x): where it has a gradient, from logits, since probabilities may underflow."""
        if target.requires_grad:
            return F.log_softmax(step.output(view.at_origin()).float(), 1)
        return target.clamp_min(torch.finfo(target.dtype).tiny).log()


class Dkl(Method[DklOptions]):
    """min E[CE(f(x), y) + IKL(f(x), f(x'))], with the mean clean prediction of each class as weights.

    The means are those of the epoch before, and equal for all classes in the first one.
    """

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Reserve the class means.

        Raises:
            Refused: the task is not a classification.
        """
        classes = task.info.classes
        if classes is None:
            raise Refused("dkl needs a classification task: it weights classes")
        self.state.register_buffer("class_weights", torch.full((classes, classes), 1 / classes))
        self.state.register_buffer("class_sums", torch.zeros(classes, classes))
        self.state.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        return super().setup(model, task)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the clean view and the perturbed one, which knows the weights of its classes."""
        rows = as_rows(point.y, step.task.info.classes or 0).float()
        info = {**point.info, "class_weights": rows @ self._class_weights(step)}
        start = View.of(point, "adv", treat_as=_ATTACK, info=info)
        adv = self.perturbation(step, start, self.vicinity)
        return [View.of(point), adv.replace(treat_as="")]

    def _class_weights(self, step: Step) -> Tensor:
        """Return the class means to use now: in a new epoch, those that the one before has summed up."""
        weights, sums = self.state.get_buffer("class_weights"), self.state.get_buffer("class_sums")
        total = sums.sum(1, keepdim=True)
        means = torch.where(total > 0, sums / total.clamp_min(1e-12), weights)
        return torch.where(self._begun(step), weights, means)

    def _begun(self, step: Step) -> Tensor:
        """Return whether the sums are those of this epoch."""
        return self.state.get_buffer("epoch").eq(step.progress.epoch)

    @contextlib.contextmanager
    def around_loss(self, step: Step, views: Sequence[View]) -> Iterator[None]:
        """Add up the clean predictions of each class afterwards, while the outputs are still shared."""
        yield
        output = step.output(views[0]).detach().float()
        predictions = (output / self.options.temperature).softmax(1)
        own = as_rows(views[0].y, output.shape[1]).float().t() @ predictions
        step.average([own])
        self.state.get_buffer("class_weights").copy_(self._class_weights(step))
        self.state.get_buffer("class_sums").mul_(self._begun(step)).add_(own)
        self.state.get_buffer("epoch").fill_(step.progress.epoch)

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return how far the samples moved, and the mean squared error with its factor."""
        found = step.logged.get("squares", torch.zeros((), device=views[0].index.device))
        return {**super().mechanism(step, views), "squares": found[None]}

    def cost(self) -> Cost:
        """Count the attack, whose target takes one forward, and both views."""
        return self.perturbation.cost(Cost(1, 0)) + self.loss_cost()

    def loss_cost(self) -> Cost:
        """Count both views."""
        return Cost(2, 2)
