"""The model of a finished run, without its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import Refused, open_model
from robustplug.training.train import Trained

from ..training.runs import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return robustplug.train(tiny(), out=tmp_path_factory.mktemp("open") / "run")


def test_the_exported_weights_are_those_of_the_run(trained: Trained) -> None:
    info = robustplug.build("task", "digits").info
    state = torch.get_rng_state()
    model = open_model(trained.folder, info)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    weights = trained.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_what_is_no_finished_run_or_of_another_task_is_refused(trained: Trained, tmp_path: Path) -> None:
    info = robustplug.build("task", "digits").info
    with pytest.raises(Refused, match="is not a run folder"):
        open_model(tmp_path, info)
    (tmp_path / "recipe.toml").write_bytes((trained.folder / "recipe.toml").read_bytes())
    with pytest.raises(Refused, match="contains no finished run"):
        open_model(tmp_path, info)
    other: Any = robustplug.build("task", "scripted-negotiation", dialogues=16, unknown_below=0)
    with pytest.raises(Refused):
        open_model(trained.folder, other.info)
