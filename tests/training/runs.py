"""Tiny recipes, and what a run leaves behind in a form that two runs can be compared by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustplug.plugin.component import Component, Kind
from robustplug.plugin.host import registry

# 133 training samples: four batches of 40 an epoch, the last one of 13.
TASK = {"use": "digits", "validation": 64, "test": 1600}
MODEL = {"use": "small-cnn", "width": 4, "hidden": 16}
BATCHES = 4


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def tiny(method: str = "erm", /, **tables: Any) -> dict[str, Any]:
    """Return a recipe of two epochs of a method with its trial options; `tables` change it."""
    recipe = {
        "name": "tiny",
        "task": TASK,
        "model": MODEL,
        "method": {"use": method, **registry().get("method", method).trial},
        "optimizer": {"use": "sgd", "lr": 0.05},
        "train": {"epochs": 2, "batch_size": 40, "precision": "float32", "device": "cpu"},
        "validate": {"samples": 32, "attack": {"use": "fgsm"}},
        "evaluate": {"samples": 48, "attack": [{"use": "pgd", "steps": 2}]},
    }
    return merged(recipe, tables)


def timeless(value: Any) -> Any:
    """Leave out what two equal runs differ in: times, where they ran, and the seals, which hold their ids."""
    if isinstance(value, Mapping):
        other = ("seconds", "environment", "seal")
        return {key: timeless(item) for key, item in value.items() if key not in other}
    return [timeless(item) for item in value] if isinstance(value, list | tuple) else value


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def newest(folder: Path) -> str:
    return max(path.stem for path in (folder / "checkpoints").glob("*.json"))


def outcome(folder: Path) -> dict[str, Any]:
    """Return all that a finished run leaves: weights, method state, optimizers, metrics, results."""
    last = newest(folder)
    return {
        "name": last,
        "checkpoint": digest(folder / "checkpoints" / f"{last}.safetensors"),
        "meta": timeless(read_json(folder / "checkpoints" / f"{last}.json")["meta"]),
        "model": digest(folder / "model.safetensors"),
        "metrics": [
            timeless(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()
        ],
        "result": timeless(read_json(folder / "result.json")),
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def offered(kind: Kind, *components: Component) -> Iterator[None]:
    """Offer components for a block, as a plugin would."""
    known = registry()
    for component in components:
        known.add(kind, component, "tests")
    try:
        yield
    finally:
        for component in components:
            del known.components[kind, component.name], known.owners[kind, component.name]
