"""Gradients of any size, and with values that are no numbers, give directions."""

from __future__ import annotations

import math

import pytest
import torch

import robustplug
from robustplug.core.calling.gradients import USUAL, finite, lost, squarable, to_unit

pytestmark = pytest.mark.table

BAD = [math.nan, math.inf, -math.inf]


def test_values_that_are_no_numbers_are_dropped_and_counted() -> None:
    gradient = torch.tensor([[1.0, *BAD], [0.0, 2.0, 3.0, -4.0]])
    assert torch.equal(finite(gradient), torch.tensor([[1.0, 0, 0, 0], [0, 2, 3, -4]]))
    assert int(lost(gradient).sum()) == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-12, 1.0, 1e12, 3e37])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_steepest_direction_has_unit_size_at_any_scale(
    norm: str, scale: float, dtype: torch.dtype
) -> None:
    exact = torch.tensor([[[3.0, -4.0, 0.0, math.nan]], [[0.0, 0.0, 0.0, 0.0]]], dtype=torch.float64) * scale
    gradient = exact.to(dtype)
    if not bool(gradient[0].nan_to_num().any()) or bool(gradient.isinf().any()):
        return  # the scale is not of this dtype
    direction = robustplug.build("vicinity", norm, eps=0.1).steepest(gradient)
    wanted = torch.tensor([1.0, -1.0, 0, 0] if norm == "linf" else [0.6, -0.8, 0, 0])
    rough = 0.2 if scale < 1e-40 or dtype in (torch.bfloat16, torch.float16) else 1e-4
    torch.testing.assert_close(direction[0, 0].float(), wanted, atol=rough, rtol=0)
    assert not direction[1].any()


def test_only_extreme_gradients_are_rescaled() -> None:
    gradient = torch.tensor([[1e-30, -2e-30], [1e-45, 0.0], [1e25, -2e25], [1e-6, 1.0], [0.0, 0.0]])
    found = squarable(gradient)
    torch.testing.assert_close(found[0], torch.tensor([USUAL / 2, -USUAL]))
    assert float(found[1, 0]) == pytest.approx(USUAL)
    torch.testing.assert_close(found[2], found[0])
    assert torch.equal(found[3:], gradient[3:])


def test_units_of_no_rows_and_of_whole_batches() -> None:
    assert to_unit(torch.empty(0, 2, 2)).shape == (0, 2, 2)
    assert torch.equal(to_unit(torch.tensor([[2.0, -4.0]])), torch.tensor([[0.5, -1.0]]))
