"""Read state dicts from files and load them into modules."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import RunError
from ...runs.checkpoint import fixed_shape
from .contents import content_of, first_line

State = Mapping[str, Tensor]

# Where the weights are in the checkpoints of other programs.
_PLACES = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
# What DataParallel, torch.compile and wrapping modules put in front of every name.
_PREFIXES = ("", "module.", "model.", "module.model.", "_orig_mod.", "module._orig_mod.")
_SHOWN = 3


def read_state(path: Path) -> tuple[State, list[str]]:
    """Read a state dict from a safetensors file or a torch.save file.

    Returns:
        The tensors, and notes on their place in the file.

    Raises:
        RunError: the file contains something else, or is damaged.
    """
    content = content_of(path)
    if content == "safetensors":
        return _read_safetensors(path), []
    if content == "pickle":
        return _state_in(_unpickle(path), path)
    raise RunError(
        f"{path} contains a whole program ({content}), not a state dict: evaluate it directly, without a "
        "model component or a torchvision name"
    )


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged: {first_line(error)}; download or save it again") from error


def _unpickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own
        if type(error).__name__ == "UnpicklingError":
            raise RunError(
                f"{path} contains pickled Python objects, not only tensors, and unpickling them could run "
                "any code. If you trust the file, load it where it was created and save only the weights: "
                "safetensors.torch.save_file(model.state_dict(), "
                f'"{path.stem}.safetensors")'
            ) from error
        raise RunError(
            f"{path} cannot be read: {first_line(error)}; it is damaged, cut off or not a torch.save file: "
            "download or save it again"
        ) from error


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items())
    )


def _state_in(value: Any, path: Path) -> tuple[State, list[str]]:
    if _is_state(value):
        return value, []
    if not isinstance(value, Mapping):
        raise RunError(f"{path} contains a {type(value).__name__}, not a state dict: save model.state_dict()")
    places = [name for name in value if _is_state(value[name])]
    known = [name for name in _PLACES if name in places]
    if not known:
        names = ", ".join(str(name) for name in list(value)[:8]) or "none"
        raise RunError(f"{path} contains no state dict (keys: {names}): save only model.state_dict()")
    # The file may also contain optimizers and averaged weights, so the order of the usual names is fixed.
    others = [name for name in places if name != known[0]]
    besides = f"; not used: {', '.join(others)}" if others else ""
    return value[known[0]], [f'the weights are those under "{known[0]}" in the file{besides}']


def _differences(state: State, wanted: State) -> list[tuple[str, list[str]]]:
    # BatchNorm creates this counter itself if an old file lacks it.
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} ({tuple(state[name].shape)} in the file, {tuple(value.shape)} in the model)"
        for name, value in wanted.items()
        if name in state and fixed_shape(name, state[name]) != fixed_shape(name, value)
    ]
    found = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    return [(what, names) for what, names in found if names]


def _stripped(state: State, wanted: State) -> tuple[State, str]:
    """Return the state dict without the prefix that the names of the module lack, and this prefix."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            shorter = {name.removeprefix(prefix): value for name, value in state.items()}
            if all(what == "of another shape" for what, _ in _differences(shorter, wanted)):
                return shorter, prefix
    return state, ""


def fit(module: nn.Module, state: State, path: Path, name: str, mend: str) -> str:
    """Load a state dict into a module and return the prefix that was removed from the file's names.

    Args:
        module: the module whose weights are replaced.
        state: a state dict with exactly the module's names and shapes, except for a prefix of all names.
        path, name: file path and module name, for the message.
        mend: advice on how to choose another module.

    Raises:
        RunError: they do not fit; the message lists tensors that are missing, unexpected or of another shape.
    """
    wanted = module.state_dict()
    state, prefix = _stripped(state, wanted)
    found = _differences(state, wanted)
    if found:
        lines = [f"{len(names)} {what}: {_some(names)}" for what, names in found]
        hint = _hint(state, wanted)
        raise RunError("\n  ".join([f"{path} does not fit {name}:", *lines, hint or mend]))
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise RunError(f"{path} does not fit {name}: {first_line(error)}") from error
    return prefix


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _hint(state: State, wanted: State) -> str:
    """Return advice if only the normalisation layer differs, or else ""."""
    inside = {f"network.{name}" for name in state} | {"mean", "std"}
    if inside >= set(wanted) and not inside - set(wanted):
        return "the file has no normalisation layer: --set model.normalize=false, and --mean and --std"
    inside = {f"network.{name}" for name in wanted} | {"mean", "std"}
    if inside == set(state):
        return "the file has a normalisation layer: --set model.normalize=true; the task must state its mean"
    return ""


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's parameters and buffers, names and shapes included."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
