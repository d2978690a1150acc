"""The benchmark of the loader reads what it wrote, and times every part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import loader
import pytest
import torch

import robustplug
from robustplug.api import Feed

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_dry_run_times_loading_and_training(tmp_path: Path) -> None:
    script, numbers = ROOT / "benchmarks" / "loader.py", tmp_path / "loader.json"
    command = [sys.executable, str(script), "--dry-run", "--json", str(numbers)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(numbers.read_text())
    assert len(found["loading"]) == 8
    assert set(found["training"]) == {"erm", "pgd-at"}
    assert all(value > 0 for kind in ("loading", "training") for value in found[kind].values())


def test_both_forms_hold_the_same_images(tmp_path: Path) -> None:
    loader.write_images(tmp_path, 20, 40, 30)
    one = robustplug.build("task", "image-folder", root=f"{tmp_path}/images", workers=0)
    other = robustplug.build("task", "webdataset", train=f"{tmp_path}/shard-*.tar", workers=0)
    images = [
        {
            batch.x.numpy().tobytes()
            for split in task.info.sizes
            for batch in task.batches(split, Feed(batch_size=1))
        }
        for task in (one, other)
    ]
    assert len(images[0]) == 20
    assert images[0] == images[1]
    assert one.info.shape == (3, 30, 40)
    speed = loader.loaded(
        "image-folder", {"root": f"{tmp_path}/images", "workers": 0}, 4, torch.device("cpu")
    )
    assert speed > 0
