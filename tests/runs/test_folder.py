"""What a run folder is, what is written into it, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import robustplug
from robustplug.cli import main
from robustplug.errors import RunError
from robustplug.files.reading import Unreadable
from robustplug.files.seals import sealed
from robustplug.runs.folder import holds_run, put_aside, refuse_occupied, remove_temporary
from robustplug.runs.manifest import Manifest, read_manifest, record, refuse_changed, write_manifest

from ..training.runs import read_json, tiny

MANIFEST = Manifest(run="a" * 32, recipe="x = 1\n", digest="c" * 64, threads=1)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of somebody else, in which the names of ours occur."""
    folder = tmp_path / "proj"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("result.json", "model.safetensors", "checkpoints/a.safetensors", "checkpoints/.b.tmp"):
        (folder / name).write_bytes(b"precious")
    (folder / "manifest.json").write_text('{"name": "an extension", "manifest_version": 3}')
    return folder


@pytest.mark.parametrize("through", ["itself", "a link"])
@pytest.mark.parametrize("how", ["--out", "out="])
def test_a_folder_of_somebody_else_is_refused_and_left_as_it_is(
    through: str, how: str, project: Path, tmp_path: Path
) -> None:
    before, place = everything(project), project
    if through == "a link":
        place = tmp_path / "link"
        place.symlink_to(project)
    if how == "out=":
        with pytest.raises(RunError, match=r"is not empty and holds no run \(checkpoints, manifest\.json, "):
            robustplug.train(tiny(), out=place)
    else:
        done = CliRunner().invoke(main, ["train", "--recipe", "cat", "--out", str(place)])
        assert done.exit_code == 2
        assert "is not empty and holds no run" in " ".join(done.output.split())
        assert "Traceback" not in done.output
    assert everything(project) == before


@pytest.mark.parametrize("name", ["x", ".hidden", "checkpoints", "recipe.txt", "metrics.jsonl", ".lock2"])
def test_any_file_makes_a_folder_occupied(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(RunError, match="is not empty"):
        refuse_occupied(tmp_path)


def test_what_a_run_that_died_at_once_leaves_is_as_good_as_nothing(tmp_path: Path) -> None:
    refuse_occupied(tmp_path / "nowhere")
    for name in (".lock", ".manifest.json.123.tmp", "failure.txt"):
        (tmp_path / name).touch()
    refuse_occupied(tmp_path)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write the folder"):
        robustplug.train(tiny(), out=tmp_path / "file")


def test_only_half_written_files_of_ours_are_removed(tmp_path: Path) -> None:
    ours = [".result.json.12.tmp", ".model.safetensors.7.tmp"]
    others = [".result.json.tmp", ".mine.7.tmp", "result.json.12.tmp", ".result.json.x.tmp"]
    for name in [*ours, *others]:
        (tmp_path / name).write_text("")
    (tmp_path / ".recipe.toml.3.tmp").symlink_to(tmp_path / ".mine.7.tmp")
    remove_temporary(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, ".recipe.toml.3.tmp"])


def test_nothing_is_overwritten_when_a_file_is_put_aside(tmp_path: Path) -> None:
    assert put_aside(tmp_path / "a.json", "old") is None
    for name in ("a-old.json", "a-old-2.json", "a-old-3.json"):
        (tmp_path / "a.json").write_text(name)
        assert put_aside(tmp_path / "a.json", "old") == tmp_path / name
    assert (tmp_path / "a-old-2.json").read_text() == "a-old-2.json"


MANIFESTS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda body: "", "not valid JSON"),
    (lambda body: [], "no seal"),
    (lambda body: {**body, "run": "b" * 32}, "does not match its seal"),
    (lambda body: sealed({**body, "run": "b" * 32}, run="a" * 32), "does not match its seal"),
    (lambda body: sealed({**body, "run": "../x"}, run="../x"), "run:"),
    (lambda body: sealed({**body, "threads": 0}, run="a" * 32), "threads:"),
    (lambda body: sealed({**body, "files": {"x": 1}}, run="a" * 32), "files.x:"),
    (lambda body: sealed({**body, "format": 2}, run="a" * 32), "format:"),
    (lambda body: sealed({**body, "earlier": [{"epochs": 0}]}, run="a" * 32), "earlier.0"),
]


@pytest.mark.parametrize(("change", "why"), MANIFESTS)
def test_a_manifest_is_parsed_and_not_believed(
    change: Callable[[dict[str, Any]], Any], why: str, tmp_path: Path
) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    body = change(read_json(tmp_path / "manifest.json"))
    (tmp_path / "manifest.json").write_text(body if isinstance(body, str) else json.dumps(body))
    with pytest.raises(Unreadable, match=why):
        read_manifest(tmp_path)


def test_a_manifest_makes_a_run_folder_and_those_of_other_programs_do_not(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "x"}')
    assert not holds_run(tmp_path)
    write_manifest(tmp_path, MANIFEST)
    assert holds_run(tmp_path)


def test_a_finished_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    refuse_changed(path)
    write_manifest(tmp_path, MANIFEST)
    refuse_changed(path)
    record(tmp_path, path.name)
    refuse_changed(path)
    path.write_bytes(b"weightz")
    with pytest.raises(RunError, match=r"was changed after the run wrote it.*robustplug evaluate"):
        refuse_changed(path)
