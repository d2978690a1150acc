"""CAT: customised adversarial training, with a radius and a label for each sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from robustplug.api import Component, MethodOptions, NonNegative, Positive, Traits, Use, hookimpl, use

PAPER = "Cheng et al. 2020, CAT: Customized Adversarial Training for Improved Robustness, arXiv:2002.06789"
_METHOD = "robustplug_cat.method"


@dataclass(frozen=True)
class CatOptions(MethodOptions):
    """Options of `cat`.

    Attributes:
        eta: η, the growth of a sample's radius in one update.
        eps_max: largest stored radius; None for the vicinity's eps.
        adaptive: whether the radii change; False keeps them at eps_max ("Adv+LS" in Table 4.6).
        variant: update rule of the radius: "paper" (Algorithm 8), "official-v1" or "official-v2" (the
            released code; see the method card).
    """

    eta: NonNegative = 0.005
    eps_max: NonNegative | None = None
    adaptive: bool = True
    variant: Literal["paper", "official-v1", "official-v2"] = "paper"
    perturbation: Use = use("pgd", steps=10, start="zero")
    label_map: Use = use("cat")
    loss: Use = use("cat")


@dataclass(frozen=True)
class CatLabelOptions:
    """Options of the label map `cat`.

    Attributes:
        c: label uncertainty per unit of radius; c · radius must stay within [0, 1].
        beta: concentration of the Dirichlet distribution, the same for every class.
    """

    c: NonNegative = 10.0
    beta: Positive = 1.0


@dataclass(frozen=True)
class CatLossOptions:
    """Options of the loss `cat`.

    Attributes:
        kappa: κ; the margin term is clipped below at −κ.
        margin_weight: weight of the margin term: "one" (Eq. 4.6), or "radius-sum", the radius times the
            batch size (released code).
    """

    kappa: NonNegative = 10.0
    margin_weight: Literal["one", "radius-sum"] = "one"


_NEEDS_RADII = Traits(
    needs={"radii": 'it reads a radius for each sample, which a method such as "cat" provides'}
)


def _loss_traits(options: CatLossOptions) -> Traits:
    needs = _NEEDS_RADII.needs if options.margin_weight == "radius-sum" else {}
    return Traits(
        needs=needs,
        excludes={"log-g": "the output map returns log g already, and this loss would normalise it again"},
    )


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer CAT."""
    yield Component(
        "cat",
        f"{_METHOD}:Cat",
        CatOptions,
        "a radius per sample that grows until the attack succeeds, and labels less certain for larger radii",
        PAPER,
        {"perturbation": {"steps": 2}},
        traits=Traits(
            gives=frozenset({"radii", "memory"}),
            excludes={
                "mixtures": "it stores a radius for each sample, and a mixture combines several samples"
            },
        ),
    )


@hookimpl
def robustplug_label_maps() -> Iterable[Component]:
    """Offer the label map of CAT."""
    yield Component(
        "cat",
        f"{_METHOD}:CustomLabels",
        CatLabelOptions,
        "(1 − cε)·y + cε·Dirichlet(β) with each sample's own ε",
        PAPER,
        traits=replace(_NEEDS_RADII, gives=frozenset({"rows"})),
    )


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer the mixed loss of CAT."""
    yield Component(
        "cat",
        f"{_METHOD}:MixedLoss",
        CatLossOptions,
        "cross entropy plus the margin, clipped below at −κ",
        PAPER,
        traits=_loss_traits,
    )
