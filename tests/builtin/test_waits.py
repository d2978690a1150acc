"""Under evaluation, where samples leave at their first success, an attack waits once a step."""

from __future__ import annotations

from typing import Any

import pytest

from robustplug.core.method import Objective
from robustplug.core.types import View
from robustplug.testing import Bench, Subject
from robustplug.testing.checks_syncs import HostSyncs
from robustplug.testing.toys import toy_plain


class Counting(HostSyncs):
    """Count every time that a block waits."""

    waits = 0

    def note(self, operation: str, reason: str) -> None:
        self.waits += 1


@pytest.mark.parametrize(
    ("name", "options", "steps", "more"),
    [
        # Of each start: which samples are left; of PGD and Auto-PGD, an iterate more than steps.
        ("pgd", {"steps": 6}, 7, 1),
        ("pgd", {"steps": 6, "restarts": 2}, 14, 2),
        ("apgd-ce", {"steps": 6}, 7, 1),
        ("apgd-t", {"steps": 6, "targets": 2}, 14, 2),
        ("square", {"queries": 9}, 9, 0),
        # Which samples have left, too.
        ("mi-fgsm", {"steps": 6}, 12, 0),
    ],
)
def test_an_attack_waits_once_a_step(name: str, options: dict[str, Any], steps: int, more: int) -> None:
    bench = Bench(Subject("perturbation", name, options), toy_plain, eps=0.02)
    method = bench.method
    broken = []
    for step in bench.steps(1):
        step.evaluating = True
        step.method = Objective(lambda _, view: view.y, method.output_map, method.loss)
        view = View.of(step.batch, "adv")
        method.perturbation(step, view, method.vicinity)
        syncs = Counting("", [])
        with syncs.watching():
            attacked = method.perturbation(step, view, method.vicinity)
        assert 0 < syncs.waits <= steps + more
        broken.append(int((~step.score(view, bench.model.eval()(attacked.x))).sum()))
    assert 0 < sum(broken) < 22
