"""AutoAttack (Croce & Hein 2020) through the packaged reference code, pyautoattack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from robustplug.api import Component, Seed, Traits, hookimpl

AttackName = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]

VERSIONS: dict[str, tuple[AttackName, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
}


@dataclass(frozen=True)
class AutoAttackOptions:
    """Options of `autoattack`.

    Attributes:
        version: "standard", "plus", or "custom" for the attacks in `attacks`.
        attacks: attacks of the custom version, in order.
        seed: seed of each attack on each batch, as in pyautoattack.
    """

    version: Literal["standard", "plus", "custom"] = "standard"
    attacks: tuple[AttackName, ...] = ()
    seed: Seed = 0

    def __post_init__(self) -> None:
        if (self.version == "custom") != bool(self.attacks):
            raise ValueError('version = "custom" needs attacks, and no other version takes them')

    @property
    def parts(self) -> tuple[AttackName, ...]:
        """Return the attacks to run, in order."""
        return self.attacks or VERSIONS[self.version]


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer AutoAttack."""
    yield Component(
        "autoattack",
        "robustplug_autoattack.attack:auto_attack",
        AutoAttackOptions,
        "AutoAttack's reference code: APGD, targeted APGD, FAB and Square",
        "Croce & Hein 2020, arXiv:2003.01690",
        {"version": "custom", "attacks": ["apgd-ce"]},
        traits=Traits(
            needs={"norm-ball": "FAB, Square and APGD of its code know whole L∞, L2 and L1 balls alone"},
            excludes={"mixtures": "it needs one label for each sample, and a mixture has several"},
        ),
    )
