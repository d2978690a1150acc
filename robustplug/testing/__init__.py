"""The public conformance kit: run it on your own components. Importing this does not import torch.

from robustplug.testing import parametrize_with_checks

@parametrize_with_checks("trades", kind="method")
def test_trades(check):
    check()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench import Bench, Subject, require
    from .kit import Check, Outcome, checks_for, parametrize_with_checks, run_checks
    from .toys import OneStep, ToyTask, toy_batchnorm, toy_linear, toy_plain

_LAZY = {
    "bench": ("Bench", "Subject", "require"),
    "kit": ("Check", "Outcome", "checks_for", "parametrize_with_checks", "run_checks"),
    "toys": ("OneStep", "ToyTask", "toy_batchnorm", "toy_linear", "toy_plain"),
}
_WHERE = {name: module for module, names in _LAZY.items() for name in names}

__all__ = [
    "Bench",
    "Check",
    "OneStep",
    "Outcome",
    "Subject",
    "ToyTask",
    "checks_for",
    "parametrize_with_checks",
    "require",
    "run_checks",
    "toy_batchnorm",
    "toy_linear",
    "toy_plain",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"robustplug.testing has no {name!r}")
    return getattr(importlib.import_module(f".{_WHERE[name]}", __package__), name)
