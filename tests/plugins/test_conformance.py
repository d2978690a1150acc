from __future__ import annotations

import importlib.util

import pytest

from robustplug.plugin.host import registry
from robustplug.testing import Check
from robustplug.testing.kit import all_checks

# The reference code has no options to make it short, and gives a sample back that it does not break; the
# smallest of torchvision's segmentation models has 3 million parameters.
LONG = {"autoattack", "torchvision-segmentation"}
# A check of these takes seconds: dialogues, texts, transformed images and large networks. Their own tests are
# in the default run.
LONG |= {"hardening", "rl-attack", "self-play", "smart", "freelb", "docstrings", "lightgbm", "timm"}
LONG |= {"blur", "colour", "jpeg", "spatial", "densenet121"}
# What they train is a method around the component, so they are quick for methods alone.
TRAININGS = {"resume_is_bitwise", "state_round_trips", "same_seed_gives_the_same_bits"}
# Perhaps not installed, and the module that they need; see pyproject.toml.
APART = {"torchattacks": "torchattacks", "kornia": "kornia"}
# They need a run, which their own tests make.
OF_A_RUN = {"denoised": "test_denoising.py"}
# The tests of clusters run them, too.
_JOBS = ("launcher_carries_out_jobs", "launcher_ends_what_is_cancelled")
NEEDS_A_CLUSTER = {"ray": _JOBS, "slurm": _JOBS}
# N-FGSM leaves most of its radius to noise, a linear model has no part that could be an identity, and one
# perturbation does not serve two classes.
EXPECTED = {(name, "ascends_a_linear_model") for name in ("autoattack", "n-fgsm", "bpda", "universal")}


def marks(kind: str, component: str, check: str) -> list[pytest.MarkDecorator]:
    long = component in LONG or (check in TRAININGS and kind != "method")
    found = [pytest.mark.slow] if long or check in NEEDS_A_CLUSTER.get(component, ()) else []
    if component in APART:
        missing = importlib.util.find_spec(APART[component]) is None
        found.append(pytest.mark.skipif(missing, reason=f"{APART[component]} is not installed"))
    if component in OF_A_RUN:
        found.append(pytest.mark.skip(reason=f"it needs a run: see {OF_A_RUN[component]}"))
    return [*found, pytest.mark.xfail(strict=True)] if (component, check) in EXPECTED else found


EVERY_CHECK = [
    pytest.param(
        check,
        id=f"{kind}-{component.name}-{check.name}",
        marks=marks(kind, component.name, check.name),
    )
    for kind, components in registry().by_kind().items()
    for component in components
    for check in all_checks(component.name, kind)
]


@pytest.mark.parametrize("check", EVERY_CHECK)
def test_installed_components_conform(check: Check) -> None:
    check()
