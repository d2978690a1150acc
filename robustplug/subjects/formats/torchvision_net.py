"""Classification models of torchvision with trained weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torchvision.models
from torch import nn

from ...core.random import isolated
from ...errors import RunError
from ...files.reading import is_file
from ...plugin.registry import did_you_mean
from .adapter import Opened
from .contents import PREFIX, digest, first_line
from .layouts import State
from .weights import fit, read_state

_FILES = {".safetensors", ".pth", ".pt", ".ckpt", ".bin"}


def open_torchvision(name: str, weights: str | None, shape: tuple[int, ...], classes: int) -> Opened:
    """Build a torchvision model with torchvision's weights, or with those of a file, in eval mode.

    Args:
        name: a model name from torchvision.models.list_models(module=torchvision.models).
        weights: a name such as "DEFAULT", which torchvision downloads into its cache; or a file.
        shape: image shape of the task.
        classes: number of classes of the task.

    Raises:
        RunError: the model or the weights do not exist, or do not fit the task.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = did_you_mean(name, known)
        hint = f'did you mean "{close}"?' if close else f"known: {', '.join(known)}"
        raise RunError(f'torchvision has no classification model "{name}"; {hint}')
    choices = list(_all_weights(name))
    if weights is None:
        raise RunError(
            f"{PREFIX}{name} needs trained weights: give --weights one of {', '.join(choices)}, or a file "
            "with a state dict"
        )
    if is_file(weights) or Path(weights).suffix.lower() in _FILES:
        return _from_file(name, Path(weights), shape, classes)
    if weights not in choices:
        raise RunError(
            f'{name} of torchvision has no weights "{weights}", and no such file exists; '
            f"known: {', '.join(choices)}"
        )
    return _from_torchvision(name, weights, shape, classes)


def _from_torchvision(name: str, weights: str, shape: tuple[int, ...], classes: int) -> Opened:
    chosen = _all_weights(name)[weights]
    full = f"{name} {chosen.name}"
    count = len(chosen.meta["categories"])
    if count != classes:
        raise RunError(
            f"the weights {full} have {count} classes, but the task has {classes}: choose a task with these "
            "classes, or give a file with weights that were trained on this task"
        )
    transforms = chosen.transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if shape[0] != len(mean):
        raise RunError(f"the weights {full} expect {len(mean)} channels, but the task has {shape[0]}")
    try:
        with isolated(0):
            network = torchvision.models.get_model(name, weights=chosen)
    except Exception as error:  # no network, a full disk, a wrong checksum
        raise RunError(
            f"the weights {full} cannot be downloaded ({first_line(error)}): {chosen.url}; download them "
            "elsewhere and give the file: --weights FILE"
        ) from error
    facts = {"weights": chosen.name, "url": chosen.url}
    opened = Opened(network.eval(), "torchvision", f"{PREFIX}{name}", facts, mean=mean, std=std)
    crop = list(transforms.crop_size) * (2 if len(transforms.crop_size) == 1 else 1)
    if list(shape[1:]) != crop:
        opened.notes.append(
            f"the weights {full} were tested on images of {crop[0]}x{crop[1]} pixels; the task has "
            f"{shape[1]}x{shape[2]}"
        )
    return opened


def _from_file(name: str, path: Path, shape: tuple[int, ...], classes: int) -> Opened:
    state, notes = read_state(path)
    own = own_weights(name, path)
    size = shape[1:] if own is None else own.meta["min_size"]
    network = _construct(name, state, classes, tuple(size), own is not None)
    mend = f"{PREFIX}{name} is torchvision's own architecture, here with {classes} classes"
    found = fit(network, state, path, f"{PREFIX}{name}", mend, channels=shape[0])
    facts: dict[str, Any] = {"weights": str(path), "sha256": digest(path)}
    opened = found.opened(network, "torchvision", f"{PREFIX}{name}", facts, notes)
    if own is not None:
        transforms = own.transforms()
        opened.mean, opened.std = tuple(transforms.mean), tuple(transforms.std)
        facts["weights"] = own.name
    return opened


def _all_weights(name: str) -> Mapping[str, Any]:
    """Return torchvision's weights of a model by name, "DEFAULT" included."""
    members: Mapping[str, Any] = torchvision.models.get_model_weights(name).__members__
    return members


def own_weights(name: str, path: Path) -> Any:
    """Return the torchvision weights that a file is a copy of, identified by the hash in their URL."""
    checksum = digest(path)
    for weights in _all_weights(name).values():
        short = weights.url.rpartition("-")[2].partition(".")[0]
        if short and checksum.startswith(short):
            return weights
    return None


def _construct(name: str, state: State, classes: int, size: tuple[int, ...], own: bool) -> nn.Module:
    builder = torchvision.models.get_model_builder(name)
    accepted = inspect.signature(inspect.signature(builder).return_annotation).parameters
    wanted: dict[str, Any] = {
        "num_classes": classes,
        # Files of GoogLeNet and Inception may contain auxiliary classifiers. torchvision's own weights were
        # trained on inputs that the model normalises a second time.
        "aux_logits": any("aux" in key.lower() for key in state),
        "transform_input": own,
        "init_weights": False,
        "image_size": size[0],
        "input_size": size,
    }
    with isolated(0):
        network: nn.Module = builder(weights=None, **{key: wanted[key] for key in wanted if key in accepted})
    return network
