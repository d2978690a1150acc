"""The run folder: its file names, its lock, and files that are written as a whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import RunError

RECIPE, ENVIRONMENT, RESULT = "recipe.toml", "environment.json", "result.json"
METRICS, CHECKPOINTS, MODEL = "metrics.jsonl", "checkpoints", "model.safetensors"
EVALUATIONS, JOURNAL, REPORT = "evaluations", "evaluation.journal", "report"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves either the old or the new content, never a part.

    Raises:
        OSError: the disk is full or the folder is not writable; no partial file remains.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
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
        raise RunError(f"cannot write {what}: {reason}.{note}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, and create its folder if it does not exist.

    Raises:
        RunError: the file cannot be written.
    """
    with writing(f"the file {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())


def write_result(file: Path, body: Mapping[str, Any]) -> None:
    """Write a result as JSON, and create its folder if it does not exist.

    Raises:
        RunError: the file cannot be written, or it is the result of a run, which must be kept.
    """
    if file.name == RESULT and holds_run(file.parent):
        raise RunError(f"{file.parent} is a run folder, whose result is kept: choose another with --out")
    with writing(f"the result {file}"):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, dict(body))


def note_in_result(folder: Path, name: str, value: Any) -> None:
    """Add a finding to the result.json of a run folder, if the file exists; replace an older finding.

    Raises:
        RunError: the file cannot be read or written.
    """
    path = folder / RESULT
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    with writing(f"to {path}"):
        write_json(path, {**body, name: value})


@contextlib.contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Keep every other process out of a folder for a block; the lock of a killed process is released.

    Args:
        folder: folder to lock; created if it does not exist.
        name: file name of the lock, one for each kind of work in the folder.

    Raises:
        RunError: another process holds the lock, or the folder cannot be created or written.
    """
    from filelock import FileLock, Timeout

    with writing(f"the folder {folder}", "Choose another with --out."):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"another process is using {folder}: wait for it, or choose another folder with --out"
            ) from None
    try:
        yield
    finally:
        lock.release()


def is_finished(folder: Path) -> bool:
    """Return whether a run folder contains an evaluated run."""
    return (folder / RESULT).is_file()


def holds_run(folder: Path) -> bool:
    """Return whether a folder is a run folder, finished or not."""
    return (folder / RECIPE).is_file()


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
