"""Try the arguments of a class of another library, and find the one that it refuses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def tried(
    build: Callable[..., Any], arguments: Mapping[str, Any], signature: Callable[..., Any], owner: str
) -> None:
    """Call a function with arguments, and name those that it refuses.

    Args:
        build: function that builds the object from its arguments.
        arguments: the arguments, whose names are those of `signature`.
        signature: constructor of the object.
        owner: name of the object in the messages.

    Raises:
        ExceptionGroup: ValueErrors, one for each argument that is refused; each starts with its name.
        ValueError: the arguments are refused together, or without one that is required.
    """
    parameters, empty = inspect.signature(signature).parameters, inspect.Parameter.empty
    required = {name: value for name, value in arguments.items() if parameters[name].default is empty}
    whole, least = _refusal(build, arguments), _refusal(build, required)
    if not whole:
        return
    if required and least:
        raise ValueError(f"{', '.join(required)}: {owner} refuses {_shown(required)}: {least}")
    problems = []
    for name, value in arguments.items():
        reason = _refusal(build, {**required, name: value})
        if reason:
            problems.append(ValueError(f"{name}: {owner} refuses {value!r}: {reason}"))
    if not problems:
        raise ValueError(f"{owner} refuses {_shown(arguments)} together: {whole}")
    raise ExceptionGroup(f"arguments of {owner}", problems)


def _refusal(build: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return why a call fails, in one line; "" if it does not."""
    try:
        build(**arguments)
    except Exception as error:  # what a library raises for a wrong value differs from one to the next
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""


def _shown(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in arguments.items())
