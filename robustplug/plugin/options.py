"""Types for the fields of option dataclasses: exact fractions, and numbers with their ranges.

Importing this module imports neither torch nor pydantic. The validation and the JSON schema read the
annotations when they are needed.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated, Any

_FRACTION = re.compile(r"[+-]?\d+(\.\d*)?(/\d+(\.\d*)?)?")


def parse_fraction(value: object) -> object:
    """Turn a string such as "8/255" into the nearest float; return anything else unchanged.

    The quotient is computed exactly and rounded once. Nothing is evaluated as code.

    Raises:
        ValueError: the string is not a number or a fraction of two numbers.
    """
    if not isinstance(value, str):
        return value
    text = value.replace(" ", "")
    if not _FRACTION.fullmatch(text):
        raise ValueError(f'"{value}" is not a number; write 0.03 or a fraction such as "8/255"')
    numerator, _, denominator = text.partition("/")
    try:
        return float(Fraction(numerator) / Fraction(denominator or "1"))
    except ZeroDivisionError:
        raise ValueError(f'"{value}" divides by zero') from None


class Bounds:
    """Mark a number option with its range; importing pydantic's own marks takes longer than the check.

    Args:
        limits: any of ge (at least), gt (above), le (at most) and lt (below).
    """

    def __init__(self, **limits: float) -> None:
        self.limits = limits

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), **self.limits}

    def __repr__(self) -> str:
        return f"Bounds({', '.join(f'{name}={limit}' for name, limit in self.limits.items())})"


class FractionText:
    """Mark a float option that a recipe may also write as a fraction in a string."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(parse_fraction, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        number = handler(schema)
        pattern = rf"^\s*{_FRACTION.pattern}\s*$".replace("/", r"\s*/\s*")
        return {"anyOf": [number, {"type": "string", "pattern": pattern}]}

    def __repr__(self) -> str:
        return "FractionText()"


# Within float32, with room for factors.
HIGHEST = 1e30


class Finite:
    """Mark a float option that must be finite, and so small that float32 can hold it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def check(value: float) -> float:
            if not math.isfinite(value):
                raise ValueError("must be a finite number")
            if abs(value) > HIGHEST:
                raise ValueError(f"must be a number from -{HIGHEST:g} to {HIGHEST:g}, not {value:g}")
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))


class Rest:
    """Mark an option that takes every key of the component's table that is not an option of its own.

    For components that pass options to another library: `arguments: Annotated[Mapping[str, Any], Rest()]`.
    The component's `__post_init__` validates them. To report several problems at once, it raises an
    ExceptionGroup of ValueErrors; each message starts with the name of its key.
    """

    def __repr__(self) -> str:
        return "Rest()"


class OfRun:
    """Mark an option as the folder of a finished run; see `RunFolder`."""

    def __repr__(self) -> str:
        return "OfRun()"


RunFolder = Annotated[str, OfRun()]
"""The folder of a finished run, such as a teacher's. It is looked for when a recipe that is to be trained is
read; in a study it may also be a cell, as `from` may: "cell:method=TRADES"."""
Real = Annotated[float, Finite(), FractionText()]
"""Any finite number; recipes may write a fraction."""
NonNegative = Annotated[float, Bounds(ge=0), Finite(), FractionText()]
"""A number of at least 0, for example a radius in units of the input range."""
Positive = Annotated[float, Bounds(gt=0), Finite(), FractionText()]
"""A number above 0."""
UnitInterval = Annotated[float, Bounds(ge=0, le=1), Finite(), FractionText()]
"""A number from 0 to 1, both included."""
Decay = Annotated[float, Bounds(ge=0, lt=1), Finite(), FractionText()]
"""A number from 0 (included) to 1 (excluded), for example a momentum."""
LARGEST = 2**31 - 1
Count = Annotated[int, Bounds(ge=1, le=LARGEST)]
"""A whole number from 1 to 2³¹ − 1."""
Natural = Annotated[int, Bounds(ge=0, le=LARGEST)]
"""A whole number from 0 to 2³¹ − 1."""
Size = Annotated[int, Bounds(ge=1, le=16_384)]
"""A size of a layer, such as units or channels, from 1 to 16,384."""
Seed = Annotated[int, Bounds(ge=0, le=2**63 - 1)]
"""A seed of random numbers, from 0 to 2⁶³ − 1."""
