"""The JSON of checkpoints: whose it is, and what its values may be. This does not import torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ..files.reading import Unreadable, parse_json, read_bytes
from ..files.seals import SEAL, Strict, opened, parsed
from .folder import remove_temporary
from .history import StoredReport
from .manifest import Digest, Manifest

# Checkpoints of format 1 carry a checksum and no seal.
FORMAT, UNSEALED = 2, 1
TENSOR = "$tensor"
_NAME = re.compile(r"epoch-(\d{5,9})-batch-(\d{7,12})")
_TEMPORARY = re.compile(
    r"\.(epoch-\d{5,9}-batch-\d{7,12}\.(json|safetensors)|history(-copy)?\.jsonl)\.\d+\.tmp"
)


def _own_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("is not the name of a checkpoint")
    return name


Count = Annotated[int, Field(ge=0, le=2**53)]
Size = Annotated[int, Field(ge=0, le=2**40)]
Name = Annotated[str, AfterValidator(_own_name)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Shape = Annotated[list[Size], Field(max_length=64)]
Place = Annotated[str, Field(pattern=r"^\d{1,9}$")]


class Meta(Strict):
    """The state of a training besides its tensors.

    Attributes:
        recipe: digest of the recipe.
        world: number of processes.
        epoch, batch: the next batch to train on.
        update: number of finished updates.
        means: sum and number of rows of each logged value of the current epoch.
        passes: forward and backward passes so far.
        best: name and score of the best checkpoint so far.
        score: score of this checkpoint; None if it was not measured.
        seconds: wall time so far.
        local: shapes of the tensors that differ between processes, one for each process.
        optimizers: state of the optimizers by group and parameter; tensors are named.
        history: reports of the finished epochs; None where they are kept beside the checkpoints.
    """

    recipe: Digest
    world: Annotated[int, Field(ge=1, le=2**20)]
    epoch: Annotated[int, Field(ge=0, lt=10**9)]
    batch: Annotated[int, Field(ge=0, lt=10**12)]
    update: Count
    means: dict[str, tuple[float, float]]
    passes: tuple[Count, Count]
    best: tuple[Name, Finite] | None
    score: Finite | None = None
    seconds: Annotated[Finite, Field(ge=0)]
    local: dict[str, list[Shape]]
    optimizers: dict[str, dict[Place, dict[str, Any]]]
    history: list[StoredReport] | None = None


class _File(Strict):
    format: int
    sha256: Digest
    meta: Meta


@dataclass(frozen=True)
class Head:
    """Hold the JSON part of a checkpoint that has been checked.

    Attributes:
        name: name of the checkpoint.
        run: id of its run; "" for a checkpoint of an earlier version.
        sha256: digest of its tensors.
        meta: the state.
        digest: digest of the JSON file.
    """

    name: str
    run: str
    sha256: str
    meta: Meta
    digest: str


def name_of(epoch: int, batch: int) -> str:
    """Return the name of a checkpoint."""
    return f"epoch-{epoch:05d}-batch-{batch:07d}"


def names(folder: Path) -> list[str]:
    """List the checkpoints of a folder, oldest first; files of other names do not count."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name[:-5] for entry in entries if entry.name.endswith(".json")]
    except OSError:
        return []
    return sorted(filter(_NAME.fullmatch, found), key=_age)


def _age(name: str) -> tuple[int, int]:
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2])


def read_head(folder: Path, name: str, manifest: Manifest | None = None) -> Head:
    """Read the JSON part of a checkpoint, and check what it belongs to.

    Args:
        folder: folder of the checkpoints.
        name: name of the checkpoint.
        manifest: manifest of the run that it must belong to; None for any run.

    Raises:
        Unreadable: it is damaged, changed or renamed, or belongs to another run; the message names the file.
    """
    path = folder / f"{name}.json"
    try:
        _own_name(name)
        data = read_bytes(path)
        return _checked(parse_json(data), name, hashlib.sha256(data).hexdigest(), manifest)
    except FileNotFoundError:
        raise Unreadable(f"{path.name} does not exist") from None
    except ValueError as error:
        raise Unreadable(f"{path.name} {error}") from error


def _checked(body: Any, name: str, digest: str, manifest: Manifest | None) -> Head:
    if not isinstance(body, dict):
        raise Unreadable("is not the JSON of a checkpoint")
    belongs: Mapping[str, str | int] = {}
    if body.get("format") == UNSEALED and SEAL not in body:
        body = _with_right_checksum(body)
    else:
        body, belongs = opened(body)
        if body.get("format") != FORMAT:
            raise Unreadable(f"has format {body.get('format')!r:.20}; this version reads {FORMAT}")
    file = parsed(_File, body)
    head = Head(name, str(belongs.get("run", "")), file.sha256, file.meta, digest)
    meta = file.meta
    if belongs.get("name", name) != name or name_of(meta.epoch, meta.batch) != name:
        was = str(belongs.get("name") or name_of(meta.epoch, meta.batch))
        raise Unreadable(f"was written under the name {was!r:.60}")
    if any(len(shapes) != meta.world for shapes in meta.local.values()):
        raise Unreadable("does not hold a shape for each process")
    if manifest is not None:
        _check_run(head, manifest)
    return head


def _check_run(head: Head, manifest: Manifest) -> None:
    if not head.run:
        if manifest.unsealed.get(head.name) != head.digest:
            raise Unreadable("has no seal, and is none of those that the run had from an earlier version")
    elif head.run != manifest.run:
        raise Unreadable(f"belongs to another run ({head.run[:8]}…, not {manifest.run[:8]}…)")
    elif head.meta.recipe not in manifest.recipes:
        raise Unreadable("belongs to another recipe than that of the run")


def _with_right_checksum(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a checkpoint of format 1 without its checksum, which must be right."""
    plain = {key: value for key, value in body.items() if key != "checksum"}
    found = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    if body.get("checksum") != found:
        raise Unreadable("does not match its checksum")
    return plain


def remove_half_written(folder: Path) -> None:
    """Remove what a process of the run that died left half-written in the folder of its checkpoints."""
    if folder.is_dir() and not folder.is_symlink():
        remove_temporary(folder, _TEMPORARY)
