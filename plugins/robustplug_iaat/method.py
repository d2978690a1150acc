"""IAAT, Balaji et al. 2019 (arXiv:1910.08051): Algorithms 1 and 2.

Sections, tables and figures are numbered as in the submission to ICLR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustplug.api import Batch, Cost, Method, ParamGroup, Perturbation, Refused, Step, Task, View

from . import IaatOptions
from .history import History

Withstands = Callable[[Tensor, Tensor], Tensor]
"""(rows int64 (M,), radius (M,)) -> whether the attack with these radii fails, bool (M,)."""


def choose_candidate(remembered: Tensor, gamma: float, withstands: Withstands, fixed: bool = False) -> Tensor:
    """Return ε + γ where that attack fails, else ε where that attack fails, else ε − γ: Algorithm 2.

    The attack with ε runs only on the samples that did not withstand ε + γ.

    Args:
        remembered: ε of each sample, (N,).
        gamma: γ; if it is 0, all candidates are the same and no attack runs.
        withstands: function that runs the attack on some rows.
        fixed: whether both attacks run on all samples, so that nothing is read from the device.
    """
    if not gamma:
        return remembered
    rows = torch.arange(len(remembered), device=remembered.device)
    chosen = remembered + gamma
    fine = withstands(rows, chosen)
    failed = rows if fixed else rows[~fine]
    if not len(failed):
        return chosen
    here = remembered[failed]
    other = torch.where(withstands(failed, here), here, (here - gamma).clamp_min(0))
    if fixed:
        return torch.where(fine, chosen, other)
    chosen[failed] = other
    return chosen


def line_search(size: int, step: float, largest: float, withstands: Withstands, device: Any) -> Tensor:
    """Return the largest of η, 2η, …, ε_max at which the attack fails, else 0: §5.2, (N,).

    The search starts at ε_max, so that a sample leaves as soon as its radius is found.

    Args:
        size: N.
        step: η.
        largest: ε_max.
        withstands: function that runs the attack on some rows.
        device: device of the radii.
    """
    chosen = torch.zeros(size, device=device)
    rows = torch.arange(size, device=device)
    for number in range(math.floor(largest / step + 1e-9), 0, -1):
        radius = torch.full((len(rows),), number * step, device=device)
        fine = withstands(rows, radius)
        chosen[rows[fine]] = number * step
        rows = rows[~fine]
        if not len(rows):
            break
    return chosen


class Iaat(Method[IaatOptions]):
    """Train each sample at the radius that it was found to withstand."""

    def __init__(self, options: IaatOptions, *, selection: Perturbation | None, **slots: Any) -> None:
        super().__init__(options, **slots)
        self.selection = selection or self.perturbation
        self._epoch = -1

    @property
    def _together(self) -> bool:
        """Return whether the samples of a batch affect one another, through BatchNorm."""
        attacks = (self.options.perturbation, self.options.selection)
        modes = [getattr(each.options, "batchnorm", "eval") for each in attacks if each is not None]
        return "train" in (self.options.mode, *modes)

    @property
    def _fixed(self) -> bool:
        """Return whether all samples are attacked, needed or not: on CUDA, except in a line search.

        Rows chosen by data keep an update from being captured, which costs more there than their passes.
        """
        return self.options.search != "line" and self.eps.values.device.type == "cuda"

    @property
    def needs_sync(self) -> bool:  # type: ignore[override]
        """Return whether rows are chosen by data."""
        o = self.options
        chosen = o.gamma > 0 or (o.misclassified == "clean" and not self._together)
        return o.search == "line" or (chosen and not self._fixed)

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Start every ε_i at ε_w."""
        given = self.options.eps_warmup
        self.eps_warmup = float(self.vicinity.eps if given is None else given)
        self.line_max = 2 * self.eps_warmup if self.options.line_max is None else self.options.line_max
        if self.options.search == "line" and self.line_max < (self.options.line_step or self.options.gamma):
            raise Refused(
                "the line search has nothing to try: line_max is below its first radius; raise line_max or "
                "lower line_step"
            )
        size = task.info.training_indices
        self.eps = self.state.per_sample("eps", size, self.eps_warmup)
        if self.options.history:
            self.history = History(self.options.history, size)
            self.state.add_module("history", self.history)
        return super().setup(model, task)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the batch at its attacked points: Algorithm 1, lines 3-11."""
        o, plain = self.options, View.of(point, "adv")
        right = self._right(step, plain)
        eps = self._radii(step, plain, right).clamp_min(o.eps_min)
        step.log("eps", eps)
        step.log("right", right)
        if o.misclassified != "clean":
            return [self.perturbation(step, plain.replace(radius=eps, info={"eps": eps}), self.vicinity)]
        # S⁻ is trained on clean images: their radius in this view is 0, and they need no attack.
        view = plain.replace(radius=torch.where(right, eps, 0.0), info={"eps": eps})
        if self._together or self._fixed:
            return [self.perturbation(step, view, self.vicinity)]
        rows = right.nonzero()[:, 0]
        x = point.x.detach().clone()
        if len(rows):
            x[rows] = self.perturbation(step, view.rows(rows), self.vicinity).x.to(x.dtype)
        return [view.replace(x=x)]

    def _radii(self, step: Step, view: View, right: Tensor) -> Tensor:
        """Return ε_i, used in this update and then remembered: ε_w in the warm-up, else Algorithm 2."""
        o, before = self.options, self.eps.read(view.index)
        shrinks = o.misclassified == "shrinking"
        if step.progress.epoch < o.warmup:
            constant = torch.full_like(before, self.eps_warmup)
            return constant * right if shrinks else constant

        def withstands(rows: Tensor, radius: Tensor) -> Tensor:
            if self._together or self._fixed:
                everyone = before.clone()
                everyone[rows] = radius
                attacked = self.selection(step, view.replace(radius=everyone), self.vicinity)
                return self._right(step, attacked)[rows]
            part = view.rows(rows).replace(radius=radius)
            return self._right(step, self.selection(step, part, self.vicinity))

        if o.search == "candidates":
            chosen = choose_candidate(before, o.gamma, withstands, self._fixed)
        else:
            step_size = o.line_step or o.gamma
            chosen = line_search(len(before), step_size, self.line_max, withstands, before.device)
        if shrinks:
            chosen = chosen * right
        if o.search == "line":
            return chosen  # §5.2 takes the radius that it found; only Algorithm 2 smooths
        # lerp keeps an unchanged radius identical to the bit.
        return torch.lerp(before, chosen, o.beta)

    def _right(self, step: Step, view: View) -> Tensor:
        with step.attack_mode(self.options.mode), torch.no_grad():
            return step.score(view, step.output(view))

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return how far the radii are from ε_w, in units of it; 0 in the warm-up."""
        moved = (views[0].info["eps"] - self.eps_warmup).abs() / (self.eps_warmup or 1.0)
        return {**super().mechanism(step, views), "radius": moved}

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        """Remember the radii; at the start of an epoch, first record those after the previous epoch."""
        epoch = step.progress.epoch
        # The batch is asked for once an epoch: an update that asks for it stands for no other.
        if self.options.history and epoch != self._epoch:
            self._epoch = epoch
            if epoch and step.progress.batch == 0:
                self.history.note(epoch, self.eps.values)
        self.eps.write(views[0].index, views[0].info["eps"])

    def cost(self) -> Cost:
        """Return an unknown cost: it depends on how many samples withstand their first candidate."""
        return Cost.unknown()
