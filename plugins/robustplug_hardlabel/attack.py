"""The searches as perturbations."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from robustplug.api import Cost, Refused, Step, Vicinity, View

from . import (
    NesOptions,
    OptOptions,
    RaysOptions,
    SignOptOptions,
    ZooOptions,
    ZoSignSgdOptions,
    rays,
    searches,
)
from . import scores as soft
from .oracle import Wanted, make_oracle, make_samples
from .pool import Sample, Search, rows_of_call, run

EUCLIDEAN, BOTH, MAXIMUM = (2.0,), (2.0, math.inf), (math.inf,)


class HardLabel:
    """Search for the nearest adversarial point of each sample from the model's decisions alone.

    During evaluation, a search stops at the first point within the sample's radius. A farther point is
    projected back into the vicinity.

    Args:
        name: name of the attack, for messages.
        search: factory of the search of a sample.
        wanted: settings of the search.
        norms: norms of the supported threat models.
    """

    # Each sample has a search of its own, in NumPy.
    needs_sync = True

    def __init__(
        self, name: str, search: Callable[[Sample], Search], wanted: Wanted, norms: tuple[float, ...]
    ) -> None:
        self.name, self.search, self.wanted, self.norms = name, search, wanted, norms

    @property
    def queries(self) -> int:
        """Return the query budget of a sample."""
        return self.wanted.queries

    @classmethod
    def opt(cls, options: OptOptions) -> HardLabel:
        """Build OPT."""
        return cls("opt", searches.opt(options), _wanted(options), BOTH)

    @classmethod
    def sign_opt(cls, options: SignOptOptions) -> HardLabel:
        """Build Sign-OPT."""
        return cls("sign-opt", searches.sign_opt(options), _wanted(options), BOTH)

    @classmethod
    def svm_opt(cls, options: SignOptOptions) -> HardLabel:
        """Build SVM-OPT."""
        return cls("svm-opt", searches.svm_opt(options), _wanted(options), BOTH)

    @classmethod
    def zo_sign_sgd(cls, options: ZoSignSgdOptions) -> HardLabel:
        """Build ZO-SignSGD."""
        return cls("zo-sign-sgd", searches.zo_sign_sgd(options), _wanted(options), BOTH)

    @classmethod
    def rays(cls, options: RaysOptions) -> HardLabel:
        """Build RayS."""
        return cls("rays", rays.rays(options), Wanted(options.queries), MAXIMUM)

    @classmethod
    def zoo(cls, options: ZooOptions) -> HardLabel:
        """Build ZOO."""
        wanted = Wanted(options.queries, options.target, scores=True)
        return cls("zoo", soft.zoo(options), wanted, EUCLIDEAN)

    @classmethod
    def nes(cls, options: NesOptions) -> HardLabel:
        """Build NES."""
        return cls("nes", soft.nes(options), Wanted(options.queries, options.target, scores=True), BOTH)

    def samples(self, step: Step, view: View, vicinity: Vicinity, keep: bool = False) -> list[Sample]:
        """Run the search of each sample of a view, and return the samples with their results.

        Args:
            step, view, vicinity: the arguments of a perturbation. If `step.evaluating`, a search stops at
                the first point within the radius.
            keep: whether to keep the points of the first sample's trace.

        Raises:
            Refused: the attack does not support the threat model or the labels.
            SearchFailed: the model raised, or did not return one row of scores per point.
        """
        norm = norm_of(self.name, vicinity, self.norms)
        wanted = self.wanted._replace(keep=keep)
        if wanted.smooth and norm == 2:
            raise Refused(f'the smooth objective of {self.name} needs an L∞ threat model: set it to "plain"')
        found = make_samples(step, view, vicinity, norm, wanted)
        oracle = make_oracle(step, view, found, wanted.scores)

        def enough(number: int, sample: Sample) -> bool:
            return step.evaluating and sample.distance <= sample.radius

        width, cpu = view.origin[0].numel(), view.origin.device.type == "cpu"
        with step.attack_mode(), torch.no_grad():
            run(found, self.search, oracle, enough, rows_of_call(width, cpu))
        return found

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the nearest adversarial points, projected into the vicinity."""
        return nearest(step, view, vicinity, self.samples(step, view, vicinity))

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: a search ends when its budget does not cover its next step."""
        return Cost.unknown()


def _wanted(options: OptOptions | SignOptOptions) -> Wanted:
    return Wanted(options.queries, options.target, options.starts, options.objective == "smooth")


def norm_of(name: str, vicinity: Vicinity, norms: tuple[float, ...]) -> float:
    """Return the norm of a threat model.

    Raises:
        Refused: the attack does not support this threat model.
    """
    if vicinity.norm is None or vicinity.norm not in norms:
        known = " or ".join("L∞" if each == math.inf else "L2" for each in norms)
        raise Refused(f"{name} needs an {known} threat model")
    return vicinity.norm


def nearest(step: Step, view: View, vicinity: Vicinity, found: list[Sample]) -> View:
    """Return a view at the points found; points too far away are projected back into the vicinity."""
    x = view.origin.detach().clone()
    for row, sample in enumerate(found):
        if sample.best is not None:
            x[row] = torch.from_numpy(sample.best).view(x.shape[1:]).to(x.device, x.dtype)
    radius = step.radii(view, vicinity)
    legal = vicinity.contains(x, view.origin, radius).view(-1, *(1,) * (x.dim() - 1))
    return view.replace(x=torch.where(legal, x, vicinity.project(x, view.origin, radius)))
