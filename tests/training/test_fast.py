"""How the updates of a run are run is chosen from what the machine and the model are, and written down."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.types import Cost
from robustplug.errors import RunError
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe
from robustplug.training import fast
from robustplug.training.fast import choose_fast, compiling_pays, runner_for
from robustplug.training.running.captured import Captured
from robustplug.training.running.compiled import Compiled, compiled_call

from .capturing import Told, capturing, replays
from .runs import outcome, tiny
from .test_captured import SMALL, left, small

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def choose(option: Any, device: torch.device, world: int = 1, long: bool = False, waits: bool = False) -> str:
    return choose_fast(option, device, world, waits, lambda: long)


@pytest.mark.parametrize("option", [None, "auto"])
def test_auto_follows_from_the_device_and_the_length_of_the_run(
    option: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "can_compile", lambda device: True)
    assert choose(option, CPU, long=True) == "off"
    assert choose(option, torch.device("mps"), long=True) == "off"
    assert choose(option, CUDA) == "capture"
    assert choose(option, CUDA, long=True) == "compile+capture"
    assert choose(option, CUDA, world=2, long=True) == "off"
    assert choose(option, CUDA, waits=True) == "off"
    assert choose(option, CUDA, waits=True, long=True) == "compile"
    monkeypatch.setattr(fast, "can_compile", lambda device: False)
    assert choose(option, CUDA, long=True) == "capture"


def test_compiling_needs_triton_and_a_device_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else name)
    assert not fast.can_compile(CUDA)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for capability, able in {(6, 1): False, (7, 0): True, (9, 0): True}.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert fast.can_compile(CUDA) is able


@pytest.mark.parametrize("option", ["off", "compile"])
def test_what_is_requested_is_done(option: str) -> None:
    assert choose(option, CPU) == choose(option, CUDA, world=2, long=True) == option


@pytest.mark.parametrize("option", ["capture", "compile+capture"])
def test_a_graph_needs_cuda(option: str, tmp_path: Path) -> None:
    assert choose(option, CUDA) == option
    with pytest.raises(RecipeError) as found:
        robustplug.train(tiny(train={"fast": option}), out=tmp_path / "run")
    (problem,) = found.value.problems
    assert problem.key == "train.fast"
    said = f'= "{option}" needs a CUDA device, and this run is on cpu: set it to "auto"'
    assert problem.message == said
    assert not list(tmp_path.glob("run/*.toml"))


class Costs:
    def __init__(self, cost: Cost) -> None:
        self._cost = cost

    def cost(self) -> Cost:
        return self._cost


def test_compiling_pays_where_the_training_makes_many_operations_for_each_layer() -> None:
    model, x = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 1000)), torch.rand(50, 1000)
    once = 2 * 2 * 1000**2 * 50  # two layers, a product and a sum for each weight
    needed = 2 * fast.WORTHWHILE

    def pays(cost: Cost, batches: float, x: object = x) -> bool:
        method: Any = Costs(cost)
        return compiling_pays(model, x, method, int(batches), seed=0)

    for cost, passes in ((Cost(11, 11), 33), (Cost(2, 1), 4), (Cost.unknown(), 3)):
        assert not pays(cost, 0.99 * needed / (once * passes))
        assert pays(cost, 1.01 * needed / (once * passes))
    assert not pays(Cost(11, 11), 1e12, ["a text"])


def test_a_long_adversarial_training_is_compiled_and_a_short_fast_one_is_not() -> None:
    # The operations of a ResNet-18, which has 41 layers, on 128 pictures of 32 × 32.
    forward, epoch = 1.11e9 * 128, 390
    assert 20 * epoch * forward * (11 + 2 * 11) > 41 * fast.WORTHWHILE
    assert 15 * epoch * forward * (2 + 2 * 2) < 41 * fast.WORTHWHILE


def test_what_was_chosen_is_written_down_and_a_resume_does_not_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robustplug.train(tiny(train={"fast": "auto"}), out=tmp_path / "run")
    assert read_recipe(tmp_path / "run" / "recipe.toml").train.fast == "off"
    for option in (None, "auto", "off"):
        given = {} if option is None else {"fast": option}
        with pytest.raises(RunError, match="is finished"):
            robustplug.train(tiny(train=given), out=tmp_path / "run", resume=True)
    robustplug.train(tiny(train={"fast": "auto"}), out=tmp_path / "run", resume=True, epochs=3)
    robustplug.train(tiny(train={"fast": "auto", "epochs": 3}), out=tmp_path / "whole")
    assert outcome(tmp_path / "run")["model"] == outcome(tmp_path / "whole")["model"]


class Compiling:
    """Stands for torch's compiler; notes the calls of what it compiled, by mode and rows."""

    def __init__(self) -> None:
        self.calls: list[tuple[bool, int]] = []

    def __call__(self, module: nn.Module, dynamic: bool) -> None:
        assert not dynamic
        plain: Callable[..., Any] = module._call_impl

        def compiled(x: Tensor) -> Any:
            self.calls.append((module.training, len(x)))
            return plain(x)

        module.__dict__["_compiled_call_impl"] = compiled


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Compiling:
    made = Compiling()
    monkeypatch.setattr(nn.Module, "compile", lambda self, dynamic: made(self, dynamic))
    return made


