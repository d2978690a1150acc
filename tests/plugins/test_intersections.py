"""Intersections of vicinities, against solvers for convex programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

import robustplug
from robustplug.core.method import Objective
from robustplug.core.random import stream
from robustplug.core.step import Step
from robustplug.core.types import Batch, View
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.subjects.assemble import build_vicinity
from robustplug.testing.toys import ToyTask

from .test_threats import boxes, built

SIZE = 6
SCALES = [0.5, 1.5, 1.0, 2.0, 0.8, 0.0]
CUBE, BALL, CROSS = {"use": "linf", "eps": 0.3}, {"use": "l2", "eps": 0.5}, {"use": "l1", "eps": 0.9}
ELLIPSOID = {"use": "scaled", "scales": SCALES, "norm": "l2", "eps": 0.6}
WEIGHTED = {"use": "scaled", "scales": SCALES, "norm": "l1", "eps": 0.7}
SOME = {"use": "mask", "columns": [0, 2, 3], "inner": {"use": "l2", "eps": 0.4}}
PRICED = {
    "use": "table",
    "eps": 0.8,
    "others": "any",
    "feature": [{"columns": [1], "change": "up", "most": 0.2, "cost": 2.0}],
}
NESTED = {"use": "intersection", "parts": [CROSS, BALL]}
PARTS: dict[str, list[dict[str, Any]]] = {
    "cube and ball": [CUBE, BALL],
    "cube and cross": [CUBE, CROSS],
    "ball and cross": [BALL, CROSS],
    "ellipsoid and ball": [ELLIPSOID, BALL],
    "four": [CUBE, BALL, CROSS, ELLIPSOID],
    "masked and cube": [SOME, CUBE],
    "prices, cube and weights": [PRICED, CUBE, WEIGHTED],
    "nested": [CUBE, NESTED, ELLIPSOID],
}


def bounds(part: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, list[tuple[int, np.ndarray, float]]]:
    """Return the ends of changes, and (order, weights, bound) of their norms, by reading a table."""
    low, high, one = np.full(SIZE, -np.inf), np.full(SIZE, np.inf), np.ones(SIZE)
    if part["use"] == "linf":
        return -part["eps"] * one, part["eps"] * one, []
    if part["use"] in ("l2", "l1"):
        return low, high, [(int(part["use"][1]), one, part["eps"])]
    if part["use"] == "scaled":
        scales = np.array(part["scales"])
        low[scales == 0] = high[scales == 0] = 0.0
        weights = np.where(scales > 0, 1 / np.maximum(scales, 1e-9), 1.0)
        return low, high, [(2 if part["norm"] == "l2" else 1, weights, part["eps"])]
    if part["use"] == "mask":
        low, high, norms = bounds(part["inner"])
        still = [number for number in range(SIZE) if number not in part["columns"]]
        low[still] = high[still] = 0.0
        return low, high, norms
    if part["use"] == "table":
        cost = one.copy()
        low[1], high[1], cost[1] = 0.0, 0.2, 2.0
        return low, high, [(1, cost, part["eps"])]
    ends = [bounds(inner) for inner in part["parts"]]
    norms = [norm for end in ends for norm in end[2]]
    return np.max([end[0] for end in ends], 0), np.min([end[1] for end in ends], 0), norms


def solved(
    target: np.ndarray, low: np.ndarray, high: np.ndarray, norms: list[tuple[int, np.ndarray, float]]
) -> np.ndarray:
    """Return the nearest change to a target by a convex solver, over its positive and negative parts."""

    def value(parts: np.ndarray) -> tuple[float, np.ndarray]:
        rest = parts[:SIZE] - parts[SIZE:] - target
        return 0.5 * float(rest @ rest), np.concatenate([rest, -rest])

    def bound(order: int, weights: np.ndarray, radius: float) -> dict[str, Any]:
        both = np.concatenate([weights, weights])
        if order == 1:
            return {"type": "ineq", "fun": lambda p: radius - both @ p, "jac": lambda _: -both}
        change = np.concatenate([np.eye(SIZE), -np.eye(SIZE)], 1)
        square = change.T @ np.diag(weights**2) @ change
        return {
            "type": "ineq",
            "fun": lambda p: radius**2 - p @ square @ p,
            "jac": lambda p: -2 * square @ p,
        }

    found = minimize(
        value,
        np.full(2 * SIZE, 1e-3),
        jac=True,
        bounds=[(0, max(side, 0)) for side in (*high, *-low)],
        constraints=[bound(*norm) for norm in norms],
        method="SLSQP",
        tol=1e-15,
        options={"maxiter": 500},
    )
    return found.x[:SIZE] - found.x[SIZE:]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", PARTS)
def test_the_nearest_point_is_that_of_a_convex_solver(name: str) -> None:
    ends = [bounds(part) for part in PARTS[name]]
    for low, high, origin, x in boxes(4, SIZE):
        vicinity = built("intersection", low, high, parts=PARTS[name])
        radius = torch.tensor([vicinity.eps])
        found = vicinity.project(x[None], origin[None], radius)
        assert bool(vicinity.contains(found, origin[None], radius))
        assert float((vicinity.project(found, origin[None], radius) - found).abs().max()) <= 1e-6
        u, down, up = ((each - origin).double().numpy() for each in (x, low, high))
        least = np.maximum.reduce([down, *[end[0] for end in ends]])
        most = np.minimum.reduce([up, *[end[1] for end in ends]])
        expected = solved(u, least, most, [norm for end in ends for norm in end[2]])
        assert np.abs((found[0] - origin).double().numpy() - expected).max() < 1e-5


def test_the_steepest_step_is_that_of_a_linear_program() -> None:
    rng = stream(7, "steepest of both")
    vicinity = built("intersection", parts=[CUBE, CROSS, WEIGHTED])
    one = np.ones((1, SIZE))
    weights = np.array([[1 / scale if scale else 0.0 for scale in SCALES]])
    for _ in range(2):
        gradient = torch.randn(1, SIZE, generator=rng)
        step = vicinity.steepest(gradient)
        best = -linprog(
            -gradient[0].abs().double().numpy(),
            A_ub=np.concatenate([one, weights]),
            b_ub=[0.9 / 0.3, 0.7 / 0.3],
            bounds=[(0, 1)] * (SIZE - 1) + [(0, 0)],
        ).fun
        assert float((step * gradient).sum()) == pytest.approx(best, rel=1e-5)


def test_radii_of_samples_of_their_own_keep_the_ratio() -> None:
    vicinity, rng = built("intersection", parts=[CUBE, BALL]), stream(7, "radii")
    origin = 0.3 + 0.4 * torch.rand(5, SIZE, generator=rng)
    radius = torch.tensor([0.0, 0.05, 0.1, 0.3, 0.15])
    found = vicinity.project(origin + torch.randn(5, SIZE, generator=rng), origin, radius)
    assert torch.equal(found[0], origin[0])
    away = found - origin
    assert bool((away.abs().amax(1) <= radius + 1e-6).all())
    assert bool((torch.linalg.vector_norm(away, dim=1) <= radius / 0.3 * 0.5 + 1e-6).all())
    assert torch.linalg.vector_norm(away, dim=1)[1:].min() > 0


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("counted", ["l0", "patch"])
def test_few_pixels_change_a_little(counted: str, nested: bool) -> None:
    rng = stream(7, "few", counted)
    parts: list[Any] = [CUBE, {"use": counted, "eps": 2}]
    if nested:
        parts = [{"use": "intersection", "parts": parts}, {"use": "l2", "eps": 9.0}]
    vicinity = robustplug.build("vicinity", "intersection", parts=parts)
    origin, radius = torch.rand(9, 3, 5, 5, generator=rng), torch.full((9,), 0.3)
    far = origin + torch.randn(9, 3, 5, 5, generator=rng)
    for x in (vicinity.project(far, origin, radius), vicinity.random_point(origin, radius, rng)):
        changed = (x != origin).any(1).flatten(1).sum(1)
        assert bool(((changed <= (2 if counted == "l0" else 4)) & (changed > 0)).all())
        assert float((x - origin).abs().max()) <= 0.3 + 1e-6
        assert bool(vicinity.contains(x, origin, radius).all())
    step = vicinity.steepest(torch.randn(9, 3, 5, 5, generator=rng))
    assert bool(((step != 0).any(1).flatten(1).sum(1) > 0).all())
    assert bool(((step != 0).any(1).flatten(1).sum(1) <= 4).all())


class Linear(nn.Module):
    """Says 1 in proportion to a weighted sum."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weight).sum(1)
        return torch.stack([-score, score], 1)


