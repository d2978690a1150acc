"""Finished runs that were seen before: while their files stay, a list of runs does not read them again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.reading import Unreadable, parse_json, read_bytes
from ..files.seals import Strict, digest, parsed
from ..runs.folder import MANIFEST, RECIPE, RESULT
from ..runs.result_file import evaluation_file
from .outcome import Outcome, Run, asked_of, look, runs_of

if TYPE_CHECKING:
    from ..recipe.study import Study

SEEN = "seen.jsonl"


class Seen(Strict):
    """Say how the files of a finished run were.

    Attributes:
        run: name of its folder.
        study: digest of the study that it was finished for.
        files: time of the last change in nanoseconds, and bytes, of each file.
    """

    run: str
    study: str
    files: list[tuple[int, int]]


def glance(study: Study, folder: Path) -> list[Outcome]:
    """Return the state of each run of a study; of finished runs that were seen before, only that they are.

    Args:
        study: the study.
        folder: its folder, in which finished runs are noted.
    """
    known, asked = _read(folder), _digest(study)
    outcomes, new = [], []
    for run in runs_of(study, folder):
        seen = _seen(study, run, asked)
        if seen is not None and known.get(seen.run) == seen:
            outcomes.append(Outcome(run, "finished"))
            continue
        outcomes.append(look(study, run))
        if seen is not None and outcomes[-1].status == "finished":
            new.append(seen)
    _note(folder, new)
    return outcomes


def note_finished(study: Study, folder: Path, run: Run) -> None:
    """Note that a run of a study was seen to be finished."""
    if (seen := _seen(study, run, _digest(study))) is not None:
        _note(folder, [seen])


def _digest(study: Study) -> str:
    """Return a digest of all that the recipes of the runs, and what is asked of them, follow from."""
    tables, base = study.written
    said = {key: value for key, value in tables.items() if key not in ("name", "launcher")}
    suite = "" if study.suite is None else study.suite.read_text(encoding="utf-8")
    # Another version may read the same tables in another way.
    return digest([version("robustplug"), said, base, suite])


def _seen(study: Study, run: Run, asked: str) -> Seen | None:
    """Return the state of all files that tell that a run is finished; None if one is missing."""
    try:
        found = [(run.folder / name).stat() for name in (RECIPE, MANIFEST, RESULT)]
        found += [evaluation_file(run.folder, name).stat() for name in asked_of(study)]
    except OSError:
        return None
    files = [(each.st_mtime_ns, each.st_size) for each in found]
    return Seen(run=run.folder.name, study=asked, files=files)


def _read(folder: Path) -> Mapping[str, Seen]:
    """Read what was noted last of each run; lines that are damaged are left out."""
    found = dict[str, Seen]()
    with contextlib.suppress(FileNotFoundError, Unreadable):
        for line in read_bytes(folder / SEEN).splitlines():
            with contextlib.suppress(Unreadable):
                each = parsed(Seen, parse_json(line))
                found[each.run] = each
    return found


def _note(folder: Path, new: Iterable[Seen]) -> None:
    lines = [json.dumps(each.model_dump()) for each in new]
    # A study may be listed by somebody who must not write to it.
    with contextlib.suppress(OSError):
        if lines:
            with (folder / SEEN).open("a", encoding="utf-8") as file:
                # A process that was killed may have left the beginning of a line.
                file.write("".join(f"\n{line}" for line in lines) + "\n")
