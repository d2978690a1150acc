"""Whatever stands in a file that is read back: it is parsed into its type, or it is named as unreadable."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from robustplug.core.types import EpochReport, Result
from robustplug.errors import RunError
from robustplug.evaluation.kept.records import (
    Record,
    Records,
    decode,
    encode,
    first_line,
    linked,
    read_records,
)
from robustplug.files.reading import Unreadable
from robustplug.files.seals import sealed
from robustplug.runs.heads import FORMAT, Head, name_of, read_head
from robustplug.runs.history import append_report, read_reports
from robustplug.runs.manifest import Manifest, read_manifest
from robustplug.runs.result_file import read_result, result_from_json, result_to_json, seal_result
from robustplug.studies.stored import StoredStudy, read_stored_study

from ..fuzz import FEW, fuzz, how_many, mutated, mutated_text
from ..report.runs import plain, study

RUN, DIGEST = "0" * 32, "d" * 64
NAME = name_of(3, 2)
REPORT = EpochReport(0, {"loss": 1.5}, {"clean": 0.5, "robust": 0.25}, 0.1, 2.0, True)
MANIFEST = Manifest(run=RUN, recipe='name = "x"', digest=DIGEST, threads=1, files={"result.json": DIGEST})
META: dict[str, Any] = {
    "recipe": DIGEST,
    "world": 1,
    "epoch": 3,
    "batch": 2,
    "update": 17,
    "means": {"loss": [3.0, 2.0]},
    "passes": [30, 30],
    "best": [name_of(2, 0), 0.5],
    "score": 0.5,
    "seconds": 1.5,
    "local": {"method/eps": [[8]]},
    "optimizers": {"0": {"0": {"momentum_buffer": {"$tensor": "optimizer.0.0.momentum_buffer"}, "step": 3}}},
}
HEAD = {"format": FORMAT, "sha256": DIGEST, "meta": META}
RESULT = json.loads(json.dumps(result_to_json(plain(60, 30))))
RECORD = {
    "process": 0,
    "attack": 1,
    "batch": 0,
    "right": [0, 2],
    "counts": [4, 0, 8, 4],
    "distances": [[0.1, 0.4]],
    "seconds": 0.5,
    "measures": {"words": [1.0]},
    "told": [True, 1, "x"],
    "index": [0, 1, 2, 3],
    "predicted": [0, 1, 2, 1],
    "confidence": [0.5, 0.5, 1.0, 0.25],
    "texts": [],
    "prepared": 0,
}


def head(folder: Path, body: Any) -> Head:
    (folder / f"{NAME}.json").write_text(json.dumps(sealed(body, run=RUN, name=NAME)))
    return read_head(folder, NAME, MANIFEST)


def manifest(folder: Path, body: Any) -> Manifest | None:
    (folder / "manifest.json").write_text(json.dumps(sealed(body, run=RUN)))
    return read_manifest(folder)


def result(folder: Path, body: Any) -> Result:
    (folder / "result.json").write_text(json.dumps(seal_result(body, "result")))
    return read_result(folder / "result.json").result


def record(folder: Path, body: Any) -> Record:
    return decode(encode(body, DIGEST), DIGEST)


FORGED: dict[str, tuple[Any, Callable[[Path, Any], Any], type]] = {
    "checkpoint": (HEAD, head, Head),
    "manifest": (MANIFEST.model_dump(mode="json"), manifest, Manifest),
    "result": (RESULT, result, Result),
    "record": (RECORD, record, Record),
}


@how_many
@pytest.mark.parametrize("kind", list(FORGED))
def test_what_was_changed_and_sealed_again_is_of_its_type(kind: str, examples: int, tmp_path: Path) -> None:
    sound, read, expected = FORGED[kind]
    assert isinstance(read(tmp_path, sound), expected)

    def body(tree: Any) -> None:
        with contextlib.suppress(Unreadable):
            assert isinstance(read(tmp_path, tree), expected)

    fuzz(mutated(st.just(sound)), examples, body)


def test_a_result_without_its_seal_is_parsed_alike() -> None:
    def body(tree: Any) -> None:
        with contextlib.suppress(Unreadable):
            result_from_json(tree)

    fuzz(mutated(st.just(RESULT)), FEW, body)


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, tuple[Path, Callable[[], Any], Any]]:
    """Return for each kind of file its path, what reads it, and what it reads from the sound file."""
    manifest(tmp_path, MANIFEST.model_dump(mode="json"))
    head(tmp_path, HEAD)
    result(tmp_path, RESULT)
    study(tmp_path / "study", {"a": [plain(60, 30)], "b": [plain(50, 20)]})
    for epoch in range(3):
        append_report(tmp_path, RUN, EpochReport(epoch, REPORT.train, REPORT.validation, 0.1, 2.0, True))
    first, last = first_line(DIGEST)
    records = [encode({**RECORD, "batch": number}, DIGEST) for number in range(3)]
    journal = tmp_path / "evaluation.journal"
    journal.write_text(first + "".join(linked(records, last)[0]))
    readers: dict[str, tuple[Path, Callable[[], Any]]] = {
        "checkpoint": (tmp_path / f"{NAME}.json", lambda: read_head(tmp_path, NAME, MANIFEST)),
        "manifest": (tmp_path / "manifest.json", lambda: read_manifest(tmp_path)),
        "result": (tmp_path / "result.json", lambda: read_result(tmp_path / "result.json").result),
        "study": (tmp_path / "study" / "result.json", lambda: read_stored_study(tmp_path / "study")),
        "history": (tmp_path / "checkpoints" / "history.jsonl", lambda: read_reports(tmp_path, RUN, 3)[0]),
        "journal": (journal, lambda: read_records(journal, DIGEST)),
    }
    return {kind: (path, read, read()) for kind, (path, read) in readers.items()}


@how_many
@pytest.mark.parametrize("kind", ["checkpoint", "manifest", "result", "study", "history", "journal"])
def test_a_file_of_any_content(
    kind: str, examples: int, texts: dict[str, tuple[Path, Callable[[], Any], Any]]
) -> None:
    path, read, sound = texts[kind]
    text = path.read_text()

    def body(data: bytes) -> None:
        path.write_bytes(data)
        try:
            found = read()
        except (Unreadable, RunError):
            return
        if isinstance(found, Records):
            # The sound records of a damaged journal are used.
            assert set(found.records) <= set(sound.records)
        elif isinstance(found, StoredStudy | Head | Manifest | Result | list):
            changed = found if not isinstance(found, Head) else Head(*sound_head(found, sound))
            assert changed == sound
        else:
            pytest.fail(f"{kind}: {found!r}")

    fuzz(mutated_text(st.just(text)), examples, body)


def sound_head(found: Head, sound: Head) -> tuple[Any, ...]:
    """Return a head with the digest of the sound file: white space changes it, and nothing else."""
    return found.name, found.run, found.sha256, found.meta, sound.digest
