"""Checkpoints: safetensors and JSON, written as a whole or not at all, verified when they are read.

A checkpoint NAME consists of two files. NAME.safetensors is written first. NAME.json contains its SHA-256
and its own checksum; the checkpoint exists once NAME.json is written. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import RunError
from .folder import MODEL, write_atomic

FORMAT = 1
_MARK = "$tensor"


@dataclass(frozen=True)
class Checkpoint:
    """Hold a checkpoint that has been verified.

    Attributes:
        name: file name without suffix; names sort by age.
        tensors: tensors by name.
        meta: the JSON part.
    """

    name: str
    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any]


def pack(tree: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of a tree into `tensors` and return the rest, which is JSON.

    Args:
        tree: mappings, lists, tuples, tensors and plain values; keys may be str or int.
        prefix: name of the tree, unique within the checkpoint.
        tensors: mapping that is filled with contiguous copies on the CPU.
    """
    if isinstance(tree, Tensor):
        tensors[prefix] = tree.detach().to("cpu", copy=True).contiguous()
        return {_MARK: prefix}
    if isinstance(tree, Mapping):
        return {str(key): pack(value, f"{prefix}.{key}", tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [pack(value, f"{prefix}.{number}", tensors) for number, value in enumerate(tree)]
    return tree


def unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `pack`; keys that were whole numbers become whole numbers again, tuples stay lists."""
    if isinstance(tree, Mapping):
        if set(tree) == {_MARK}:
            return tensors[tree[_MARK]]
        return {int(key) if key.isdecimal() else key: unpack(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack(value, tensors) for value in tree]
    return tree


def fixed_shape(name: str, value: Tensor) -> tuple[int, ...] | None:
    """Return the shape of a state-dict entry; None for torch's extra state, whose size may change."""
    return None if name.rpartition(".")[2] == "_extra_state" else tuple(value.shape)


def _digest(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def save(folder: Path, name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Raises:
        OSError: the checkpoint cannot be written; earlier checkpoints are untouched.
    """
    from safetensors.torch import save as serialise

    folder.mkdir(parents=True, exist_ok=True)
    data = serialise(dict(tensors))
    body = {"format": FORMAT, "sha256": hashlib.sha256(data).hexdigest(), "meta": meta}
    tensor_file = folder / f"{name}.safetensors"
    try:
        write_atomic(tensor_file, data)
        write_atomic(folder / f"{name}.json", json.dumps({**body, "checksum": _digest(body)}).encode())
    except OSError:
        if not (folder / f"{name}.json").exists():
            with contextlib.suppress(OSError):
                tensor_file.unlink()
        raise


def load(folder: Path, name: str) -> Checkpoint:
    """Read a checkpoint and verify it.

    Raises:
        ValueError: the checkpoint is truncated, tampered with, or of another format; the message states
            which.
        OSError: a file of the checkpoint cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as deserialise

    try:
        body = json.loads((folder / f"{name}.json").read_bytes())
        checksum = body.pop("checksum")
        if body["format"] != FORMAT:
            raise ValueError(f"{name}.json has format {body['format']}; this version reads {FORMAT}")
        if checksum != _digest(body):
            raise ValueError(f"{name}.json does not match its checksum")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{name}.json is damaged: {error}") from error
    data = (folder / f"{name}.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != body["sha256"]:
        raise ValueError(f"{name}.safetensors does not match its checksum")
    try:
        return Checkpoint(name, deserialise(data), body["meta"])
    except SafetensorError as error:
        raise ValueError(f"{name}.safetensors is damaged: {error}") from error


def names(folder: Path) -> list[str]:
    """List the checkpoints of a folder, oldest first."""
    return sorted(path.stem for path in folder.glob("*.json"))


def load_newest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """Read the newest intact checkpoint, and return the problems of newer ones with it.

    Raises:
        RunError: no checkpoint is intact.
    """
    problems: list[str] = []
    for name in reversed(names(folder)):
        try:
            return load(folder, name), problems
        except (ValueError, OSError) as error:
            problems.append(f"checkpoint {name} cannot be used: {error}")
    detail = "; ".join(problems) or "it contains none"
    exported = folder.parent / MODEL
    rest = f". The weights are also in {exported}: robustplug evaluate {exported} --task … --model …"
    raise RunError(f"no checkpoint in {folder} can be used: {detail}{rest if exported.is_file() else ''}")


def prune(folder: Path, keep: set[str], newest: int = 2) -> None:
    """Delete all checkpoints except the newest and those to keep, and files that a kill left half-written."""
    known = names(folder)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
    for path in folder.glob("*.safetensors"):
        if path.stem not in known:
            path.unlink(missing_ok=True)
    for name in names(folder)[:-newest]:
        if name not in keep:
            # The manifest is deleted first: without it the checkpoint no longer exists.
            (folder / f"{name}.json").unlink(missing_ok=True)
            (folder / f"{name}.safetensors").unlink(missing_ok=True)
