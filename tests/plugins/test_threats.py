"""Threat models beyond norm balls, against solvers for convex programs and against all possibilities."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

import robustplug
from robustplug.api import Refused, TaskInfo
from robustplug.core.random import stream
from robustplug.core.types import Batch, View
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.subjects.assemble import build_vicinity
from robustplug.testing.bench import Bench, Subject

RNG = 7


def built(name: str, low: Tensor | None = None, high: Tensor | None = None, **options: Any) -> Any:
    vicinity = robustplug.build("vicinity", name, **options)
    if low is not None and high is not None:
        vicinity.within(low.tolist(), high.tolist())
    return vicinity


def boxes(count: int, size: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Draw lowest and highest values, a point between them, and a point that may be anywhere."""
    rng, found = stream(RNG, "boxes"), []
    for number in range(count):
        low = -torch.rand(size, generator=rng)
        high = low + 0.2 + 2 * torch.rand(size, generator=rng)
        origin = low + (high - low) * torch.rand(size, generator=rng)
        x = origin + (0.2 + number / count * 3) * torch.randn(size, generator=rng)
        found.append((low, high, origin, x))
    return found


def solved(target: np.ndarray, low: np.ndarray, high: np.ndarray, radius: float, order: float) -> np.ndarray:
    """Return the nearest u to a target within a norm ball and a box around 0, by a convex solver."""
    size = len(target)

    def value(parts: np.ndarray) -> tuple[float, np.ndarray]:
        rest = parts[:size] - parts[size:] - target
        return 0.5 * float(rest @ rest), np.concatenate([rest, -rest])

    limit = radius if order == np.inf else np.inf
    bounds = [(0.0, min(max(side, 0.0), limit)) for side in (*high, *-low)]
    constraints: Any = ()
    if order == 1:
        constraints = {"type": "ineq", "fun": lambda p: radius - p.sum(), "jac": lambda _: -np.ones(2 * size)}
    elif order == 2:
        constraints = {
            "type": "ineq",
            "fun": lambda p: radius**2 - ((p[:size] - p[size:]) ** 2).sum(),
            "jac": lambda p: -2 * np.concatenate([p[:size] - p[size:], p[size:] - p[:size]]),
        }
    start = 0.1 * np.concatenate([target.clip(0), (-target).clip(0)]).clip(0, [b for _, b in bounds])
    options = {"maxiter": 500}
    found = minimize(
        value,
        start,
        jac=True,
        bounds=bounds,
        constraints=constraints,
        method="SLSQP",
        tol=1e-14,
        options=options,
    )
    return found.x[:size] - found.x[size:]  # type: ignore[no-any-return]


def one(vicinity: Any, x: Tensor, origin: Tensor, radius: float) -> Tensor:
    """Project one sample, check that the result is legal and stays when projected again, and return it."""
    size = torch.tensor([radius])
    found = vicinity.project(x[None], origin[None], size)
    assert bool(vicinity.contains(found, origin[None], size))
    assert float((vicinity.project(found, origin[None], size) - found).abs().max()) <= 2e-6
    return found[0]  # type: ignore[no-any-return]


ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


@pytest.mark.parametrize("norm", ORDERS)
def test_balls_with_a_radius_for_each_feature_are_those_of_a_convex_solver(norm: str) -> None:
    rng = stream(RNG, "scales", norm)
    for number, (low, high, origin, x) in enumerate(boxes(12, 5)):
        scales = 0.2 + 2 * torch.rand(5, generator=rng)
        scales[number % 5] = 0.0
        radius = float(0.05 + torch.rand(1, generator=rng))
        found = one(built("scaled", low, high, scales=scales.tolist(), norm=norm), x, origin, radius)
        free = scales > 0
        assert torch.equal(found[~free], origin[~free])
        u, down, up = (((each - origin) / scales)[free].double().numpy() for each in (x, low, high))
        expected = solved(u, down, up, radius, ORDERS[norm])
        assert np.abs(((found - origin) / scales)[free].double().numpy() - expected).max() < 5e-5


