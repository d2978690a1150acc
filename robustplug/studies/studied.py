"""The outcome of a study. Importing this module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
