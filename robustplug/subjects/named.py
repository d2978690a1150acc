"""Models that a component builds by name, with the weights of their library: "timm:resnet18"."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.random import isolated
from ..errors import RunError
from ..files.reading import is_file
from ..plugin.component import Use
from ..plugin.host import registry
from ..recipe.convert import resolve
from ..recipe.shape import shape
from ..recipe.write import use_to_mapping
from .assemble import build_part
from .formats.contents import digest
from .formats.weights import fit, read_state
from .starting import Start, library_weights

if TYPE_CHECKING:
    from torch import nn

    from ..core.types import TaskInfo
    from .formats.adapter import Opened

_FILES = {".safetensors", ".pth", ".pt", ".ckpt", ".bin"}


def component_in(source: Any) -> str | None:
    """Return the model component that "component:name" refers to; None for any other source."""
    name, colon, variant = source.partition(":") if isinstance(source, str) else ("", "", "")
    if not (colon and variant) or ("model", name) not in registry().components:
        return None
    return name if "name" in shape(registry().get("model", name).options).plain_names else None


def folder_in(source: Any) -> tuple[str, str] | None:
    """Return component and folder of "component:folder", whose component reads folders; None for others."""
    name, colon, folder = source.partition(":") if isinstance(source, str) else ("", "", "")
    if not (colon and folder) or ("model", name) not in registry().components:
        return None
    names = shape(registry().get("model", name).options).plain_names
    return (name, folder) if "folder" in names and "name" not in names else None


def open_named(source: str, weights: str | None, info: TaskInfo, model: Use | None) -> Opened:
    """Build the model of a component, with the weights of its library or of a file, in eval mode.

    Args:
        source: "component:name".
        weights: a file, or a name that the library knows; None for the library's own choice.
        info: the task.
        model: the same component with its other options; None for their defaults.

    Raises:
        RunError: there are no weights, they cannot be had, or they do not fit the task.
        RecipeError: the component does not exist, or refuses its options, the task or the weights.
    """
    reference = resolve(model or Use(source), "model")
    if reference.name != source.partition(":")[0]:
        raise RunError(
            f'the model component "{model and model.name}" is not that of {source}: leave out --model'
        )
    with isolated(0):
        network: nn.Module = build_part(reference, "model", "model", info=info)
    facts: dict[str, Any] = {"model": use_to_mapping(reference)}
    start = _weights(reference, source, weights, info)
    facts["weights"] = start.source
    if is_file(start.source):
        facts["sha256"] = digest(Path(start.source))
    mend = (
        f"{source} is built for the {info.classes} classes of the task: choose weights, or a task, that fit"
    )
    found = fit(
        network,
        start.state,
        start.source,
        source,
        mend,
        channels=info.shape[0] if info.shape else None,
        numbers=start.numbers,
    )
    return found.opened(network, "library", source, facts, start.notes)


def _weights(reference: Use, source: str, weights: str | None, info: TaskInfo) -> Start:
    if weights is not None and (is_file(weights) or Path(weights).suffix.lower() in _FILES):
        state, notes = read_state(Path(weights))
        return Start(state, weights, notes)
    if registry().get("model", reference.name).weights is None:
        raise RunError(f"{source} needs trained weights: give --weights FILE, a file with a state dict")
    found = library_weights(reference, weights or "DEFAULT", info, "weights")
    if found is None:
        raise RunError(f"{source} has no trained weights of its own: give --weights FILE")
    return found
