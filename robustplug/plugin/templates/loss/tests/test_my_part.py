"""my-part passes the checks that robustplug runs on every loss, and weights samples by γ."""

from __future__ import annotations

from collections.abc import Callable

import robustplug
import torch
from robustplug.api import cross_entropy
from robustplug.testing import parametrize_with_checks


@parametrize_with_checks("my-part", kind="loss")
def test_the_loss_conforms(check: Callable[[], None]) -> None:
    check()


def test_gamma_weighs_the_cross_entropy() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), torch.tensor([0, 0])
    plain = robustplug.build("loss", "my-part", gamma=0.0)(None, None, logits, labels)
    torch.testing.assert_close(plain, cross_entropy(logits, labels))
    shares = robustplug.build("loss", "my-part")(None, None, logits, labels) / plain
    torch.testing.assert_close(shares, (1 - logits.softmax(1)[:, 0]).square())
