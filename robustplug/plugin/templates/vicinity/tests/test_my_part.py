"""my-part passes the checks that robustplug runs on every vicinity, and allows no darker pixel."""

from __future__ import annotations

from collections.abc import Callable

import robustplug
import torch
from robustplug.testing import parametrize_with_checks


@parametrize_with_checks("my-part", kind="vicinity")
def test_the_vicinity_conforms(check: Callable[[], None]) -> None:
    check()


def test_no_pixel_becomes_darker() -> None:
    vicinity = robustplug.build("vicinity", "my-part")
    origin, radius = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0.0, 0.1, 0.6])
    wanted = torch.tensor([0.0, 0.58, 2.0])[:, None, None, None]
    points = vicinity.project(wanted + 0 * origin, origin, radius)
    torch.testing.assert_close(points[:, 0, 0, 0], torch.tensor([0.5, 0.58, 1.0]))
    assert vicinity.contains(origin - 0.05, origin, radius).tolist() == [False] * 3
