"""Training for votes under noise: SmoothAdv, MACER and the consistency regularisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustplug.api import Batch, Cost, Method, Step, View, normal_like, uniform_like

from . import ConsistencyOptions, MacerOptions, SmoothMixOptions, UnderNoiseOptions

Options = TypeVar("Options", bound=UnderNoiseOptions)

# As in the authors' codes, what a logarithm of 0 is taken for.
_LEAST, _ADDED = 1e-20, 1e-10


def mean_probabilities(logits: Tensor) -> Tensor:
    """Return the mean of the probabilities over draws, (N, K).

    Args:
        logits: outputs (N, m, K) for m draws.
    """
    return logits.softmax(2).mean(1)


def consistency(logits: Tensor, weight: float, entropy: float) -> Tensor:
    """Return λ · mean_k KL(p̄ ‖ p_k) + η · H(p̄), (N,), with p̄ the mean of the predictions p_k.

    As `consistency_loss` of jh-jeong/smoothing-consistency, by default.

    Args:
        logits: outputs (N, m, K) for m draws.
        weight: λ.
        entropy: η.
    """
    mean = mean_probabilities(logits)
    logs = mean.clamp_min(_LEAST).log()
    apart = (mean[:, None] * (logs[:, None] - logits.log_softmax(2))).sum(2).mean(1)
    return weight * apart - entropy * (mean * logs).sum(1)


def radius_hinge(logits: Tensor, y: Tensor, beta: float, gamma: float) -> Tensor:
    """Return max(0, γ − (Φ⁻¹(p̄_1) − Φ⁻¹(p̄_2))) of samples that p̄ classifies rightly, and 0 of others, (N,).

    p̄ is the mean of softmax(β f), and p̄_1 and p̄_2 its two largest. As in `macer_train` of RuntianZ/macer,
    samples whose difference is not finite, or larger than γ, add nothing.

    Args:
        logits: outputs (N, m, K) for m draws.
        y: labels, int64 (N,).
        beta: β, inverse temperature.
        gamma: γ, largest difference that is still to grow.
    """
    values, places = mean_probabilities(beta * logits).topk(2)
    first, second = values.unbind(1)
    with torch.no_grad():
        apart = torch.special.ndtri(second) - torch.special.ndtri(first)
        counts = (places[:, 0] == y) & apart.isfinite() & (apart.abs() <= gamma)
    # Rows that do not count get a value whose derivative is finite, so that no 0 · ∞ arises.
    first, second = (torch.where(counts, value, 0.5) for value in (first, second))
    return torch.where(counts, gamma + torch.special.ndtri(second) - torch.special.ndtri(first), 0.0)


def mixture_loss(logits: Tensor, clean: Tensor, mixed: Tensor, y: Tensor) -> Tensor:
    """Return mean_k KL((1 − λ) p̄ + λ/K ‖ q_k) of samples that p̄ classifies rightly, and 0 of others, (N,).

    p̄ is the mean prediction at the sample, and q_k that at the mixture under one draw. As in `train.py` of
    jh-jeong/smoothmix, whose gradient goes through p̄, too.

    Args:
        logits: outputs at the mixtures, (N, m, K) for m draws.
        clean: outputs at the samples, (N, m, K).
        mixed: λ, share of the adversarial example in the mixture, (N,).
        y: labels, int64 (N,).
    """
    mean, share = mean_probabilities(clean), mixed[:, None]
    target = (1 - share) * mean + share / mean.shape[1]
    logs = target.clamp_min(_LEAST).log()[:, None] - logits.log_softmax(2)
    apart = (target[:, None] * logs).sum(2).mean(1)
    return torch.where(mean.argmax(1) == y, apart, 0.0)


def logits_under(step: Step, view: View, noise: Tensor) -> Tensor:
    """Return the outputs for noisy copies of a view, (N, m, K).

    Args:
        step: the current update.
        view: the samples.
        noise: their noise, (N, m, …).
    """
    outputs: Tensor = step.forward((view.x[:, None] + noise).flatten(0, 1)).float()
    if view.x.requires_grad:
        # The gradient of an attack goes through every copy, and its step counts the samples.
        step.meter.backwards += len(outputs) - len(view)
    return outputs.view(*noise.shape[:2], -1)


class MeanUnderNoise:
    """g∘f: log mean_k softmax(f(x + δ_k)) with the noise of the view, and f for views without noise."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View) -> Any:
        """Return logits (N, K)."""
        noise = view.info.get("noise")
        if noise is None:
            return step.forward(view.x)
        return mean_probabilities(logits_under(step, view, noise)).clamp_min(_LEAST).log()


