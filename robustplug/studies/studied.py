"""The arguments and the outcome of a study. Importing this module imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..recipe.study import Study

STUDIES = Path("studies")


@dataclass(frozen=True)
class Studied:
    """The outcome of a study.

    Attributes:
        folder: the study folder.
        result: the content of its result.json.
        failed: the reason for each failed run, by the name of the run folder.
    """

    folder: Path
    result: Mapping[str, Any]
    failed: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path, result: Mapping[str, Any]) -> Studied:
        """Return the outcome of a study from the content of its result.json."""
        runs = [run for cell in result["cells"] for run in cell["runs"]]
        failed = {Path(run["folder"]).name: run["reason"] for run in runs if run["status"] == "failed"}
        return cls(folder, result, failed)


def folder_of(study: Study, out: str | Path | None) -> Path:
    """Return the folder of a study: `out`, or studies/NAME."""
    return STUDIES / study.name if out is None else Path(out)


def study_overrides(launcher: str | None, processes: int | None, overrides: Sequence[str]) -> list[str]:
    """Return the changes of a study's tables that the arguments of a command stand for."""
    # The options of another launcher, which the study may state, mean nothing to this one.
    named = [] if launcher is None else [f"launcher={{use = {json.dumps(launcher)}}}"]
    return [*named, *([] if processes is None else [f"launcher.processes={processes}"]), *overrides]
