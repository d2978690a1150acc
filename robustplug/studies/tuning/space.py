"""The ranges that are searched: an option's own bounds, or a part of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...plugin.component import Use
from ...plugin.options import Real
from ...plugin.registry import did_you_mean
from ...recipe.options import Recipe
from ...recipe.shape import shape

# An upper bound of a whole number that only keeps it within its type is no range.
_LARGEST = 10**6


@dataclass(frozen=True, kw_only=True)
class OptionRange:
    """Hold an option to search as it is written.

    Attributes:
        key: dotted key of the option.
        low: lowest value; None for the option's own bound.
        high: highest value; None for the option's own bound.
        log: whether the logarithm of the value is searched evenly, for what acts by orders of magnitude.
        values: the values to try, instead of a range.
    """

    key: str
    low: Real | None = None
    high: Real | None = None
    log: bool = False
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Numbers:
    """A range of numbers, with both ends."""

    low: float
    high: float
    whole: bool
    log: bool

    def holds(self, value: Any) -> bool:
        """Return whether a value lies in it."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and not (self.whole and value != int(value))

    def ends(self) -> list[Any]:
        """Return the values whose recipes are checked before anything runs."""
        return [int(end) if self.whole else end for end in (self.low, self.high)]

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """Some values."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Return whether a value is one of them."""
        return any(value == each and type(value) is type(each) for each in self.values)

    def ends(self) -> list[Any]:
        """Return the values whose recipes are checked before anything runs."""
        return list(self.values)

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


Range = Numbers | Choices


def place_of(recipe: Recipe, key: Sequence[str]) -> tuple[type[Any], str]:
    """Return the options dataclass that a key leads to, and the name of the option there.

    Raises:
        ValueError: there is no such option, or it is a component or a table.
    """
    node: Any = recipe
    for number, part in enumerate(key):
        node = node.options if isinstance(node, Use) else node
        if isinstance(node, tuple) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
            continue
        form = shape(type(node)) if dataclasses.is_dataclass(node) else None
        names = () if form is None else form.names
        if form is None or part not in names:
            close = did_you_mean(part, names)
            raise ValueError(
                f"{'.'.join(key)} is no option of this recipe: "
                + (f'did you mean "{close}"?' if close else f"known here: {', '.join(names) or 'none'}")
            )
        if number == len(key) - 1:
            if part not in form.plain_names:
                raise ValueError(
                    f"{'.'.join(key)} is no single option but a table: search an option in it, or compare "
                    "components by the cases of a study"
                )
            return type(node), part
        node = getattr(node, part)
    raise ValueError("the key is empty")


def value_at(recipe: Recipe, key: Sequence[str]) -> Any:
    """Return the value of an option; the key must exist."""
    node: Any = recipe
    for part in key:
        node = node.options if isinstance(node, Use) else node
        node = node[int(part)] if isinstance(node, tuple) else getattr(node, part)
    return node


def options_of(recipe: Recipe) -> list[str]:
    """List the keys of the method's own options, and of those of the methods within it, that have a range."""
    found, method, above = [], recipe.method, "method"
    while True:
        form = shape(type(method.options))
        kind = type(method.options)
        ranges = {name: range_of(kind, name, OptionRange(key=name)) for name in form.plain_names}
        found += [f"{above}.{name}" for name, each in ranges.items() if not isinstance(each, str)]
        inner = getattr(method.options, "inner", None)
        if not isinstance(inner, Use):
            return found
        method, above = inner, f"{above}.inner"


def _alternatives(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for each in schema.get("anyOf", [schema]):
        if each.get("type") != "null" and "pattern" not in each:
            yield each


def range_of(options: type[Any], name: str, written: OptionRange) -> Range | str:
    """Return the range of an option: what is written, within the bounds of its type.

    Args:
        options: the options dataclass.
        name: name of the option in the dataclass.
        written: what the file says.

    Returns:
        The range, or a sentence on why there is none.
    """
    schema = shape(options).plain.model_json_schema()["properties"][name]
    bounds = next(_alternatives(schema), {})
    if written.values:
        if written.low is not None or written.high is not None or written.log:
            return f"{written.key} has both values and a range: keep one of them"
        return Choices(tuple(written.values))
    if bounds.get("type") not in ("integer", "number"):
        found = (False, True) if bounds.get("type") == "boolean" else tuple(bounds.get("enum", ()))
        if written.low is not None or written.high is not None or written.log:
            return f"{written.key} is no number, so that low, high and log have no meaning: give values"
        return Choices(found) if found else f"{written.key} has no range: give values, for example [1, 2]"
    return _numbers(bounds, written)


def _numbers(bounds: Mapping[str, Any], written: OptionRange) -> Numbers | str:
    whole, key = bounds["type"] == "integer", written.key
    least, most = bounds.get("minimum"), bounds.get("maximum")
    if "exclusiveMinimum" in bounds:
        least = math.nextafter(bounds["exclusiveMinimum"], math.inf)
    if "exclusiveMaximum" in bounds:
        most = math.nextafter(bounds["exclusiveMaximum"], -math.inf)
    if whole and most is not None and most > _LARGEST:
        most = None
    low, high = least if written.low is None else written.low, most if written.high is None else written.high
    if low is None or high is None:
        lacking = [end for end, value in (("low", low), ("high", high)) if value is None]
        return f"{key} has no bound of its own here: give {' and '.join(lacking)}"
    if whole and (low != int(low) or high != int(high)):
        return f"{key} is a whole number, so low and high must be, too"
    if not low < high:
        return f"low = {low:g} is not below high = {high:g}: leave the option out to keep one value"
    if (least is not None and low < least) or (most is not None and high > most):
        own = f"{'−∞' if least is None else f'{least:g}'} to {'∞' if most is None else f'{most:g}'}"
        return f"{low:g} to {high:g} is not within the bounds of {key}, {own}"
    if written.log and low < 1e-300:
        return f"low must be above 0 for the logarithm of {key}: give low"
    return Numbers(low, high, whole, written.log)
