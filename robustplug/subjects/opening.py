"""The arguments that open a model and its data, shared by all functions that open one."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from ..plugin.registry import did_you_mean
from ..recipe.toml.files import installed

if TYPE_CHECKING:
    from ..core.reporting import Reporter
    from ..core.types import Split
    from .data.arrays import Bounds

Reference = str | Mapping[str, Any]

Function = TypeVar("Function", bound=Callable[..., Any])


class Opening(TypedDict, total=False):
    """Arguments that open a model and its data; None always means the default.

    Attributes:
        task: data on which a model other than a run folder is evaluated, for example "digits" or
            {"use": "mnist", "root": "…"}.
        data: data of your own instead: a pair (inputs, labels) of arrays, a torch Dataset or DataLoader, a
            Hugging Face Dataset, an iterable of batches, or a Task.
        columns: names of the input and the label column of a Hugging Face Dataset.
        bounds: lowest and highest value of the inputs of `data`, numbers or one for each channel or feature;
            by default 0 and 1, uint8 being divided by 255.
        classes: number of classes of `data`; by default as many as the model has outputs.
        threat: threat model; by default that of the run's method, or one for the modality of the task: for
            numbers L∞ with eps 8/255. Its radius is in units of the inputs. `vicinity` is another name.
        wrapper: what stands around the model under test, such as a smoothing; by default the recipe's.
        split, samples, batch_size, seed: by default those of the run's recipe, or "test", all, 256, 0.
        architecture: model that a state dict belongs to: a component, a module, or a function that makes one.
        weights: weights of a model by name, such as "torchvision:resnet50": a name such as "DEFAULT", or a
            file.
        mean, std: normalisation to add in front of a model other than a run, one number for each channel.
        device: "auto", "cpu", "cuda" or "mps"; by default "auto".
        overrides: settings of the form "key=value"; for a run folder only those of `evaluate`.
        reporter: receives progress; by default only warnings are shown, as those of Python.
    """

    task: Reference | None
    data: Any
    columns: Sequence[str] | None
    bounds: Bounds | None
    classes: int | None
    threat: Reference | None
    vicinity: Reference | None
    wrapper: Reference | None
    split: Split | None
    samples: int | None
    batch_size: int | None
    seed: int | None
    architecture: Any
    weights: str | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    device: str | None
    overrides: Sequence[str]
    reporter: Reporter | None


@contextlib.contextmanager
def unaffected() -> Iterator[None]:
    """Compute as usual for a block, whatever the caller's grad mode, inference mode or autocast is."""
    import torch

    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def gives_back(function: Function) -> Function:
    """Let a function whose first argument may be a module leave that module on the device that it came on."""

    @functools.wraps(function)
    def moved_back(model: Any, *args: Any, **kwargs: Any) -> Any:
        from torch import nn

        tensors = (*model.parameters(), *model.buffers()) if isinstance(model, nn.Module) else ()
        # Moving a module moves its parameters in place: the device is remembered, not a parameter.
        device = next((tensor.device for tensor in tensors), None)
        try:
            return function(model, *args, **kwargs)
        finally:
            if device is not None:
                model.to(device)

    return cast(Function, moved_back)


def opens(function: Function) -> Function:
    """Document and check the arguments of a function that takes `**opening: Unpack[Opening]`.

    The signature then names each argument. The docstring explains them in place of its line "opening: …". An
    unknown argument is refused, with the nearest known name as a hint.
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
        with unaffected():
            return function(*args, **kwargs)

    explained = (Opening.__doc__ or "").split("Attributes:\n")[1].rstrip()
    lines = (function.__doc__ or "").splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("        opening: "))
    checked.__doc__ = "\n".join([*lines[:at], explained, *lines[at + 1 :]])
    checked.__signature__ = signature.replace(parameters=[*given, *more])  # type: ignore[attr-defined]
    return cast(Function, checked)


def rows_asked_for(
    suite: str | Path | Mapping[str, Any] | None, attacks: str | Sequence[Reference] | None
) -> tuple[str | Path | Mapping[str, Any] | None, Sequence[Reference] | None]:
    """Return the suite, and the attacks, that are asked for: one name stands for either.

    Raises:
        TypeError: both are given.
    """
    if suite is not None and attacks is not None:
        raise TypeError("give either a suite or attacks")
    if not isinstance(attacks, str):
        return suite, attacks
    if attacks in installed("suite") or attacks.endswith(".toml"):
        return attacks, None
    return None, [attacks]
