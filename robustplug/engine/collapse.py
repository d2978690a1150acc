"""Catastrophic overfitting: robust accuracy collapses while training looks better than ever."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.types import EpochReport

# Wong et al. 2020 stop Fast AT when the robust accuracy of an epoch falls by more than 0.2.
DROP = 0.2


def collapsed(history: Sequence[EpochReport]) -> bool:
    """Tell whether the last epoch shows catastrophic overfitting.

    Its robust validation accuracy lies more than 0.2 below the best before it, while the robust
    training accuracy ("accuracy/adv") is higher than in that best epoch. (Wong et al. 2020,
    arXiv:2001.03994 §5.4.)
    """
    measured = [r for r in history if "robust" in r.validation and "accuracy/adv" in r.train]
    if len(measured) < 2 or measured[-1] is not history[-1]:
        return False
    *before, last = measured
    best = max(before, key=lambda report: report.validation["robust"])
    fell = best.validation["robust"] - last.validation["robust"]
    return fell > DROP and last.train["accuracy/adv"] > best.train["accuracy/adv"]
