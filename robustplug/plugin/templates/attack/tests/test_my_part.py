"""my-part passes the checks that robustplug runs on every attack, and makes as many steps as it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import robustplug
from robustplug.api import Cost
from robustplug.testing import Bench, Subject, parametrize_with_checks, toy_plain


@parametrize_with_checks("my-part", kind="perturbation")
def test_the_attack_conforms(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("steps", [1, 4])
def test_every_step_is_one_pass(steps: int) -> None:
    bench = Bench(Subject("perturbation", "my-part", {"steps": steps}), toy_plain)
    step = bench.step(bench.batch())
    bench.views(step)
    assert step.meter.backwards == steps * len(step.batch)
    assert robustplug.build("perturbation", "my-part", steps=steps).cost(Cost(0, 0)) == (steps, steps)
