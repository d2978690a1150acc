"""SPROUT, Cheng et al. 2021 (arXiv:2012.11769): Algorithm 1, and the choices of the released code.

Sections, equations and tables are numbered as in the submission to ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustplug.api import (
    Batch,
    Cost,
    LabelMap,
    LearnedSlot,
    Method,
    MethodState,
    ParamGroup,
    Pass,
    Progress,
    Step,
    Task,
    View,
    as_rows,
    dirichlet,
)

from . import DirichletOptions, SproutOptions

# Below this value, a gamma sample and its gradient underflow in float32.
FLOOR = 1e-4


def concentration(rows: Tensor, beta: Tensor, alpha: float, scale: float) -> Tensor:
    """Return s·((1 − α)·y + α·β), clamped to a small floor, in the shape of the rows.

    SPROUT §3.1 with s = 1. Its Algorithm 1 has α and 1 − α swapped, which would leave 1 % of the label
    with α = 0.01; the released code agrees with §3.1.

    Args:
        rows: labels y, rows (…, K) that sum to 1.
        beta: β, (K,).
        alpha: α in [0, 1].
        scale: s above 0.
    """
    return (scale * ((1 - alpha) * rows + alpha * beta)).clamp_min(FLOOR)


class DirichletLabels:
    """h: a draw from Dirichlet(s·((1 − α)·y + α·β)), a new one at each call, differentiable in β.

    The parameter group "beta" ascends the loss: Eqs. (6) and (10). It is updated in every pass of a
    method that does not name it.

    Args:
        options: options of the component.
        inner: label map that produces y.
    """

    def __init__(self, options: DirichletOptions, *, inner: LabelMap) -> None:
        self.options, self.inner = options, inner

    @property
    def learns(self) -> bool:
        """Return whether there is a β to learn."""
        return self.options.alpha > 0

    @property
    def beta(self) -> Tensor:
        """Return β, (K,), differentiable in the learned parameter."""
        return F.softplus(self.raw) if self.options.positivity == "softplus" else self.raw

    def setup(self, model: nn.Module, task: Task, state: MethodState) -> Sequence[ParamGroup]:
        """Initialise β and return it as the parameter group "beta".

        Raises:
            ValueError: the task is not a classification task.
        """
        groups = self.inner.setup(model, task, state) if isinstance(self.inner, LearnedSlot) else ()
        if task.info.classes is None:
            raise ValueError("the label map dirichlet needs a classification task")
        if not self.learns:
            return groups
        first = self.options.beta_init
        start = torch.full((task.info.classes,), 1.0 if first == "random" else float(first))
        if first == "random":
            start = start.uniform_(0.5, 1.5)
        if self.options.positivity == "softplus":
            start = start + torch.log(-torch.expm1(-start))
        self.start = start.clone()
        self.raw = nn.Parameter(start)
        state.register_parameter("beta", self.raw)
        return [*groups, ParamGroup("beta", [self.raw], self.options.beta_lr, maximize=True, always=True)]

    def __call__(self, step: Step, view: View) -> Any:
        """Return rows (N, K) that sum to 1; y itself if α = 0."""
        if not self.learns:
            return self.inner(step, view)
        if self.options.draw == "partner" and "partner-labels" in view.info:
            partners = view.info["partner-labels"].unbind(1)
            rows = [as_rows(self.inner(step, view.replace(y=y)), len(self.raw)) for y in partners]
            both = self._draw(step, torch.stack(rows, 1))
            return (view.info["shares"].unsqueeze(-1) * both).sum(1)
        return self._draw(step, as_rows(self.inner(step, view), len(self.raw)))

    def _draw(self, step: Step, rows: Tensor) -> Tensor:
        o = self.options
        return dirichlet(concentration(rows, self.beta, o.alpha, o.scale), step.rng)


class Sprout(Method[SproutOptions]):
    """min over θ, max over β of the generalised cross entropy at virtual samples: Eq. (10)."""

    @property
    def _learns(self) -> bool:
        return isinstance(self.label_map, DirichletLabels) and self.label_map.learns

    def passes(self, progress: Progress) -> Sequence[Pass]:
        """Return the updates of θ, which also update β or are followed by updates of β alone.

        Algorithm 1 has one update, whose backward pass serves both. The released code has three updates of
        θ, and one of β on the clean samples.
        """
        o = self.options
        same = o.beta_inputs == "same"
        main = Pass("main", frozenset({"model", "beta"} if self._learns and same else {"model"}))
        alone = o.beta_steps - same if self._learns else 0
        return (main,) * o.updates + (Pass("beta", frozenset({"beta"})),) * alone

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the virtual samples or, in a pass of β alone, the samples that `beta_inputs` selects."""
        if step.pass_.name == "beta" and self.options.beta_inputs == "clean":
            point = step.batch
        return [self.perturbation(step, View.of(point, "adv"), self.vicinity)]

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return how far β, or what it is the softplus of, has moved since the start, (K,)."""
        moved = super().mechanism(step, views)
        if not isinstance(self.label_map, DirichletLabels) or not self._learns:
            return moved
        raw = self.label_map.raw
        return {**moved, "beta": (raw - self.label_map.start.to(raw.device)).abs()}

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        """Log the range of β."""
        if isinstance(self.label_map, DirichletLabels) and self._learns:
            beta = self.label_map.beta.detach()
            step.log("beta/least", beta.amin()[None])
            step.log("beta/most", beta.amax()[None])

    def cost(self) -> Cost:
        """Count the attack and the update of each pass; a pass of β alone needs no backward of the model."""
        passes = self.passes(Progress())
        alone = sum(pass_.name == "beta" for pass_ in passes)
        attack = self.perturbation.cost(Cost(0, 0))
        each = Cost(attack.forwards * len(passes), attack.backwards * len(passes))
        return each + (len(passes), len(passes) - alone)
