"""Write a line of JSON for each epoch: metrics.jsonl in the run folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ..api import EpochReport, RunInfo, json_text

FILE = "metrics.jsonl"


def forget_from(run: RunInfo) -> None:
    """Drop the lines of epochs that a resumed run trains again, and a truncated last line."""
    path = Path(run.folder) / FILE
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            epoch = json.loads(line)["epoch"]
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
        if epoch < (run.resumed_at_epoch or 0):
            kept.append(line + "\n")
    path.write_text("".join(kept))


def append(run: RunInfo, report: EpochReport) -> None:
    """Add the line of an epoch."""
    with (Path(run.folder) / FILE).open("a") as file:
        file.write(json_text(asdict(report)))
