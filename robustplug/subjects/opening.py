"""How a model and its data are opened: one set of arguments, said once, for all that opens one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from ..plugin.registry import did_you_mean

if TYPE_CHECKING:
    from ..core.reporting import Reporter
    from ..core.types import Split

Reference = str | Mapping[str, Any]

Function = TypeVar("Function", bound=Callable[..., Any])


class Opening(TypedDict, total=False):
    """Say how a model and its data are opened; None stands for the default everywhere.

    Attributes:
        task: data to evaluate a model that is no run folder on, for example "digits" or
            {"use": "mnist", "root": "…"}.
        vicinity: the threat model; by default that of the run's method, or L∞ with eps 8/255.
        split, samples, batch_size, seed: by default those of the run's recipe, or "test", all, 256, 0.
        architecture: model component that a state dict belongs to.
        weights: of a torchvision model: a name such as "DEFAULT", or a file.
        mean, std: normalisation to put in front of a model that is no run, a number for each channel.
        device: "auto", "cpu", "cuda" or "mps"; by default "auto".
        overrides: "key=value" each; for a run folder only of `evaluate`.
        reporter: hears of progress; by default nobody.
    """

    task: Reference | None
    vicinity: Reference | None
    split: Split | None
    samples: int | None
    batch_size: int | None
    seed: int | None
    architecture: Reference | None
    weights: str | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    device: str | None
    overrides: Sequence[str]
    reporter: Reporter | None


def opens(function: Function) -> Function:
    """Let a function that takes `**opening: Unpack[Opening]` say so where people look.

    Its signature names each argument, its docstring explains them in the place of its line "opening: …", and
    a name that is none of them is refused with the nearest that is.
    """
    signature = inspect.signature(function)
    given = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint.__forward_arg__)
        for name, hint in Opening.__annotations__.items()
    ]
    known = [parameter.name for parameter in (*given, *more)]

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known:
                close = did_you_mean(name, known)
                hint = f'; did you mean "{close}"?' if close else f": it takes {', '.join(known)}"
                raise TypeError(f'{function.__name__}() has no argument "{name}"{hint}')
        return function(*args, **kwargs)

    explained = (Opening.__doc__ or "").split("Attributes:\n")[1].rstrip()
    lines = (function.__doc__ or "").splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("        opening: "))
    checked.__doc__ = "\n".join([*lines[:at], explained, *lines[at + 1 :]])
    checked.__signature__ = signature.replace(parameters=[*given, *more])  # type: ignore[attr-defined]
    return cast(Function, checked)
