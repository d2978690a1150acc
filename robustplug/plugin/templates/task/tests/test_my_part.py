"""my-part passes the checks that robustplug runs on every task, and draws the same points for a seed."""

from __future__ import annotations

from collections.abc import Callable

import robustplug
import torch
from robustplug.api import Feed
from robustplug.testing import parametrize_with_checks


@parametrize_with_checks("my-part", kind="task")
def test_the_task_conforms(check: Callable[[], None]) -> None:
    check()


def test_the_seed_makes_the_points() -> None:
    first, again, other = (
        next(iter(robustplug.build("task", "my-part", seed=seed).batches("test", Feed(batch_size=50))))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)
    assert first.y.bincount().tolist() == [17, 17, 16]