WIDE: dict[str, tuple[dict[str, Any], float, float]] = {
    "ball": ({"use": "l1", "eps": 4.0}, 1.0, 4.0),
    "ball and ball": (
        {"use": "intersection", "parts": [{"use": "l1", "eps": 4.0}, BALL | {"eps": 50}]},
        1,
        4.0,
    ),
    "cube and pixels": ({"use": "intersection", "parts": [CUBE, {"use": "l0", "eps": 5}]}, 0.3, 1.5),
    "union": ({"use": "union", "parts": [{"use": "l1", "eps": 4.0}, {"use": "linf", "eps": 0.01}]}, 1.0, 4.0),
    "masked": (
        {
            "use": "mask",
            "columns": list(range(30)),
            "inner": {"use": "intersection", "parts": [{"use": "l1", "eps": 4.0}, BALL | {"eps": 50}]},
        },
        1.0,
        4.0,
    ),
}


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("ball", "transferable"),
        ("ball and ball", "pgd"),
        ("ball and ball", "apgd"),
        ("cube and pixels", "mi-fgsm"),
        ("masked", "pgd"),
        ("union", "apgd"),
    ],
)
def test_attacks_do_not_push_one_value_against_its_end(name: str, attack: str) -> None:
    part, most, budget = WIDE[name]
    rng = stream(7, "wide")
    weight, x = torch.randn(30, generator=rng), 0.3 + 0.4 * torch.rand(8, 30, generator=rng)
    options = dict(part)
    vicinity = robustplug.build("vicinity", options.pop("use"), **options)
    batch = Batch(x, torch.zeros(8, dtype=torch.int64), torch.arange(8))
    loss = robustplug.build("loss", "margin")
    plain = Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)
    step = Step(Linear(weight), plain, ToyTask(classes=2), batch, stream(0, "attack"))
    more: Any = {"pgd": {"keep": "best"}, "transferable": {"diversity": 0, "kernel": 1}}.get(attack, {})
    found = robustplug.build("perturbation", attack, steps=25, **more)(
        step, View.of(batch, "adv"), vicinity
    ).x
    assert bool(vicinity.contains(found, x, torch.full((8,), float(vicinity.eps))).all())
    # The best of a linear model spends the budget on the largest weights first.
    order = weight.abs().argsort(descending=True)
    room = torch.where(weight > 0, 1 - x, x)[:, order].clamp_max(most)
    spent = room.minimum((budget - room.cumsum(1) + room).clamp_min(0))
    best = (spent * weight.abs()[order]).sum(1)
    gained = ((found - x) * weight).sum(1)
    assert float((gained / best).min()) > 0.8