@pytest.mark.parametrize("norm", ORDERS)
def test_steepest_steps_are_those_of_linear_programs(norm: str) -> None:
    rng = stream(RNG, "steepest", norm)
    for _ in range(4):
        scales, gradient = torch.rand(5, generator=rng), torch.randn(5, generator=rng)
        vicinity = built("scaled", scales=scales.tolist(), norm=norm)
        step = vicinity.steepest(gradient[None])[0]
        slope = (gradient * scales).double().numpy()
        if norm == "l2":
            best = float(np.linalg.norm(slope))
        else:
            sums, ones = np.ones((1, 10)), np.ones(10)
            limits = {"A_ub": sums, "b_ub": [1.0]} if norm == "l1" else {"A_ub": np.diag(ones), "b_ub": ones}
            best = -linprog(np.concatenate([-slope, slope]), **limits).fun
        assert float(step @ gradient) == pytest.approx(best, rel=1e-5)
        size = torch.linalg.vector_norm(step / scales, ord=float(ORDERS[norm]))
        assert float(size) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("inner", ["linf", "l1", "scaled"])
def test_masks_are_the_convex_program_with_fixed_values(inner: str) -> None:
    for low, high, origin, x in boxes(8, 6):
        table: dict[str, Any] = {"use": inner, "eps": 0.4}
        table |= {"scales": [1.0], "norm": "l2"} if inner == "scaled" else {}
        vicinity = built("mask", low, high, columns=[0, 2, 5], inner=table)
        found = one(vicinity, x, origin, 0.4)
        free = [0, 2, 5]
        u, down, up = ((each - origin)[free].double().numpy() for each in (x, low, high))
        expected = solved(u, down, up, 0.4, {"linf": np.inf, "l1": 1, "scaled": 2}[inner])
        assert np.abs((found - origin)[free].double().numpy() - expected).max() < 5e-5
        assert torch.equal(found[[1, 3, 4]], origin[[1, 3, 4]])


def test_few_pixels_are_the_best_of_all_choices() -> None:
    rng = stream(RNG, "l0")
    vicinity = robustplug.build("vicinity", "l0")
    for count in (0, 1, 2, 5):
        origin = torch.rand(3, 2, 2, generator=rng)
        x = origin + torch.randn(3, 2, 2, generator=rng)
        found = one(vicinity, x, origin, count)
        best = min(
            float((_replaced(origin, x.clamp(0, 1), chosen) - x).square().sum())
            for chosen in itertools.combinations(range(4), min(count, 4))
        )
        assert float((found - x).square().sum()) == pytest.approx(best, rel=1e-5)
    low, high, origin, x = boxes(1, 6)[0]
    assert int((one(built("l0", low, high), x, origin, 2) != origin).sum()) == 2


def _replaced(origin: Tensor, x: Tensor, chosen: tuple[int, ...]) -> Tensor:
    result = origin.clone().flatten(1)
    result[:, list(chosen)] = x.flatten(1)[:, list(chosen)]
    return result.view_as(origin)


def test_a_patch_is_the_best_of_all_places() -> None:
    rng = stream(RNG, "patch")
    vicinity = robustplug.build("vicinity", "patch")
    for side in (1, 2, 3, 5, 9):
        origin = torch.rand(2, 5, 4, generator=rng)
        x = origin + torch.randn(2, 5, 4, generator=rng)
        found, values = one(vicinity, x, origin, side), []
        for top, left in itertools.product(range(max(5 - side, 0) + 1), range(max(4 - side, 0) + 1)):
            placed = origin.clone()
            square = (slice(None), slice(top, top + side), slice(left, left + side))
            placed[square] = x.clamp(0, 1)[square]
            values.append(float((placed - x).square().sum()))
        assert float((found - x).square().sum()) == pytest.approx(min(values), rel=1e-5)
    changed = torch.zeros(1, 1, 5, 5)
    changed[0, 0, 0, 0] = changed[0, 0, 2, 2] = 0.5
    sides = torch.tensor([2.0]), torch.tensor([3.0])
    assert [bool(vicinity.contains(changed, torch.zeros(1, 1, 5, 5), side)) for side in sides] == [
        False,
        True,
    ]


