from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import robustplug
from robustplug.builtin.perturbations.square import corners, share, twin_bumps
from robustplug.core.types import Batch, View
from robustplug.errors import Refused

from .attacks import EPS, attacked, digits, right, step_of, trained_model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained_model()


@pytest.fixture(scope="module")
def batch(model: nn.Module) -> Batch:
    whole = digits(80)
    rows = right(model, whole.x, whole)
    return Batch(whole.x[rows], whole.y[rows], whole.index[rows])


def ball(norm: str, eps: float | None = None) -> Any:
    return robustplug.build("vicinity", norm, eps=EPS[norm] if eps is None else eps)


def test_the_schedule_is_that_of_the_paper() -> None:
    assert [share(0.8, query) for query in (0, 10, 11, 51, 201, 8001)] == [0.8, 0.8, 0.4, 0.2, 0.1, 0.8 / 512]


def test_heaps_have_norm_one_and_two_signs() -> None:
    for side in (1, 3, 5, 8):
        heaps = twin_bumps(side, torch.device("cpu"))
        assert heaps.norm() == pytest.approx(1)
        assert side == 1 or (heaps.max() > 0 > heaps.min())


def test_windows_reach_the_last_row_and_column() -> None:
    drawn = corners(500, 3, torch.Generator().manual_seed(0))
    assert sorted(set(drawn.tolist())) == [0, 1, 2, 3]


@pytest.mark.table(1)
@pytest.mark.parametrize("norm", EPS)
def test_it_is_about_as_strong_as_the_reference(norm: str, model: nn.Module, batch: Batch) -> None:
    library = pytest.importorskip("pyautoattack.square")
    with torch.random.fork_rng(devices=[]):
        options = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": EPS[norm], "n_queries": 600}
        attack = library.SquareAttack(model, seed=0, device=torch.device("cpu"), **options)
        theirs = int(right(model, attack.perturb(batch.x, batch.y), batch).sum())
    ours = int(right(model, attacked("square", model, batch, ball(norm), queries=600), batch).sum())
    assert ours <= theirs + 4
    assert ours < 0.8 * len(batch)


@pytest.mark.table(1)
@pytest.mark.parametrize("norm", EPS)
def test_more_queries_do_not_break_less(norm: str, model: nn.Module, batch: Batch) -> None:
    kept = [
        int(right(model, attacked("square", model, batch, ball(norm), queries=queries), batch).sum())
        for queries in (1, 50, 500)
    ]
    assert kept[0] >= kept[1] >= kept[2]
    assert kept[0] > kept[2]


@pytest.mark.parametrize("norm", EPS)
def test_it_comes_near_the_optimum_of_a_linear_model(norm: str) -> None:
    rng = torch.Generator().manual_seed(1)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    weight = torch.zeros(2, 16)
    weight[0] = torch.randn(16, generator=rng)
    linear[1].weight.data = weight
    x = 0.4 + 0.2 * torch.rand(8, 1, 4, 4, generator=rng)
    y = linear(x).argmax(1)
    found = attacked(
        "square", linear, Batch(x, y, torch.arange(8)), ball(norm, 0.05), queries=600, evaluating=False
    )
    gain = ((linear(x) - linear(found))[:, 0]) * torch.where(y == 0, 1, -1)
    dual = weight[0].abs().sum() if norm == "linf" else weight[0].norm()
    share = gain / (0.05 * dual)
    assert bool((share < 1.001).all())
    assert bool((share > (0.95 if norm == "linf" else 0.7)).all())


def test_each_sample_has_its_own_radius(model: nn.Module, batch: Batch) -> None:
    radius = torch.linspace(0, 0.2, len(batch))
    for norm, reach in (("linf", torch.inf), ("l2", 2)):
        found = attacked("square", model, batch, ball(norm), radius, queries=20, evaluating=False)
        length = torch.linalg.vector_norm((found - batch.x).flatten(1), ord=reach, dim=1)
        assert torch.equal(found[0], batch.x[0])
        assert bool((length <= radius + 1e-5).all())


def test_queries_are_forwards_and_stop_at_success(model: nn.Module, batch: Batch) -> None:
    step = step_of(model, batch, evaluating=False)
    square = robustplug.build("perturbation", "square", queries=30)
    square(step, View.of(batch, "adv"), ball("linf"))
    assert (step.meter.forwards, step.meter.backwards) == (30 * len(batch), 0)
    step = step_of(model, batch)
    square(step, View.of(batch, "adv"), ball("linf", 0.5))
    assert step.meter.forwards < 15 * len(batch)


def test_images_of_any_shape_and_nothing_else() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    for shape in ((3, 7, 12), (1, 2, 2), (2, 1, 9)):
        x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
        batch = Batch(x, torch.zeros(4, dtype=torch.int64), torch.arange(4))
        fresh = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3))
        for norm in EPS:
            attacked("square", fresh, batch, ball(norm), queries=15)
    flat = Batch(torch.rand(4, 9), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    with pytest.raises(Refused, match="images"):
        attacked("square", model, flat, ball("linf"), queries=2)
