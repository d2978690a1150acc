"""Components that change what they are handed end the run and are named; observers are dropped."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import robustplug
from robustplug.core.guards import switches
from robustplug.core.method import Method, prepare
from robustplug.core.random import isolated
from robustplug.core.types import Batch, Cost, Feed, View
from robustplug.devices.processes import start
from robustplug.errors import Refused, RunError
from robustplug.plugin.build import build
from robustplug.plugin.component import Component, MethodOptions, Use
from robustplug.recipe.convert import resolve
from robustplug.recipe.options import Recipe
from robustplug.testing import ToyTask
from robustplug.testing.toys import OneStep, toy_batchnorm
from robustplug.training.loop import Loop
from robustplug.training.optim import Optimizers

from ..core.guards import rude
from ..core.guards.rude import HARMLESS, RUDE, Change, RudeAttack, bits
from .runs import offered, tiny

pytestmark = pytest.mark.table

# In training, a perturbation may run the model as it is, which writes its running statistics.
CHANGES = [change for change in RUDE if change is not rude.write_buffers]


@pytest.fixture(autouse=True)
def state() -> Iterator[None]:
    before, folder = switches.read(), Path.cwd()
    yield
    os.chdir(folder)
    assert switches.put_back(before) == []


def part(kind: Any, name: str) -> Any:
    return build(resolve(Use(name), kind), kind)


def loop_of(change: Callable[[Method[Any]], None] | None = None, task: Any = None) -> Loop:
    task = task or ToyTask()
    with isolated(0):
        model = toy_batchnorm(task.info)
    slots = {"vicinity": "linf", "label_map": "one-hot", "output_map": "identity", "loss": "ce"}
    built: dict[str, Any] = {kind: part(kind, name) for kind, name in slots.items()}
    method = Method(MethodOptions(), perturbation=OneStep(), **built)
    if change is not None:
        change(method)
    groups = prepare(method, model, task)
    defaults = Recipe(task=Use("toy"), method=Use("toy"))
    schedule = part("schedule", "constant")
    optimizers = Optimizers(groups, resolve(defaults.optimizer, "optimizer"), schedule)
    processes = start("cpu", "float32")
    return Loop(model.train(), None, method, task, optimizers, processes, 0, 1, 3, False, None, [])


def epoch(loop: Loop) -> list[Any]:
    feed = Feed(batch_size=8, shuffle=True)
    batches = loop.task.batches("train", feed)
    loop.epoch(0, 0, batches, 8, loop.task.info.sizes["train"], lambda progress: None, lambda: "")
    return [bits(value) for value in loop.model.state_dict().values()]


def perturbing(change: Change, error: BaseException | None = None) -> Callable[[Method[Any]], None]:
    return lambda method: setattr(method, "perturbation", RudeAttack(change, error))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_rude_perturbation_ends_the_run_and_is_named(change: Change) -> None:
    with pytest.raises(Refused, match="^RudeAttack of .* changed .* in epoch 1, batch 1 of 3"):
        epoch(loop_of(perturbing(change)))


def generators() -> list[Any]:
    numbers = [each.tolist() if isinstance(each, np.ndarray) else each for each in np.random.get_state()]
    return [torch.get_rng_state().tolist(), random.getstate(), numbers]


@pytest.mark.parametrize("change", HARMLESS[:3], ids=lambda change: change.__name__)
def test_the_generators_of_the_program_stay_as_they_are(change: Change) -> None:
    before = generators()
    rude_epoch = epoch(loop_of(perturbing(change)))
    assert generators() == before
    # Dropout draws from torch's generator, which each update seeds anew.
    calm = epoch(loop_of(perturbing(lambda *_: None)))
    assert rude_epoch == epoch(loop_of(perturbing(change)))
    assert (rude_epoch == calm) == (change is not rude.seed_torch)


SEEN_AT_ONCE = [
    rude.no_gradients,
    rude.inference,
    rude.train_mode,
    rude.threads,
    rude.autocast,
    rude.write_batch,
]


def rudely(call: Callable[..., Any], change: Change) -> Callable[..., Any]:
    """Return a call that changes something afterwards; its first argument is the step."""

    def rude_call(step: Any, *rest: Any) -> Any:
        result = call(step, *rest)
        change(step, View.of(step.batch), None)
        return result

    return rude_call


@pytest.mark.parametrize("change", SEEN_AT_ONCE, ids=lambda change: change.__name__)
@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("vicinity.sample", 'vicinity "linf" of'),
        ("views", "Method of"),
        ("label_map", "rudely"),
        ("output_map", "rudely"),
        ("loss", "rudely"),
        ("after_backward", "Method of"),
        ("after_step", "Method of"),
    ],
)
def test_each_component_is_named(place: str, named: str, change: Change) -> None:
    def spoil(method: Method[Any]) -> None:
        method.perturbation = RudeAttack(lambda *_: None)
        holder, _, name = place.rpartition(".")
        owner = getattr(method, holder) if holder else method
        setattr(owner, name, rudely(getattr(owner, name), change))

    with pytest.raises(Refused, match=f"^{named}.* changed .*, batch 1 of 3"):
        epoch(loop_of(spoil))


class RudeTask(ToyTask):
    """Change a switch while serving or scoring."""

    def __init__(self, serving: bool) -> None:
        super().__init__()
        self.serving = serving

    def batches(self, split: Any, feed: Feed) -> Iterator[Batch]:
        for batch in super().batches(split, feed):
            if self.serving:
                torch.set_default_dtype(torch.float64)
            yield batch

    def score(self, view: Any, output: Any) -> Any:
        if not self.serving:
            view.y.add_(1)
        return super().score(view, output)


@pytest.mark.parametrize("serving", [True, False])
def test_a_rude_task_is_named(serving: bool) -> None:
    with pytest.raises(Refused, match="^RudeTask of .* changed the (default dtype|batch)"):
        epoch(loop_of(task=RudeTask(serving)))


class OneBuffer(ToyTask):
    """Serve every batch in the same buffers."""

    def batches(self, split: Any, feed: Feed) -> Iterator[Batch]:
        x, y, index = torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        for batch in super().batches(split, feed):
            for buffer, own in ((x, batch.x), (y, batch.y), (index, batch.index)):
                buffer.resize_(own.shape).copy_(own)
            yield Batch(x, y, index)


def test_a_task_may_serve_the_same_buffers() -> None:
    assert epoch(loop_of(task=OneBuffer())) == epoch(loop_of())


class Moving(OneStep):
    """Attack the model with other weights, and put these back."""

    def __call__(self, step: Any, view: Any, vicinity: Any) -> Any:
        weight = next(step.model.parameters())
        before = weight.detach().clone()
        with torch.no_grad():
            weight.mul_(0.9)
            moved = super().__call__(step, view, vicinity)
            weight.copy_(before)
        return moved


def test_weights_that_are_moved_and_put_back_count_as_left_alone() -> None:
    epoch(loop_of(lambda method: setattr(method, "perturbation", Moving())))


def test_a_watched_perturbation_is_what_it_was() -> None:
    method = loop_of().method
    assert isinstance(method.perturbation, OneStep)
    assert method.perturbation.cost(Cost(0, 0)) == (1, 1)
    method.perturbation.note = 3  # type: ignore[attr-defined]
    assert vars(method.perturbation)["part"].note == 3


SHORT = {"task": {"validation": 8}, "train": {"epochs": 2}, "evaluate": {"samples": 4, "attack": []}}


class Later(RudeAttack):
    """Be rude from the second epoch on."""

    def __call__(self, step: Any, view: Any, vicinity: Any) -> Any:
        return super().__call__(step, view, vicinity) if step.progress.epoch else view


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [(rude.write_labels, None, "changed"), (rude.no_gradients, SystemExit(3), "SystemExit")],
    ids=["rude", "exits"],
)
def test_a_run_keeps_its_last_good_checkpoint(
    change: Change, error: BaseException | None, said: str, tmp_path: Path
) -> None:
    component = Component("rude", lambda options: Later(change, error))
    recipe = tiny("pgd-at", **SHORT)
    recipe["method"] = {"use": "pgd-at", "perturbation": {"use": "rude"}}
    with offered("perturbation", component), pytest.raises(RunError) as caught:
        robustplug.train(recipe, out=tmp_path / "run")
    text = str(caught.value)
    assert all(each in text for each in ('perturbation "rude"', said, "epoch 2, batch 1 of"))
    (kept,) = (tmp_path / "run" / "checkpoints").glob("*.json")
    assert f"The last good checkpoint is {kept.with_suffix('')}" in text


def test_a_method_whose_setup_changes_the_process_is_refused(tmp_path: Path) -> None:
    class Rude(Method[MethodOptions]):
        def setup(self, model: nn.Module, task: Any) -> Any:
            torch.use_deterministic_algorithms(False)
            return super().setup(model, task)

    def make(options: MethodOptions, **slots: Any) -> Method[MethodOptions]:
        return Rude(options, **slots)

    recipe = {**tiny("erm", **SHORT), "method": {"use": "rude"}}
    said = 'method "rude" of .* changed torch.use_deterministic_algorithms'
    rude_method = Component("rude", make, MethodOptions)
    with offered("method", rude_method), pytest.raises(RunError, match=said):
        robustplug.train(recipe, out=tmp_path / "run")
