"""Each method shows by quantities of its own that it is at work; 0 means that it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.testing import Bench, Subject, toy_plain
from robustplug.testing.toys import toy_norm

from ..training.runs import tiny

pytestmark = pytest.mark.table

NETWORK = {"use": "small-cnn", "width": 2, "hidden": 4}
FAST = {"use": "pgd", "steps": 2, "start": "uniform"}
STOPPING = {"use": "early-stopped", "steps": 2, "tau": 2, "step_size": 0.1}
AT_WORK: dict[str, tuple[dict[str, Any], set[str]]] = {
    "erm": ({}, set()),
    "pgd-at": ({"perturbation": FAST}, {"moved"}),
    "fast-at": ({}, {"moved"}),
    "free-at": ({"replays": 2}, {"moved"}),
    "n-fgsm": ({}, {"moved"}),
    "trades": ({"perturbation": FAST}, {"moved"}),
    "bilateral": ({}, {"moved"}),
    "interpolated": ({"perturbation": FAST}, {"moved"}),
    "stability": ({}, {"moved"}),
    "sprout": ({}, {"moved", "beta"}),
    "cat": ({"perturbation": FAST}, {"moved", "radius"}),
    "iaat": ({"perturbation": FAST, "warmup": 0, "beta": 0.5}, {"moved", "radius"}),
    "robmask": ({"perturbation": FAST}, {"moved", "mask"}),
    "advprop": ({"perturbation": FAST}, {"moved", "mask"}),
    "mart": ({"perturbation": FAST}, {"moved", "weight"}),
    "gradalign": ({"inner": {"use": "fast-at"}}, {"moved", "alignment"}),
    "dkl": ({"perturbation": FAST}, {"moved", "squares"}),
    "rslad": ({"teacher": NETWORK, "perturbation": FAST}, {"moved", "agreement"}),
    "hat": ({"helper": NETWORK, "perturbation": FAST}, {"moved", "helper"}),
    "swa": ({"inner": {"use": "trades", "perturbation": FAST}}, {"moved"}),
    "ema": ({"inner": {"use": "trades", "perturbation": FAST}}, {"moved"}),
    "gairat": ({"inner": {"use": "pgd-at", "perturbation": STOPPING}}, {"moved", "spread"}),
    "awp": ({"inner": {"use": "trades", "perturbation": FAST}}, {"moved", "weights"}),
    "smooth-adv": ({"perturbation": FAST}, {"moved", "noise"}),
    "consistency": ({}, {"noise"}),
    "macer": ({"draws": 3}, {"noise"}),
    "smooth-mix": ({"draws": 2, "perturbation": FAST}, {"moved", "noise"}),
    "denoiser": ({"depth": 2, "width": 2}, {"denoised"}),
    "ibp": ({"warmup": 0.0, "rampup": 0.2}, {"bound"}),
    "crown-ibp": ({"warmup": 0.0, "rampup": 0.2, "beta": 0.5}, {"bound"}),
    "sabr": ({"warmup": 0.0, "rampup": 0.2, "perturbation": FAST}, {"bound"}),
    "mtl-ibp": ({"warmup": 0.0, "rampup": 0.2}, {"bound"}),
}
IDLE: list[tuple[str, dict[str, Any], str]] = [
    ("pgd-at", {"perturbation": FAST, "vicinity": {"use": "linf", "eps": 0.0}}, "moved"),
    ("iaat", {"perturbation": FAST, "warmup": 9}, "radius"),
    ("cat", {"perturbation": FAST, "eta": 0.0}, "radius"),
    ("hat", {"helper": NETWORK, "perturbation": FAST, "gamma": 0}, "helper"),
    ("rslad", {"teacher": NETWORK, "perturbation": FAST, "vicinity": {"use": "linf", "eps": 0.0}}, "moved"),
    ("awp", {"warmup": 9, "inner": {"use": "pgd-at", "perturbation": FAST}}, "weights"),
    ("gairat", {"warmup": 9, "inner": {"use": "pgd-at", "perturbation": STOPPING}}, "spread"),
    ("mart", {"beta": 0, "perturbation": FAST}, "weight"),
    ("ibp", {"warmup": 1.0}, "bound"),
    ("mtl-ibp", {"warmup": 1.0}, "bound"),
    ("sabr", {"share": 0.0, "warmup": 0.0, "rampup": 0.0}, "bound"),
    ("gradalign", {"strength": 0, "inner": {"use": "fast-at"}}, "alignment"),
    ("dkl", {"loss": {"mse_weight": 0}, "perturbation": FAST}, "squares"),
    ("sprout", {"label_map": {"use": "dirichlet", "beta_lr": 1e-30}}, "beta"),
]


def shown(method: str, options: dict[str, Any]) -> dict[str, float]:
    model = toy_norm if method in ("robmask", "advprop") else toy_plain
    made = Bench(Subject("method", method, options), model)
    found: dict[str, float] = {}
    for step in made.steps(2):
        views = made.update(step)
        with torch.no_grad():
            found = {
                name: float(values.mean()) for name, values in made.method.mechanism(step, views).items()
            }
    return found


@pytest.mark.parametrize("method", AT_WORK)
def test_a_method_at_work_moves_its_quantities(method: str) -> None:
    options, names = AT_WORK[method]
    found = shown(method, options)
    assert found.keys() == names
    assert all(value > 0 for value in found.values()), found


@pytest.mark.parametrize(("method", "options", "name"), IDLE)
def test_an_idle_method_shows_zero(method: str, options: dict[str, Any], name: str) -> None:
    assert shown(method, options)[name] == 0


def test_the_result_states_it(tmp_path: Path) -> None:
    trained = robustplug.train(tiny("cat"), out=tmp_path / "run")
    mechanism = trained.result.meta["training"]["mechanism"]
    assert mechanism.keys() == {"moved", "radius"}
    assert mechanism["radius"] == trained.history[-1].train["mechanism/radius"]
