from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from robustplug.files.reading import Unreadable, parse_json, read_bytes, read_json
from robustplug.files.seals import Strict, opened, parsed, sealed


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(Unreadable, match="too large: 5 bytes"):
        read_bytes(path, 4)


def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in (
        (tmp_path / "pipe", "a named pipe"),
        (Path("/dev/zero"), "a device"),
        (tmp_path, "folder|directory"),
    ):
        with pytest.raises(Unreadable, match=kind):
            read_bytes(path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unreadable, match="cannot be opened"):
        read_bytes(tmp_path / name)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")


@pytest.mark.parametrize("depth", [65, 500, 10**5, 10**6])
@pytest.mark.parametrize("pair", [("[", "]"), ('{"a":', "}")])
def test_deep_json_is_refused(depth: int, pair: tuple[str, str]) -> None:
    inside = "1" if pair[0] != "[" else ""
    with pytest.raises(Unreadable, match="too deeply"):
        parse_json(pair[0] * depth + inside + pair[1] * depth)


@pytest.mark.parametrize("text", ["", "{", "\xff", '{"a": ' + "9" * 5000 + "}"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="not valid JSON"):
        parse_json(text.encode("latin-1"))


def test_every_change_of_a_sealed_object_is_found() -> None:
    body = sealed({"a": 1, "b": [1.5, None, "x"]}, run="r", epoch=3)
    assert opened(json.loads(json.dumps(body))) == ({"a": 1, "b": [1.5, None, "x"]}, {"run": "r", "epoch": 3})
    changes: tuple[object, ...] = (
        {**body, "a": 2},
        {**body, "a": True},
        {**body, "c": 0},
        {"a": 1, "seal": body["seal"]},
        {**body, "seal": {**body["seal"], "belongs": {"run": "q", "epoch": 3}}},
        {**body, "seal": {**body["seal"], "sha256": "0" * 64}},
        {**body, "seal": []},
        {"a": 1},
        [],
    )
    for change in changes:
        with pytest.raises(Unreadable):
            opened(change)


class _Counts(Strict):
    rows: int
    pairs: tuple[tuple[float, float], ...]


@pytest.mark.parametrize(
    "body",
    [{"rows": "1", "pairs": []}, {"rows": True, "pairs": []}, {"rows": 1}, [], 3, {"rows": 1.5, "pairs": []}],
)
def test_parsing_converts_nothing(body: object) -> None:
    assert parsed(_Counts, {"rows": 1, "pairs": [[1, 2.5]]}).pairs == ((1.0, 2.5),)
    with pytest.raises(Unreadable, match="not as it was written"):
        parsed(_Counts, body)


def test_reading_files_needs_neither_torch_nor_pydantic() -> None:
    import subprocess

    code = "import sys, robustplug.files.reading; assert not {'torch', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
