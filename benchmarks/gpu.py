"""Measure this package on one GPU, beside others and beside what the card allows, in at most eight minutes.

    python benchmarks/gpu.py --data FOLDER              # the numbers are printed, and written to gpu.json
    python benchmarks/gpu.py --dry-run                  # every line, on the CPU, with tiny shapes

FOLDER holds CIFAR-10: cifar-10-batches-py, cifar-10-batches-bin, or train/ and test/ with a folder of
pictures for each class. The clone need not be installed; what lacks a package is left out, and named with
the command that installs it. Sections run in the order of their importance, each within its own time; one
that would exceed --minutes is left out. gpu.json is written after each part, so that a cut loses nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

# cuBLAS reads it when CUDA starts; without it, deterministic algorithms are refused.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# ART draws progress bars.
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from gpu_parts.bits import same_bits
from gpu_parts.device import Machine
from gpu_parts.installed import NEEDED, missing, provide_clone
from gpu_parts.report import Report
from gpu_parts.robust import Robust
from gpu_parts.table import all_methods, step_times

SECTIONS = ("table", "training", "autoattack", "bits", "audit", "methods", "large")


def main(arguments: list[str] | None = None) -> int:
    """Run the sections; return 1 if one failed, or if bits differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder with CIFAR-10")
    parser.add_argument("--minutes", type=float, default=8, help="minutes that all takes at most")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="file for all numbers")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes of the training recipe"
    )
    parser.add_argument("--dry-run", action="store_true", help="run every line on the CPU, with tiny shapes")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        print("there is no GPU that torch can use; --dry-run runs every line on the CPU", file=sys.stderr)
        return 2
    provide_clone()
    machine = Machine(options.dry_run)
    report = Report(options.json, options.minutes)
    report.put("machine", machine.describe())
    report.say(" · ".join(f"{name} {value}" for name, value in machine.describe().items()))
    if missing(NEEDED):
        report.say(f"without our own rows, since packages are missing: {missing(NEEDED)}")
    with tempfile.TemporaryDirectory(prefix="robustplug-gpu-") as folder:
        data = options.data
        if data is None and machine.dry:
            data = made_up(Path(folder))
        robust = Robust(machine, report, data, options.set, Path(folder) / "run")
        with machine.compiling():
            run(machine, report, robust, options.only)
    report.say(f"\n{len(report.left_out)} left out; all numbers are in {options.json}")
    return 1 if report.failed else 0


def run(machine: Machine, report: Report, robust: Robust, only: list[str]) -> None:
    """Run the sections in the order of their importance; seconds are about those of an H100."""
    small, large = machine.sizes.batches

    sections = {
        "table": (40, 110, lambda: step_times(machine, report, small)),
        "training": (60, 100, robust.train),
        "autoattack": (45, 130, robust.auto_attack),
        "bits": (15, 60, lambda: same_bits(machine, report)),
        "audit": (15, 40, robust.audit),
        "methods": (15, 70, lambda: all_methods(machine, report)),
        "large": (30, 110, lambda: step_times(machine, report, large)),
    }
    for name, (least, most, work) in sections.items():
        if name in only:
            # A dry run leaves nothing out but the later part of the audit, which bounds itself.
            report.section(
                name, *((0, 2 if name == "audit" else 600) if machine.dry else (least, most)), work
            )


def made_up(folder: Path) -> Path:
    """Write made-up data in each form that can be read, read all, and return the folder of the pictures."""
    from gpu_parts.cifar import read
    from gpu_parts.made_up import write_binary, write_pickles, write_pictures

    for form, write in (("python", write_pickles), ("binary", write_binary)):
        write(folder / form)
        assert read(folder / form, workers=0).info.shape == (3, 32, 32)
    write_pictures(folder / "pictures")
    return folder / "pictures"


if __name__ == "__main__":
    sys.exit(main())
