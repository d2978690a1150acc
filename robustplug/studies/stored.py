"""The stored result of a study: parsed and checked before it is used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ..errors import RunError
from ..files.reading import Unreadable
from ..files.seals import Strict, parsed
from ..runs.folder import RESULT
from ..runs.result_file import note_on_seals, read_sealed
from ..runs.result_types import Amount, Count, Known, Number, Open, Share, Threat

RUNS = "runs"


def _run_folder(name: str) -> str:
    """Check that a name leads to a folder of the study, and nowhere else."""
    parts = name.split("/")
    if len(parts) != 2 or parts[0] != RUNS or parts[1] in ("", ".", "..") or set(parts[1]) & {"\\", "\0"}:
        raise ValueError(f"a run is a folder in {RUNS}/")
    return name


class StoredAxis(Open):
    """An axis of a study."""

    name: str
    labels: list[str]
    numbers: list[Known] | None


class StoredGrade(Open):
    """The outcome of an audit."""

    grade: str
    verdict: str


class StoredRun(Open):
    """One run of a cell."""

    seed: int
    folder: Annotated[str, AfterValidator(_run_folder)]
    status: str
    reason: str = ""
    seconds: Amount | None = None
    accuracies: dict[str, Share] = Field(default_factory=dict)
    measures: dict[str, Number] = Field(default_factory=dict)
    audit: StoredGrade | None = None


class StoredSpread(Strict):
    """Mean and deviation over the seeds."""

    mean: Share | None
    deviation: Known
    n: Count


class StoredMeasure(Strict):
    """Mean and deviation of a measure over the seeds, in its own units."""

    mean: Known
    deviation: Known
    n: Count


class StoredCell(Open):
    """A cell of a study."""

    name: str
    labels: dict[str, str]
    runs: list[StoredRun]
    rows: dict[str, StoredSpread]
    measures: dict[str, StoredMeasure] = Field(default_factory=dict)
    threats: dict[str, Threat] = Field(default_factory=dict)


class StoredStudy(Open):
    """The result of a study."""

    format: Literal[1]
    name: str
    base: str
    axes: list[StoredAxis]
    seeds: list[int]
    suite: str | None = None
    rows: list[str]
    measures: list[str] = Field(default_factory=list)
    cells: list[StoredCell]

    @model_validator(mode="after")
    def agrees(self) -> StoredStudy:
        """Compare the parts with one another."""
        if any(axis.numbers is not None and len(axis.numbers) != len(axis.labels) for axis in self.axes):
            raise ValueError("an axis has not a label for each of its numbers")
        if len(self.cells) != math.prod(len(axis.labels) for axis in self.axes):
            raise ValueError("the cells are not those of the axes")
        for cell in self.cells:
            if not {axis.name for axis in self.axes} <= cell.labels.keys():
                raise ValueError(f"the cell {cell.name!r} lacks the label of an axis")
            if not ({*self.rows} <= cell.rows.keys() and {*self.measures} <= cell.measures.keys()):
                raise ValueError(f"the cell {cell.name!r} lacks rows of the study")
        return self


def read_study_body(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Read the result of a study as JSON values, and notes on it.

    Raises:
        RunError: there is none, it was changed after it was written, or it is not that of a study.
    """
    path = folder / RESULT
    if not folder.is_dir():
        raise RunError(f"{folder} contains neither a run nor a study")
    try:
        body, sealed = read_sealed(path)
        if "cells" not in body:
            raise RunError(f"{folder} contains neither a run nor a study")
        parsed(StoredStudy, body)
    except FileNotFoundError as error:
        raise RunError(f"{folder} contains neither a run nor a study") from error
    except Unreadable as error:
        raise RunError(
            f"{path} {error}; give the study's command again: it keeps the runs, and makes this file anew"
        ) from error
    return body, [] if sealed else note_on_seals([path])


def read_stored_study(folder: Path) -> StoredStudy:
    """Read the result of a study.

    Raises:
        RunError: as for `read_study_body`.
    """
    return parsed(StoredStudy, read_study_body(folder)[0])
