"""Threat models and other components as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.types import Result
from ...plugin.host import registry

# Lists in captions are cut after this many values.
LISTED = 6


def unit_images(result: Result) -> bool:
    """Return whether the inputs of a result are images in [0, 1]; results of version 0.1 state no shape."""
    shape = result.meta.get("input_shape", [0, 0, 0])
    known = result.meta.get("input_range", [0.0, 1.0])
    return known is not None and list(known) == [0.0, 1.0] and shape is not None and len(shape) == 3


def threat_text(threat: Mapping[str, Any], images: bool | None = None) -> str:
    """Return a threat model as its kind is captioned, or with its options: "linf, eps = 0.1 (25.5/255)".

    Args:
        threat: table of the vicinity, as in a recipe.
        images: whether the inputs are images in [0, 1], whose radii are also given in units of 1/255; None if
            that is unknown: then only whole multiples are.
    """
    known = registry().components.get(("vicinity", str(threat["use"])))
    if known is not None and known.caption is not None:
        return known.caption(threat)
    parts = [str(threat["use"])]
    eps = threat.get("eps")
    if eps is not None:
        levels = eps * 255
        # A radius above 1 is not a pixel distance.
        shown = eps <= 1 and (abs(levels - round(levels)) < 1e-6 * levels if images is None else images)
        parts.append(f"eps = {eps:.4g}" + (f" ({levels:.3g}/255)" if shown else ""))
    others = {key: value for key, value in threat.items() if key not in ("use", "eps") and value is not None}
    return ", ".join([*parts, *(f"{key} = {_option(value, images)}" for key, value in others.items())])


def _option(value: Any, images: bool | None) -> str:
    """Return the value of an option as short text; of many numbers, how many and from where to where."""
    if isinstance(value, Mapping):
        return f"({threat_text(value, images)})" if "use" in value else f"({len(value)} entries)"
    if isinstance(value, list | tuple):
        numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
        if numbers and len(value) > LISTED:
            return f"{min(value):.4g} to {max(value):.4g} ({len(value)} values)"
        more = f", … ({len(value)} values)" if len(value) > LISTED else ""
        return f"[{', '.join(_option(item, images) for item in value[:LISTED])}{more}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
