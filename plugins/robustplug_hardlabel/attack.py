"""The searches as perturbations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from robustplug.api import Cost, Refused, Step, Vicinity, View, derive

from . import OptOptions, RaysOptions, SignOptOptions, SvmOptOptions, searches
from .pool import Array, Flags, Sample, Search, run


class HardLabel:
    """Search the nearest adversarial point of each sample with nothing but the model's decisions.

    While evaluating, a search stops at the first point within the sample's radius. A point that is farther
    is brought back into the vicinity.

    Args:
        queries: for each sample; every row that reaches the model counts.
        search: makes the search of a sample.
        norms: of the threat models that it is for.
        name: for messages.
    """

    def __init__(
        self, queries: int, search: Callable[[Sample], Search], norms: tuple[float, ...], name: str
    ) -> None:
        self.queries, self.search, self.norms, self.name = queries, search, norms, name

    @classmethod
    def opt(cls, options: OptOptions) -> HardLabel:
        """Build OPT."""
        return cls(options.queries, searches.opt(options), (2.0, math.inf), "opt")

    @classmethod
    def sign_opt(cls, options: SignOptOptions) -> HardLabel:
        """Build Sign-OPT."""
        return cls(options.queries, searches.sign_opt(options), (2.0, math.inf), "sign-opt")

    @classmethod
    def svm_opt(cls, options: SvmOptOptions) -> HardLabel:
        """Build SVM-OPT."""
        return cls(options.queries, searches.svm_opt(options), (2.0, math.inf), "svm-opt")

    @classmethod
    def rays(cls, options: RaysOptions) -> HardLabel:
        """Build RayS."""
        return cls(options.queries, searches.rays(options), (math.inf,), "rays")

    def samples(self, step: Step, view: View, vicinity: Vicinity) -> list[Sample]:
        """Search for each sample of a view, and return what was found.

        Raises:
            Refused: the threat model is none that it can search in.
        """
        norm = vicinity.norm
        if norm is None or norm not in self.norms:
            known = " or ".join("L∞" if each == math.inf else "L2" for each in self.norms)
            raise Refused(f"{self.name} needs an {known} threat model")
        seed = int(torch.randint(2**62, (), generator=step.rng, device=step.rng.device))
        origin = view.origin.detach()
        flat = origin.float().cpu().numpy().reshape(len(view), -1)
        radius = step.radii(view, vicinity).tolist()
        found = [
            # A sample that must not move needs no search.
            Sample(
                x, np.random.default_rng(derive(seed, "hard-label", index)), norm, self.queries if r else 0
            )
            for x, index, r in zip(flat, view.index.tolist(), radius, strict=True)
        ]

        def oracle(points: Array, numbers: Any) -> Flags:
            rows = torch.from_numpy(numbers).to(view.index.device)
            x = torch.from_numpy(points).to(origin.device, origin.dtype).view(-1, *origin.shape[1:])
            part = view.rows(rows).replace(x=x)
            flags: Flags = (~step.score(part, step.output(part))).cpu().numpy()
            return flags

        def enough(number: int, sample: Sample) -> bool:
            return step.evaluating and sample.distance <= radius[number]

        with step.attack_mode(), torch.no_grad():
            run(found, self.search, oracle, enough)
        return found

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the nearest adversarial points, or what of them is legal."""
        x = view.origin.detach().clone()
        for row, sample in enumerate(self.samples(step, view, vicinity)):
            if sample.best is not None:
                x[row] = torch.from_numpy(sample.best).view(x.shape[1:]).to(x.device, x.dtype)
        radius = step.radii(view, vicinity)
        legal = vicinity.contains(x, view.origin, radius).view(-1, *(1,) * (x.dim() - 1))
        return view.replace(x=torch.where(legal, x, vicinity.project(x, view.origin, radius)))

    def cost(self, target: Cost) -> Cost:
        """Say that it depends on the data: a search ends when its budget does not last for its next step."""
        return Cost.unknown()
