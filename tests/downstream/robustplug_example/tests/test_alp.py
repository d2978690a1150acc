# mypy: disable-error-code="import-not-found"
from __future__ import annotations

from collections.abc import Callable

import torch
from robustplug.testing import parametrize_with_checks

from robustplug_alp.method import pairing

Check = Callable[[], None]


@parametrize_with_checks("alp", kind="method")
def test_the_method_conforms(check: Check) -> None:
    check()


@parametrize_with_checks("alp", kind="loss")
def test_the_loss_conforms(check: Check) -> None:
    check()


def test_pairing_is_the_mean_squared_difference() -> None:
    logits, others = (
        torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
        torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
    )
    assert pairing(logits, others).tolist() == [2.0, 0.0]
