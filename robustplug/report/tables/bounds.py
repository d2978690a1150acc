"""Lines about the robust accuracy from both sides."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.measures import wilson_interval
from ...core.types import Result
from ...evaluation.measuring.bounds import contradiction_text
from .threats import threat_text, unit_images

# Contradictions that are shown; the result holds all.
_SHOWN = 5


def both_sides_lines(result: Result) -> Iterator[str]:
    """Yield a line for each threat model with a certificate: certified ≤ robust ≤ under attack."""
    for sides in result.meta.get("bounds") or ():
        attacks = len(sides["attacks"])
        above = f"{attacks} attack{'s' * (attacks != 1)}" if attacks else "no attack at this threat model"
        yield (
            f"Bounds at {threat_text(sides['threat'], unit_images(result))}: "
            f"{_share(sides['certified'], result.samples)} certified ≤ robust accuracy ≤ "
            f"{_share(sides['robust'], result.samples)} under {above}; "
            f"{sides['undecided']:.1%} of the samples undecided"
        )
    for row in result.attacks:
        if row.certified is not None and row.certified.about and not row.skipped:
            fails = 1 - row.certified.confidence
            doubt = f", each with a probability of error of at most {fails:.3g}" if fails else ""
            yield f"{row.name} is about {row.certified.about}{doubt}, not about the model that is attacked"


def contradiction_lines(result: Result) -> list[str]:
    """Return a line for each of the first contradictions between a certificate and an attack."""
    found = result.meta.get("contradictions") or ()
    more = [f"and {len(found) - _SHOWN} more contradictions"] if len(found) > _SHOWN else []
    return [*map(contradiction_text, found[:_SHOWN]), *more]


def doubt_lines(result: Result) -> list[str]:
    """Return what the measurements of an evaluation say against their own numbers."""
    return [str(line) for line in result.meta.get("doubts") or ()]


def _share(share: float, samples: int) -> str:
    low, high = wilson_interval(round(share * samples), samples)
    return f"{share:.1%} ({low * 100:.0f}–{high * 100:.0f})"
