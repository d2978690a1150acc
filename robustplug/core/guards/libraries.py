"""Run the attack code of other libraries on a model, and restore everything afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...errors import Refused
from ..calling.gradients import finite, squarable
from ..random import isolated, other_generators
from ..step import NO_GRADIENTS

if TYPE_CHECKING:
    from ..protocols import Vicinity
    from ..step import Step
    from ..types import View


class Guarded(nn.Module):
    """Expose the model of a step to third-party code, as a module whose calls are counted.

    `train`, `eval`, `to` and every other call that would change the mode, the device or the precision of
    the model have no effect. This holds after the block as well, for code that kept a reference to the
    module.

    Args:
        step: the step whose model is exposed; this module shares the model's parameters.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.training = False
        self.model = step.model
        # Set without nn.Module's attribute handling: a step is not a module.
        self.__dict__["step"] = step

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for inputs in [0, 1], and count forwards and backwards."""
        step: Step = self.__dict__["step"]
        # Code that passes through NumPy returns double precision.
        x = x.to(step.batch.x.dtype) if x.is_floating_point() else x
        slopes = x.requires_grad and torch.is_grad_enabled()
        if slopes:
            x = x.view_as(x)
            x.register_hook(lambda gradient: _usable(step, gradient))  # type: ignore[no-untyped-call]
        output: Tensor = step.forward(x)
        if slopes and not output.requires_grad:
            raise Refused(NO_GRADIENTS)
        if output.requires_grad:
            output.register_hook(lambda gradient: _count(step, len(x)))  # type: ignore[no-untyped-call]
        return output.float()

    def train(self, mode: bool = True) -> Guarded:
        """Ignore the call and keep the mode of an attack: active dropout would pass for robustness."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Guarded:
        # .to(), .double(), .cuda() and .cpu() all call this.
        return self


def _count(step: Step, rows: int) -> None:
    step.meter.backwards += rows


def _usable(step: Step, gradient: Tensor) -> Tensor:
    """Return an input gradient that is finite and of a size whose norm libraries can divide by."""
    if step.evaluating:
        step.meter.note(gradient)
    return squarable(finite(gradient))


@contextlib.contextmanager
def guarded(step: Step) -> Iterator[nn.Module]:
    """Give third-party code a step's model for a block, and restore what such code is known to change.

    Inside, the model is in eval mode with frozen parameters. Gradients are enabled, even if the caller
    disabled them. The global generators of torch, NumPy and Python are seeded from the step's generator.
    Afterwards, even after an exception, training flags, `requires_grad`, `.grad`, buffers, the global
    generators and cuDNN's flags are as before.

    Args:
        step: the step whose model is attacked.

    Yields:
        A module from inputs in [0, 1] to logits, whose calls are counted.
    """
    seed = int(torch.randint(2**31 - 1, (), generator=step.rng, device=step.rng.device))
    parameters = [(each, each.grad, each.requires_grad) for each in step.model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in step.model.buffers()]
    cudnn = torch.backends.cudnn
    flags = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(isolated(seed, step.rng.device))
        stack.enter_context(other_generators(seed))
        stack.enter_context(step.attack_mode())
        try:
            for parameter, _, _ in parameters:
                parameter.grad = None
            yield Guarded(step)
        finally:
            cudnn.enabled, cudnn.benchmark, cudnn.deterministic = flags
            for parameter, gradient, required in parameters:
                parameter.grad = gradient
                parameter.requires_grad_(required)
            with torch.no_grad():
                for buffer, value in buffers:
                    # Even a write of equal values would invalidate graphs that still await their backward.
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)


def attack_by_radius(
    step: Step,
    view: View,
    vicinity: Vicinity,
    attack: Callable[[nn.Module, Tensor, Tensor, float], Tensor],
) -> View:
    """Run third-party attack code on the rows of each radius, and make its results legal.

    Rows of radius 0 stay unchanged. Rows that are not finite return to their origin. Rows that are not
    legal are projected into the vicinity. All other rows stay bit-identical: the rounding of a projection
    would lose examples that lie just across the decision boundary.

    Args:
        step, view, vicinity: the arguments of a perturbation.
        attack: (model, x, y, eps) -> x′ for rows of one radius; the model is as in `guarded`.
    """
    radius = step.radii(view, vicinity)
    with guarded(step) as model:
        x = view.origin.detach().clone()
        for eps in sorted(set(radius.tolist()) - {0.0}):
            rows = radius == eps
            # Libraries compute in single precision, and some fail in any other.
            found = (
                attack(model, x[rows].contiguous().float(), view.y[rows], eps).detach().to(x.device, x.dtype)
            )
            finite = found.flatten(1).isfinite().all(1).view(-1, *(1,) * (x.dim() - 1))
            x[rows] = torch.where(finite, found, x[rows])
    legal = vicinity.contains(x, view.origin, radius).view(-1, *(1,) * (x.dim() - 1))
    return view.replace(x=torch.where(legal, x, vicinity.project(x, view.origin, radius)).detach())
