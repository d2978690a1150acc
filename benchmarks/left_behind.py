"""What a command left in a folder, without what two equal runs differ in: times and seals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, deserialize

# Two equal runs differ in times, in where they ran, and in their random identity and the digests over it.
UNEQUAL = frozenset({"seconds", "environment", "seal", "run", "sha256", "checksum", "resumed_at_epoch", "id"})
SUFFIXES = (".safetensors", ".json", ".jsonl", ".toml", ".journal")
ASIDE = ("environment.json", "manifest.json")


def timeless(value: Any) -> Any:
    """Return a JSON value without what two equal runs differ in."""
    if isinstance(value, Mapping):
        return {key: timeless(item) for key, item in value.items() if key not in UNEQUAL}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def tensors_of(file: Path) -> dict[str, str]:
    """Return dtype, shape and digest of each tensor of a safetensors file."""
    found = deserialize(file.read_bytes())  # type: ignore[no-untyped-call]
    return {
        name: f"{value['dtype']} {value['shape']} {hashlib.sha256(bytes(value['data'])).hexdigest()[:16]}"
        for name, value in found
    }


def flat(value: Any, prefix: str) -> dict[str, Any]:
    """Return the leaves of a JSON value by their paths."""
    if not isinstance(value, Mapping | list) or not value:
        return {prefix: value}
    items: Any = value.items() if isinstance(value, Mapping) else enumerate(value)
    return {k: v for key, item in items for k, v in flat(item, f"{prefix}.{key}").items()}


def left_behind(folder: Path) -> dict[str, Any]:
    """Return every number that a command left below a folder, by file and place.

    Tensors of safetensors files, JSON and lines of JSON count; times and seals do not. Locks, half-written
    files, pages and figures are left out.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or path.suffix not in SUFFIXES or "report/" in name or path.name in ASIDE:
            continue
        try:
            found |= flat(_content(path), name)
        except (ValueError, RecursionError, OSError, SafetensorError):
            found[name] = "unreadable"
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return tensors_of(path)
    if path.suffix == ".json":
        return timeless(json.loads(path.read_bytes()))
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_text()


def differences(one: Mapping[str, Any], other: Mapping[str, Any], most: int = 4) -> list[str]:
    """List the first places in which two folders differ, with both values."""
    keys = [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
    shown = [
        f"{key}: {one.get(key, 'absent')!s:.60} | {other.get(key, 'absent')!s:.60}" for key in keys[:most]
    ]
    return shown + ([f"and {len(keys) - most} more"] if len(keys) > most else [])
