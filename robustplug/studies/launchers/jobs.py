"""The jobs of a study as files: what is to be done, what was said, and where it was submitted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ...files.reading import Unreadable, parse_json, read_bytes
from ...files.seals import Strict, parsed
from ...runs.folder import writing
from ..messages import Messages
from ..work import Job

JOBS = "jobs"


class Submitted(Strict):
    """Say where a job was submitted.

    Attributes:
        run: name of its run folder.
        launcher: table of the launcher.
        number: what the launcher knows the job by.
    """

    run: str
    launcher: dict[str, JsonValue]
    number: str


def messages_file(job: Path) -> Path:
    """Return the file of a job's messages, beside that of the job."""
    return job.with_suffix(".jsonl")


def job_ended(job: Path) -> bool:
    """Return whether a job is done or has failed, and not only stopped: there is nothing to do again."""
    messages = Messages(messages_file(job))
    for _ in messages.read():
        pass
    return messages.ended is not None and messages.ended.kind != "stopped"


class JobFiles:
    """Keep the files of the jobs of a study.

    Args:
        folder: the study folder.

    Attributes:
        folder: their folder.
        journal: the file in it that says where they were submitted.
    """

    def __init__(self, folder: Path) -> None:
        # Absolute: a worker may start elsewhere.
        self.folder = (folder / JOBS).absolute()
        self.journal = self.folder / "submitted.jsonl"

    def write(self, run: str, job: Job) -> Path:
        """Write a job, and remove what an earlier one of the run said.

        Raises:
            RunError: the file cannot be written.
        """
        return self.write_text(run, json.dumps(asdict(job)))

    def write_text(self, run: str, job: str) -> Path:
        """Write a job that is JSON already; see `write`.

        Raises:
            RunError: the file cannot be written.
        """
        file = self.folder / f"{run}.json"
        with writing(f"the job {file}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            messages_file(file).unlink(missing_ok=True)
            # Not as if it had to outlive a crash: the command that submits it writes it anew.
            file.write_text(job, encoding="utf-8")
        return file

    def messages(self, run: str) -> Messages:
        """Return the messages of the job of a run."""
        return Messages(messages_file(self.folder / f"{run}.json"))

    def note(self, launcher: Mapping[str, Any], numbers: Iterable[tuple[str, str]]) -> None:
        """Note where jobs were submitted.

        Args:
            launcher: table of the launcher.
            numbers: pairs of the name of a run folder and the number of its job.

        Raises:
            RunError: the file cannot be written.
        """
        path = self.journal
        lines = [json.dumps({"run": run, "launcher": launcher, "number": number}) for run, number in numbers]
        with writing(f"to {path}"), path.open("a", encoding="utf-8") as file:
            if file.tell():
                # A process that was killed may have left the beginning of a line.
                file.write("\n")
            file.write("".join(f"{line}\n" for line in lines))

    def submitted(self) -> dict[str, Submitted]:
        """Return where the newest job of each run was submitted; lines that are damaged are left out."""
        found = dict[str, Submitted]()
        with contextlib.suppress(FileNotFoundError, Unreadable):
            for line in read_bytes(self.journal).splitlines():
                with contextlib.suppress(Unreadable):
                    each = parsed(Submitted, parse_json(line))
                    found.pop(each.run, None)  # the newest comes last
                    found[each.run] = each
        return found