CUBE = {"use": "linf", "eps": 0.2}


def test_a_union_is_the_nearer_of_two_convex_programs() -> None:
    for low, high, origin, x in boxes(8, 5):
        vicinity = built("union", low, high, parts=[CUBE, {"use": "l1", "eps": 0.5}])
        found = one(vicinity, x, origin, 0.2)
        u, down, up = ((each - origin).double().numpy() for each in (x, low, high))
        choices = [solved(u, down, up, radius, order) for radius, order in ((0.2, np.inf), (0.5, 1))]
        best = min(float(((choice - u) ** 2).sum()) for choice in choices)
        assert float(((found - x) ** 2).sum()) == pytest.approx(best, rel=1e-4, abs=1e-6)
        slope = x - origin
        step = vicinity.steepest(slope[None])[0]
        assert float(step @ slope) == pytest.approx(
            float(max(slope.abs().sum(), 2.5 * slope.abs().max())), rel=1e-4
        )


# --- tables

FREE = {
    "feature": [{"columns": [0], "change": "up", "cost": 2.0}, {"columns": [1, 2], "most": 0.3, "cost": 0.5}]
}


def test_a_budget_of_costs_is_that_of_a_convex_solver() -> None:
    costs = torch.tensor([2.0, 0.5, 0.5, 1.0])
    for low, high, origin, x in boxes(12, 4):
        found = one(built("table", low, high, eps=0.6, others="any", **FREE), x, origin, 0.6)
        down, up = low - origin, high - origin
        down[0], down[1:3], up[1:3] = 0.0, down[1:3].clamp_min(-0.3), up[1:3].clamp_max(0.3)
        u, least, most = ((each * costs).double().numpy() for each in (x - origin, down, up))
        expected = solved(u, least, most, 0.6, 1)
        assert np.abs(((found - origin) * costs).double().numpy() - expected).max() < 5e-5


RULES: dict[str, Any] = {
    "feature": [
        {"columns": [0], "name": "age", "change": "up", "step": 1.0, "most": 3.0, "cost": 1.0},
        {"columns": [1, 2], "name": "incomes", "cost": 0.5},
    ],
    "one_hot": [{"columns": [4, 5, 6], "name": "job", "cost": 1.5}],
    "sums": [{"column": 3, "of": [1, 2]}],
}
LOW = torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 0])
HIGH = torch.tensor([100.0, 10, 10, 15, 1, 1, 1, 5])


def rows(count: int) -> Tensor:
    rng = stream(RNG, "rows")
    x = torch.rand(count, 8, generator=rng) * HIGH
    x[:, 0] = x[:, 0].round()
    x[:, 1:3] = x[:, 1:3] * 0.7
    x[:, 3] = x[:, 1] + x[:, 2]
    x[:, 4:7] = nn.functional.one_hot(torch.arange(count) % 3, 3).float()
    return x


def legal(x: Tensor, origin: Tensor, budget: float) -> bool:
    """Say independently whether a row follows RULES."""
    a, b = x.double().tolist(), origin.double().tolist()
    cost = abs(a[0] - b[0]) + 0.5 * abs(a[1] - b[1]) + 0.5 * abs(a[2] - b[2]) + 1.5 * (a[4:7] != b[4:7])
    return (
        all(low - 1e-4 <= value <= high + 1e-4 for value, low, high in zip(a, LOW, HIGH, strict=True))
        and abs(a[0] - b[0] - round(a[0] - b[0])) < 1e-3
        and -1e-3 <= a[0] - b[0] <= 3.001
        and abs(a[3] - a[1] - a[2]) < 2e-4
        and sorted(a[4:7]) == [0, 0, 1]
        and a[7] == b[7]
        and cost <= budget * 1.0001 + 1e-3
    )


