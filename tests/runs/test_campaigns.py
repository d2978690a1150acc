"""Small campaigns of kills and of damages; the large ones are started by hand, see docs/reliability.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def campaign(name: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_killed_commands_end_with_the_same_bits(tmp_path: Path) -> None:
    folder = str(tmp_path / "kills")
    assert "same bits" in campaign(
        "kills.py",
        *("--kills", "4", "--folder", folder),
        *("--only", "cat", "evaluate", "checkpoints behind the training"),
    )


@pytest.mark.slow
def test_damages_are_named(tmp_path: Path) -> None:
    places = ("finished run", "unfinished run", "unfinished evaluation")
    folder = str(tmp_path / "faults")
    said = campaign("faults.py", "--damages", "24", "--methods", "erm", "--only", *places, "--folder", folder)
    assert "0 of them neither" in said


def test_every_bundled_recipe_on_digits_is_killed() -> None:
    from robustplug.recipe.load import read_recipe
    from robustplug.recipe.toml.files import bundled_recipes

    sys.path.insert(0, str(BENCHMARKS))
    try:
        from kinds_of_work import works
    finally:
        sys.path.remove(str(BENCHMARKS))
    made = ("digits", "scripted-negotiation", "synthetic-translation")
    here = {name for name in bundled_recipes() if read_recipe(name, starts=False).task.name in made}
    assert here <= {work.kind for work in works()}
