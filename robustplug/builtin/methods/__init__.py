"""Built-in methods: their options and declarations."""

from __future__ import annotations

from dataclasses import dataclass

from ...api import Component, Count, MethodOptions, Positive, Traits, Use, use

_METHOD = "robustplug.core.method:Method"
_SINGLE = Traits(gives=frozenset({"single-view"}))


@dataclass(frozen=True)
class PgdATOptions(MethodOptions):
    """Options of `pgd-at`: the slots, with PGD as the perturbation."""

    perturbation: Use = use("pgd", steps=10)


@dataclass(frozen=True)
class FastATOptions(MethodOptions):
    """Options of `fast-at`: the slots, with one large step from a uniform start."""

    perturbation: Use = use("fgsm", start="uniform", step_ratio=1.25, batchnorm="train")


@dataclass(frozen=True)
class FreeOptions(MethodOptions):
    """Options of `free-at`.

    Attributes:
        replays: number m of updates on each batch.
        step_ratio: step size of the perturbation, as a multiple of the radius.
    """

    replays: Count = 4
    step_ratio: Positive = 1.0


METHODS = (
    Component("erm", _METHOD, MethodOptions, "empirical risk minimisation: no defence", traits=_SINGLE),
    Component(
        "pgd-at",
        _METHOD,
        PgdATOptions,
        "adversarial training with PGD",
        "Madry et al. 2018, arXiv:1706.06083",
        {"perturbation": {"steps": 2}},
        traits=_SINGLE,
    ),
    Component(
        "fast-at",
        _METHOD,
        FastATOptions,
        "adversarial training with one step from a random start",
        "Wong et al. 2020, arXiv:2001.03994, Algorithm 3",
        traits=_SINGLE,
    ),
    Component(
        "free-at",
        "robustplug.builtin.methods.free:Free",
        FreeOptions,
        "adversarial training that reuses each backward pass",
        "Shafahi et al. 2019, arXiv:1904.12843, Algorithm 1",
        {"replays": 2},
        traits=Traits(
            needs={
                "stays": "it perturbs the samples itself, with its training gradients; leave out perturbation"
            }
        ),
    ),
)
