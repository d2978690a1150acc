"""Interpolated adversarial training, Lamb et al. 2019 (arXiv:1906.06784)."""

from __future__ import annotations

from collections.abc import Sequence

from robustplug.api import Batch, Cost, Method, Step, View, as_rows

from . import InterpolatedOptions
from .vicinities import draw_partners, mix


class Interpolated(Method[InterpolatedOptions]):
    """(L(mixup of clean) + L(mixup of attacked)) / 2, with separate λ and partners."""

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return both mixtures; the attack precedes the mixing."""
        adv = self.perturbation(step, View.of(point, "adv"), self.vicinity)
        return [self._mixture(step, view).replace(weight=0.5) for view in (View.of(point), adv)]

    def _mixture(self, step: Step, view: View) -> View:
        """Mix the rows of a view, and the origins that its perturbation is measured from.

        Raises:
            ValueError: the task is not classification.
        """
        classes = step.task.info.classes
        if classes is None:
            raise ValueError("interpolated adversarial training needs a classification task")
        partner, share = draw_partners(len(view), self.options.a, step.rng)
        rows = as_rows(view.y, classes)
        radius = None if view.radius is None else mix(view.radius, partner, share)
        return view.replace(
            x=mix(view.x, partner, share),
            origin=mix(view.origin, partner, share),
            y=mix(rows, partner, share),
            radius=radius,
        )

    def loss_cost(self) -> Cost:
        """Count both views."""
        return Cost(2, 2)