def test_whole_batches_of_training_alone_are_computed_compiled(compiling: Compiling, tmp_path: Path) -> None:
    told = Told()
    run = robustplug.train(small("pgd-at", train={"fast": "compile"}), out=tmp_path / "run", reporter=told)
    (message,) = told.messages
    assert message.startswith("compiled the model in 0 s")
    # One pass to compile the training mode, and one in each update: eight batches of an epoch are whole.
    assert {rows for _, rows in compiling.calls} == {16}
    assert sum(training for training, _ in compiling.calls) == 1 + 2 * 8
    assert run.model._compiled_call_impl is None
    robustplug.train(small("pgd-at"), out=tmp_path / "plain")
    assert left(run.folder) == left(tmp_path / "plain")


def test_a_compiled_model_is_captured(compiling: Compiling, tmp_path: Path) -> None:
    runners: list[Any] = []

    def made_runner(*given: Any) -> Any:
        runners.append(runner_for(*given))
        return runners[-1]

    with capturing() as made, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("robustplug.training.making.choose_fast", lambda *_: "compile+capture")
        monkeypatch.setattr("robustplug.training.making.runner_for", made_runner)
        robustplug.train(small("erm"), out=tmp_path / "both")
    robustplug.train(small("erm"), out=tmp_path / "plain")
    (runner,) = runners
    assert isinstance(runner, Compiled)
    assert isinstance(runner.inner, Captured)
    assert runner.inner.replays == replays(made) == 11
    assert len(compiling.calls) < 2 * 8 + 2
    assert left(tmp_path / "both") == left(tmp_path / "plain")


def test_a_model_that_cannot_be_compiled_is_told_and_trained_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: nn.Module, dynamic: bool) -> None:
        raise RuntimeError("no compiler was found. Install one.")

    monkeypatch.setattr(nn.Module, "compile", fails)
    told = Told()
    robustplug.train(small("erm", train={"fast": "compile"}), out=tmp_path / "run", reporter=told)
    assert told.messages == ["the model is not compiled, so updates are slower: no compiler was found"]
    robustplug.train(small("erm"), out=tmp_path / "plain")
    assert left(tmp_path / "run") == left(tmp_path / "plain")


@pytest.mark.parametrize("around", [False, True])
def test_a_method_of_second_order_is_not_compiled(compiling: Compiling, around: bool, tmp_path: Path) -> None:
    told = Told()
    method: dict[str, Any] = {"use": "gradalign", "inner": {"use": "fast-at"}}
    recipe = small("fast-at", train={"fast": "compile"})
    recipe["method"] = {"use": "awp", "inner": method} if around else method
    robustplug.train(recipe, out=tmp_path / "run", reporter=told)
    why = "the method needs second derivatives"
    assert told.messages == [f"the model is not compiled, so updates are slower: {why}"]


def test_compiling_leaves_the_model_as_it_was(compiling: Compiling) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[2].eval()
    model[0].weight.grad = torch.ones(4, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, state = torch.rand(5, 3), torch.get_rng_state()
    call, seconds = compiled_call(model, x, seed=1)
    assert callable(call)
    assert seconds >= 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == [True, True, True, False]
    assert torch.equal(model[0].weight.grad, torch.ones(4, 3))
    assert model[1].weight.grad is None
    assert all(value.requires_grad for value in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert model._compiled_call_impl is None


@pytest.mark.slow
def test_torch_compiles_a_run_on_the_cpu(tmp_path: Path) -> None:
    told = Told()
    first = robustplug.train(small("pgd-at", train={"fast": "compile"}), out=tmp_path / "run", reporter=told)
    assert told.messages[0].startswith("compiled the model in ")
    again = robustplug.train(small("pgd-at", train={"fast": "compile"}), out=tmp_path / "again")
    assert left(first.folder) == left(again.folder)
    assert SMALL["train"]["batch_size"] == 16
