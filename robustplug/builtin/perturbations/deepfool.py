"""DeepFool: the nearest decision boundary, by successive linear approximations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...api import Cost, Refused
from ..vicinities import at_least_single, per_sample

if TYPE_CHECKING:
    from ...api import Step, Vicinity, View
    from . import DeepFoolOptions


def nearest_boundary(gaps: Tensor, slopes: Tensor, norm: float) -> Tensor:
    """Return the shortest move of each sample to the nearest of several linear boundaries.

    Moosavi-Dezfooli et al. 2016 (arXiv:1511.04599), Algorithm 2 for L2 and its §3.3 for L∞: with the
    gap f_k = z_k − z_y < 0 and the slope w_k = ∇f_k, the distance is |f_k| / ‖w_k‖_q for the dual norm q.

    Args:
        gaps: gaps of the candidates, (N, K); above 0 for a candidate that already exceeds the label.
        slopes: gradients of the gaps, (N, K, …).
        norm: norm of the distance: 2.0 or math.inf.

    Returns:
        The move (N, …); 0 where every slope is 0.
    """
    gaps, slopes = at_least_single(gaps), at_least_single(slopes)
    # Neither small nor large logits may leave the range of float32: a common factor changes no distance.
    size = slopes.flatten(1).abs().amax(1).clamp_min(torch.finfo(slopes.dtype).tiny)
    gaps, slopes = gaps / size[:, None], slopes / per_sample(size, slopes)
    flat = slopes.flatten(2)
    dual = flat.abs().sum(2) if norm == math.inf else flat.norm(dim=2)
    distance = gaps.abs() / dual.clamp_min(1e-12)
    distance = torch.where(dual > 0, distance, torch.inf)
    shortest = distance.argmin(1)
    samples = torch.arange(len(gaps), device=gaps.device)
    length, slope, size = distance[samples, shortest], slopes[samples, shortest], dual[samples, shortest]
    direction = slope.sign() if norm == math.inf else slope / per_sample(size.clamp_min(1e-12), slope)
    # Slightly more than the distance, as in the authors' code: rounding must not stop short of the boundary.
    return torch.where(
        per_sample(length.isfinite(), slope), per_sample(length + 1e-4, slope) * direction, 0.0
    )


class DeepFool:
    """Follow linear approximations to a point slightly beyond the nearest boundary and stop there.

    The adversarial example is legal only if the boundary is within the radius; otherwise it is projected.

    Args:
        options: see DeepFoolOptions.
    """

    # A sample leaves the batch when it has crossed the boundary.
    needs_sync = True

    def __init__(self, options: DeepFoolOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the adversarial examples.

        Raises:
            Refused: the threat model is not an L∞ or L2 ball, or the model provides no gradients.
        """
        norm = vicinity.norm
        if norm not in (math.inf, 2.0) or norm is None:
            raise Refused("deepfool needs an L∞ or L2 threat model")
        radius, x = step.radii(view, vicinity), view.origin.detach().clone()
        labels = view.y if view.y.dim() == 1 else view.y.argmax(1)
        rows = (radius > 0).nonzero()[:, 0]
        total = torch.zeros_like(at_least_single(x))
        with step.attack_mode():
            for _ in range(self.options.steps):
                if not len(rows):
                    break
                part, here = view.rows(rows), x[rows].requires_grad_()
                logits = step.output(part.replace(x=here))
                left = step.score(part, logits).nonzero()[:, 0]
                if not len(left):
                    break
                gaps, slopes = self._candidates(step, logits, labels[rows], here)
                rows = rows[left]
                total[rows] += nearest_boundary(gaps[left], slopes[left], norm)
                moved = view.origin[rows] + (1 + self.options.overshoot) * total[rows]
                # Only to the valid range: the boundary may lie beyond the radius.
                x[rows] = vicinity.project(moved, view.origin[rows], torch.full_like(radius[rows], torch.inf))
        return view.replace(x=vicinity.project(x, view.origin, radius).detach())

    def _candidates(self, step: Step, logits: Tensor, labels: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gaps (N, K) and slopes (N, K, …) to the most likely other classes."""
        count = min(self.options.candidates, logits.shape[1]) - 1
        others = logits.detach().scatter(1, labels[:, None], -torch.inf).topk(count, dim=1).indices
        gaps = logits.gather(1, others) - logits.gather(1, labels[:, None])
        slopes = [
            step.gradient(gaps[:, number].sum(), x, retain=number + 1 < count) for number in range(count)
        ]
        return gaps.detach(), torch.stack(slopes, 1)

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on the data."""
        return Cost.unknown()
