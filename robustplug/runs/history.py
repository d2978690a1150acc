"""The reports of the epochs: two copies, to which an epoch adds a line, however many came before."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..core.types import EpochReport
from ..files.reading import Unreadable, parse_json, read_bytes
from ..files.seals import Strict, opened, parsed, sealed
from .folder import CHECKPOINTS, METRICS, json_text, put_aside, write_atomic

# Damage to one of them loses nothing.
COPIES = ("history.jsonl", "history-copy.jsonl")


class StoredReport(Strict):
    """The report of an epoch, as it is stored; see EpochReport."""

    epoch: Annotated[int, Field(ge=0, le=10**9)]
    train: dict[str, float]
    validation: dict[str, float]
    lr: float
    seconds: Annotated[float, Field(ge=0)]
    best: bool

    def report(self) -> EpochReport:
        """Return the report."""
        return EpochReport(**self.model_dump())


def append_report(folder: Path, run: str, report: EpochReport) -> None:
    """Add the report of an epoch to both copies, sealed, and to metrics.jsonl.

    Args:
        folder: the run folder.
        run: id of the run.
        report: the report.

    Raises:
        OSError: a file cannot be written.
    """
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    line = _line(run, report)
    for name in COPIES:
        _append(folder / CHECKPOINTS / name, line, durable=True)
    _append(folder / METRICS, metrics_line(report), durable=False)


def read_reports(folder: Path, run: str, epochs: int) -> tuple[list[EpochReport], list[str]]:
    """Read the reports of the first epochs, each from a copy that holds it, and name what is damaged.

    Args:
        folder: the run folder.
        run: id of the run.
        epochs: number of epochs.
    """
    found: dict[int, EpochReport] = {}
    notes = []
    for name in COPIES:
        path = folder / CHECKPOINTS / name
        here = _read(path, run)
        lost = [number for number in range(epochs) if number not in here]
        if lost:
            notes.append(f"{path} lacks the reports of {_some(lost)}, or they are damaged")
        found = {**here, **found}
    lost = [number for number in range(epochs) if number not in found]
    if lost:
        notes.append(f"the run goes on without the reports of {_some(lost)}, which neither copy holds")
    elif notes:
        notes = [f"{note}; the other copy is used" for note in notes]
    return [found[number] for number in range(epochs) if number in found], notes


def write_reports(folder: Path, run: str, reports: Sequence[EpochReport]) -> list[str]:
    """Make both copies and metrics.jsonl hold these reports and no others, and name a changed metrics.jsonl.

    Args:
        folder: the run folder.
        run: id of the run.
        reports: the reports.

    Raises:
        OSError: a file cannot be written.
    """
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    text = b"".join(_line(run, report) for report in reports)
    for name in COPIES:
        if _content(folder / CHECKPOINTS / name) != text:
            write_atomic(folder / CHECKPOINTS / name, text)
    path = folder / METRICS
    text, now = b"".join(metrics_line(report) for report in reports), _content(path)
    if now == text or (now is None and not reports):
        return []
    notes = []
    # What comes after the reports is of epochs that are trained again.
    if now is not None and not now.startswith(text):
        notes.append(
            f"{path} was damaged or changed: it is kept as {put_aside(path, 'changed')}, and made anew"
        )
    elif now is None:
        notes.append(f"{path} is missing: it is made anew")
    write_atomic(path, text)
    return notes


def metrics_line(report: EpochReport) -> bytes:
    """Return the line of an epoch in metrics.jsonl; numbers that are not finite are null."""
    return json_text(asdict(report)).encode()


def _line(run: str, report: EpochReport) -> bytes:
    return json.dumps(sealed(asdict(report), run=run, epoch=report.epoch)).encode() + b"\n"


def _read(path: Path, run: str) -> dict[int, EpochReport]:
    """Return the sound reports of a copy by epoch, the last of each."""
    found = {}
    for line in (_content(path) or b"").splitlines():
        try:
            body, belongs = opened(parse_json(line))
            report = parsed(StoredReport, body).report()
        except Unreadable:
            continue
        if belongs == {"run": run, "epoch": report.epoch}:
            found[report.epoch] = report
    return found


def _content(path: Path) -> bytes | None:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None
    except Unreadable:
        return b"?"


def _append(path: Path, line: bytes, durable: bool) -> None:
    with path.open("ab+") as file:
        # A process that was killed may have left half a line.
        if file.tell() and file.seek(-1, os.SEEK_END) is not None and file.read(1) != b"\n":
            line = b"\n" + line
        file.write(line)
        file.flush()
        if durable:
            os.fsync(file.fileno())


def _some(lost: Sequence[int]) -> str:
    names = ", ".join(str(number + 1) for number in lost[:3])
    return f"epoch{'s' if lost[1:] else ''} {names}{', …' if lost[3:] else ''}"
