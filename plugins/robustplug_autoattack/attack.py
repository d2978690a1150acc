"""The parts of AutoAttack as perturbations, each run by pyautoattack."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustplug.api import Cost, Ensemble, Refused, attack_by_radius

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity, View

    from . import AttackName, AutoAttackOptions

# Least number of classes for each attack: DLR sorts three logits, targeted DLR four.
NEEDS = {"apgd-ce": 2, "apgd-dlr": 3, "apgd-t": 4, "fab": 2, "fab-t": 2, "square": 2}


def run_part(
    name: AttackName,
    options: AutoAttackOptions,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    norm: str,
    eps: float,
) -> Tensor:
    """Run one attack on a batch as pyautoattack's `AutoAttack.run_standard_evaluation` does.

    Args:
        name: name of the attack.
        options: version and seed.
        model: maps inputs in [0, 1] to logits (N, K).
        x, y: the batch; y int64 (N,).
        norm: "Linf", "L2" or "L1".
        eps: radius.
    """
    from pyautoattack import AutoAttack

    custom = list(options.attacks) if options.version == "custom" else None
    auto: Any = AutoAttack(
        model, attacks=custom, device=x.device, eps=eps, norm=norm, seed=options.seed, version=options.version
    )
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    # The reference code uses nine targets; with fewer wrong classes it would index past the logits.
    auto.apgd_targeted.n_target_classes = min(auto.apgd_targeted.n_target_classes, classes - 1)
    auto.fab.n_target_classes = min(auto.fab.n_target_classes, classes - 1)
    if name in ("apgd-ce", "apgd-dlr"):
        attack = auto.apgd
        attack.loss = name.removeprefix("apgd-")
    elif name == "apgd-t":
        attack = auto.apgd_targeted
    elif name == "square":
        attack = auto.square
    else:
        attack = auto.fab
        attack.targeted = name == "fab-t"
        if attack.targeted:
            attack.n_restarts = 1
    attack.seed = options.seed
    with torch.no_grad():
        found: Tensor = attack.perturb(x.clone(), y.clone())
    return found


class Part:
    """One attack of AutoAttack.

    Args:
        name: name of the attack.
        options: options of the ensemble.
    """

    # It drops the samples that are broken, and its rows are grouped by radius.
    needs_sync = True

    def __init__(self, name: AttackName, options: AutoAttackOptions) -> None:
        self.name, self.options = name, options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the attacked view; rows with different radii are attacked separately.

        Raises:
            Refused: the threat model is not an L∞, L2 or L1 ball, the labels are not classes, or there are
                too few classes.
        """
        norm = {math.inf: "Linf", 2.0: "L2", 1.0: "L1"}.get(vicinity.norm or 0.0)
        classes = step.task.info.classes
        if norm is None:
            raise Refused("AutoAttack needs an L∞, L2 or L1 threat model")
        if classes is None or view.y.dim() != 1:
            raise Refused("AutoAttack needs a classification task with one label for each sample")
        if classes < NEEDS[self.name]:
            others = [name for name, least in NEEDS.items() if classes >= least]
            raise Refused(
                f"{self.name} needs at least {NEEDS[self.name]} classes, and there are {classes}; write "
                f'version = "custom" with attacks from {", ".join(others)}'
            )

        def attack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
            return run_part(self.name, self.options, model, x, y, norm, eps)

        return attack_by_radius(step, view, vicinity, attack)

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost, as it depends on the data."""
        return Cost.unknown()


def auto_attack(options: AutoAttackOptions) -> Ensemble:
    """Build the ensemble of a version."""
    return Ensemble([(name, Part(name, options)) for name in options.parts])
