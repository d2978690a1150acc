"""Run folders and studies as they are left behind, written without training anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustplug.core.types import AttackResult, Result
from robustplug.runs.folder import write_json
from robustplug.runs.result_file import result_to_json, seal_result, write_result
from robustplug.studies.study import spread_of

LINF = {"use": "linf", "eps": 0.1}
TRAINING = {"epochs": 2, "seconds": 3.0, "forwards_per_sample": 4.0, "backwards_per_sample": 4.0}


def bits(right: int, samples: int = 100, first: int = 0) -> tuple[bool, ...]:
    """Return which samples are right: so many from `first` on."""
    return tuple(first <= at < first + right for at in range(samples))


def row(name: str, right: Sequence[bool], **changes: Any) -> AttackResult:
    accuracy = sum(right) / len(right)
    own = AttackResult(name, {}, accuracy, 0, len(right), 0, 1.0, 1.0, 0.1, right=tuple(right))
    return replace(own, **changes)


def pgd(right: Sequence[bool], steps: int = 10, **changes: Any) -> AttackResult:
    said: dict[str, Any] = {"options": {"use": "pgd", "steps": steps}, "threat": LINF, "chain": "main"}
    return replace(row(f"pgd (steps={steps})", right), **{**said, **changes})


def result(*rows: AttackResult, **meta: Any) -> Result:
    said = {
        "name": "x",
        "task": "digits",
        "method": "erm",
        "training": TRAINING,
        "samples_digest": "d" * 64,
        **meta,
    }
    return Result("test", len(rows[0].right), LINF, rows, said)


def plain(clean: int, robust: int, **meta: Any) -> Result:
    return result(row("clean", bits(clean)), pgd(bits(robust)), **meta)


def run(folder: Path, found: Result | None, suites: dict[str, Result] | None = None, **task: Any) -> Path:
    """Write a run folder; without a result it is not finished."""
    (folder / "evaluations").mkdir(parents=True)
    options = "".join(f"{key} = {json.dumps(value)}\n" for key, value in task.items())
    (folder / "recipe.toml").write_text(f'[task]\nuse = "digits"\n{options}')
    if found is not None:
        write_json(folder / "result.json", seal_result(result_to_json(found), "result"))
    for name, more in (suites or {}).items():
        write_result(folder / "evaluations" / f"{name}.json", result_to_json(more))
    return folder


def study(folder: Path, cells: dict[str, Sequence[Result | None]]) -> Path:
    """Write a study with a run for each result of each cell; None is a run that failed."""
    body = []
    for name, results in cells.items():
        runs = []
        for seed, found in enumerate(results):
            path = f"runs/{name}_seed-{seed}"
            if found is not None:
                run(folder / path, found)
            reason = "no memory" if found is None else ""
            runs.append({"seed": seed, "folder": path, "status": "", "reason": reason})
        body.append({"name": name, "labels": {"cell": name}, "runs": runs, "rows": {"clean": spread_of([])}})
    folder.mkdir(exist_ok=True)
    axis = {"name": "cell", "labels": list(cells), "numbers": None}
    seeds = list(range(max(map(len, cells.values()))))
    said = {"format": 1, "name": "s", "base": "cat", "axes": [axis], "seeds": seeds, "rows": ["clean"]}
    write_json(folder / "result.json", seal_result({**said, "cells": body}, "result"))
    return folder
