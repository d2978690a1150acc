"""The only way to the model: outputs are shared, passes counted, and attacks leave no trace."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustplug.core.calling.meter import Meter
from robustplug.core.calling.restored import BatchNormMode
from robustplug.core.method import Objective
from robustplug.core.state import MethodState
from robustplug.core.step import Step
from robustplug.core.types import Batch, View
from robustplug.errors import Refused, RunError
from robustplug.testing.toys import ToyTask
from robustplug.training.loop import training_loss

ROWS = 6


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.norm, self.linear, self.frozen = nn.BatchNorm1d(3), nn.Linear(3, 2), nn.Linear(3, 2)
        self.frozen.requires_grad_(False)
        self.norm.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.norm(x)
        result: Tensor = self.linear(x) + self.frozen(x)
        return result


def step_on(model: nn.Module, **changes: Any) -> Step:
    rng = torch.Generator().manual_seed(0)
    batch = Batch(torch.rand(ROWS, 3, generator=rng), torch.arange(ROWS) % 2, torch.arange(ROWS))
    task: Any = SimpleNamespace(score=lambda view, output: output.argmax(1) == view.y)

    def loss(step: Step, view: View, output: Any, target: Any) -> Tensor:
        return nn.functional.cross_entropy(output, target, reduction="none")

    slots = Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)
    return Step(model, slots, task, batch, rng, **changes)


def test_a_constant_input_is_run_once() -> None:
    model = Counted()
    step = step_on(model)
    first = step.forward(step.batch.x)
    assert step.forward(step.batch.x) is first
    assert (model.calls, step.meter.forwards) == (1, ROWS)
    assert step.forward(step.batch.x.clone()) is not first
    assert (model.calls, step.meter.forwards) == (2, 2 * ROWS)


def test_another_network_is_run_and_counted_and_shares_nothing_with_the_model() -> None:
    model, other = Counted(), Counted()
    step = step_on(model)
    own, its = step.forward(step.batch.x), step.forward(step.batch.x, module=other)
    assert its is not own
    assert step.forward(step.batch.x, module=other) is its
    assert step.forward(step.batch.x) is own
    assert (model.calls, other.calls, step.meter.forwards) == (1, 1, 2 * ROWS)


def test_an_input_that_was_written_to_is_run_again() -> None:
    step = step_on(Counted())
    first = step.forward(step.batch.x)
    step.batch.x.add_(0.1)
    assert not torch.equal(step.forward(step.batch.x), first)


def test_an_input_that_requires_grad_is_never_shared() -> None:
    step = step_on(Counted())
    x = step.batch.x.clone().requires_grad_()
    assert step.forward(x) is not step.forward(x)
    assert step.meter.forwards == 2 * ROWS


def test_outputs_are_shared_within_one_variant_one_mode_and_one_kind_of_graph_only() -> None:
    step = step_on(Counted())
    x = step.batch.x
    outputs = [step.forward(x), step.forward(x, variant="mask")]
    with torch.no_grad():
        outputs.append(step.forward(x))
        assert step.forward(x) is outputs[-1]
    with step.attack_mode():
        outputs.append(step.forward(x))
    assert len({id(output) for output in outputs}) == 4
    assert step.forward(x) is outputs[0]
    assert step.forward(x, variant="mask") is outputs[1]
    assert [output.requires_grad for output in outputs] == [True, True, False, False]


def test_outputs_of_the_two_batchnorm_modes_of_an_attack_are_not_mixed() -> None:
    step = step_on(Counted())
    with step.attack_mode("eval"):
        running = step.forward(step.batch.x)
    with step.attack_mode("train"):
        batch = step.forward(step.batch.x)
    assert not torch.equal(running, batch)


def test_inputs_that_are_no_tensors_are_run_every_time() -> None:
    calls: list[Any] = []

    class Texts(nn.Module):
        def forward(self, x: list[str]) -> list[int]:
            calls.append(x)
            return [len(text) for text in x]

    step = step_on(Texts())
    assert step.forward(["a", "bc"]) == step.forward(["a", "bc"]) == [1, 2]
    assert (len(calls), step.meter.forwards) == (2, 4)


def test_passes_are_counted() -> None:
    meter = Meter()
    step = step_on(Counted(), meter=meter)
    with step.attack_mode():
        x = step.batch.x.clone().requires_grad_()
        gradient = step.gradient(step.forward(x).sum(), x)
    assert gradient.shape == x.shape
    assert (meter.forwards, meter.backwards) == (ROWS, ROWS)
    with torch.no_grad():
        step.forward(step.batch.x)
    assert (meter.forwards, meter.backwards) == (2 * ROWS, ROWS)
    loss = step.objective(View.of(step.batch)).mean() + step.forward(step.batch.x + 0.1).mean()
    step.backward(loss)
    assert (meter.forwards, meter.backwards) == (4 * ROWS, 3 * ROWS)


def test_training_runs_the_wrapped_module_and_attacks_the_plain_one() -> None:
    plain, wrapped = Counted(), Counted()
    step = step_on(plain, wrapped=wrapped)
    step.forward(step.batch.x)
    with step.attack_mode():
        step.forward(step.batch.x)
    assert (plain.calls, wrapped.calls) == (1, 1)


def traces(model: nn.Module, state: MethodState) -> list[Any]:
    parameters = [*model.parameters(), *state.parameters()]
    return [
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in parameters],
        [parameter.grad for parameter in parameters],
        [buffer.tolist() for buffer in model.buffers()],
    ]


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_an_attack_leaves_no_trace(mode: BatchNormMode, fail: bool) -> None:
    model, state = Counted().train(), MethodState()
    model.norm.eval()
    state.mask = nn.Parameter(torch.ones(2))
    step = step_on(model)
    object.__setattr__(step.method, "state", state)
    before = traces(model, state)

    def attack() -> None:
        with torch.no_grad(), step.attack_mode(mode):
            assert not any(p.requires_grad for p in (*model.parameters(), *state.parameters()))
            assert {module.training for module in model.modules()} == {mode == "train"}
            x = step.batch.x.clone().requires_grad_()
            step.gradient(step.forward(x).sum(), x)
            with step.attack_mode("eval"):
                assert not model.norm.training
            assert model.norm.training is (mode == "train")
            if fail:
                raise RuntimeError("the attack is broken")

    if fail:
        with pytest.raises(RuntimeError, match="the attack is broken"):
            attack()
    else:
        attack()
    assert traces(model, state) == before
    assert step.forward(step.batch.x).requires_grad, "attack mode is over"


def test_the_statistics_of_the_batch_are_used_in_train_mode_and_forgotten() -> None:
    model = Counted()
    step = step_on(model)
    x = step.batch.x
    with step.attack_mode("train"), torch.no_grad():
        output = step.forward(x)
        normalised = (x - x.mean(0)) / (x.var(0, unbiased=False) + model.norm.eps).sqrt()
        assert torch.allclose(output, model.linear(normalised) + model.frozen(normalised), atol=1e-5)
        assert model.norm.running_mean is not None
        assert model.norm.running_mean.any()
    assert not model.norm.running_mean.any()
    assert model.norm.num_batches_tracked == 0


def test_radii_are_the_views_own_or_the_vicinitys() -> None:
    step = step_on(Counted())
    vicinity: Any = SimpleNamespace(eps=0.25)
    view = View.of(step.batch)
    assert torch.equal(step.radii(view, vicinity), torch.full((ROWS,), 0.25))
    own = torch.arange(ROWS) / 10
    assert step.radii(view.replace(radius=own), vicinity) is own


def test_the_loss_is_the_weighted_sum_of_the_views_means() -> None:
    step = step_on(Counted())
    weights = torch.arange(ROWS) / 2.0
    views = [View.of(step.batch, weight=3.0), View.of(step.batch, "adv", weight=weights)]
    views[1] = views[1].replace(x=step.batch.x + 0.1)
    method: Any = SimpleNamespace(
        vicinity=SimpleNamespace(sample=lambda step, batch: batch), views=lambda step, point: views
    )
    total, used = training_loss(method, step, share=0.5)
    losses = [step.objective(view) for view in views]
    assert total.item() == pytest.approx(0.5 * (3 * losses[0].mean() + (weights * losses[1]).mean()).item())
    assert list(used) == views
    assert {"loss/clean", "loss/adv", "accuracy/clean", "accuracy/adv"} <= step.logged.keys()
    assert step.logged["loss/adv"].item() == pytest.approx(losses[1].mean().item())


@pytest.mark.parametrize(("noise", "named"), [(0.0, "accuracy/clean"), (0.3, "accuracy/adv")])
def test_only_samples_that_nothing_has_moved_are_called_clean(noise: float, named: str) -> None:
    step = step_on(Counted())
    # A vicinity that adds noise makes the point that a view starts from: the view is not moved from there.
    point = step.batch if not noise else dataclasses.replace(step.batch, x=step.batch.x + noise)
    method: Any = SimpleNamespace(
        vicinity=SimpleNamespace(sample=lambda step, batch: point),
        views=lambda step, point: [View.of(point, "adv")],
    )
    training_loss(method, step)
    assert {name for name in step.logged if name.startswith("accuracy/")} == {named}


def numbers_alone(step: Step, view: View, output: Any, target: Any) -> torch.Tensor:
    """A loss that takes class numbers alone."""
    losses: torch.Tensor = -output.gather(1, target[:, None])[:, 0]
    return losses


def rows_alone(step: Step, view: View, output: Any, target: Any) -> torch.Tensor:
    """A loss that takes rows alone."""
    losses: torch.Tensor = -(output * target).sum(1)
    return losses


@pytest.mark.parametrize(
    ("loss", "rows", "message"),
    [
        (numbers_alone, True, r"loss numbers_alone fails on rows of shape \(5, 3\) .*target\.argmax\(1\)"),
        (rows_alone, False, r"loss rows_alone fails on class numbers, int64 \(N,\) .*as_rows"),
    ],
)
def test_a_loss_that_fails_on_its_target_says_what_it_gets(loss: Any, rows: bool, message: str) -> None:
    y = torch.tensor([0, 1, 2, 0, 1])
    target = torch.nn.functional.one_hot(y, 3).float() if rows else y
    batch = Batch(torch.zeros(5, 3), y, torch.arange(5))
    made = Objective(lambda step, view: target, lambda step, view: view.x, loss)
    step = Step(torch.nn.Identity(), made, ToyTask(), batch, torch.Generator())
    with pytest.raises(RunError, match=message) as caught:
        step.objective(View.of(batch))
    assert "Error: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors_of_a_loss_are_left_alone() -> None:
    def refuses(step: Step, view: View, output: Any, target: Any) -> torch.Tensor:
        raise Refused("needs 3 classes")

    def bursts(step: Step, view: View, output: Any, target: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    batch = Batch(torch.zeros(5, 3), torch.zeros(5).long(), torch.arange(5))
    for loss, kind in ((refuses, Refused), (bursts, torch.OutOfMemoryError)):
        made = Objective(lambda step, view: view.y, lambda step, view: view.x, loss)
        step = Step(torch.nn.Identity(), made, ToyTask(), batch, torch.Generator())
        with pytest.raises(kind):
            step.objective(View.of(batch))
