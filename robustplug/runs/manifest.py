"""The manifest of a run: who it is, its recipe, and the digests of the files that it finished."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..errors import RunError
from ..files.reading import Unreadable, read_json
from ..files.seals import Strict, opened, parsed, sealed
from .folder import MANIFEST, MODEL, write_json, writing

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Earlier(Strict):
    """A recipe that a run had before it was extended."""

    epochs: Annotated[int, Field(ge=1)]
    digest: Digest


class Manifest(Strict):
    """The manifest of a run.

    Attributes:
        run: random id of the run.
        recipe: the resolved recipe, TOML.
        digest: digest of the recipe.
        earlier: recipes that the run had before, oldest first.
        threads: number of threads of the training, which changes the rounding of sums; None if unknown.
        files: SHA-256 of the files that the run finished, by name.
        newest: name of the newest checkpoint of a finished run; "" while it is trained, or if unknown.
        unsealed: SHA-256 of the JSON of the checkpoints that an earlier version wrote, by name.
    """

    format: Literal[1] = 1
    run: RunId
    recipe: str
    digest: Digest
    earlier: tuple[Earlier, ...] = ()
    threads: Annotated[int, Field(ge=1, le=2**16)] | None
    files: dict[str, Digest] = Field(default_factory=dict)
    newest: Annotated[str, Field(max_length=64)] = ""
    unsealed: dict[str, Digest] = Field(default_factory=dict)

    @property
    def recipes(self) -> frozenset[str]:
        """Return the digests of all recipes that the run has had."""
        return frozenset({self.digest, *(each.digest for each in self.earlier)})


def new_id() -> str:
    """Return the id of a new run."""
    return secrets.token_hex(16)


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a run folder; None if there is none, as in the runs of earlier versions.

    Raises:
        Unreadable: it is damaged, or is no manifest.
    """
    try:
        body, belongs = opened(read_json(folder / MANIFEST))
    except FileNotFoundError:
        return None
    found = parsed(Manifest, body)
    if belongs != {"run": found.run}:
        raise Unreadable("does not match its seal: it was changed after it was written")
    return found


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a run folder.

    Raises:
        RunError: it cannot be written.
    """
    with writing(f"the file {folder / MANIFEST}"):
        write_json(folder / MANIFEST, sealed(manifest.model_dump(mode="json"), run=manifest.run))


def run_id(folder: Path) -> str | None:
    """Return the id of a run; None for a folder without a sound manifest."""
    try:
        found = read_manifest(folder)
    except Unreadable:
        return None
    return None if found is None else found.run


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record(folder: Path, *names: str) -> None:
    """Note in the manifest of a run that files are finished, or have changed; without a manifest, do nothing.

    Raises:
        RunError: the manifest is damaged, or cannot be written.
    """
    try:
        found = read_manifest(folder)
    except Unreadable as error:
        raise RunError(f"{folder / MANIFEST} {error}") from error
    if found is not None:
        with writing(f"the file {folder / MANIFEST}"):
            files = {**found.files, **{name: digest_of(folder / name) for name in names}}
        write_manifest(folder, found.model_copy(update={"files": files}))


def refuse_changed(path: Path) -> None:
    """Refuse a file that a run finished, and that was changed since; the manifest beside it shows that.

    Raises:
        RunError: its digest is not the one in the manifest.
    """
    try:
        found = read_manifest(path.parent)
    except Unreadable:
        return
    if found is None or path.name not in found.files or digest_of(path) == found.files[path.name]:
        return
    mend = (
        f"; the checkpoints are not affected: robustplug evaluate {path.parent}" if path.name == MODEL else ""
    )
    raise RunError(f"{path} was changed after the run wrote it: its digest is not that of {MANIFEST}{mend}")
