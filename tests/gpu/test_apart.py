"""Tests on a GPU run apart from all others, which see none."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_tests_and_the_processes_that_they_start_see_no_gpu() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    code = "import torch; print(torch.cuda.device_count())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "0"


@pytest.mark.slow
def test_the_option_runs_the_marked_tests_alone_and_without_workers() -> None:
    command = [sys.executable, "-m", "pytest", "--gpu", "--collect-only", "-q"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "tests/gpu", "tests/core/test_batches.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    found = [line for line in done.stdout.splitlines() if "::" in line]
    assert found, done.stdout + done.stderr
    files = [f"tests/gpu/test_{name}.py" for name in ("training", "data", "attacks", "processes")]
    assert all(line.startswith(tuple(files)) for line in found)
    assert "worker" not in done.stdout


def test_no_test_starts_a_process_with_an_environment_that_shows_it_a_gpu() -> None:
    """Environments are made from the present one, in which there is none."""
    found, given = 0, []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        own = [word.value for call in calls for word in call.keywords if word.arg == "env"]
        found += len(own)
        made_here = "os.environ" in text or "import environment" in text or "self.variables" in text
        given += [path.name for value in own if isinstance(value, ast.Dict) and None not in value.keys]
        given += [path.name] * (bool(own) and not made_here)
    assert found > 5
    assert given == []
