"""The robust accuracy from both sides: certificates from below, attacks from above."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...core.types import AttackResult

# For each sample that a row broke, by its index: the L∞ and the L2 distance of the input that did.
Reached = Mapping[int, tuple[float, float]]

# Rounding of a projected float32 input, in proportion to the range of the inputs; what `contains` tolerates.
_ROUNDING = 1e-6
_NORMS = ("inf", "2")


def both_sides(rows: Sequence[AttackResult]) -> list[dict[str, Any]]:
    """Return the robust accuracy from both sides, for each threat model with a certificate.

    A sample counts as certified if one of the certificates says so, and as broken if one attack breaks it.
    """
    groups: dict[str, list[AttackResult]] = {}
    for row in rows:
        if row.certified is not None and not row.certified.about and not row.skipped:
            groups.setdefault(_key(row), []).append(row)
    found = []
    for key, certificates in groups.items():
        attacks = [row for row in rows if _attacks(row) and _key(row) == key]
        lower = [any(each) for each in zip(*(row.right for row in certificates), strict=True)]
        upper = [all(each) for each in zip(rows[0].right, *(row.right for row in attacks), strict=True)]
        pairs = list(zip(lower, upper, strict=True))
        found.append(
            {
                "threat": dict(certificates[0].threat),
                "certificates": [row.name for row in certificates],
                "attacks": [row.name for row in attacks],
                "certified": sum(lower) / len(lower),
                "robust": sum(upper) / len(upper),
                "undecided": sum(high and not low for low, high in pairs) / len(pairs),
            }
        )
    return found


def contradictions(
    rows: Sequence[AttackResult], distances: Sequence[Reached], reach: float = 1.0
) -> list[dict[str, Any]]:
    """Return the samples that a certificate and an attack say opposite things about.

    The attack found a wrong prediction no further away than the certified radius. One of the two is wrong,
    and the fault is not the model's.

    Args:
        rows: rows of an evaluation.
        distances: how far the inputs are that broke a sample, for each row.
        reach: largest size of a value of the inputs, which their rounding is in proportion to.
    """
    return [
        {"sample": sample, "certificate": low.name, "radius": radius, "attack": high.name, "distance": at}
        for low in rows
        if low.certified is not None and not low.certified.about and not low.skipped
        for high, far in zip(rows, distances, strict=True)
        if _attacks(high)
        for sample, radius, at in _opposed(low, high, far, _ROUNDING * reach)
    ]


def contradiction_text(found: Mapping[str, Any]) -> str:
    """Return a contradiction as a sentence."""
    return (
        f"CONTRADICTION: sample {found['sample']} is certified by {found['certificate']} within "
        f"{found['radius']:.6g}, and {found['attack']} broke it at {found['distance']:.6g}. One of the two "
        "is wrong, and the fault is ours or a plugin's, not the model's: please report it"
    )


def _opposed(
    low: AttackResult, high: AttackResult, far: Reached, slack: float
) -> Iterator[tuple[int, float, float]]:
    assert low.certified is not None
    norm, radii = low.certified.norm, low.certified.radii
    if norm in _NORMS:
        for sample, pair in sorted(far.items()):
            distance = pair[_NORMS.index(norm)]
            if radii[sample] >= 0 and distance <= radii[sample] * (1 + _ROUNDING) + slack:
                yield sample, radii[sample], distance
    elif _key(low) == _key(high):
        eps = float(low.threat.get("eps", 0))
        for sample, right in enumerate(high.right):
            if not right and radii[sample] >= eps:
                yield sample, radii[sample], eps


def _attacks(row: AttackResult) -> bool:
    """Return whether a row is an attack on unshifted samples, as certificates are about."""
    return row.bound == "upper" and bool(row.options) and not row.shift and not row.skipped


def _key(row: AttackResult) -> str:
    return json.dumps(row.threat, sort_keys=True, default=str)
