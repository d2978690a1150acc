"""Attacks take and give the dtype that they are asked in, and stay in the threat model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import robustplug
from robustplug.core.types import Batch, View

from .attacks import EPS, digits, step_of, trained_model

pytestmark = pytest.mark.table

ATTACKS: dict[str, dict[str, Any]] = {
    "pgd": {"steps": 3},
    "fgsm": {},
    "noise": {},
    "mi-fgsm": {"steps": 3},
    "apgd-ce": {"steps": 4},
    "apgd-dlr": {"steps": 4},
    "square": {"queries": 15},
    "deepfool": {"steps": 4},
    "cw-l2": {"steps": 8, "search_steps": 2, "initial_c": 10.0},
    "backward-smoothing": {},
    "n-fgsm": {},
    "ensemble": {"attacks": [{"use": "fgsm"}, {"use": "pgd", "steps": 2}]},
}
SLOW: dict[str, dict[str, Any]] = {
    "autoattack": {"version": "custom", "attacks": ["apgd-ce", "apgd-t", "fab", "square"]},
    "art": {"name": "ProjectedGradientDescent", "max_iter": 3},
    "torchattacks": {"name": "PGDL2"},
    "sign-opt": {"queries": 150},
    "svm-opt": {"queries": 150},
    "opt": {"queries": 150},
    "rays": {"queries": 50},
    "nes": {"queries": 60},
    "zoo": {"queries": 60},
    "hop-skip-jump": {"queries": 40},
    "boundary": {"queries": 40},
}
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LINF_ONLY, L2_ONLY = {"rays"}, {"zoo", "boundary"}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained_model()


def check(model: nn.Module, name: str, options: dict[str, Any], norm: str, evaluating: bool) -> None:
    found = {}
    for dtype in DTYPES:
        same, batch = copy.deepcopy(model).to(dtype), digits(8)
        batch = Batch(batch.x.to(dtype), batch.y, batch.index)
        vicinity = robustplug.build("vicinity", norm, eps=EPS[norm])
        step, view = step_of(same, batch, evaluating), View.of(batch, "adv")
        x = robustplug.build("perturbation", name, **options)(step, view, vicinity).x
        assert x.dtype == dtype
        assert bool(x.isfinite().all())
        assert bool(vicinity.contains(x, batch.x, step.radii(view, vicinity)).all())
        found[dtype] = int((same(x).argmax(1) == batch.y).sum())
    assert max(found.values()) - min(found.values()) <= 4


@pytest.mark.parametrize("evaluating", [True, False])
@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_keeps_the_dtype(model: nn.Module, name: str, norm: str, evaluating: bool) -> None:
    check(model, name, ATTACKS[name], norm, evaluating)


@pytest.mark.slow
@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("name", SLOW)
def test_an_attack_of_a_plugin_keeps_the_dtype(model: nn.Module, name: str, norm: str) -> None:
    if name == "torchattacks":
        pytest.importorskip("torchattacks")
    if norm in ({"linf"} if name in L2_ONLY else {"l2"} if name in LINF_ONLY else set()):
        pytest.skip("not in this norm")
    check(model, name, SLOW[name], norm, True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", EPS)
def test_a_projection_is_legal_and_far_points_are_not(norm: str, dtype: torch.dtype) -> None:
    vicinity = robustplug.build("vicinity", norm, eps=EPS[norm])
    origin = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    radius = torch.full((16,), EPS[norm])
    far = origin + 0.5
    assert bool(vicinity.contains(vicinity.project(far, origin, radius), origin, radius).all())
    assert not bool(vicinity.contains(far.clamp(0, 1), origin, radius).any())
