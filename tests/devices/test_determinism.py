from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.core.step import Step
from robustplug.core.types import Cost, View
from robustplug.devices.determinism import deterministic
from robustplug.errors import RunError, not_deterministic
from robustplug.plugin.component import Component, NoOptions
from tests.training.runs import offered, tiny

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
SEEN: list[tuple[bool, bool]] = []


def settings() -> tuple[Any, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        os.environ.get(VARIABLE),
        os.environ.get("TORCHINDUCTOR_DETERMINISTIC"),
    )


@pytest.fixture(params=["as torch has them", "others"])
def before(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    if request.param == "others":
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
        monkeypatch.setenv(VARIABLE, ":4096:2")
    else:
        monkeypatch.delenv(VARIABLE, raising=False)
    return settings()


def test_all_settings_are_made_and_put_back_also_after_an_error(before: tuple[Any, ...]) -> None:
    with pytest.raises(KeyError), deterministic(True):
        assert settings() == (True, False, True, False, False, ":4096:8", "1")
        raise KeyError
    assert settings() == before
    with deterministic(True, strict=False):
        assert settings()[:2] == (True, True)
    assert settings() == before


def test_a_workspace_that_is_deterministic_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, ":16:8")
    with deterministic(True):
        assert os.environ[VARIABLE] == ":16:8"


def test_nothing_is_changed_where_it_is_off(before: tuple[Any, ...]) -> None:
    with deterministic(False):
        assert settings() == before


def test_the_operation_without_a_deterministic_algorithm_is_named() -> None:
    with deterministic(True), pytest.raises(RuntimeError) as found:
        put()
    assert not_deterministic(found.value) == "put_"
    assert not_deterministic(ValueError("put_ does not have a deterministic implementation")) is None


def put() -> torch.Tensor:
    """Call what torch computes in an order that it does not define."""
    return torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))


class Putting:
    """A perturbation that leaves the samples as they are, by way of that operation."""

    def __init__(self, options: NoOptions) -> None:
        pass

    def __call__(self, step: Step, view: View, vicinity: Any) -> View:
        SEEN.append(settings()[:2])
        put()
        return view

    def cost(self, target: Cost) -> Cost:
        return Cost(0, 0)


PUTTING = Component("putting", Putting, NoOptions)


def recipe(where: str, **train: Any) -> dict[str, Any]:
    made = tiny("erm", train={"epochs": 1, **train}, validate={"attack": {"use": "none"}})
    made["evaluate"]["attack"] = [{"use": "none"}]
    if where == "training":
        made["method"]["perturbation"] = {"use": "putting"}
    else:
        made["evaluate"]["attack"] = [{"use": "putting"}]
    return made


@pytest.fixture(autouse=True)
def putting() -> Iterator[None]:
    SEEN.clear()
    with offered("perturbation", PUTTING):
        yield


def test_a_component_that_cannot_train_deterministically_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError) as found:
        robustplug.train(recipe("training"), out=tmp_path / "run")
    said = str(found.value)
    assert said.startswith('perturbation "putting" of the plugin tests failed in epoch 1, batch 1 of 4: ')
    assert "put_ has no deterministic algorithm on this device: set train.deterministic = false" in said


class Backwards(torch.autograd.Function):
    """An identity whose backward pass has no deterministic algorithm."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        put()
        return gradient


def test_a_backward_pass_without_a_deterministic_algorithm_is_told(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Backwards.apply(self.layer(x.flatten(1)))  # type: ignore[no-any-return]

    plain = tiny("erm", train={"epochs": 1}, validate={"attack": {"use": "none"}})
    with pytest.raises(RunError) as found:
        robustplug.train(plain, model=Model(), out=tmp_path / "run")
    said = str(found.value)
    assert said.startswith(
        "a backward pass failed in epoch 1, batch 1 of 4: put_ has no deterministic algorithm"
    )
    assert "set train.deterministic = false" in said


def test_a_run_may_turn_it_off(tmp_path: Path) -> None:
    run = robustplug.train(recipe("training", deterministic=False), out=tmp_path / "run")
    assert SEEN
    assert set(SEEN) == {(False, False)}
    SEEN.clear()
    robustplug.evaluate(run.folder, attacks=[{"use": "putting"}])
    assert set(SEEN) == {(False, False)}


def test_the_evaluation_of_a_run_is_deterministic_too_where_it_can_be(tmp_path: Path) -> None:
    run = robustplug.train(recipe("evaluation"), out=tmp_path / "run")
    assert set(SEEN) == {(True, False)}
    assert run.result.attacks[1].skipped.endswith("set train.deterministic = false")
    SEEN.clear()
    with pytest.warns(UserWarning, match="put_ does not have a deterministic implementation"):
        result = robustplug.evaluate(run.folder)
    assert set(SEEN) == {(True, True)}
    assert not result.attacks[1].skipped


def test_a_command_does_not_import_the_compiler_that_it_does_not_use() -> None:
    """`torch.use_deterministic_algorithms` does, which takes as long as importing torch."""
    code = """
import sys, torch
from robustplug.devices.determinism import deterministic
with deterministic(True):
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    with deterministic(True, strict=False):
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
assert not torch.are_deterministic_algorithms_enabled()
assert "torch._inductor" not in sys.modules
with deterministic(True):
    import torch._inductor.config
    assert torch._inductor.config.deterministic
assert not torch._inductor.config.deterministic
with deterministic(True):
    assert torch._inductor.config.deterministic
assert not torch._inductor.config.deterministic
"""
    subprocess.run([sys.executable, "-c", code], check=True)
