"""Measure what a study costs besides its runs: the launcher `local`, and the list of a large study.

    python -m benchmarks.launchers --runs 500 --processes 2
    python -m benchmarks.launchers --list 10000

The first command makes one run by itself a few times, then the study, and prints the share of the study's
time that the runs do not account for. The machine should do nothing else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import robustplug

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


def measure_runs(runs: int, processes: int, alone: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for number in range(alone + 1):
            began = time.perf_counter()
            robustplug.study(study(1), out=Path(folder, f"alone-{number}"), processes=1)
            times.append(time.perf_counter() - began)
        one = statistics.median(times[1:])  # the first imports
        began = time.perf_counter()
        robustplug.study(study(runs), out=Path(folder, "study"), processes=processes)
        took = time.perf_counter() - began
    ideal = runs * one / processes
    print(f"a study of one run: {one:.2f} s, the median of {alone}")
    print(f"a study of {runs} in {processes} processes: {took:.1f} s, {ideal:.1f} s if it cost nothing more")
    print(f"scheduling: {took / ideal - 1:+.1%}, {(took - ideal) * processes / runs:+.2f} s a run")


def measure_list(cells: int) -> None:
    side = round(cells ** (1 / 3)) + 1
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
    print(f"--list of {side**3} cells: {took:.1f} s, {spent:.1f} s of a core")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=0, help="runs of the study")
    parser.add_argument("--processes", type=int, default=1, help="processes of the study")
    parser.add_argument("--alone", type=int, default=3, help="studies of one run to compare with")
    parser.add_argument("--list", type=int, default=0, dest="cells", help="cells of the list")
    options = parser.parse_args()
    if options.runs:
        measure_runs(options.runs, options.processes, options.alone)
    if options.cells:
        measure_list(options.cells)


if __name__ == "__main__":
    main()
