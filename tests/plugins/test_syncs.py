"""No update of a bundled method waits for the device, whatever its options; the kit checks trial options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustplug.core.method import needs_sync
from robustplug.testing import Bench, Subject
from robustplug.testing.checks_syncs import host_syncs
from robustplug.testing.toys import toy_norm

ROOT = str(Path(__file__).parents[2])
PGD = {"use": "pgd", "steps": 2}
NETWORK = {"use": "small-cnn", "width": 2, "hidden": 4}
CASES: list[tuple[str, dict[str, Any]]] = [
    *(
        ("pgd-at", {"perturbation": {"use": "pgd", "steps": 2, **options}})
        for options in (
            {"target": "random"},
            {"target": "runner-up", "keep": "best"},
            {"restarts": 2, "start": "normal", "batchnorm": "train"},
            {"step_size": 0.01, "step_ratio": 0.5, "loss": {"use": "margin"}},
        )
    ),
    *(
        (method, {"perturbation": attack, "vicinity": {"use": ball}})
        for method, attack in (
            ("pgd-at", {"use": "apgd-t", "steps": 4, "targets": 2}),
            ("trades", {"use": "apgd-dlr", "steps": 4, "restarts": 2}),
            ("pgd-at", {"use": "square", "queries": 12}),
            ("pgd-at", {"use": "mi-fgsm", "steps": 2}),
            ("trades", {"use": "backward-smoothing", "steps": 2, "batchnorm": "train"}),
            ("n-fgsm", {"use": "n-fgsm"}),
        )
        for ball in ("linf", "l2")
    ),
    ("free-at", {"vicinity": {"use": "l2"}}),
    ("robmask", {"perturbation": PGD, "bases": 3, "strengths": "anchors"}),
    ("robmask", {"perturbation": PGD, "bases": 4, "statistics": "separate"}),
    ("advprop", {"perturbation": PGD, "bases": 4}),
    ("cat", {"perturbation": PGD, "variant": "official-v1"}),
    ("cat", {"perturbation": PGD, "variant": "official-v2"}),
    ("cat", {"perturbation": PGD, "label_map": {"use": "cat", "beta": 0.05}}),
    ("cat", {"perturbation": PGD, "adaptive": False, "loss": {"use": "cat", "margin_weight": "radius-sum"}}),
    ("iaat", {"perturbation": PGD, "gamma": 0.0, "misclassified": "attacked"}),
    ("sprout", {"variant": "official"}),
    ("sprout", {"beta_inputs": "clean", "updates": 2, "label_map": {"use": "dirichlet", "alpha": 0.5}}),
    ("erm", {"vicinity": {"use": "mixup", "a": 0.05, "inner": {"use": "gaussian"}}}),
    ("trades", {"vicinity": {"use": "cutmix", "a": 1.0}}),
    ("stability", {"perturbation": PGD}),
    *(("rslad", {"teacher": NETWORK, "perturbation": PGD, **o}) for o in ({}, {"asked_at": "perturbed"})),
    ("rslad", {"teacher": NETWORK, "variant": "ard", "alpha": 0.5, "perturbation": {"steps": 2}}),
    ("hat", {"helper": NETWORK, "perturbation": PGD}),
    ("erm", {"vicinity": {"use": "grey"}}),
    ("erm", {"label_map": {"use": "smooth"}, "loss": {"use": "kl"}}),
    ("erm", {"loss": {"use": "dlr"}}),
]


@pytest.mark.table(10)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_updates_do_not_wait(name: str, options: dict[str, Any]) -> None:
    bench = Bench(Subject("method", name, options), toy_norm)
    # By channel, so that they are tensors, which have to be brought to the device.
    bench.method.vicinity.within([0.0, 0.1, 0.0], [1.0, 1.0, 0.9])  # type: ignore[attr-defined]
    assert not needs_sync(bench.method)
    assert host_syncs(bench, ROOT) == []
