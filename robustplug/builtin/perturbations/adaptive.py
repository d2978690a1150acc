"""Attacks around others that adapt to a model: averages over its randomness, and gradients past its parts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ...api import Averaged, Cost, Passed

if TYPE_CHECKING:
    from torch import nn

    from ...api import Perturbation, Step, Vicinity, View
    from . import BpdaOptions, EotOptions


def _on(step: Step, model: nn.Module) -> Step:
    """Return a step whose model is a stand-in; its iterations run as they are written, in full precision."""
    return dataclasses.replace(step, model=model, wrapped=None, iterations=None)


class Eot:
    """Another attack on the mean of several outputs of a random model, and on the gradient of that mean.

    Athalye et al. 2018 (arXiv:1802.00420 §4.2). The model draws its own random numbers, anew in every pass.

    Args:
        options: see EotOptions.
        attack: the attack.
    """

    # Each call has a stand-in of its own.
    needs_sync = True

    def __init__(self, options: EotOptions, *, attack: Perturbation) -> None:
        self.draws, self.attack = options.draws, attack

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view that the attack finds."""
        return self.attack(_on(step, Averaged(step.model, self.draws)), view, vicinity)

    def cost(self, target: Cost) -> Cost:
        """Return the cost of the attack for each draw."""
        own = self.attack.cost(target)
        return Cost(self.draws * own.forwards, self.draws * own.backwards)


class Bpda:
    """Another attack on the model with the gradient of the identity in the place of that of one of its parts.

    Athalye et al. 2018 (arXiv:1802.00420 §4.1).

    Args:
        options: see BpdaOptions.
        attack: the attack.
    """

    # Each call has a stand-in of its own.
    needs_sync = True

    def __init__(self, options: BpdaOptions, *, attack: Perturbation) -> None:
        self.part, self.attack = options.part, attack

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view that the attack finds.

        Raises:
            Refused: the model has no such part, or it changes the shape of its input.
        """
        return self.attack(_on(step, Passed(step.model, self.part)), view, vicinity)

    def cost(self, target: Cost) -> Cost:
        """Return the cost of the attack."""
        return self.attack.cost(target)
