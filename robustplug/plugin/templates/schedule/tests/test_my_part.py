"""my-part passes the checks that robustplug runs on every schedule, and falls from 1 to 0."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import robustplug
from robustplug.testing import parametrize_with_checks


@parametrize_with_checks("my-part", kind="schedule")
def test_the_schedule_conforms(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize(("power", "half"), [(1.0, 0.5), (2.0, 0.25)])
def test_the_rate_falls_from_one_to_zero(power: float, half: float) -> None:
    schedule = robustplug.build("schedule", "my-part", power=power)
    assert [schedule(epoch, 4) for epoch in (0, 2, 4)] == [1, half, 0]
