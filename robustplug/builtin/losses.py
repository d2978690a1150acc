"""The losses as components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..api import cross_entropy, dlr, kl_divergence, margin

if TYPE_CHECKING:
    from ..api import Step, View
    from . import MarginOptions


class CrossEntropy:
    """Cross entropy with the target."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample."""
        return cross_entropy(output, target)


class KLDivergence:
    """Kullback-Leibler divergence from the target."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample."""
        return kl_divergence(output, target)


class Margin:
    """Logit margin of the strongest wrong class over the label; the target is ignored."""

    def __init__(self, options: MarginOptions) -> None:
        self.kappa = options.kappa

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample."""
        return margin(output, view.y, self.kappa)


class DifferenceOfLogitsRatio:
    """Difference of logits ratio: a margin invariant to the scale of the logits; the target is ignored."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample."""
        return dlr(output, view.y)
