"""Tests on a GPU run apart from all others, which see none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tests_and_the_processes_that_they_start_see_no_gpu() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    code = "import torch; print(torch.cuda.device_count())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "0"


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
    files = ("tests/gpu/test_training.py", "tests/gpu/test_data.py", "tests/gpu/test_attacks.py")
    assert all(line.startswith(files) for line in found)
    assert "worker" not in done.stdout
