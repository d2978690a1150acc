"""Check arguments that a recipe passes to a function of another library against its signature."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .options import parse_fraction
from .registry import did_you_mean

_EMPTY = inspect.Parameter.empty


def check_arguments(
    function: Callable[..., Any], given: Mapping[str, Any], reserved: Mapping[str, str], owner: str
) -> dict[str, Any]:
    """Return the arguments, converted to the types that the function takes.

    Fractions in strings ("8/255") become numbers where the default is a number, and lists become tuples
    where it is a tuple. Values are compared with the type of the default; an argument without a default
    accepts any value.

    Args:
        function: function whose signature is checked, without `self`.
        given: arguments by name.
        reserved: arguments that the caller passes itself, each with the reason.
        owner: name of the function in the messages.

    Raises:
        ExceptionGroup: ValueErrors, one for each problem; each message starts with the argument's name.
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    free = [name for name in parameters if name not in reserved]
    result: dict[str, Any] = {}
    problems: list[ValueError] = []
    for name, value in given.items():
        if name in reserved:
            problems.append(ValueError(f"{name} {reserved[name]}: leave it out"))
        elif name not in parameters:
            close = did_you_mean(name, free)
            hint = f'did you mean "{close}"?' if close else f"it takes: {', '.join(free) or 'nothing'}"
            problems.append(ValueError(f"{name} is not an argument of {owner}; {hint}"))
        else:
            try:
                result[name] = _converted(value, parameters[name].default)
            except ValueError as error:
                problems.append(ValueError(f"{name} {error}"))
    problems += [
        ValueError(f"{name} is missing: {owner} requires it")
        for name in free
        if parameters[name].default is _EMPTY and name not in given
    ]
    if problems:
        raise ExceptionGroup(f"arguments of {owner}", problems)
    return result


def _converted(value: Any, default: Any) -> Any:
    if default is _EMPTY or default is None:
        return parse_number(value)
    if isinstance(default, enum.Enum):
        known = [each.value for each in type(default)]
        if value not in known:
            raise ValueError(f"must be one of {', '.join(map(repr, known))}, not {value!r}")
        return type(default)(value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {value!r}")
        return value
    if isinstance(default, int | float):
        # Some libraries write 1 where any number is valid, so a default of 1 allows any number.
        number = parse_fraction(value)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"must be a number, not {value!r}")
        return number
    if isinstance(default, str) and not isinstance(value, str):
        raise ValueError(f"must be a string, not {value!r}")
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    return value


def parse_number(value: Any) -> Any:
    """Return the number that a string such as "8/255" represents, or else the value itself."""
    try:
        return parse_fraction(value)
    except ValueError:
        return value


def scaled_step(function: Callable[..., Any], step: str, radius: str, eps: float) -> float | None:
    """Return the default step size, scaled in proportion from the default radius to another radius.

    Args:
        function: function whose defaults are used.
        step, radius: names of its arguments for step size and radius.
        eps: the other radius.

    Returns:
        The step size; None if the function has no such arguments or defaults.
    """
    parameters = inspect.signature(function).parameters
    if step not in parameters or radius not in parameters:
        return None
    size, reach = parameters[step].default, parameters[radius].default
    numbers = isinstance(size, int | float) and isinstance(reach, int | float)
    return size / reach * eps if numbers and reach else None
