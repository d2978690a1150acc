"""Measure what a study costs besides its runs: a launcher, and the list of a large study.

    python -m benchmarks.launchers --runs 500 --processes 2 --write
    python -m benchmarks.launchers --runs 20 --processes 2 --launcher slurm --write
    python -m benchmarks.launchers --list 10000 --write

The first commands print the share of a study's time that its runs do not account for: a run by itself takes
from its first to its last file. With Slurm, an array of as many jobs that do nothing comes before. Nothing
else should run. `--write` keeps the numbers in launchers.json, and puts the table of all that were measured
into the docs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
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
    "train": {"epochs": 2, "device": "cpu", "batch_size": 32},
    "task": {"validation": 600, "test": 300},
    "model.width": 2,
    "method.perturbation.steps": 1,
    "validate.samples": 20,
    "validate.attack.steps": 1,
    "evaluate.samples": 40,
    "evaluate.attack": [{"use": "pgd", "steps": 1}],
}


def own_seconds(run: Path) -> float:
    """Return the time from the first to the last file that a run wrote: what it takes by itself."""
    times = [file.stat().st_mtime for file in run.rglob("*") if file.is_file() and file.name != ".lock"]
    return max(times) - min(times)


def measure_runs(runs: int, processes: int, launcher: str) -> dict[str, Any]:
    study = {"base": "cat", "seeds": list(range(runs)), "set": RECIPE}
    queue = 0.0
    if launcher == "slurm":
        study["launcher"] = {"use": "slurm", "at_a_time": processes, "pause": 1, "minutes": 30}
        began = time.perf_counter()
        array = f"--array=0-{runs - 1}%{processes}"
        nothing = ["sbatch", "--wait", "--quiet", array, "--output=/dev/null", "--wrap=true"]
        subprocess.run(nothing, check=True)
        queue = time.perf_counter() - began
    # In the folder of the command, which nodes see, too.
    with tempfile.TemporaryDirectory(dir=".") as folder:
        began = time.perf_counter()
        local = None if launcher == "slurm" else processes
        found = robustplug.study(study, out=Path(folder, "study"), processes=local)
        took = time.perf_counter() - began
        own = sum(map(own_seconds, Path(folder, "study", "runs").iterdir()))
    assert not found.failed, found.failed
    return {"runs": runs, "processes": processes, "own": own, "seconds": took, "queue": queue}


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
    for launcher in ("local", "slurm"):
        if not (ran := found.get(launcher)):
            continue
        runs, processes, own = ran["runs"], ran["processes"], ran["own"]
        more = ran["seconds"] * processes - own
        queue = ran["queue"] * processes / runs
        also = f", of which {queue:.1f} s as for jobs that do nothing" if queue else ""
        yield (
            f"| {runs} runs of {own / runs:.2f} s through `{launcher}`, {processes} at a time | "
            f"{ran['seconds']:.0f} s: {more / own:+.1%}, {more / runs:+.2f} s a run{also} |"
        )
    if listed := found.get("list"):
        took, core = listed["seconds"], listed["core"]
        yield f"| `--list` of {listed['cells']:,} cells | {took:.1f} s, {core:.1f} s of a core |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=0, help="runs of the study")
    parser.add_argument("--processes", type=int, default=1, help="processes of the study")
    parser.add_argument("--launcher", default="local", choices=["local", "slurm"])
    parser.add_argument("--list", type=int, default=0, dest="cells", help="cells of the list, about")
    parser.add_argument("--write", action="store_true", help="write launchers.json and the docs' table")
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(NUMBERS.read_text()) if options.write and NUMBERS.exists() else {}
    if options.runs:
        found[options.launcher] = measure_runs(options.runs, options.processes, options.launcher)
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
