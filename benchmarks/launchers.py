"""Measure what a study costs besides its runs: the launcher `local`, and the list of a large study.

    python -m benchmarks.launchers --runs 500 --processes 2 --write
    python -m benchmarks.launchers --list 10000 --write

The first command makes one run by itself a few times, then the study, and prints the share of the study's
time that the runs do not account for. The machine should do nothing else. `--write` keeps the numbers in
launchers.json, and puts the table of all that were measured into the docs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import robustplug

NUMBERS, PAGE = Path(__file__).with_name("launchers.json"), Path(__file__).parents[1] / "docs" / "clusters.md"
BEGIN, END = "<!-- launchers -->\n", "<!-- end -->"

# About a second of training and evaluation.
RECIPE: dict[str, Any] = {
    "train": {"epochs": 1, "device": "cpu", "batch_size": 32},
    "task": {"validation": 600, "test": 300},
    "model.width": 2,
    "method.perturbation.steps": 1,
    "validate.samples": 20,
    "validate.attack.steps": 1,
    "evaluate.samples": 40,
    "evaluate.attack": [{"use": "pgd", "steps": 1}],
}


def study(runs: int) -> dict[str, Any]:
    return {"base": "cat", "seeds": list(range(runs)), "set": RECIPE}


def measure_runs(runs: int, processes: int, alone: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for number in range(alone + 1):
            began = time.perf_counter()
            robustplug.study(study(1), out=Path(folder, f"alone-{number}"), processes=1)
            times.append(time.perf_counter() - began)
        one = statistics.median(times[1:])  # the first imports
        began = time.perf_counter()
        found = robustplug.study(study(runs), out=Path(folder, "study"), processes=processes)
        took = time.perf_counter() - began
    assert not found.failed, found.failed
    return {"one": one, "alone": times[1:], "runs": runs, "processes": processes, "seconds": took}


def measure_list(cells: int) -> dict[str, Any]:
    side = math.ceil(cells ** (1 / 3))
    axes = [
        ("optimizer.lr", [0.01 * n for n in range(1, side + 1)]),
        ("train.epochs", list(range(1, side + 1))),
        ("method.perturbation.steps", list(range(1, side + 1))),
    ]
    lines = ['base = "cat"']
    for key, values in axes:
        lines += ["[[axis]]", f'key = "{key}"', f"values = {values}"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "large.toml")
        file.write_text("\n".join(lines))
        before = os.times()
        began = time.perf_counter()
        command = [sys.executable, "-m", "robustplug", "study", str(file), "--list"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        took, after = time.perf_counter() - began, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return {"cells": side**3, "seconds": took, "core": spent}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the table of what was measured, as Markdown."""
    yield "| | |"
    yield "|---|---|"
    if ran := found.get("study"):
        runs, processes, took = ran["runs"], ran["processes"], ran["seconds"]
        ideal = runs * ran["one"] / processes
        yield f"| one run by itself | {ran['one']:.2f} s, the median of {len(ran['alone'])} |"
        yield (
            f"| {runs} such runs in {processes} processes | {took:.0f} s, and {ideal:.0f} s if it cost "
            f"nothing more: {took / ideal - 1:+.1%}, {(took - ideal) * processes / runs:+.2f} s a run |"
        )
    if listed := found.get("list"):
        took, core = listed["seconds"], listed["core"]
        yield f"| `--list` of {listed['cells']:,} cells | {took:.1f} s, {core:.1f} s of a core |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=0, help="runs of the study")
    parser.add_argument("--processes", type=int, default=1, help="processes of the study")
    parser.add_argument("--alone", type=int, default=3, help="studies of one run to compare with")
    parser.add_argument("--list", type=int, default=0, dest="cells", help="cells of the list, about")
    parser.add_argument("--write", action="store_true", help="write launchers.json and the docs' table")
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(NUMBERS.read_text()) if options.write and NUMBERS.exists() else {}
    if options.runs:
        found["study"] = measure_runs(options.runs, options.processes, options.alone)
    if options.cells:
        found["list"] = measure_list(options.cells)
    table = "\n".join(lines(found))
    if options.write:
        NUMBERS.write_text(json.dumps(found, indent=2) + "\n")
        text = PAGE.read_text()
        begin = text.index(BEGIN) + len(BEGIN)
        PAGE.write_text(f"{text[:begin]}{table}\n{text[text.index(END, begin) :]}")
    print(table)


if __name__ == "__main__":
    main()
