"""Measures of samples, and their 95 % confidence intervals. Importing this module does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

RESAMPLES = 1000
# The means of larger samples are normal, and a bootstrap would only take longer.
_NORMAL = 5000


@dataclass(frozen=True)
class Measure:
    """Report the mean of a number over samples, or a measure that a task computes from all samples together.

    Attributes:
        mean: mean over the samples that have the number.
        low, high: bounds of its 95 % confidence interval, for samples drawn independently of one another; NaN
            if the samples do not tell.
        count: number of samples that have the number.
    """

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Certified:
    """Report what a certificate says of each sample: no input within a radius changes its correct prediction.

    Attributes:
        norm: norm of the radii: "inf", "2" or "1".
        radii: radius of each sample, in order; -1 if its prediction is wrong, or the certificate abstains.
        confidence: probability that what is said of one sample is true; 1 for a proof.
        about: the model that it is about, if that is not the evaluated one; "" otherwise.
    """

    norm: str
    radii: tuple[float, ...] = ()
    confidence: float = 1.0
    about: str = ""


@dataclass(frozen=True)
class Quantity:
    """Describe a measure of a task, so that tables show and judge it as its field does.

    Attributes:
        name: name of the measure, as `measure` or `pool` of the task returns it.
        better: whether "higher" or "lower" values are better for the model; "" for neither.
        share: whether each sample has 0 or 100, a share in per cent: the interval of its mean is Wilson's.
            The interval of any other mean is a bootstrap over samples. Pooled measures have their own.
        headline: whether the table of results has a column for it. A task with such measures is not
            judged by accuracy, so that its tables have no column of accuracy.
    """

    name: str
    better: Literal["higher", "lower", ""] = ""
    share: bool = False
    headline: bool = False


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a share, 95 % by default.

    Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    if not total:
        return 0.0, 1.0
    share, weight = right / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_interval(values: Tensor) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of numbers.

    The resamples depend on the number of values alone, so equal values have equal intervals. Equal numbers
    resample to themselves: their interval is unknown, not of width 0. Above 5,000 values, the mean is taken
    for normal.

    Efron 1979, Bootstrap methods: another look at the jackknife.

    Args:
        values: numbers of samples drawn independently of one another, (N,), without NaN.

    Returns:
        Its two ends; NaN if all numbers are equal, or for fewer than two.
    """
    import torch

    from .random import stream

    count = len(values)
    values = values.double().cpu()
    if count < 2 or bool((values == values[0]).all()):
        return math.nan, math.nan
    if count > _NORMAL:
        mean, half = float(values.mean()), 1.96 * float(values.std()) / math.sqrt(count)
        return mean - half, mean + half
    rng = stream(0, "bootstrap", count)
    means = torch.stack(
        [values[torch.randint(count, (count,), generator=rng)].mean() for _ in range(RESAMPLES)]
    )
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def mean_of(values: Tensor) -> Measure:
    """Return the mean of numbers (N,), without NaN, and its 95 % confidence interval, by bootstrap."""
    known = values[~values.isnan()]
    if not len(known):
        return Measure(math.nan, math.nan, math.nan, 0)
    return Measure(float(known.mean()), *bootstrap_interval(known), len(known))


def share_of(values: Tensor) -> Measure:
    """Return the mean of numbers (N,) that are 0 or 100, without NaN, and the interval of the share."""
    known = values[~values.isnan()]
    if not len(known):
        return Measure(math.nan, math.nan, math.nan, 0)
    low, high = wilson_interval(int((known > 0).sum()), len(known))
    return Measure(float(known.mean()), 100 * low, 100 * high, len(known))
