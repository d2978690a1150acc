"""Draws from explicit generators, without a look at what is drawn from."""

from __future__ import annotations

import pytest
import torch

from robustplug.core.random import beta, dirichlet, normal_like, stream


def test_a_known_least_concentration_changes_no_draw() -> None:
    """It spares the draws for small concentrations, which are made last."""
    concentration = torch.linspace(0.1, 3, 12).view(3, 4)
    first = dirichlet(concentration, stream(0, "draw"))
    assert torch.equal(first, dirichlet(concentration, stream(0, "draw"), least=0.1))


def test_large_concentrations_are_not_affected_by_small_ones_beside_them() -> None:
    large, mixed = torch.full((2, 3), 2.0), torch.tensor([[2.0] * 3, [1e-3] * 3])
    assert torch.equal(dirichlet(large, stream(0))[0], dirichlet(mixed, stream(0))[0])


@pytest.mark.parametrize("concentration", [1e-3, 0.05, 0.5, 5.0])
def test_beta_has_the_mean_and_variance_of_its_distribution(concentration: float) -> None:
    """Var = ab / ((a + b)² (a + b + 1)) with b = 2a."""
    shape = torch.full((20000,), concentration)
    draws = beta(shape, 2 * shape, stream(0, concentration))
    assert bool(draws.isfinite().all())
    assert float(draws.mean()) == pytest.approx(1 / 3, abs=0.015)
    expected = 2 / 9 / (3 * concentration + 1)
    assert float(draws.var()) == pytest.approx(expected, rel=0.05)


def test_the_layout_of_memory_changes_no_normal_draw() -> None:
    x = torch.zeros(4, 3, 5, 6)
    plain, last = (
        normal_like(x.contiguous(memory_format=layout), stream(0, "layout"))
        for layout in (torch.contiguous_format, torch.channels_last)
    )
    assert torch.equal(plain, last)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert float(plain.std()) == pytest.approx(1, abs=0.1)
