"""Label maps h and output maps g∘f."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..api import as_rows

if TYPE_CHECKING:
    from ..api import Step, View
    from . import SmoothOptions


def smooth(labels: Tensor, classes: int, alpha: float) -> Tensor:
    """Return (1 − α)·y + α/K, rows (N, K). Szegedy et al. 2016 (arXiv:1512.00567 §7).

    Args:
        labels: classes int64 (N,) or rows (N, K).
        classes: number of classes K.
        alpha: weight of the uniform distribution, in [0, 1].
    """
    return (1 - alpha) * as_rows(labels, classes) + alpha / classes


class OneHot:
    """h(y) = y, the task's label."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View) -> Any:
        """Return the labels; class indices represent one-hot rows."""
        return view.y


class Smooth:
    """h(y) = (1 − α)·y + α/K."""

    def __init__(self, options: SmoothOptions) -> None:
        self.alpha = options.alpha

    def __call__(self, step: Step, view: View) -> Tensor:
        """Return smoothed rows (N, K).

        Raises:
            ValueError: the task is not a classification task.
        """
        classes = step.task.info.classes
        if classes is None:
            raise ValueError("label smoothing needs a classification task")
        return smooth(view.y, classes, self.alpha)


class Identity:
    """g(f(x)) = f(x)."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View) -> Any:
        """Return the model's outputs."""
        return step.forward(view.x)
