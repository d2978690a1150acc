"""Whether the updates of a method wait for the device: it says so itself, or a component that it holds."""

from __future__ import annotations

from typing import Any

import pytest

from robustplug.core.method import Method, needs_sync
from robustplug.testing import Bench, Subject, ToyTask
from robustplug.testing.toys import toy_plain
from robustplug.training.watch import Watch

CORRUPTION = {"use": "corruption", "kind": "contrast"}


def method(name: str, options: dict[str, Any]) -> Method[Any]:
    return Bench(Subject("method", name, options), toy_plain).method


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("erm", {}, False),
        ("pgd-at", {}, False),
        ("pgd-at", {"perturbation": {"use": "deepfool"}}, True),
        ("pgd-at", {"perturbation": {"use": "ensemble", "attacks": [{"use": "fgsm"}]}}, True),
        ("erm", {"vicinity": CORRUPTION}, True),
        ("erm", {"vicinity": {"use": "gaussian"}}, False),
        ("erm", {"vicinity": {"use": "gaussian", "inner": CORRUPTION}}, True),
        ("erm", {"vicinity": {"use": "mixup", "inner": {"use": "gaussian", "inner": CORRUPTION}}}, True),
        ("erm", {"label_map": {"use": "dirichlet", "inner": {"use": "smooth"}}}, False),
        ("iaat", {}, True),
        ("iaat", {"gamma": 0, "misclassified": "attacked"}, False),
        ("iaat", {"gamma": 0, "misclassified": "attacked", "selection": {"use": "cw-l2"}}, True),
        ("iaat", {"search": "line"}, True),
    ],
)
def test_a_method_needs_what_its_components_need(name: str, options: dict[str, Any], expected: bool) -> None:
    assert needs_sync(method(name, options)) is expected


def test_a_watched_perturbation_needs_what_it_needs() -> None:
    task = ToyTask()
    for name, expected in (("deepfool", True), ("fgsm", False)):
        made = Bench(Subject("method", "pgd-at", {"perturbation": {"use": name}}), toy_plain)
        Watch(made.model, made.method, task)
        assert needs_sync(made.method) is expected


def test_parts_that_hold_each_other_end() -> None:
    made = method("erm", {})
    made.label_map.method = made  # type: ignore[attr-defined]
    assert not needs_sync(made)
