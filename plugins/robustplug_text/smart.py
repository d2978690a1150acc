"""SMART, Jiang et al. 2020 (arXiv:1911.03437): a smooth model, that moves slowly."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustplug.api import Batch, Cost, Method, ParamGroup, Step, Task, View, kl_divergence, normal_like

from .freelb import SHIFT, refuse_unshiftable
from .options import SmartOptions
from .words import Shifted

KNOWN = "known"
"""Key of a view's info: logits of the copy, (N, K)."""
_TINY = 1e-20


def symmetric_divergence(one: Tensor, other: Tensor) -> Tensor:
    """Return ℓ_s = KL(p ‖ q) + KL(q ‖ p) of each sample, (N,), differentiable in both arguments.

    Args:
        one, other: logits of p and q, (N, K).
    """
    p, q = one.float().softmax(1), other.float().softmax(1)
    return kl_divergence(other, p) + kl_divergence(one, q)


def climbed(shift: Tensor, gradient: Tensor, step_size: float, largest: float, rescale: bool) -> Tensor:
    """Return δ after a step of the ascent, (N, S, d), with a largest coordinate of at most ε at each token.

    By default, δ ← clip(δ + η · g/‖g‖_∞, −ε, ε), with the norm of each token's gradient. With `rescale`,
    δ ← ε · (δ + η · g)/‖δ + η · g‖_∞, again at each token, as in `SmartPerturbation` of the authors' code.

    Args:
        shift, gradient: δ and g, (N, S, d).
        step_size: η.
        largest: ε.
        rescale: whether each token's δ has the size ε, in the place of at most ε.
    """
    if rescale:
        moved = shift + step_size * gradient
        return largest * moved / _sizes(moved)
    return (shift + step_size * gradient / _sizes(gradient)).clamp(-largest, largest)


def _sizes(vectors: Tensor) -> Tensor:
    """Return the largest coordinate of each token's vector, at least 1e-20, (N, S, 1)."""
    return vectors.abs().amax(2, keepdim=True).clamp_min(_TINY)


class Smart(Method[SmartOptions]):
    """min L(θ) + λ_s · R_s(θ) + μ · D_Breg(θ, θ̃), with θ̃ an average of the weights before.

    R_s is the mean of max_{‖δ‖_∞ ≤ ε} ℓ_s(f(x + δ; θ), f(x; θ)) over shifts δ of the embeddings, and D_Breg
    that of ℓ_s(f(x; θ), f(x; θ̃)); ℓ_s is the symmetrised KL divergence.

    `earlier` is the network with the weights θ̃, `shift` the last δ of the last update, (N, S, d).
    """

    # A text is read on the CPU.
    needs_sync = True
    earlier: nn.Module

    def __init__(self, options: SmartOptions, **slots: Any) -> None:
        super().__init__(options, **slots)
        self.shift: Tensor | None = None
        self._away: Tensor | None = None

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Train all parameters of the model, and make the copy.

        Raises:
            Refused: the model has no embeddings of texts that can be shifted, or does not use them as they
                are.
        """
        refuse_unshiftable("smart", model, task)
        if self.options.proximal:
            self.earlier = copy.deepcopy(model)
            self.state.hold("earlier", self.earlier)
        return super().setup(model, task)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the texts, and with weights λ_s and μ the two penalties."""
        o, views = self.options, [View.of(point)]
        if o.smoothness:
            info = {**point.info, SHIFT: self._worst(step, point)}
            views.append(View.of(point, "smooth", info=info, weight=o.smoothness, penalty=_roughness))
        if o.proximal:
            with torch.no_grad():
                known = step.forward(point.x, module=self.earlier)
            info = {**point.info, KNOWN: known}
            views.append(View.of(point, "proximal", info=info, weight=o.proximal, penalty=_departure))
        return views

    def _worst(self, step: Step, point: Batch) -> Tensor:
        """Return the shift at which the outputs differ most from those of the texts: K steps of ascent."""
        model: Any = step.model
        o = self.options
        with step.attack_mode():
            with torch.no_grad():
                here = step.forward(point.x)
            there: Tensor = model.there(point.x)
            empty = torch.zeros(*there.shape, model.width, device=there.device)
            shift: Tensor = o.start * normal_like(empty, step.rng) * there[..., None]
            for _ in range(o.steps):
                shift = shift.detach().requires_grad_()
                away = symmetric_divergence(step.forward(Shifted(point.x, shift)), here)
                slope = step.gradient(away.sum(), shift)
                shift = climbed(shift.detach(), slope.float(), o.step_size, o.largest, o.rescale)
        self.shift = worst = shift.detach()
        return worst

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        """Move the copy: θ̃ ← β · θ̃ + (1 − β) · θ, as `EMA.update` of the authors' code."""
        if not self.options.proximal or not step.closes:
            return
        with torch.no_grad():
            pairs = list(zip(self.earlier.parameters(), step.model.parameters(), strict=True))
            self._away = torch.stack([(own - kept).abs().amax() for kept, own in pairs]).amax()
            for kept, own in pairs:
                kept.lerp_(own, 1 - self.options.momentum)
            for left, right in zip(self.earlier.buffers(), step.model.buffers(), strict=True):
                left.copy_(right)

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the largest coordinate of the shift of each text, and how far the weights left the copy."""
        shift = {} if self.shift is None else {"shift": self.shift.abs().flatten(1).amax(1)}
        return {**shift, **({} if self._away is None else {"earlier": self._away[None]})}

    def cost(self) -> Cost:
        """Count the ascent, whose target takes one forward, the copy's outputs, and the loss."""
        o = self.options
        ascent = Cost(o.steps + 1, o.steps) if o.smoothness else Cost(0, 0)
        return ascent + (bool(o.proximal), 0) + self.loss_cost()

    def loss_cost(self) -> Cost:
        """Count the texts, and the shifted ones."""
        passes = 2 if self.options.smoothness else 1
        return Cost(passes, passes)


def _roughness(step: Step, view: View) -> Tensor:
    """Return ℓ_s between the outputs at the shifted embeddings and those at the texts, (N,)."""
    plain = {name: value for name, value in view.info.items() if name != SHIFT}
    return symmetric_divergence(step.output(view), step.output(view.replace(info=plain)))


def _departure(step: Step, view: View) -> Tensor:
    """Return ℓ_s between the outputs of the model and those of the copy, (N,)."""
    return symmetric_divergence(step.output(view), view.info[KNOWN])