class UnderNoise(Method[Options]):
    """Train on m noisy copies of each sample, which may be attacked under the same noise before.

    The attack ascends the loss of the output map, by default that of the mean prediction, Salman et al.
    2019. In training, label map and loss are those of the slots, for each copy.
    """

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the samples, attacked if there is a perturbation, with their noise."""
        x, draws = point.x, self.options.draws
        empty = torch.empty(len(x), draws, *x.shape[1:], dtype=x.dtype, device=x.device)
        noise = self.options.sigma * normal_like(empty, step.rng)
        start = View.of(point, "adv", info={**point.info, "noise": noise})
        return [self.perturbation(step, start, self.vicinity).replace(penalty=self._descended)]

    def _descended(self, step: Step, view: View) -> Tensor:
        return self.loss_under_noise(step, view, logits_under(step, view, view.info["noise"]))

    def plain_loss(self, step: Step, view: View, logits: Tensor) -> Tensor:
        """Return the mean over the draws of the loss in the slot, (N,)."""
        count, draws = logits.shape[:2]
        repeated = view.rows(torch.arange(count, device=logits.device).repeat_interleave(draws))
        target = step.target(view).repeat_interleave(draws, 0)
        return step.loss(repeated, logits.flatten(0, 1), target).view(count, draws).mean(1)

    def loss_under_noise(self, step: Step, view: View, logits: Tensor) -> Tensor:
        """Return the loss of each sample, (N,)."""
        return self.plain_loss(step, view, logits)

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the size of the noise, and how far the attack moved the samples."""
        (view,) = views
        noise = view.info["noise"].flatten(1).abs().amax(1)
        moved = {} if view.x is view.origin else {"moved": (view.x - view.origin).abs().flatten(1).amax(1)}
        return {"noise": noise, **moved}

    def cost(self) -> Cost:
        """Count every pass of the attack and of the loss once for each draw."""
        attack = self.perturbation.cost(Cost(0, 0))
        draws = self.options.draws
        return Cost(draws * attack.forwards, draws * attack.backwards) + self.loss_cost()

    def loss_cost(self) -> Cost:
        """Count the noisy copies."""
        return Cost(self.options.draws, self.options.draws)


class SmoothAdv(UnderNoise[UnderNoiseOptions]):
    """Adversarial training of the smoothed classifier: Salman et al. 2019 (arXiv:1906.04584)."""


class Consistency(UnderNoise[ConsistencyOptions]):
    """The mean loss under noise, and predictions that agree: Jeong and Shin 2020 (arXiv:2006.04062)."""

    def loss_under_noise(self, step: Step, view: View, logits: Tensor) -> Tensor:
        """Return the mean loss, the divergence from the mean prediction, and its entropy, (N,)."""
        more = consistency(logits, self.options.weight, self.options.entropy)
        step.log("consistency", more)
        return self.plain_loss(step, view, logits) + more


class Macer(UnderNoise[MacerOptions]):
    """The loss of the mean prediction, and a hinge on the radius: Zhai et al. 2020 (arXiv:2001.02378)."""

    def loss_under_noise(self, step: Step, view: View, logits: Tensor) -> Tensor:
        """Return −log p̄_y + λ σ/2 · hinge, (N,)."""
        target: Any = step.target(view)
        labels = target if target.dim() == 1 else target.argmax(1)
        logs = (mean_probabilities(logits) + _ADDED).log()
        rows = F.one_hot(labels, logits.shape[2]).to(logs) if target.dim() == 1 else target
        hinge = radius_hinge(logits, labels, self.options.beta, self.options.gamma)
        step.log("hinge", hinge)
        return -(rows * logs).sum(1) + self.options.weight * self.options.sigma / 2 * hinge


class SmoothMix(UnderNoise[SmoothMixOptions]):
    """The mean loss under noise, and that of mixtures with attacked samples: Jeong et al. 2021.

    A mixture is (1 − λ) x + λ x', λ uniform on [0, 1/2]; its label is as much less certain than the mean
    prediction at the sample.
    """

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the mixtures, with their noise and with λ."""
        (adv,) = super().views(step, point)
        x: Tensor = adv.origin
        drawn = uniform_like(torch.empty(len(x), dtype=x.dtype, device=x.device), step.rng)
        share = (drawn + 1) / 4
        mixed = x + share.view(-1, *(1,) * (x.dim() - 1)) * (adv.x - x)
        return [adv.replace(x=mixed.detach(), info={**adv.info, "mixed": share})]

    def loss_under_noise(self, step: Step, view: View, logits: Tensor) -> Tensor:
        """Return the mean loss at the samples, and η times that of the mixtures, (N,)."""
        clean = logits_under(step, view.at_origin(), view.info["noise"])
        labels = view.y if view.y.dim() == 1 else view.y.argmax(1)
        more = mixture_loss(logits, clean, view.info["mixed"], labels)
        step.log("mixture", more)
        warmup = self.options.warmup
        weight = self.options.weight * (min(1.0, (step.progress.epoch + 1) / warmup) if warmup else 1.0)
        return self.plain_loss(step, view, clean) + weight * more

    def loss_cost(self) -> Cost:
        """Count the noisy copies of the samples, and of the mixtures."""
        return Cost(2 * self.options.draws, 2 * self.options.draws)