@pytest.mark.parametrize("norm", ["l1", "scaled"])
def test_a_point_that_rounds_onto_the_end_of_the_range_is_put_there(norm: str) -> None:
    options = {"scales": [1.0, 1.0], "norm": "l1"} if norm == "scaled" else {}
    vicinity = robustplug.build("vicinity", norm, eps=4.0, **options)
    origin, radius = torch.tensor([[0.7, 0.4]]), torch.tensor([4.0])
    found = vicinity.project(torch.tensor([[-7e-9, 0.5]]), origin, radius)
    assert bool(vicinity.contains(found, origin, radius))
    assert torch.equal(found, torch.tensor([[0.0, 0.5]]))


def test_half_precision_keeps_to_the_parts() -> None:
    vicinity, rng = built("intersection", parts=[CUBE, BALL]), stream(7, "half")
    origin: Tensor = torch.rand(20, SIZE, generator=rng).bfloat16()
    far = origin + torch.randn(20, SIZE, generator=rng).bfloat16()
    radius = torch.linspace(0, 0.3, 20)
    found = vicinity.project(far, origin, radius)
    assert found.dtype == torch.bfloat16
    assert bool(vicinity.contains(found, origin, radius).all())


STEPS = {"use": "table", "eps": 1.0, "feature": [{"columns": [0], "step": 0.5}]}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([CUBE], "at least two"),
        ([CUBE, {"use": "union", "parts": [BALL, CROSS]}], "not legal in part"),
        ([CUBE, {"use": "gaussian"}], "of several vicinities none may"),
    ],
)
def test_what_cannot_be_intersected_is_refused_when_the_recipe_is_read(parts: list[Any], said: str) -> None:
    table = {"use": "intersection", "parts": parts}
    with pytest.raises(RecipeError, match=said):
        recipe_from_mapping(
            {"task": {"use": "digits"}, "method": {"use": "erm"}, "evaluate": {"vicinity": table}}
        )


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([CUBE, STEPS], "without steps"),
        (
            [
                {"use": "mask", "box": [0, 0, 8, 4], "inner": CUBE},
                {"use": "mask", "box": [0, 4, 8, 4], "inner": BALL},
            ],
            "nothing may change",
        ),
    ],
)
def test_what_leaves_nothing_is_refused_before_anything_runs(parts: list[Any], said: str) -> None:
    use = resolve(robustplug.api.Use("intersection", {"parts": parts}), "vicinity")
    with pytest.raises(RecipeError, match=said):
        build_vicinity(use, "evaluate.vicinity", robustplug.build("task", "digits").info)
