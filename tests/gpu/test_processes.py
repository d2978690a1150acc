"""Two processes with a GPU each replay what they exchange, with the bits of updates that are not captured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ..training.runs import outcome, tiny
from ..training.test_killed import environment

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]

TRAIN = """
import json, sys, robustplug
recipe, out = json.loads(sys.argv[1]), sys.argv[2]
robustplug.train(recipe, out=out)
"""


def together(folder: Path, method: str, fast: str) -> dict[str, Any]:
    """Train with two processes, in a folder of its own; return weights and metrics."""
    script = folder.parent / "train.py"
    script.write_text(TRAIN)
    recipe = tiny(method, train={"device": "cuda", "batch_size": 12, "fast": fast})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), json.dumps(recipe), str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcome(folder)
    return {name: found[name] for name in ("model", "metrics")}


@pytest.mark.parametrize("method", ["pgd-at", "cat", "sprout"])
def test_captured_exchanges_change_no_bit(tmp_path: Path, method: str) -> None:
    eager = together(tmp_path / "eager", method, "off")
    assert together(tmp_path / "captured", method, "capture") == eager