def test_rows_keep_their_rules_and_contains_agrees_with_an_independent_check() -> None:
    vicinity, origin, rng = built("table", LOW, HIGH, eps=3.0, **RULES), rows(120), stream(RNG, "moves")
    for budget in (0.0, 0.7, 2.0, 4.0):
        radius = torch.full((120,), budget)
        far = origin + torch.randn(120, 8, generator=rng) * torch.tensor([4, 6, 6, 6, 1, 1, 1, 3.0])
        for found in (
            vicinity.project(far, origin, radius),
            vicinity.random_point(origin, radius, rng),
        ):
            assert all(legal(x, o, budget) for x, o in zip(found, origin, strict=True))
            assert bool(vicinity.contains(found, origin, radius).all())
        if budget:
            assert float((found != origin).float().mean()) > 0.05
        # What the independent check refuses, contains refuses, and the other way round.
        near = vicinity.random_point(origin, radius, rng)
        near = near + 0.2 * torch.randn(120, 8, generator=rng) * (torch.rand(120, 8, generator=rng) < 0.1)
        expected = [legal(x, o, budget) for x, o in zip(near, origin, strict=True)]
        assert vicinity.contains(near, origin, radius).tolist() == expected
    assert torch.equal(vicinity.project(far, origin, torch.zeros(120)), origin)


def test_whole_steps_are_the_nearest_while_the_budget_lasts() -> None:
    table = {"feature": [{"columns": [0, 1], "step": 1.0}, {"columns": [2], "step": 0.5}]}
    low, high = torch.zeros(3), torch.full((3,), 9.0)
    vicinity, rng = built("table", low, high, eps=9.0, **table), stream(RNG, "whole")
    for _ in range(10):
        origin = (torch.rand(3, generator=rng) * 9).round()
        x = origin + 2 * torch.randn(3, generator=rng)
        found = one(vicinity, x, origin, 100.0)
        grid = itertools.product(range(10), range(10), [each / 2 for each in range(19)])
        best = min(float((torch.tensor(row) - x).square().sum()) for row in grid)
        assert float((found - x).square().sum()) == pytest.approx(best, abs=1e-4)


def test_a_category_changes_only_if_it_can_be_paid() -> None:
    vicinity, origin = built("table", LOW, HIGH, eps=3.0, **RULES), rows(1)
    x = origin.clone()
    x[:, 5] = 3.0
    for budget, job in ((1.4, [1, 0, 0]), (1.6, [0, 1, 0])):
        found = vicinity.project(x, origin, torch.tensor([budget]))
        assert found[0, 4:7].tolist() == job


# --- attacks

SETS: dict[str, dict[str, Any]] = {
    "scaled": {"scales": [1.0, 0.5, 0.0, 2.0, 1.0, 1.0, 1.0, 1.0], "eps": 0.3, "norm": "l1"},
    "mask": {"columns": [0, 1, 5], "inner": {"use": "l1", "eps": 1.0}},
    "l0": {"eps": 2},
    "union": {"parts": [{"use": "l0", "eps": 1}, {"use": "linf", "eps": 0.3}]},
    "table": {**RULES, "eps": 3.0},
}
ATTACKS: dict[str, dict[str, Any]] = {
    "noise": {},
    "fgsm": {},
    "pgd": {"steps": 5},
    "mi-fgsm": {"steps": 4},
    "apgd-ce": {"steps": 12},
    "apgd-t": {"steps": 12, "targets": 2},
    "greedy": {"rounds": 3},
    "sparse-rs": {"queries": 30},
}


class _Rows:
    """A classification of rows of a table."""

    default_model = "small-cnn"

    def __init__(self) -> None:
        sizes: Any = {"train": 8, "validation": 8, "test": 8}
        self.info = TaskInfo(sizes=sizes, shape=(8,), classes=3, bounds=(LOW.tolist(), HIGH.tolist()))

    def score(self, view: View, output: Tensor) -> Tensor:
        return output.argmax(1) == view.y  # type: ignore[no-any-return]

    def batches(self, split: str, feed: Any) -> Any:
        raise NotImplementedError


