from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

import robustplug
from robustplug.builtin.l1 import shrunk, top_share
from robustplug.builtin.perturbations.sparse_apgd import stages
from robustplug.core.types import Batch
from robustplug.evaluation.audit.rows import reach

from .attacks import attacked, digits, right, trained_model

EPS = 2.0


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained_model()


@pytest.fixture(scope="module")
def batch(model: nn.Module) -> Batch:
    whole = digits(40)
    rows = right(model, whole.x, whole)
    return Batch(whole.x[rows], whole.y[rows], whole.index[rows])


def solved(x: Tensor, origin: Tensor, radius: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the nearest point of ball and box, by a solver for convex programs."""
    target, start = x.double().numpy() - origin.double().numpy(), origin.double().numpy()
    size = len(target)
    parts = np.concatenate([target.clip(0), (-target).clip(0)]) * 0.1

    def value(parts: np.ndarray) -> tuple[float, np.ndarray]:
        rest = parts[:size] - parts[size:] - target
        return 0.5 * float(rest @ rest), np.concatenate([rest, -rest])

    bounds = [(0, max(room, 0)) for room in np.concatenate([high - start, start - low])]
    inside = {
        "type": "ineq",
        "fun": lambda parts: radius - parts.sum(),
        "jac": lambda _: -np.ones(2 * size),
    }
    found = minimize(value, parts, jac=True, bounds=bounds, constraints=[inside], method="SLSQP", tol=1e-14)
    return start + found.x[:size] - found.x[size:]  # type: ignore[no-any-return]


def test_the_projection_is_that_of_a_convex_solver() -> None:
    rng = torch.Generator().manual_seed(0)
    for number in range(25):
        low = -torch.rand(5, generator=rng)
        high = low + 0.2 + 2 * torch.rand(5, generator=rng)
        origin = low + (high - low) * torch.rand(5, generator=rng)
        x = origin + (0.3 + number / 8) * torch.randn(5, generator=rng)
        radius = float(0.05 + 2 * torch.rand(1, generator=rng))
        vicinity = robustplug.build("vicinity", "l1", eps=radius)
        vicinity.within(low.tolist(), high.tolist())
        found = vicinity.project(x[None], origin[None], torch.tensor([radius]))
        assert bool(vicinity.contains(found, origin[None], torch.tensor([radius])))
        expected = solved(x, origin, radius, low.double().numpy(), high.double().numpy())
        assert np.abs(found[0].double().numpy() - expected).max() < 2e-5


def test_the_threshold_is_exact_for_many_values() -> None:
    rng = torch.Generator().manual_seed(0)
    size, room = (torch.rand(4, 3000, generator=rng).double() for _ in range(2))
    radius = torch.tensor([0.5, 30.0, 400.0, 1e5]).double()
    found = shrunk(size, room, radius)
    assert torch.allclose(found[:3].sum(1), radius[:3], rtol=1e-9)
    assert torch.equal(found[3], size[3].minimum(room[3]))
    # Values that neither end bounds have lost the same.
    for row in range(3):
        moving = (found[row] > 0) & (found[row] < room[row])
        lost = (size[row] - found[row])[moving]
        assert float(lost.max() - lost.min()) < 1e-9
        assert bool((size[row][found[row] == 0] <= lost.max() + 1e-9).all())


def test_the_steepest_step_is_that_of_a_linear_program() -> None:
    rng = torch.Generator().manual_seed(0)
    vicinity = robustplug.build("vicinity", "l1", eps=1.0)
    for _ in range(5):
        gradient = torch.randn(6, generator=rng)
        costs = torch.cat([-gradient, gradient]).numpy()
        best = -linprog(costs, A_ub=np.ones((1, 12)), b_ub=[1.0]).fun
        step = vicinity.steepest(gradient[None])[0]
        assert float(step @ gradient) == pytest.approx(best, rel=1e-6)
        assert float(step.abs().sum()) == pytest.approx(1)


def test_sparse_steps_change_a_share_of_the_values() -> None:
    gradient = torch.tensor([[1.0, -4.0, 2.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    found = top_share(gradient, torch.tensor([0.5, 0.5]))
    assert found.tolist() == [[0, -0.5, 0.5, 0], [0, 0, 0, 0]]
    assert top_share(gradient, torch.zeros(2))[0].tolist() == [0, -1, 0, 0]


def test_the_stages_make_as_many_passes_as_other_attacks() -> None:
    for steps in (1, 5, 7, 8, 20, 100):
        assert sum(count + 1 for _, count in stages(steps)) == steps + 1
    assert [factor for factor, _ in stages(100)] == [1.5, 1]


def test_random_points_fill_the_ball() -> None:
    vicinity, rng = robustplug.build("vicinity", "l1", eps=0.3), torch.Generator().manual_seed(0)
    origin = torch.full((4000, 3), 0.5)
    away = (vicinity.random_point(origin, torch.full((4000,), 0.3), rng) - origin).abs().sum(1) / 0.3
    # The share of the volume within a radius r is r³.
    assert float((away < 0.5 ** (1 / 3)).float().mean()) == pytest.approx(0.5, abs=0.03)


def test_every_input_is_within_reach() -> None:
    info = robustplug.build("task", "digits").info
    assert reach(info, 1.0) == pytest.approx(64)
    assert reach(info, 2.0) == pytest.approx(8)


@pytest.mark.slow
def test_apgd_is_as_strong_as_the_reference_and_stronger_than_pgd(model: nn.Module, batch: Batch) -> None:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    vicinity = robustplug.build("vicinity", "l1", eps=EPS)
    with torch.random.fork_rng(devices=[]):
        attack = base.APGDAttack(
            model, n_iter=100, norm="L1", eps=EPS, device=torch.device("cpu"), use_largereps=True
        )
        theirs = int(right(model, attack.perturb(batch.x, batch.y), batch).sum())
    found = attacked("apgd-ce", model, batch, vicinity, steps=100)
    assert bool(vicinity.contains(found, batch.x, torch.full((len(batch),), EPS)).all())
    ours = int(right(model, found, batch).sum())
    pgd = int(right(model, attacked("pgd", model, batch, vicinity, steps=100), batch).sum())
    assert ours <= theirs + 2
    assert ours < pgd
    assert 0 < ours < 0.8 * len(batch)


def test_square_is_about_as_strong_as_the_reference(model: nn.Module, batch: Batch) -> None:
    library = pytest.importorskip("pyautoattack.square")
    vicinity = robustplug.build("vicinity", "l1", eps=EPS)
    with torch.random.fork_rng(devices=[]):
        attack = library.SquareAttack(
            model, seed=0, device=torch.device("cpu"), norm="L1", eps=EPS, n_queries=150
        )
        theirs = int(right(model, attack.perturb(batch.x, batch.y), batch).sum())
    found = attacked("square", model, batch, vicinity, queries=150)
    assert bool(vicinity.contains(found, batch.x, torch.full((len(batch),), EPS)).all())
    ours = int(right(model, found, batch).sum())
    assert ours <= theirs + 4
    assert ours < len(batch)


@pytest.mark.slow
def test_an_attack_of_autoattack_keeps_to_the_ball(model: nn.Module, batch: Batch) -> None:
    pytest.importorskip("pyautoattack")
    vicinity, part = (
        robustplug.build("vicinity", "l1", eps=EPS),
        Batch(batch.x[:8], batch.y[:8], batch.index[:8]),
    )
    for name in ("fab-t", "apgd-ce"):
        found = attacked("autoattack", model, part, vicinity, version="custom", attacks=(name,))
        assert bool(vicinity.contains(found, part.x, torch.full((8,), EPS)).all())
        assert int(right(model, found, part).sum()) < 8
