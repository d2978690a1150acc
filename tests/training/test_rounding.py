"""A run in bfloat16 that loses accuracy, or becomes infinite, does not pass unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.types import Feed
from robustplug.devices.processes import start
from robustplug.errors import RunError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.subjects.assemble import Parts, assemble
from robustplug.training.validate import rounding

from .capturing import Told
from .runs import read_json, tiny


class Fitted(nn.Module):
    """Classify the digits of the validation split by least squares; `offset` is added to all logits alike."""

    def __init__(self, parts: Parts, offset: float) -> None:
        super().__init__()
        (batch,) = parts.task.batches("validation", Feed(batch_size=64))
        rows = torch.eye(10)[batch.y]
        x = batch.x.flatten(1).double()
        weight = torch.linalg.solve(x.T @ x + 0.1 * torch.eye(64).double(), x.T @ rows.double())
        self.layer = nn.Linear(64, 10)
        with torch.no_grad():
            self.layer.weight.copy_(weight.T.float())
            self.layer.bias.fill_(offset)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return logits


def measured(precision: str, offset: float) -> tuple[dict[str, float] | None, list[str]]:
    """Return what is measured of that model after a run in a precision, and the warnings."""
    parts, told = (
        assemble(recipe_from_mapping(tiny(train={"precision": precision})), torch.device("cpu")),
        Told(),
    )
    found = rounding(parts, Fitted(parts, offset).eval(), start("cpu", precision), told.warn)
    return found.get("validation_accuracy"), told.messages


def test_what_bfloat16_costs_is_measured() -> None:
    found, told = measured("bfloat16", 0.0)
    assert found is not None
    assert found.keys() == {"float32", "bfloat16"}
    assert found["float32"] > 0.9
    assert abs(found["float32"] - found["bfloat16"]) <= 0.01
    assert told == []


def test_a_loss_of_more_than_a_point_is_warned_of() -> None:
    # bfloat16 has eight bits: beside 1000, all logits are the same.
    found, (warning,) = measured("bfloat16", 1000.0)
    assert found is not None
    assert found["float32"] > 0.9
    assert found["bfloat16"] < 0.3
    lost = 100 * (found["float32"] - found["bfloat16"])
    assert warning == (
        f"bfloat16, in which the model was trained, costs {lost:.1f} points of clean accuracy on the "
        'validation split: set train.precision = "float32"'
    )


def test_a_run_in_float32_is_not_measured_again() -> None:
    assert measured("float32", 1000.0) == (None, [])


def test_the_result_of_a_run_states_the_accuracy_in_each_precision(tmp_path: Path) -> None:
    run = robustplug.train(tiny(train={"precision": "bfloat16", "epochs": 1}), out=tmp_path / "run")
    stored = read_json(run.folder / "result.json")["meta"]["training"]["validation_accuracy"]
    assert stored == run.result.meta["training"]["validation_accuracy"]
    assert all(0 <= value <= 1 for value in stored.values())
    plain = robustplug.train(tiny(train={"epochs": 1}), out=tmp_path / "plain")
    assert "validation_accuracy" not in plain.result.meta["training"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_infinite_loss_names_the_precision_where_it_may_be_the_reason(
    precision: str, tmp_path: Path
) -> None:
    recipe = tiny(train={"precision": precision}, optimizer={"lr": 1e30})
    with pytest.raises(RunError, match="the loss is ") as found:
        robustplug.train(recipe, out=tmp_path / "run")
    assert ('Set train.precision = "float32". ' in str(found.value)) is (precision == "bfloat16")
    assert "ower optimizer.lr, or set train.clip_grad_norm" in str(found.value)