def table_step(origin: Tensor) -> tuple[Any, View]:
    from robustplug.core.step import Step
    from robustplug.evaluation.setting import plain_objective

    generator = stream(RNG, "model")
    net = nn.Linear(8, 3)
    net.weight.data = torch.randn(3, 8, generator=generator) / HIGH
    net.bias.data.zero_()
    labels = net(origin).argmax(1)
    batch = Batch(origin, labels, torch.arange(len(origin)))
    task: Any = _Rows()
    objective = plain_objective(robustplug.build("loss", "ce"))
    step = Step(net, objective, task, batch, stream(0, "attack"), evaluating=True)
    return step, View.of(batch, "adv")


@pytest.mark.parametrize("name", SETS)
def test_every_attack_stays_in_every_set(name: str) -> None:
    vicinity, origin = built(name, LOW, HIGH, **SETS[name]), rows(12)
    for attack, options in ATTACKS.items():
        step, view = table_step(origin)
        perturbation = robustplug.build("perturbation", attack, **options)
        if attack == "sparse-rs" and name != "l0":
            with pytest.raises(Refused, match="l0 or patch"):
                perturbation(step, view, vicinity)
            continue
        found = perturbation(step, view, vicinity).x
        assert bool(vicinity.contains(found, origin, step.radii(view, vicinity)).all()), attack
        if name == "table":
            assert all(legal(x, o, 3.0) for x, o in zip(found, origin, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_rows_of_other_precision_stay_in_their_set_and_keep_their_dtype(dtype: torch.dtype) -> None:
    # Sums hold for changes: those of the rows themselves are rounded.
    vicinity, origin = built("table", LOW, HIGH, eps=3.0, **RULES), rows(60).to(dtype)
    radius, rng = torch.full((60,), 3.0), stream(RNG, "precision")
    for scale in (0.3, 3.0, 30.0):
        far = origin + scale * torch.randn(60, 8, generator=rng).to(dtype)
        for found in (vicinity.project(far, origin, radius), vicinity.random_point(origin, radius, rng)):
            assert found.dtype == dtype
            assert bool(vicinity.contains(found, origin, radius).all())
            assert bool((found[:, 7] == origin[:, 7]).all())
            assert bool(((found[:, 4:7] == 0) | (found[:, 4:7] == 1)).all())
            assert bool((found != origin).any())
            assert torch.equal(vicinity.project(found, origin, radius), found)
        assert not bool(vicinity.contains(origin + 8, origin, radius).any())
    assert torch.equal(vicinity.project(far, origin, torch.zeros(60)), origin)
    steep = vicinity.steepest(torch.randn(60, 8, generator=rng).to(dtype))
    assert bool(steep.isfinite().all())


@pytest.mark.parametrize("evaluating", [False, True])
@pytest.mark.parametrize("name", ["table", "l1"])
def test_pgd_goes_on_with_the_next_value_where_one_has_no_room_left(name: str, evaluating: bool) -> None:
    rng = stream(RNG, "rooms")
    options: dict[str, Any] = {"eps": 2.5}
    if name == "table":
        options |= {"others": "any", "feature": [{"columns": [2], "most": 0.25}]}
    low, high = torch.zeros(8), torch.ones(8)
    vicinity, origin = built(name, low, high, **options), torch.rand(6, 8, generator=rng)
    step, view = table_step(origin * HIGH)
    step.evaluating, step.model = (
        evaluating,
        linear(torch.linspace(-1, 1, 8)[torch.randperm(8, generator=rng)]),
    )
    # A constant label that the attack cannot beat keeps every sample in the batch.
    view = view.replace(x=origin, origin=origin, y=torch.zeros(6, dtype=torch.int64))
    step.task.score = lambda view, output: torch.ones(len(output), dtype=torch.bool)
    found = robustplug.build("perturbation", "pgd", steps=40, start="zero", keep="last")
    weight: Any = step.model[1].weight.detach()[1]
    x = found(step, view, vicinity).x
    assert bool(vicinity.contains(x, origin, torch.full((6,), 2.5)).all())
    if evaluating:
        return  # what nothing fools stays where it was
    reached = ((x - origin) * weight).sum(1)
    for row in range(6):
        room = torch.where(weight > 0, 1 - origin[row], origin[row])
        if name == "table":
            room[2] = room[2].clamp_max(0.25)
        best = -linprog(
            -weight.abs().numpy(), A_ub=np.ones((1, 8)), b_ub=[2.5], bounds=[(0, float(r)) for r in room]
        ).fun
        assert float(reached[row]) > 0.97 * best


def linear(weight: Tensor) -> nn.Module:
    layer = nn.Linear(weight.numel(), 2, bias=False)
    layer.weight.data = torch.stack([torch.zeros_like(weight), weight])
    return nn.Sequential(nn.Flatten(), layer)


# Greedy tries one channel of a pixel at a time; a patch seldom moves once its colours fit its place.
@pytest.mark.parametrize(("name", "attack"), [("l0", "sparse-rs"), ("l0", "greedy"), ("patch", "sparse-rs")])
def test_the_searches_reach_the_optimum_of_a_linear_model(name: str, attack: str) -> None:
    rng = stream(RNG, "linear", name)
    subject = Subject("vicinity", name, {"eps": 2})
    bench = Bench(subject, lambda info: linear(torch.randn(108, generator=rng)))
    batch = bench.batch()
    step, vicinity = bench.step(batch), bench.method.vicinity
    view = View.of(Batch(batch.x, batch.y * 0, batch.index), "adv")
    options = {"queries": 600} if attack == "sparse-rs" else {"rounds": 8, "candidates": 108}
    found = robustplug.build("perturbation", attack, **options)(step, view, vicinity).x
    assert bool(vicinity.contains(found, batch.x, torch.full((len(batch),), 2.0)).all())
    weight: Any = next(bench.model.parameters())[1].detach().view(3, 6, 6)
    gains = torch.where(weight > 0, (1 - batch.x) * weight, batch.x * -weight).sum(1)
    if name == "l0":
        best = gains.flatten(1).topk(2).values.sum(1)
    else:
        best = nn.functional.avg_pool2d(gains[:, None], 2, 1).flatten(1).amax(1) * 4
    reached = ((found - batch.x) * weight).flatten(1).sum(1)
    assert bool((reached <= best * 1.0001).all())
    assert (
        float((reached / best).mean())
        > {"greedy": 0.8, "l0": 0.9, "patch": 0.65}[attack if attack == "greedy" else name]
    )


# --- bad input

BALL = {"use": "linf"}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"use": "scaled", "scales": [0.0, 0.0]}, "nothing may change"),
        ({"use": "mask", "inner": BALL, "box": [0, 0, 2, 2], "frame": 1}, "not 2 of them"),
        ({"use": "mask", "inner": BALL}, "not 0 of them"),
        ({"use": "mask", "columns": [0], "inner": {"use": "table", "eps": 1, **RULES}}, "not legal in part"),
        ({"use": "table", "eps": 1}, "nothing may change"),
        ({"use": "table", "eps": 1, "feature": [{"columns": [0]}, {"columns": [1, 0]}]}, "two rules"),
        ({"use": "table", "eps": 1, "feature": [{"columns": [0], "step": 2, "most": 1}]}, "below the step"),
        (
            {"use": "table", "eps": 1, "feature": [{"columns": [0], "change": "none", "most": 1}]},
            "contradicts",
        ),
        ({"use": "table", "eps": 1, "one_hot": [{"columns": [3]}]}, "at least two"),
        (
            {"use": "table", "eps": 1, "others": "any", "sums": [{"column": 1, "of": [1, 2]}]},
            "other columns than",
        ),
        (
            {
                "use": "table",
                "eps": 1,
                "others": "any",
                "sums": [{"column": 1, "of": [2], "weights": [1, 2]}],
            },
            "weights",
        ),
        (
            {
                "use": "table",
                "eps": 1,
                "one_hot": [{"columns": [0, 1]}],
                "sums": [{"column": 3, "of": [1, 2]}],
            },
            "cannot be summed",
        ),
        ({"use": "l0", "eps": 0.5}, "whole number|integer"),
        ({"use": "union", "parts": [BALL]}, "at least two"),
    ],
)
def test_contradictions_are_refused_when_the_recipe_is_read(table: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe_from_mapping(
            {"task": {"use": "digits"}, "method": {"use": "erm"}, "evaluate": {"vicinity": table}}
        )


def test_sets_that_do_not_fit_the_inputs_are_refused_before_anything_runs(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.ones((4, 4), dtype=bool))
    np.save(tmp_path / "numbers.npy", np.ones((8, 8)))
    np.save(tmp_path / "objects.npy", np.array([True, None], dtype=object))
    (tmp_path / "empty.npy").touch()
    info = robustplug.build("task", "digits").info
    for name, options, said in (
        ("scaled", {"scales": [1.0, 2.0]}, "do not fit"),
        ("mask", {"inner": BALL, "box": [4, 4, 5, 2]}, "reaches beyond"),
        ("mask", {"inner": BALL, "file": str(tmp_path / "mask.npy")}, "the mask has the shape"),
        ("mask", {"inner": BALL, "file": str(tmp_path / "numbers.npy")}, "no booleans"),
        ("mask", {"inner": BALL, "file": str(tmp_path / "none.npy")}, "cannot be read"),
        ("mask", {"inner": BALL, "file": str(tmp_path / "objects.npy")}, "which are not unpickled"),
        ("mask", {"inner": BALL, "file": str(tmp_path / "empty.npy")}, "cannot be read"),
        ("mask", {"inner": BALL, "columns": [1]}, "beyond the last"),
        ("mask", {"inner": BALL, "frame": 4, "outside": True}, "nothing to change"),
        ("table", {"eps": 1.0, "feature": [{"columns": [64]}]}, "beyond the last"),
    ):
        use = robustplug.api.Use(name, options)
        from robustplug.recipe.convert import resolve

        with pytest.raises(RecipeError, match=said):
            build_vicinity(resolve(use, "vicinity"), "evaluate.vicinity", info)


def test_a_mask_from_a_file_is_stated_in_the_result(tmp_path: Path) -> None:
    chosen = np.zeros((8, 8), dtype=bool)
    chosen[2:5] = True
    np.save(tmp_path / "mask.npy", chosen)
    mask = robustplug.build("vicinity", "mask", inner=BALL, file=str(tmp_path / "mask.npy"))
    mask.inform(robustplug.build("task", "digits").info)
    assert "24 of 64 values" in mask.described()
    assert len(json.loads(json.dumps(mask.facts()))["mask"]) == 64


def test_sets_say_in_their_own_units_what_is_legal() -> None:
    said = {
        "table": built("table", eps=3.0, **RULES).described(),
        "patch": robustplug.build("vicinity", "patch", eps=3).described(),
        "mask": built("mask", inner=BALL, box=[0, 1, 2, 3]).described(),
        "scaled": built("scaled", scales=[0.1] * 29 + [0.0], eps=2).described(),
    }
    assert "age: only up by at most 3 in steps of 1, 1 for one unit" in said["table"]
    assert "one square of 3 × 3 pixels" in said["patch"]
    assert "rows 0 to 1, columns 1 to 3" in said["mask"]
    assert "1 of 30 stay" in said["scaled"]


def test_the_range_of_a_column_widens_no_other() -> None:
    wide = {"feature": [{"columns": [0], "most": 0.05}, {"columns": [1]}]}
    vicinity = built("table", torch.zeros(2), torch.tensor([1.0, 1e6]), eps=0.05, **wide)
    origin = torch.tensor([[0.5, 500.0]])
    assert not vicinity.contains(origin + torch.tensor([[0.5, 0.0]]), origin, torch.tensor([0.05])).any()
