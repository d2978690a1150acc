"""Audit every model of the zoo: does the audit flag the masked ones, and only those?

    python -m benchmarks.audit_zoo --cache ~/.cache/robustplug-zoo --json zoo.json
    python -m benchmarks.audit_zoo --only quantised-4 plain@0.1 --seeds 5
    python -m benchmarks.audit_zoo --list

The first audit of a model trains it and measures its true robust accuracy; with --cache both are done once.
Audits that are in the file of --json are not done again, so an interrupted command goes on.
The shares count each seed of the audit as one trial; the models stay the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from robustplug.runs.folder import write_text

from .audits import audits
from .board import Audited, markdown, row, totals
from .measure import Measured
from .models import zoo


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of models")
    parser.add_argument("--samples", type=int, default=200, help="test samples of each audit")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the audits")
    parser.add_argument("--seeds", type=int, default=1, help="audits of each model, each with its own seed")
    parser.add_argument("--cache", type=Path, help="folder for trained weights and true accuracies")
    parser.add_argument("--data", type=Path, help="folder that torchvision reads MNIST from")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--list", action="store_true", help="only print the names")
    options = parser.parse_args()
    entries = zoo(options.cache, options.data)
    unknown = set(options.only or ()) - {entry.name for entry in entries}
    if unknown:
        parser.error(f"--only: the zoo has no {', '.join(sorted(unknown))}; see --list")
    entries = [entry for entry in entries if options.only is None or entry.name in options.only]
    if options.list:
        print("\n".join(f"{entry.name:24} {entry.kind or 'honest'}" for entry in entries))
        return 0
    seeds = range(options.seed, options.seed + options.seeds)
    jobs = [(entry.name, seed) for entry in entries for seed in seeds]
    known = stored(options.json)
    left = [job for job in jobs if job not in known]
    for one in audits(left, options.samples, options.cache, options.data, options.processes):
        known[one.name, one.seed] = one
        print(f"| {' | '.join(row(one))} |", flush=True, file=sys.stderr)
        if options.json:
            body = [asdict(each) | {"right": each.right} for each in known.values()]
            write_text(options.json, json.dumps(body, indent=1) + "\n")
    done = [known[job] for job in jobs]
    print(markdown([row(one) for one in done]))
    print("", *totals(done), sep="\n")
    return 0 if all(one.right for one in done) else 1


def stored(path: Path | None) -> dict[tuple[str, int], Audited]:
    """Read the audits of an earlier command, by name and seed."""
    if path is None or not path.exists():
        return {}
    found = {}
    for body in json.loads(path.read_text(encoding="utf-8")):
        del body["right"]
        one = Audited(**{**body, "measured": Measured(**body["measured"])})
        found[one.name, one.seed] = one
    return found


if __name__ == "__main__":
    sys.exit(main())
