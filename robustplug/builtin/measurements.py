"""What an evaluation measures of each sample besides accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..api import NoOptions, Refused

if TYPE_CHECKING:
    from ..api import Step, Vicinity, View

# The norm that bounds a linear function on the unit ball of another one.
_DUALS = {math.inf: 1.0, 2.0: 2.0, 1.0: math.inf}


class InputGradient:
    """Measure the loss of each sample, and the size of its input gradient.

    The size is in the dual norm of the threat model: by so much the loss rises, to first order, for each unit
    of the radius. Accuracy under attack next to a size near 0 is a sign of masked gradients.

    Args:
        options: none.
    """

    def __init__(self, options: NoOptions) -> None:
        del options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> Mapping[str, Tensor]:
        """Return "loss" and "input gradient", (N,) each.

        Raises:
            Refused: the threat model has no norm, or the model has no gradients.
        """
        if vicinity.norm not in _DUALS or not isinstance(view.x, Tensor):
            raise Refused("it needs a threat model with a norm, such as linf or l2")
        x = view.x.detach().clone().requires_grad_()
        loss = step.objective(view.replace(x=x))
        gradient = step.gradient(loss.sum(), x).flatten(1)
        size = torch.linalg.vector_norm(gradient, _DUALS[vicinity.norm], dim=1)
        return {"loss": loss.detach(), "input gradient": size}
