"""Checkpoints: safetensors and sealed JSON, written as a whole or not at all, checked when they are read.

A checkpoint NAME consists of two files. NAME.safetensors is written first. NAME.json contains its SHA-256,
and states by which run and under which name it was written; the checkpoint exists once it is written.
Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import RunError
from ..files.bounds import check_size
from ..files.reading import Unreadable, open_file
from ..files.seals import sealed
from .folder import MODEL, write_atomic
from .heads import FORMAT, TENSOR, Head, names, read_head
from .manifest import Manifest


@dataclass(frozen=True)
class Checkpoint:
    """Hold a checkpoint that has been verified.

    Attributes:
        name: file name without suffix; names sort by age.
        tensors: tensors by name.
        meta: the JSON part; see `heads.Meta`.
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
        return {TENSOR: prefix}
    if isinstance(tree, Mapping):
        return {str(key): pack(value, f"{prefix}.{key}", tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [pack(value, f"{prefix}.{number}", tensors) for number, value in enumerate(tree)]
    return tree


def unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `pack`; keys that were whole numbers become whole numbers again, tuples stay lists."""
    if isinstance(tree, Mapping):
        if set(tree) == {TENSOR}:
            return tensors[tree[TENSOR]]
        return {int(key) if key.isdecimal() else key: unpack(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack(value, tensors) for value in tree]
    return tree


def fixed_shape(name: str, value: Tensor) -> tuple[int, ...] | None:
    """Return the shape of a state-dict entry; None for torch's extra state, whose size may change."""
    return None if name.rpartition(".")[2] == "_extra_state" else tuple(value.shape)


def save(folder: Path, name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], run: str) -> None:
    """Write a checkpoint.

    Args:
        folder: folder of the checkpoints; created if it does not exist.
        name: name by epoch and batch; see `heads.name_of`.
        tensors: tensors by name.
        meta: the JSON part; see `heads.Meta`.
        run: id of the run.

    Raises:
        OSError: the checkpoint cannot be written; earlier checkpoints are untouched.
    """
    from safetensors.torch import save as serialise

    folder.mkdir(parents=True, exist_ok=True)
    data = serialise(dict(tensors))
    body = {"format": FORMAT, "sha256": hashlib.sha256(data).hexdigest(), "meta": meta}
    text = json.dumps(sealed(body, run=run, name=name)).encode()
    tensor_file = folder / f"{name}.safetensors"
    try:
        write_atomic(tensor_file, data)
        write_atomic(folder / f"{name}.json", text)
    except OSError:
        if not (folder / f"{name}.json").exists():
            with contextlib.suppress(OSError):
                tensor_file.unlink()
        raise


def load(folder: Path, name: str, manifest: Manifest | None = None) -> Checkpoint:
    """Read a checkpoint and verify it.

    Args:
        folder: folder of the checkpoints.
        name: name of the checkpoint.
        manifest: manifest of the run that it must belong to; None for any run.

    Raises:
        Unreadable: it is damaged, changed, renamed, or of another run or format; the message names the file.
    """
    head = read_head(folder, name, manifest)
    return Checkpoint(name, _tensors(folder, head), head.meta.model_dump())


def _tensors(folder: Path, head: Head) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load as deserialise

    path = folder / f"{head.name}.safetensors"
    try:
        with open_file(path) as file:
            check_size(path.stat().st_size)
            data = file.read()
    except FileNotFoundError:
        raise Unreadable(f"{path.name} does not exist") from None
    except OSError as error:
        raise Unreadable(f"{path.name} cannot be read: {error.strerror or error}") from error
    except Unreadable as error:
        raise Unreadable(f"{path.name} {error}") from error
    if hashlib.sha256(data).hexdigest() != head.sha256:
        raise Unreadable(f"{path.name} does not match its checksum")
    try:
        tensors: dict[str, Tensor] = deserialise(data)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise Unreadable(f"{path.name} is damaged: {error}") from error
    for key, shapes in head.meta.local.items():
        flat = tensors.get(f"local/{key}")
        if flat is None or flat.dim() != 1 or len(flat) != sum(math.prod(shape) for shape in shapes):
            raise Unreadable(f"{path.name} does not fit {head.name}.json: local/{key}")
    for key in _named(head.meta.optimizers):
        if not isinstance(key, str) or key not in tensors:
            raise Unreadable(f"{path.name} does not fit {head.name}.json: {key!r:.80} is missing")
    return tensors


def _named(tree: Any) -> Iterator[Any]:
    """Yield the names of the tensors of a packed tree."""
    if isinstance(tree, dict):
        if set(tree) == {TENSOR}:
            yield tree[TENSOR]
        else:
            for value in tree.values():
                yield from _named(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _named(value)


def load_newest(folder: Path, manifest: Manifest | None = None) -> tuple[Checkpoint, list[str]]:
    """Read the newest intact checkpoint, and return the problems of newer ones with it.

    Args:
        folder: folder of the checkpoints.
        manifest: manifest of the run that it must belong to; None for any run.

    Raises:
        RunError: no checkpoint is intact.
    """
    problems = missing(folder, manifest)
    for name in reversed(names(folder)):
        try:
            return load(folder, name, manifest), problems
        except Unreadable as error:
            problems.append(f"checkpoint {name} cannot be used: {error}")
    raise RunError(none_left(folder, problems))


def missing(folder: Path, manifest: Manifest | None) -> list[str]:
    """Return that the newest checkpoint of a finished run was removed; nothing if it is there."""
    if manifest is None or not manifest.newest or manifest.newest in names(folder):
        return []
    return [f"checkpoint {manifest.newest} cannot be used: {folder / manifest.newest}.json does not exist"]


def none_left(folder: Path, problems: list[str]) -> str:
    """Return that no checkpoint can be used, why, and where the weights may be, too."""
    detail = "; ".join(problems) or "it contains none"
    exported = folder.parent / MODEL
    rest = f". The weights are also in {exported}: robustplug evaluate {exported} --task … --model …"
    return f"no checkpoint in {folder} can be used: {detail}{rest if exported.is_file() else ''}"


def load_selected(
    folder: Path, newest: Checkpoint, manifest: Manifest | None = None
) -> tuple[Checkpoint, tuple[str, float] | None, list[str]]:
    """Read the selected checkpoint; where it cannot be used, select anew among those that are kept.

    Args:
        folder: folder of the checkpoints.
        newest: the newest intact checkpoint, which states the selected one.
        manifest: manifest of the run that it must belong to; None for any run.

    Returns:
        The checkpoint, its name and score (None if it has no score), and what the reader must be told.
    """
    best = newest.meta["best"]
    if best is None:
        return newest, None, []
    if best[0] == newest.name:
        return newest, (best[0], best[1]), []
    try:
        return load(folder, best[0], manifest), (best[0], best[1]), []
    except Unreadable as error:
        problem = f"the selected checkpoint {best[0]} cannot be used: {error}"
    scored: list[tuple[float, str]] = []
    for name in names(folder):
        with contextlib.suppress(Unreadable):
            score = read_head(folder, name, manifest).meta.score
            if score is not None and name != best[0]:
                scored.append((score, name))
    # Of equal scores the earliest is selected, as in training.
    for score, name in sorted(scored, key=lambda each: -each[0]):
        with contextlib.suppress(Unreadable):
            found = newest if name == newest.name else load(folder, name, manifest)
            text = (
                f"{problem}; {name} is selected instead, with the score {score:.4g} in place of {best[1]:.4g}"
            )
            return found, (name, score), [text]
    return newest, None, [f"{problem}; none that is kept has a score: the newest is used, {newest.name}"]


def prune(folder: Path, written: list[str], keep: set[str], newest: int = 2) -> None:
    """Delete checkpoints of a run except the newest and those to keep; links and other files stay.

    Args:
        folder: folder of the checkpoints.
        written: names of the run's own checkpoints, oldest first; those that are deleted are removed from it.
        keep: names to keep.
        newest: number of the newest to keep.
    """
    for name in [name for name in written[:-newest] if name not in keep]:
        # The JSON states whose they are, so it goes last.
        for path in (folder / f"{name}.safetensors", folder / f"{name}.json"):
            if not path.is_symlink():
                path.unlink(missing_ok=True)
        written.remove(name)
