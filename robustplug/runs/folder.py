"""The run folder: its file names, and files that are written as a whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files.reading import Unreadable, is_file, read_json
from ..files.seals import SEAL

RECIPE, ENVIRONMENT, RESULT = "recipe.toml", "environment.json", "result.json"
METRICS, CHECKPOINTS, MODEL = "metrics.jsonl", "checkpoints", "model.safetensors"
EVALUATIONS, JOURNAL, REPORT = "evaluations", "evaluation.journal", "report"
MANIFEST, LOCK = "manifest.json", ".lock"
# What may lie in the folder of a run that died, or failed, before its first file.
_BEFORE = re.compile(r"\.lock(\.exists)?|\.(manifest|environment)\.json\.\d+\.tmp|failure\.txt")
# What a process that died leaves half-written in a run folder.
_TEMPORARY = re.compile(
    r"\.(manifest\.json|environment\.json|recipe\.toml|metrics\.jsonl|model\.safetensors|result\.json)\.\d+\.tmp"
)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves either the old or the new content, never a part.

    Raises:
        OSError: the disk is full or the folder is not writable; no partial file remains.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Of an earlier process of the same number; a link of this name is not followed.
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError, AttributeError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def finite(value: Any) -> Any:
    """Return a tree with None in place of every number that JSON cannot represent."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON; numbers that are not finite become null."""
    return json.dumps(finite(value), indent=indent, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null."""
    write_atomic(path, json_text(value, indent=1).encode())


@contextlib.contextmanager
def writing(what: str, kept: str = "") -> Iterator[None]:
    """Turn an OSError of a block into a RunError that names what could not be written."""
    try:
        yield
    except OSError as error:
        note = f" {kept}" if kept else ""
        reason = error.strerror or str(error)
        # Of a file that is replaced, the second name is the one that the reader knows.
        name = error.filename2 or error.filename
        where = f" ({name})" if isinstance(name, str | Path) and str(name) not in what else ""
        raise RunError(f"cannot write {what}: {reason}{where}.{note}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, and create its folder if it does not exist.

    Raises:
        RunError: the file cannot be written.
    """
    with writing(f"the file {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())


def is_finished(folder: Path) -> bool:
    """Return whether a run folder contains an evaluated run."""
    return is_file(folder / RESULT)


def holds_run(folder: Path) -> bool:
    """Return whether a folder is a run folder, finished or not."""
    return is_file(folder / RECIPE) or _is_manifest(folder / MANIFEST)


def _is_manifest(path: Path) -> bool:
    """Return whether a file is like the manifest of a run, sound or not; others use the name, too."""
    try:
        body = read_json(path)
    except (OSError, Unreadable):
        return False
    return isinstance(body, dict) and {"run", "recipe", SEAL} <= body.keys()


def refuse_occupied(folder: Path) -> None:
    """Refuse the folder of a new run if it holds anything else, also through a link.

    Raises:
        RunError: it holds a run, or files that no run wrote.
    """
    if holds_run(folder):
        raise RunError(
            f"{folder} already contains a run: continue it with --resume, or choose another folder with --out"
        )
    with writing(f"the run folder {folder}", "Choose another folder with --out."):
        found = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
    others = [name for name in found if not _BEFORE.fullmatch(name)]
    if others:
        some = ", ".join(others[:3]) + (", …" if others[3:] else "")
        raise RunError(
            f"{folder} is not empty and holds no run ({some}), so nothing is written there: choose a new "
            "folder with --out"
        )


def remove_temporary(folder: Path, pattern: re.Pattern[str] = _TEMPORARY) -> None:
    """Remove the files that a process of this run left half-written; links and other names stay.

    Args:
        folder: a locked run folder, or a folder in it.
        pattern: pattern of their whole names.
    """
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if pattern.fullmatch(e.name) and e.is_file(follow_symlinks=False)]
    for name in names:
        (folder / name).unlink(missing_ok=True)


def put_aside(path: Path, mark: str) -> Path | None:
    """Rename a file or a folder, for example to result-20-epochs.json, and return the new path.

    Nothing is overwritten: a number is added. Without such a file, nothing is done, and None returned.

    Args:
        path: the path.
        mark: what is added to its name, for example "20-epochs".
    """
    number = 1
    while path.exists() or path.is_symlink():
        more = "" if number == 1 else f"-{number}"
        kept = path.with_name(f"{path.stem}-{mark}{more}{path.suffix}")
        if not kept.exists() and not kept.is_symlink():
            return path.rename(kept)
        number += 1
    return None


def numbered(root: Path, name: str) -> list[Path]:
    """List the run folders name, name-2, name-3, … under root, in this order."""
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    found = {}
    if root.is_dir():
        for path in root.iterdir():
            match = pattern.fullmatch(path.name)
            if match and holds_run(path):
                found[int(match[1] or 1)] = path
    return [found[number] for number in sorted(found)]


def new_folder(root: Path, name: str) -> Path:
    """Choose the folder of a new run: the first free one of name, name-2, name-3, ….

    Raises:
        RunError: the newest run of this name is not finished, and probably should be resumed.
    """
    runs = numbered(root, name)
    if runs and not is_finished(runs[-1]):
        raise RunError(
            f"{runs[-1]} contains an unfinished run: continue it with --resume, or start a new run with "
            f"--out {root / name}-{len(runs) + 1}"
        )
    number = 1
    while (folder := root / (name if number == 1 else f"{name}-{number}")).exists() and any(folder.iterdir()):
        number += 1
    return folder


def latest_folder(root: Path, name: str) -> Path:
    """Return the newest run of a name, for resuming.

    Raises:
        RunError: no run has this name.
    """
    runs = numbered(root, name)
    if not runs:
        raise RunError(f"there is no run to resume at {root / name}; leave out --resume to start one")
    return runs[-1]
