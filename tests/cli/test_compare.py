from __future__ import annotations

from pathlib import Path

from tests.report.runs import plain, run

from .conftest import Invoke


def test_runs_are_compared_and_written_where_asked(cli: Invoke, tmp_path: Path) -> None:
    runs = [run(tmp_path / name, plain(90, right)) for name, right in (("a", 50), ("b", 20))]
    files = [tmp_path / "out" / f"x.{ending}" for ending in ("csv", "md", "html")]
    result = cli("compare", *runs, "--csv", files[0], "--markdown", files[1], "--html", files[2])
    assert result.exit_code == 0, result.output
    assert "50.0% (40–60) *" in result.output
    csv, markdown, page = (file.read_text() for file in files)
    assert csv.startswith("table,run,folder,")
    assert "**50.0% (40–60)**" in markdown
    assert page.startswith("<!doctype html>")


def test_what_cannot_be_read_is_named_and_the_rest_compared(cli: Invoke, tmp_path: Path) -> None:
    good, unfinished = run(tmp_path / "good", plain(90, 50)), run(tmp_path / "half", None)
    (tmp_path / "mine.toml").write_text("a = 1")
    result = cli("compare", good, unfinished, tmp_path / "absent", tmp_path / "mine.toml")
    assert result.exit_code == 1
    assert "90.0%" in result.output
    assert f"robustplug train --resume {unfinished}" in result.output
    assert "absent does not exist" in result.output
    assert f"{tmp_path / 'mine.toml'} is not valid JSON" in " ".join(result.output.split())


def test_nothing_to_compare_is_an_error(cli: Invoke, tmp_path: Path) -> None:
    result = cli("compare", tmp_path / "absent")
    assert result.exit_code == 2
    assert "absent does not exist" in result.output
    assert "Traceback" not in result.output
    assert cli("compare").exit_code == 2
    file = tmp_path / "file"
    file.write_text("")
    result = cli("compare", run(tmp_path / "good", plain(90, 50)), "--csv", file / "x.csv")
    assert result.exit_code == 2
    assert "cannot write" in result.output
