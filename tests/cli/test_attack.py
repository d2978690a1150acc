"""robustplug attack."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import robustplug

from ..training.runs import tiny
from .conftest import Invoke


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that attacks break."""
    folder = tmp_path_factory.mktemp("attack") / "run"
    recipe = tiny("erm", train={"epochs": 4}, evaluate={"samples": 30})
    robustplug.train(recipe, overrides=["method.vicinity.eps=0.3"], out=folder)
    return folder


def test_examples_are_written_as_tensors_and_pictures(run: Path, tmp_path: Path, cli: Invoke) -> None:
    done = cli("attack", str(run), "--attack", "pgd", "--images", "png", "--out", str(tmp_path / "x"), "-q")
    assert done.exit_code == 0, done.output
    kept = load_file(tmp_path / "x" / "examples.safetensors")
    assert len(kept["index"]) > 0
    assert float((kept["x"] - kept["origin"]).abs().max()) <= 0.3 + 1e-6
    assert not bool((kept["after"] == kept["label"]).any())
    assert len(list((tmp_path / "x" / "examples").glob("*.png"))) == len(kept["index"])
    assert "examples kept" in " ".join(done.output.split())
    assert f"of which {int(kept['survives'].sum())} survive rounding to 8 bits" in " ".join(
        done.output.split()
    )
    assert kept["survives"].dtype == torch.bool


def test_a_suite_goes_into_the_folder_of_the_run(run: Path, cli: Invoke) -> None:
    done = cli("attack", str(run), "--suite", "quick", "-q")
    assert done.exit_code == 0, done.output
    assert (run / "evaluations" / "examples" / "examples.safetensors").is_file()


def test_suite_and_attack_exclude_each_other(run: Path, cli: Invoke) -> None:
    done = cli("attack", str(run), "--suite", "quick", "--attack", "pgd")
    assert done.exit_code == 2
    assert "either --suite or --attack" in done.output
