"""95 % confidence intervals of shares and of means. Importing this module does not import torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

RESAMPLES = 1000
# The means of larger samples are normal, and a bootstrap would only take longer.
_NORMAL = 5000


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
