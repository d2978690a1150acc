"""Denoised smoothing: the denoiser learns, the classifier stays, and a run is a wrapper for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import open_run
from robustplug.recipe.errors import RecipeError
from robustplug.testing import Bench, Subject, toy_plain
from robustplug_smoothing.denoising import Denoised, DnCnn

from ..training.runs import tiny


@pytest.mark.parametrize("objective", ["mse", "stability"])
def test_the_denoiser_learns_and_the_model_stays_as_it_is(objective: str) -> None:
    bench = Bench(Subject("method", "denoiser", {"objective": objective, "depth": 3, "width": 8}), toy_plain)
    before = {key: value.clone() for key, value in bench.model.state_dict().items()}
    losses = []
    for _ in range(20):
        for step in bench.steps():
            (view,) = bench.views(step)
            assert view.penalty is not None
            losses.append(float(view.penalty(step, view).detach().mean()))
            bench.update(step)
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert all(torch.equal(value, before[key]) for key, value in bench.model.state_dict().items())


def test_the_losses_are_those_of_the_code() -> None:
    for objective in ("mse", "stability"):
        bench = Bench(Subject("method", "denoiser", {"objective": objective, "depth": 2}), toy_plain)
        denoiser = bench.method.denoiser  # type: ignore[attr-defined]
        torch.nn.init.normal_(denoiser.noise[-1].weight, std=0.1)
        step = bench.step(bench.batch())
        (view,) = bench.views(step)
        assert view.penalty is not None
        found = view.penalty(step, view).mean()
        outputs = denoiser(view.x + view.info["noise"])
        if objective == "mse":
            expected = torch.nn.MSELoss()(outputs, view.x)
        else:
            targets = bench.model(view.x).argmax(1)
            expected = torch.nn.CrossEntropyLoss()(bench.model(outputs), targets)
        torch.testing.assert_close(found, expected)


def test_an_untrained_denoiser_changes_nothing() -> None:
    x = torch.rand(3, 2, 5, 5)
    assert torch.equal(DnCnn(2, 4, 8)(x), x)


def test_a_run_holds_the_model_behind_its_denoiser_and_is_a_wrapper_for_others(tmp_path: Path) -> None:
    plain, folder = tmp_path / "plain", tmp_path / "denoised"
    robustplug.train(tiny(train={"epochs": 1}), out=plain)
    recipe = tiny("denoiser", model={"from": str(plain)}, optimizer={"lr": 0.5})
    trained = robustplug.train(recipe, out=folder)
    assert trained.result.meta["training"]["mechanism"]["denoised"] > 0
    run = open_run(folder)
    assert isinstance(run.model, Denoised)
    for key, value in open_run(plain).model.state_dict().items():
        assert torch.equal(value, run.model.model.state_dict()[key])
    # Around the classifier that it was trained with, the wrapper is the run's own model.
    given: dict[str, Any] = {"attacks": ["fgsm"], "threat": {"use": "l2", "eps": 0.25}, "samples": 24}
    own = robustplug.evaluate(folder, **given)
    inside = robustplug.evaluate(plain, wrapper={"use": "denoised", "run": str(folder)}, **given)
    assert [row.right for row in own.attacks] == [row.right for row in inside.attacks]
    noisy = {"measurements": [{"use": "randomised-smoothing", "sigma": 0.25, "n": 200}], "attacks": []}
    voted = robustplug.evaluate(plain, wrapper={"use": "denoised", "run": str(folder)}, **(given | noisy))
    assert "doubts" not in voted.meta, "its denoiser was trained with this noise"
    with pytest.raises(RecipeError, match="holds no denoiser"):
        robustplug.evaluate(plain, wrapper={"use": "denoised", "run": str(plain)}, **given)
    with pytest.raises(RecipeError, match="is missing, and has no default"):
        robustplug.evaluate(plain, wrapper="denoised", **given)
