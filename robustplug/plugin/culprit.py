"""Find the component that raised an exception, from its traceback: nothing is paid while nothing fails.

Importing this module does not import torch.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import Failed, chain, not_deterministic
from .build import BUILT
from .component import Component, Kind
from .host import BUILTIN, HERE, host, registry
from .registry import GIVEN

OURS = "robustplug"


@dataclass(frozen=True)
class Culprit:
    """Name what raised an exception.

    Attributes:
        name: the component and its plugin, or the plugin alone; "robustplug" where no plugin is involved.
        ours: whether it comes with robustplug.
    """

    name: str
    ours: bool


UNKNOWN = Culprit(OURS, True)


def culprit(error: BaseException) -> Culprit:
    """Return the component, or else the plugin, whose code was running when an exception was raised."""
    # The first cause comes last, and has the innermost frames.
    links = list(chain(error))
    frames = [frame for link in links for frame, _ in traceback.walk_tb(link.__traceback__)]
    for frame in reversed(frames):
        found = _component(frame)
        if found is not None:
            return described(*found)
        owner = _plugin(frame.f_globals.get("__name__", ""))
        if owner is not None:
            return Culprit(_distributed(owner), _is_ours(owner))
    return UNKNOWN


def described(kind: Kind, name: str) -> Culprit:
    """Return a component with the plugin that offers it."""
    owner = registry().owners.get((kind, name), HERE)
    return Culprit(f'{kind.replace("_", " ")} "{name}" of {_distributed(owner)}', _is_ours(owner))


def name_of(part: object) -> str:
    """Return the name of a built component, with its plugin; of another object, that of its class."""
    try:
        known = BUILT.get(part)
    except TypeError:
        known = None
    if known is not None:
        return described(*known).name
    kind = part if isinstance(part, type) or hasattr(part, "__qualname__") else type(part)
    owner = _plugin(kind.__module__)
    return f"{kind.__qualname__} of {kind.__module__ if owner is None else _distributed(owner)}"


def relatives(part: object, kind: Kind) -> list[Component]:
    """Return the components of a kind that an object may be.

    It is the one that it was built as, or else all those of the plugin that defines its class or one above.
    """
    known, registered = BUILT.get(part), registry()
    if known is not None and known in registered.components and known != (kind, GIVEN):
        return [registered.components[known]]
    owners = filter(None, (_plugin(each.__module__) for each in type(part).__mro__))
    owner = next(owners, None)
    return [
        component
        for key, component in registered.components.items()
        if key[0] == kind and owner is not None and registered.owners.get(key) == owner
    ]


def failed(
    error: BaseException,
    where: str = "",
    kept: str = "",
    folder: Path | None = None,
    otherwise: Culprit = UNKNOWN,
) -> Failed:
    """Return the error that shows an unexpected exception in two sentences; raise it from the exception.

    Args:
        error: the exception.
        where: place in the run, such as "epoch 2, batch 3 of 12".
        kept: a sentence on what is kept.
        folder: the run folder.
        otherwise: what is named where the traceback leads to no plugin.
    """
    who = culprit(error)
    who = otherwise if who == UNKNOWN else who
    refused = not_deterministic(error) is not None  # often in a backward pass, whose traceback names nobody
    name = "a backward pass" if refused and who == UNKNOWN else who.name
    head = f"{name} failed{f' in {where}' if where else ''}: {one_line(error)}."
    mend = "This is a bug: please report it." if who.ours and not refused else ""
    notes = getattr(error, "__notes__", ())
    return Failed(" ".join(part for part in (head, mend, *notes, kept) if part), folder)


def no_memory(error: BaseException, key: str, rows: int, where: str = "") -> str:
    """Return what to do where memory was exhausted.

    Args:
        error: the exception.
        key: the recipe's key of the batch size.
        rows: rows of the batch.
        where: place in the run.
    """
    who = culprit(error)
    running = "" if who == UNKNOWN else f", while {who.name} was running"
    head = f"memory is exhausted{f' in {where}' if where else ''} with {key} = {rows}{running}."
    if rows == 1:
        return f"{head} One row does not fit: take a smaller model, or a device with more memory."
    return f"{head} Half of it, {key} = {rows // 2}, probably fits: the passes need memory for each row."


def one_line(error: BaseException) -> str:
    """Return type, message and place of an exception, on one line; the message is cut at 300 characters."""
    operation = not_deterministic(error)
    if operation is not None:
        return f"{operation} has no deterministic algorithm on this device: set train.deterministic = false"
    text = " ".join(str(error).split()) or "no message"
    text = text if len(text) <= 300 else f"{text[:297]}..."
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def _component(frame: FrameType) -> tuple[Kind, str] | None:
    """Return the component that a frame belongs to: its `self`, or a function that is a factory."""
    this = frame.f_locals.get("self")
    if this is not None:
        try:
            known = BUILT.get(this)
        except TypeError:
            known = None
        if known is not None:
            return known
        places = {(part.__module__, part.__qualname__) for part in type(this).__mro__}
        if type(this).__module__ == "torch.nn.modules.module":
            return None
    else:
        places = {(frame.f_globals.get("__name__", ""), frame.f_code.co_qualname)}
    for key, component in registry().components.items():
        if _place(component) in places:
            return key
    return None


def _place(component: Component) -> tuple[str, str]:
    factory: Any = component.factory
    if isinstance(factory, str):
        module, _, attribute = factory.partition(":")
        return module, attribute
    return getattr(factory, "__module__", ""), getattr(factory, "__qualname__", "")


def _plugin(module: str) -> str | None:
    """Return the plugin whose package holds a module; None for robustplug's own rooms and other libraries."""
    if module == OURS or (module.startswith(f"{OURS}.") and not module.startswith(f"{OURS}.{BUILTIN}")):
        return None
    for name, package in _packages():
        if module == package or module.startswith(f"{package}."):
            return name
    return None


def _packages() -> Iterator[tuple[str, str]]:
    for report in host().reports:
        module = report.module.partition(":")[0]
        yield report.name, module if report.name == BUILTIN else module.partition(".")[0]


def _is_ours(owner: str) -> bool:
    return any(report.name == owner and report.distribution == OURS for report in host().reports)


def _distributed(owner: str) -> str:
    """Return "the plugin NAME (DISTRIBUTION VERSION)"."""
    if owner == BUILTIN:
        return OURS
    for report in host().reports:
        if report.name == owner:
            return f"the plugin {owner} ({report.distribution} {report.version})"
    return f"the plugin {owner}" if owner != HERE else "your program"
