"""Kinds of damage to a file, for benchmarks/faults.py. Each changes one thing, at a seeded place."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from damage_content import FORGED, JSON, LINES, TENSORS, TOML
from damage_files import ANY, Damage, Inapplicable, Target

KINDS: dict[str, dict[str, Damage]] = {
    ".json": {**ANY, **JSON, **FORGED},
    ".jsonl": {**ANY, **JSON, **LINES},
    ".journal": {**ANY, **JSON, **FORGED, **LINES},
    ".safetensors": {**ANY, **TENSORS},
    ".toml": {**ANY, **TOML, **LINES},
}


def kinds(file: Path) -> Sequence[str]:
    """List the kinds of damage that a file can suffer, by its suffix."""
    return list(KINDS.get(file.suffix, ANY))


def damage(kind: str, target: Target, rng: random.Random) -> None:
    """Damage a file.

    Raises:
        Inapplicable: this damage would change nothing here.
    """
    try:
        KINDS.get(target.path.suffix, ANY)[kind](target, rng)
    except (ValueError, KeyError, IndexError, RecursionError, OSError) as error:
        raise Inapplicable from error
