"""Summaries of the errors under common corruptions: Hendrycks & Dietterich 2019 (arXiv:1903.12261).

Importing this module does not import torch. Error rates are in [0, 1]; the paper prints percentages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

SEVERITIES = 5

ALEXNET: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Published error rates of AlexNet, means over the severities, valid only for ImageNet-C."""


def mean_error(errors: Mapping[str, Sequence[float]]) -> float:
    """Return the mean error rate over kinds and severities, without a reference: this is not mCE.

    Args:
        errors: error rates of each kind at severities 1 to 5.

    Raises:
        ValueError: a kind does not have five error rates, or there are no kinds.
    """
    return _mean([_mean(_rates(kind, rates)) for kind, rates in _kinds(errors).items()])


def corruption_errors(
    errors: Mapping[str, Sequence[float]],
    reference: Mapping[str, float | Sequence[float]],
    clean: float = 0.0,
    reference_clean: float = 0.0,
) -> dict[str, float]:
    """Return CE of each kind: Σ_s (E_s − clean) / Σ_s (E^ref_s − clean^ref), 1 for the reference itself.

    Args:
        errors: error rates of each kind at severities 1 to 5.
        reference: error rates of the reference model on the same data: five for a kind, or their mean, as
            in ALEXNET.
        clean, reference_clean: error rates without corruption, for the relative CE; 0 for the plain CE.

    Raises:
        ValueError: the kinds are not those of the reference, a kind does not have five error rates in
            [0, 1], or the reference has no errors beyond its clean ones.
    """
    if errors.keys() != reference.keys():
        missing = sorted(reference.keys() - errors.keys())
        unknown = sorted(errors.keys() - reference.keys())
        raise ValueError(
            "the kinds are not those of the reference"
            + (f"; measure {', '.join(missing)}" if missing else "")
            + (f"; leave out {', '.join(unknown)}" if unknown else "")
        )
    result = {}
    for kind, rates in _kinds(errors).items():
        known = reference[kind]
        level = _mean([known]) if isinstance(known, float | int) else _mean(_rates(kind, known))
        if not reference_clean < level <= 1:
            raise ValueError(
                f"{kind}: the reference's mean error rate {level:g} must be above {reference_clean:g} and "
                "at most 1"
            )
        result[kind] = (_mean(_rates(kind, rates)) - clean) / (level - reference_clean)
    return result


def mean_corruption_error(
    errors: Mapping[str, Sequence[float]], reference: Mapping[str, float | Sequence[float]]
) -> float:
    """Return mCE, the mean of CE over the kinds: 1 for the reference itself, less for better models.

    Args:
        errors, reference: as for `corruption_errors`.

    Raises:
        ValueError: as `corruption_errors`.
    """
    return _mean(list(corruption_errors(errors, reference).values()))


def relative_mean_corruption_error(
    errors: Mapping[str, Sequence[float]],
    reference: Mapping[str, float | Sequence[float]],
    clean: float,
    reference_clean: float,
) -> float:
    """Return the relative mCE, the mean of the relative CE over the kinds: how much corruption costs.

    Args:
        errors, reference, clean, reference_clean: as for `corruption_errors`.

    Raises:
        ValueError: as `corruption_errors`.
    """
    return _mean(list(corruption_errors(errors, reference, clean, reference_clean).values()))


def _kinds(errors: Mapping[str, Sequence[float]]) -> Mapping[str, Sequence[float]]:
    if not errors:
        raise ValueError("no kind of corruption was measured")
    return errors


def _rates(kind: str, rates: Sequence[float]) -> Sequence[float]:
    if len(rates) != SEVERITIES or not all(0 <= rate <= 1 for rate in rates):
        raise ValueError(
            f"{kind}: give {SEVERITIES} error rates in [0, 1], one for each severity, not {list(rates)}"
        )
    return rates


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
