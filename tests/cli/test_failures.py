"""Every failure ends with one message and an exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import robustplug
from robustplug.cli import main
from robustplug.errors import Failed, Interrupted, Refused, RunError
from robustplug.recipe.errors import Problem, RecipeError

from .conftest import Invoke

pytestmark = pytest.mark.table


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run a command that raises an error."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(error: BaseException, *arguments: str) -> Result:
        def raise_it() -> None:
            raise error

        hooked = {"fail": click.Command("fail", callback=raise_it)}
        monkeypatch.setitem(main.__dict__, "_hooked", hooked)
        return CliRunner().invoke(main, [*arguments, "fail"] if arguments else ["fail"])

    return run


KNOWN: dict[str, tuple[BaseException, int, str]] = {
    "a run": (RunError("the disk is full. Nothing is lost."), 2, "the disk is full. Nothing is lost."),
    "a recipe": (RecipeError([Problem("seed", "is odd", 3)], "a.toml"), 2, "a.toml:3: seed\n  is odd"),
    "a refusal": (Refused("no gradients"), 2, "no gradients"),
    "a file": (PermissionError(13, "Permission denied", "/root/x"), 2, "/root/x: Permission denied"),
    "memory": (MemoryError(), 2, "memory is exhausted"),
    "a signal": (Interrupted("stopped; resume with: …", 143), 143, "stopped; resume with: …"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted"),
}


@pytest.mark.parametrize(("error", "code", "message"), KNOWN.values(), ids=KNOWN)
def test_a_known_failure_is_its_message(
    failing: Callable[..., Result], tmp_path: Path, error: BaseException, code: int, message: str
) -> None:
    result = failing(error)
    assert result.exit_code == code
    assert result.output.startswith(message)
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError(), AssertionError("two\nlines")], ids=repr)
def test_an_unexpected_failure_is_one_line_and_its_traceback_lies_in_a_file(
    failing: Callable[..., Result], tmp_path: Path, error: Exception
) -> None:
    result = failing(error)
    assert result.exit_code == 70
    (line,) = result.output.splitlines()
    assert line.startswith(f"robustplug failed: {type(error).__name__}: ")
    assert "please report" in line
    (file,) = tmp_path.iterdir()
    assert str(file) in line
    assert "Traceback (most recent call last)" in file.read_text()


def test_the_traceback_of_a_run_lies_in_its_folder(failing: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    result = failing(Failed("the loss failed.", folder))
    assert not list(folder.iterdir())  # nothing is written into a folder that holds no run
    (folder / "recipe.toml").write_text("")
    result = failing(Failed("the loss failed.", folder))
    assert result.exit_code == 70
    assert result.output == f"the loss failed. The traceback is in {folder / 'failure.txt'}.\n"
    assert "the loss failed" in (folder / "failure.txt").read_text()


def test_without_room_for_a_file_the_message_names_debug(
    failing: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    result = failing(KeyError("x"))
    assert result.exit_code == 70
    assert result.output.endswith("repeat the command with --debug.\n")


def test_debug_prints_the_traceback_before_or_after_the_command(
    failing: Callable[..., Result], tmp_path: Path, cli: Invoke
) -> None:
    result = failing(RunError("the disk is full"), "--debug")
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.output
    assert result.output.endswith("the disk is full\n")
    assert not list(tmp_path.iterdir())
    assert "Traceback" in cli("validate", "absent", "--debug").output
    assert "Traceback" not in cli("validate", "--", "--debug").output


def test_a_failure_of_another_process_than_the_first_is_printed_too(
    failing: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    assert failing(KeyError("x")).output.startswith("process 3: robustplug failed: KeyError")
    assert failing(RunError("the first says it")).output == ""


def run(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in which $R is the command."""
    root = Path(robustplug.__file__).parents[1]
    path = os.pathsep.join([str(root), str(root / "plugins"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "R": f"{sys.executable} -m robustplug", **env}
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


SURROUNDINGS = {
    "a reader that stops": "$R recipes list | head -1",
    "no reader": "$R --help | true; $R recipes list | true",
    "no input": "$R recipes list <&-",
    "no home": "HOME=/nonexistent XDG_CACHE_HOME=/nonexistent MPLCONFIGDIR=/nonexistent $R recipes list",
    "no temporary folder": "TMPDIR=/nonexistent $R recipes list",
    "ASCII": "LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii $R show pgd",
}


@pytest.mark.parametrize("script", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_odd_surroundings_are_no_traceback(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(script)
    assert done.stderr == ""
    assert not re.search(r"Error|Traceback", done.stdout)
