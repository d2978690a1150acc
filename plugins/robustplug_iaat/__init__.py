"""IAAT: instance adaptive adversarial training, with an individual radius for each sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from robustplug.api import (
    Component,
    MethodOptions,
    Natural,
    NonNegative,
    Positive,
    Traits,
    UnitInterval,
    Use,
    hookimpl,
    use,
)

if TYPE_CHECKING:
    from pathlib import Path

    from robustplug.api import OpenedRun

PAPER = "Balaji et al. 2019, Instance Adaptive Adversarial Training, arXiv:1910.08051"


@dataclass(frozen=True)
class IaatOptions(MethodOptions):
    """Options of `iaat`.

    Attributes:
        warmup: number of epochs of adversarial training with the same radius for all samples.
        eps_warmup: ε_w, that radius and the initial radius of every sample; None for the vicinity's eps.
        gamma: γ, distance of the candidate radii above and below the remembered radius.
        beta: β, weight of the chosen radius in its average with the remembered radius; not in a line search.
        eps_min: ε_lb, smallest radius of a sample.
        search: "candidates" selects the largest of ε + γ and ε that the sample withstands, else ε − γ
            (Algorithm 2); "line" selects the largest of η, 2η, … up to line_max, else 0 (§5.2).
        line_step: η; None for γ.
        line_max: largest radius of a line search; None for twice eps_warmup.
        misclassified: training input of a sample that is misclassified when clean: "clean", its clean image
            (Algorithm 1); "attacked", its attacked image, as for any other sample; or "shrinking", its
            attacked image with a radius that shrinks towards 0, as in the authors' code.
        mode: mode of the model while radii are chosen: "eval", or "train" as in the authors' code.
        history: number of snapshots of all radii to keep, evenly spaced over the epochs; 0 keeps none.
        selection: weaker attack to choose radii with (§E.2); None for the training attack.
    """

    warmup: Natural = 5
    eps_warmup: NonNegative | None = None
    gamma: NonNegative = 1.9 / 255
    beta: UnitInterval = 0.1
    eps_min: NonNegative = 0.0
    search: Literal["candidates", "line"] = "candidates"
    line_step: Positive | None = None
    line_max: Positive | None = None
    misclassified: Literal["clean", "attacked", "shrinking"] = "clean"
    mode: Literal["eval", "train"] = "eval"
    history: Natural = 32
    perturbation: Use = use("pgd", steps=10, step_size=2 / 255)
    selection: Annotated[Use | None, "perturbation"] = None

    def __post_init__(self) -> None:
        if self.search == "line" and self.line_step is None and not self.gamma:
            raise ValueError('search = "line" needs line_step when gamma is 0')
        step = self.line_step or self.gamma
        if self.search == "line" and self.line_max is not None and self.line_max < step:
            raise ValueError(f"line_max must be at least the first radius of the search, {step:g}")
        if self.history % 2:
            raise ValueError("history must be even: when it is full, every second snapshot is dropped")


OFFICIAL = {
    "warmup": 10,
    "misclassified": "shrinking",
    "mode": "train",
    # Steps of max(2/255, ε / (0.5 · steps)).
    "perturbation": {
        "use": "pgd",
        "steps": 10,
        "step_size": "2/255",
        "step_ratio": 0.2,
        "batchnorm": "train",
    },
}


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer IAAT."""
    yield Component(
        "iaat",
        "robustplug_iaat.method:Iaat",
        IaatOptions,
        "adversarial training with an individual radius for each sample, as large as it withstands",
        PAPER,
        {"warmup": 1, "perturbation": {"steps": 2}, "history": 4},
        variants={"paper": {}, "official": OFFICIAL},
        traits=Traits(
            gives=frozenset({"radii", "memory"}),
            excludes={
                "mixtures": "a radius is remembered per sample, and a mixture is made of several samples"
            },
        ),
    )


@hookimpl
def robustplug_figures(run: OpenedRun, folder: Path) -> Iterable[tuple[str, str]]:
    """Draw the radii of the newest checkpoint."""
    from robustplug.api import open_run

    from .commands import draw_radii
    from .method import Iaat

    if isinstance(run.method, Iaat):
        draw_radii(open_run(run.folder, run.device, last=True), folder)
    return ()
