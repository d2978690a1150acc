"""Opening a model and its attacks for code that runs them itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import robustplug
from robustplug.api import open_evaluation
from robustplug.recipe.errors import RecipeError


def by_mean(x: Tensor) -> Tensor:
    """Give class 0 to dark images and 1 to bright ones: right for some."""
    bright = x.flatten(1).mean(1)
    return torch.stack([0.3 - bright, bright - 0.3, *[torch.full_like(bright, -9.0)] * 8], 1)


def test_steps_are_on_the_samples_that_are_right_and_go_on_after_success() -> None:
    opened = open_evaluation(
        by_mean, task="digits", attacks=["rays", "fgsm"], samples=60, vicinity={"use": "linf", "eps": 0.2}
    )
    assert [attack.label for attack in opened.attacks] == ["rays", "fgsm"]
    assert opened.threat == {"use": "linf", "eps": 0.2}
    assert opened.shape == (1, 8, 8)
    result = robustplug.evaluate(by_mean, task="digits", attacks=[], samples=60)
    with opened.running() as clean:
        assert clean.samples == 60
        assert clean.right == round(60 * result.attacks[0].accuracy)
        assert 0 < clean.right < 60
        rows = 0
        for step, view, vicinity in opened.steps(opened.attacks[0], 0):
            assert not step.evaluating
            assert view.role == "adv"
            assert float(vicinity.eps) == pytest.approx(0.2)
            with torch.no_grad():
                assert bool(step.score(view, step.output(view)).all())
            rows += len(view)
        assert rows == clean.right


def test_draws_of_steps_depend_on_row_and_seed_alone() -> None:
    draws = []
    for seed, number in ((0, 0), (0, 0), (0, 1), (1, 0)):
        opened = open_evaluation(by_mean, task="digits", attacks=["rays"], samples=20, seed=seed)
        with opened.running():
            ((step, _, _),) = opened.steps(opened.attacks[0], number)
            draws.append(float(torch.rand((), generator=step.rng)))
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


def test_suites_and_problems_are_those_of_evaluate() -> None:
    opened = open_evaluation(by_mean, task="digits", suite="hard-label", samples=5)
    assert [attack.label for attack in opened.attacks][:2] == ["sign-opt", "svm-opt"]
    assert opened.attacks[0].threat == {"use": "l2", "eps": 1.0}
    with pytest.raises(RecipeError, match="pgdd"):
        open_evaluation(by_mean, task="digits", attacks=["pgdd"])
