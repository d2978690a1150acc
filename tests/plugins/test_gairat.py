"""Early-stopped PGD and GAIRAT's weights against transcriptions of Zhang et al. 2020 and 2021."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustplug.api import Batch, View
from robustplug.core.types import Progress
from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.testing import Bench, Subject, toy_plain
from robustplug_gairat.attack import WITHSTOOD, countdown
from robustplug_gairat.method import geometry_weights

from ..training.runs import read_json, tiny
from ..training.test_resume import check_resume

EPS, SIZE = 0.2, 0.06


def friendly(steps: int = 5, tau: Any = 0, **options: Any) -> dict[str, Any]:
    fixed = {"use": "early-stopped", "steps": steps, "tau": tau, "start": "zero", "noise": 0}
    return {**fixed, "step_size": SIZE, **options}


def bench(method: str, options: dict[str, Any]) -> Bench:
    return Bench(Subject("method", method, options), toy_plain)


def half_right(made: Bench) -> Batch:
    """Return a batch of which the model classifies every second sample rightly."""
    batch = made.batch()
    with torch.no_grad():
        predicted = made.model.eval()(batch.x).argmax(1)
    made.model.train()
    wrong = torch.arange(len(batch)) % 2
    return Batch(batch.x, (predicted + wrong) % 3, batch.index)


def adversarial(tau: Any = 0, **options: Any) -> Bench:
    vicinity = {"use": "linf", "eps": EPS}
    return bench("pgd-at", {"vicinity": vicinity, "perturbation": friendly(tau=tau, **options)})


def by_hand(model: nn.Module, x: Tensor, y: int, steps: int, tau: int) -> tuple[Tensor, int]:
    """Attack one sample (1, …) as `earlystop` does, and count the iterates that are classified rightly."""
    origin, left, kappa = x, tau, 0
    for _ in range(steps):
        x = x.detach().requires_grad_()
        logits = model(x)
        if int(logits.argmax()) == y:
            kappa += 1
        elif left == 0:
            return x.detach(), kappa
        else:
            left -= 1
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([y])), x)
        x = (x.detach() + SIZE * gradient.sign()).clamp(origin - EPS, origin + EPS).clamp(0, 1)
    return x, kappa


@pytest.mark.parametrize("tau", [0, 1, 5])
def test_the_attack_is_that_of_the_transcription(tau: int) -> None:
    made = adversarial(tau)
    step = made.step(half_right(made))
    (view,) = made.views(step)
    model = made.model.eval()
    kappas = []
    for number, (x, y) in enumerate(zip(step.batch.x, step.batch.y.tolist(), strict=True)):
        expected, kappa = by_hand(model, x[None], y, 5, tau)
        torch.testing.assert_close(view.x[number : number + 1], expected, atol=1e-6, rtol=0)
        kappas.append(kappa)
    torch.testing.assert_close(view.info[WITHSTOOD], torch.tensor(kappas) / 5)
    assert len(set(kappas)) > 1


def test_a_sample_stops_once_its_steps_are_used_up() -> None:
    right, left = torch.tensor([True, False, False, True]), torch.tensor([0.0, 0.0, 2.0, 1.0])
    stops, after = countdown(right, left)
    assert stops.tolist() == [False, True, False, False]
    assert after.tolist() == [0, 0, 1, 1]


def test_samples_that_stopped_cost_nothing_more() -> None:
    counted = []
    for tau in (0, 5):
        made = adversarial(tau)
        step = made.step(half_right(made))
        before = step.meter.backwards
        made.views(step)
        counted.append((step.meter.backwards - before) / len(step.batch))
    assert counted[0] < counted[1] == 5


def test_tau_rises_at_its_milestones() -> None:
    made = adversarial([0, 5], milestones=[2])
    batch, expected = half_right(made), {}
    for tau in (0, 5):
        other = adversarial(tau)
        other.model.load_state_dict(made.model.state_dict())
        expected[tau] = other.views(other.step(batch))[0].x
    assert not torch.equal(expected[0], expected[5])
    for epoch, tau in ((0, 0), (1, 0), (2, 5)):
        (view,) = made.views(made.step(batch, progress=Progress(epoch, 3)))
        assert torch.equal(view.x, expected[tau])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": [0, 1]}, "give one milestone fewer, not 0"),
        ({"tau": [0, 1, 2], "milestones": [5, 3]}, "ascending order"),
    ],
)
def test_milestones_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve(Use("early-stopped", options), "perturbation")


def test_noise_of_a_sample_does_not_depend_on_who_has_stopped() -> None:
    made = adversarial(noise=0.05)
    batch = half_right(made)
    (alone,) = made.views(made.step(batch))
    odd = torch.arange(len(batch)) % 2 == 1
    assert torch.equal(alone.info[WITHSTOOD] == 0, odd)
    # With these labels, all samples start.
    labels = torch.where(odd, (batch.y - 1) % 3, batch.y)
    (together,) = made.views(made.step(Batch(batch.x, labels, batch.index)))
    assert (together.info[WITHSTOOD] > 0).all()
    assert torch.equal(alone.x[~odd], together.x[~odd])
    assert not torch.equal(alone.x[odd], together.x[odd])


Function = Literal["tanh", "sigmoid", "discrete"]


def weights_by_hand(kappa: list[int], steps: int, shift: float, function: Function = "tanh") -> list[float]:
    """Return the weights of `GAIR`, from its formulas, sample by sample."""
    raw = []
    for each in kappa:
        z = shift + (steps / 2 - each) * 5 / (steps / 2)
        tanh, sigmoid = (math.tanh(z) + 1) / 2, 1 / (1 + math.exp(-z))
        raw.append({"tanh": tanh, "sigmoid": sigmoid, "discrete": (steps + 1 - each) / (steps + 1)}[function])
    return [value * len(raw) / sum(raw) for value in raw]


@pytest.mark.parametrize("function", get_args(Function))
def test_weights_are_those_of_the_transcription(function: Function) -> None:
    kappa = [0, 2, 5, 10]
    found = geometry_weights(torch.tensor(kappa) / 10, torch.full((4,), 10.0), -1.0, function)
    torch.testing.assert_close(found / found.mean(), torch.tensor(weights_by_hand(kappa, 10, -1.0, function)))
    assert (found[:-1] > found[1:]).all()
    # No two functions weigh alike.
    others = [weights_by_hand(kappa, 10, -1.0, each) for each in get_args(Function) if each != function]
    assert all(abs(other[2] - float(found[2] / found.mean())) > 0.02 for other in others)


@pytest.mark.parametrize(
    ("inner", "function"),
    [("pgd-at", "discrete"), ("pgd-at", "tanh"), ("trades", "sigmoid"), ("mart", "tanh")],
)
def test_views_of_the_attack_are_weighed_and_others_are_not(inner: str, function: Function) -> None:
    options = {
        "use": inner,
        "vicinity": {"use": "linf", "eps": 0.04},
        "perturbation": friendly(4, 4, start="uniform", step_size=0.02),
    }
    made = bench("gairat", {"shift": -0.5, "weights": function, "inner": options})
    step = made.step(half_right(made))
    views = made.views(step)
    plain = bench(inner, {key: value for key, value in options.items() if key != "use"})
    for view, own in zip(views, plain.views(plain.step(half_right(plain))), strict=True):
        weight, factor = step.weight(view), own.weight
        if WITHSTOOD not in view.info:
            assert weight == factor
            continue
        kappa = (view.info[WITHSTOOD] * 4).round().int().tolist()
        expected = torch.tensor(weights_by_hand(kappa, 4, -0.5, function))
        assert len(set(kappa)) > 1
        assert isinstance(weight, Tensor)
        expected = expected * (factor(step, view) if callable(factor) else factor)
        torch.testing.assert_close(weight, expected)
    assert any(isinstance(view, View) and WITHSTOOD in view.info for view in views)


def test_gairat_needs_an_attack_that_counts_its_steps() -> None:
    recipe = {**tiny("gairat"), "method": {"use": "gairat", "inner": {"use": "pgd-at"}}}
    with pytest.raises(RecipeError, match='set the perturbation of inner to "early-stopped"'):
        recipe_from_mapping(recipe)
    with pytest.raises(RecipeError, match="the divergence has no gradient at the origin"):
        recipe_from_mapping({**recipe, "method": {"use": "trades", "perturbation": friendly()}})


def test_a_run_trains_in_fewer_passes_and_resumes(tmp_path: Path) -> None:
    inner = {
        "use": "pgd-at",
        "perturbation": {"use": "early-stopped", "steps": 4, "tau": [0, 1], "milestones": [1]},
    }
    recipe = {**tiny("gairat"), "method": {"use": "gairat", "warmup": 1, "inner": inner}}
    check_resume(recipe, tmp_path, (3,))
    training = read_json(tmp_path / "whole" / "result.json")["meta"]["training"]
    assert 1 < training["backwards_per_sample"] < 1 + 4
    assert training["mechanism"].keys() == {"moved", "spread"}
    assert training["mechanism"]["spread"] > 0
