"""Bounds of networks: against vertices, exact optima, random points and attacks; refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.modules import Normalized
from robustplug.core.types import Progress
from robustplug.errors import Refused
from robustplug.testing import Bench, Subject, toy_plain
from robustplug_bounds.ball import Ball
from robustplug_bounds.graph import Graph
from robustplug_bounds.measurement import checked_graph
from robustplug_bounds.optimised import free_slopes, optimised_margins
from robustplug_bounds.propagation import intervals, linear_bounds, lowest, margin_rows, margins
from robustplug_bounds.reading import read_graph
from robustplug_bounds.relaxation import curved, pooled, rectified
from robustplug_bounds.training import keep_widths, ramp, worst_case_loss

MODES = ("ibp", "crown-ibp", "crown", "alpha-crown")


def bounded(graph: Graph, ball: Ball, y: Tensor, mode: str, exact: bool = False) -> Tensor:
    """Return the bounds of the margins, in each of the modes."""
    if mode == "alpha-crown":
        return optimised_margins(graph, ball, y, 10, exact=exact)
    return margins(graph, ball, y, mode, exact)


class Residual(nn.Module):
    """A sum of a convolution and its input, and functions instead of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = nn.functional.leaky_relu(x + self.second(x) * 0.5 - 0.1, 0.2)
        outputs: Tensor = self.last(x.mean((2, 3)))
        return outputs


class Branches(nn.Module):
    """Two branches, of which the layers of one do not depend on the activations of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.last = nn.Linear(16, 5), nn.Linear(16, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        one = nn.functional.leaky_relu(torch.relu(self.one(x)), 1.0)
        outputs: Tensor = self.last(one - torch.relu(self.other(x)))
        return outputs


def made(name: str) -> nn.Module:
    torch.manual_seed(sum(map(ord, name)))
    nets: dict[str, Callable[[], nn.Module]] = {
        "relu": lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
        ),
        "leaky": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.LeakyReLU(0.1), nn.Linear(8, 3)),
        "tanh": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)),
        "sigmoid": lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid(), nn.Dropout(0.5), nn.Linear(8, 3)
        ),
        "conv": lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 3)
        ),
        "max": lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(8, 3)
        ),
        "residual": Residual,
        "branches": Branches,
        "normalized": lambda: Normalized(
            nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)), [0.4], [0.3]
        ),
        "pooled": lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(3, 3),
        ),
    }
    net = nets[name]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in module.state_dict().values():
                if values.is_floating_point():
                    values.uniform_(0.5, 2)
    return net.eval()


NETS = ("relu", "leaky", "tanh", "sigmoid", "conv", "max", "residual", "branches", "normalized", "pooled")


def samples(count: int = 4) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(2))


def read(net: nn.Module) -> Graph:
    x = samples()
    with torch.no_grad():
        return checked_graph(net, x, net(x))


def ball(x: Tensor, eps: float, norm: str = "linf", slack: bool = False, bounds: Any = (0.0, 1.0)) -> Ball:
    return Ball.around(x.double(), torch.full((len(x),), eps, dtype=torch.float64), norm, bounds, slack)


def inside(x: Tensor, eps: float, norm: str, count: int, seed: int = 0) -> Tensor:
    """Return points of the ball around each sample, (count, N, …), half of them at its corners."""
    rng = torch.Generator().manual_seed(seed)
    move = torch.rand(count, *x.shape, generator=rng, dtype=torch.float64) * 2 - 1
    move[::2] = move[::2].sign()
    if norm == "l2":
        move = move / move.flatten(2).norm(dim=2).view(count, len(x), 1, 1, 1)
    return (x.double() + eps * move).clamp(0, 1)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bounds_hold_at_random_points_and_corners(name: str, norm: str) -> None:
    net, x, eps = made(name), samples(), {"linf": 0.08, "l2": 0.3}[norm]
    graph, y = read(net), torch.tensor([0, 1, 2, 1])
    points = inside(x, eps, norm, 400)
    double = made(name).double()
    around = ball(x, eps, norm)
    with torch.no_grad():
        outputs = double(points.flatten(0, 1)).view(400, 4, 3)
        lowest = (outputs.gather(2, y.view(1, 4, 1).expand(400, 4, 1)) - outputs).amin(0)
        values = graph.values(points[0])
        found = {mode: bounded(graph, around, y, mode) for mode in MODES}
        for bound in (intervals(graph, around), linear_bounds(graph, around)):
            for value, (low, high) in zip(values, bound, strict=True):
                assert bool((low <= value + 1e-12).all())
                assert bool((value - 1e-12 <= high).all())
    for mode, bounds in found.items():
        assert bool((bounds <= lowest + 1e-12).all()), mode
    # Linear bounds of all layers are tighter, and optimised ones the tightest.
    off = y[:, None] != torch.arange(3)
    assert bool((found["alpha-crown"] >= found["crown"]).all())
    assert float(found["crown"][off].mean()) >= float(found["ibp"][off].mean()) - 1e-9


@pytest.mark.parametrize("name", NETS)
def test_bounds_of_a_point_are_its_values(name: str) -> None:
    net, x = made(name), samples()
    graph, y = read(net), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        outputs = made(name).double()(x.double())
        expected = outputs.gather(1, y[:, None]) - outputs
        for mode in MODES:
            found = bounded(graph, ball(x, 0.0), y, mode, exact=True)
            torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_a_linear_network_is_bounded_exactly(mode: str) -> None:
    torch.manual_seed(0)
    net, x, y = (
        nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 3)).eval(),
        samples(),
        torch.tensor([0, 1, 2, 1]),
    )
    graph = read(net)
    with torch.no_grad():
        layers: Any = net
        weight = (layers[2].weight @ layers[1].weight).double()
        outputs = net.double()(x.double())
        difference = weight[y][:, None] - weight[None]
        clean = outputs.gather(1, y[:, None]) - outputs
        wide = (-9.0, 9.0)
        for norm, size in (("linf", difference.abs().sum(2)), ("l2", difference.norm(dim=2))):
            found = bounded(graph, ball(x, 0.07, norm, bounds=wide), y, mode, exact=True)
            torch.testing.assert_close(found, clean - 0.07 * size, atol=1e-6, rtol=1e-6)


def test_tiny_networks_are_bounded_between_the_vertices_and_never_above() -> None:
    # The minimum of a margin over the box is at most that of its vertices, and every bound is below both.
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    x, y = torch.rand(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    with torch.no_grad():
        graph = checked_graph(net, x, net(x))
        corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4))).double()
        for eps in (0.01, 0.2):
            points = x.double()[:, None] + eps * corners
            outputs = net.double()(points)
            other = 1 - y
            least = (
                outputs.gather(2, y.view(-1, 1, 1).expand(-1, 16, 1))
                - outputs.gather(2, other.view(-1, 1, 1).expand(-1, 16, 1))
            )[..., 0].amin(1)
            for mode in MODES:
                found = bounded(graph, ball(x, eps, bounds=(-9.0, 9.0)), y, mode)
                assert bool((found.gather(1, other[:, None])[:, 0] <= least + 1e-12).all())


def exact_margin(net: nn.Sequential, x: Tensor, eps: float, y: int, other: int) -> float:
    """Return the exact minimum of a margin of linear, ReLU, linear over an L∞ ball, by mixed integers."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    layers: Any = net
    first, last = layers[0], layers[2]
    w, b = first.weight.detach().double().numpy(), first.bias.detach().double().numpy()
    v = (last.weight[y] - last.weight[other]).detach().double().numpy()
    c = float(last.bias[y] - last.bias[other])
    units, size = w.shape
    low_x, high_x = x.double().numpy() - eps, x.double().numpy() + eps
    centre, radius = (low_x + high_x) / 2, (high_x - low_x) / 2
    low, high = w @ centre + b - np.abs(w) @ radius, w @ centre + b + np.abs(w) @ radius
    # Variables: x, the outputs a of the ReLUs, and whether each is on, z.
    cost = np.concatenate([np.zeros(size), v, np.zeros(units)])
    eye, none = np.eye(units), np.zeros((units, units))
    most, least = np.maximum(high, 0), np.minimum(low, 0)
    rows = [
        LinearConstraint(np.hstack([-w, eye, none]), b, np.inf),  # a ≥ w x + b
        LinearConstraint(
            np.hstack([-w, eye, -np.diag(least)]), -np.inf, b - least
        ),  # a ≤ w x + b − l (1 − z)
        LinearConstraint(np.hstack([np.zeros((units, size)), eye, -np.diag(most)]), -np.inf, 0),  # a ≤ u z
    ]
    sides = Bounds(
        np.concatenate([low_x, np.zeros(2 * units)]), np.concatenate([high_x, most, np.ones(units)])
    )
    whole = np.concatenate([np.zeros(size + units), np.ones(units)])
    found = milp(cost, constraints=rows, bounds=sides, integrality=whole)
    assert found.success
    return float(found.fun) + c


def test_bounds_are_below_exact_optima_and_near_them_on_small_balls() -> None:
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.rand(3, 6)
    with torch.no_grad():
        y = net(x).argmax(1)
        graph = checked_graph(net, x, net(x))
        for eps, gap in ((0.02, 0.02), (0.15, 1.0)):
            found = {mode: bounded(graph, ball(x, eps, bounds=(-9.0, 9.0)), y, mode) for mode in MODES}
            for at, other in itertools.product(range(3), range(3)):
                if other == int(y[at]):
                    continue
                exact = exact_margin(net, x[at], eps, int(y[at]), other)
                for mode, bound in found.items():
                    assert float(bound[at, other]) <= exact + 1e-7, mode
                assert float(found["crown"][at, other]) >= exact - gap


def test_optimised_slopes_are_those_of_a_search() -> None:
    # Two ReLUs, one of them free: the best of all slopes is found, for each margin its own.
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3)).eval()
    with torch.no_grad():
        for parameter, values in zip(
            net.parameters(),
            (
                [[1.0, -1.0], [1.0, 1.0]],
                [0.05, 0.6],
                [[1.0, 0.3], [-1.2, 0.4], [0.2, -0.9]],
                [0.1, 0.0, -0.2],
            ),
            strict=True,
        ):
            parameter.copy_(torch.tensor(values))
        x, y = torch.tensor([[0.5, 0.45]]), torch.tensor([0])
        graph, around = checked_graph(net, x, net(x)), ball(x, 0.2, bounds=(-9.0, 9.0))
        bounds = linear_bounds(graph, around)
        ((at, own),) = free_slopes(graph, bounds, 3).items()
        assert own.undecided.tolist() == [[True, False]]
        rows = margin_rows(graph, around, y)
        tried = [
            lowest(
                graph, bounds, around, 3, rows, slopes={at: own.slopes(torch.full((1, 3, 2), share).double())}
            )
            for share in torch.linspace(0, 1, 101).tolist()
        ]
        best = torch.stack(tried).amax(0)
        found = optimised_margins(graph, around, y, 60)
        torch.testing.assert_close(found, best, atol=2e-3, rtol=0)
        assert float((best - bounded(graph, around, y, "crown")).max()) > 0.01


def test_optimised_bounds_are_tighter_on_a_network() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)).eval()
    x = torch.rand(8, 6)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
        y = net(x).argmax(1)
        graph, around = checked_graph(net, x, net(x)), ball(x, 0.3, bounds=(-9.0, 9.0))
        plain, found = (bounded(graph, around, y, mode) for mode in ("crown", "alpha-crown"))
        assert torch.equal(optimised_margins(graph, around, y, 0), plain)
        off = y[:, None] != torch.arange(3)
        assert bool((found >= plain).all())
        assert float((found - plain)[off].mean()) > 0.05
        only = optimised_margins(graph, around, y, 10, layers=False)
        assert bool((only >= plain).all())
        assert float((found - only)[off].mean()) > 0.01
        # Each sample's are its own.
        alone = optimised_margins(graph, ball(x[2:3], 0.3, bounds=(-9.0, 9.0)), y[2:3], 10)
        torch.testing.assert_close(alone[0], found[2])


@pytest.mark.parametrize("function", ["tanh", "sigmoid", "relu", "leaky"])
def test_lines_are_on_the_right_side_of_the_curve(function: str) -> None:
    ends = torch.linspace(-4, 4, 33, dtype=torch.float64)
    low, high = (each.flatten() for each in torch.meshgrid(ends, ends, indexing="ij"))
    keep = low <= high
    low, high = low[keep], high[keep]
    slope = 0.2 if function == "leaky" else 0.0
    lines = (
        curved(function, low, high, 0.0) if function in ("tanh", "sigmoid") else rectified(low, high, slope)
    )
    of = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}.get(
        function, lambda x: torch.where(x > 0, x, slope * x)
    )
    for share in torch.linspace(0, 1, 21, dtype=torch.float64):
        x = low + share * (high - low)
        shift = 0.0 if lines.low_shift is None else lines.low_shift
        assert bool((lines.low_slope * x + shift <= of(x) + 1e-12).all())
        assert bool((of(x) <= lines.high_slope * x + lines.high_shift + 1e-12).all())


@pytest.mark.parametrize("window", [(3, 2, 1, 1), (2, 2, 0, 1), ((2, 3), (2, 1), (0, 1), (2, 1))])
def test_max_pooling_takes_an_input_that_can_be_the_largest(window: Any) -> None:
    torch.manual_seed(0)
    graph = read_graph(nn.Sequential(nn.MaxPool2d(*window)).double().eval(), torch.rand(2, 2, 5, 5).double())
    low = torch.randn(2, 2, 5, 5).double()
    high = low + torch.rand(2, 2, 5, 5)
    lines = pooled(graph.nodes[1], low, high)
    assert lines.spread is not None
    for share in (0.0, 0.3, 1.0):
        x = low + share * (high - low)
        y = graph(x)
        # The chosen inputs of each output: rows of ones spread to them.
        unit = torch.eye(y[0].numel()).double().view(1, -1, *y.shape[1:]).expand(2, -1, -1, -1, -1)
        chosen = (lines.spread(unit) * x[:, None]).sum((2, 3, 4)).view_as(y)
        assert bool((chosen <= y + 1e-12).all())
        assert bool((y <= lines.high_slope * chosen + lines.high_shift + 1e-12).all())


def test_what_float32_computes_stays_within_the_bounds() -> None:
    # Without the allowance for rounding, a ball of radius 0 has bounds that float32 outputs leave.
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 3)
    )
    net, x = net.eval(), samples(64)
    with torch.no_grad():
        graph = checked_graph(net, x, net(x))
        outputs, point = net(x).double(), ball(x, 0.0)
        low, high = intervals(graph, point)[-1]
        assert bool(((low <= outputs) & (outputs <= high)).all())
        low, high = intervals(graph, point, exact=True)[-1]
        assert not bool(((low <= outputs) & (outputs <= high)).all())


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.GELU(), nn.Linear(4, 3)),
            r"2 \(GELU\) is not supported",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Softmax(1), nn.Linear(4, 3)), r"2 \(Softmax\)"),
        (
            nn.Sequential(
                nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(32, 3)
            ),
            "Conv2d",
        ),
    ],
)
def test_a_layer_that_is_not_supported_is_named(layer: nn.Module, named: str) -> None:
    with pytest.raises(Refused, match=named):
        read(layer.eval())


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] if bool(x.sum() > 0) else x.flatten(1)[:, 3:6]


class Dropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + torch.randn(len(x), 3)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.last(torch.flatten(x, 1)) + torch.randn(3)
        return outputs


def test_branching_random_and_training_models_are_refused() -> None:
    with pytest.raises(Refused, match="the model cannot be read as a graph"):
        read(Branching().eval())
    with pytest.raises(Refused, match="does not agree with it: the model answers at random"):
        read(Noisy().eval())
    with pytest.raises(Refused, match="training mode"):
        read(made("pooled").train())


def data(count: int = 30) -> tuple[Tensor, Tensor]:
    x = samples(count)
    return x, made("conv")(x).argmax(1)


def evaluated(name: str, **changes: Any) -> Any:
    given = {"data": data(), "threat": {"use": "linf", "eps": 0.03}, "device": "cpu"}
    attacks = [{"use": "pgd", "steps": 20, "restarts": 2}]
    table = {"use": name, "radii": [0.01]}
    return robustplug.evaluate(made("conv"), attacks=attacks, measurements=[table], **{**given, **changes})


@pytest.mark.parametrize("name", MODES)
def test_certificates_stand_below_attacks_in_one_table(name: str) -> None:
    result = evaluated(name)
    attack, row = result.attacks[1], result.attacks[2]
    assert row.bound == "lower"
    assert row.certified.confidence == 1
    assert all(low <= high for low, high in zip(row.right, attack.right, strict=True))
    (sides,) = result.meta["bounds"]
    assert 0 < sides["certified"] <= sides["robust"] <= 1
    assert "contradictions" not in result.meta
    assert row.measures["certified at 0.01"].mean >= 100 * row.accuracy
    assert max(row.certified.radii) <= 0.06 + 1e-9


def test_the_norm_of_the_certificate_is_that_of_the_threat_model() -> None:
    row = evaluated("crown", threat={"use": "l2", "eps": 0.1}).attacks[-1]
    assert "about L∞, and the threat model has L2" in row.skipped


def test_a_certified_radius_holds_against_a_search_for_the_boundary() -> None:
    radii = torch.tensor(evaluated("crown").attacks[-1].certified.radii)
    x, y = data()
    known = radii > 0
    points = x[known].double() + radii[known].view(1, -1, 1, 1, 1) * inside(
        x[known] * 0 + 0.5, 0.5, "linf", 500
    ).sub(0.5).mul(2)
    with torch.no_grad():
        classes = made("conv").double()(points.clamp(0, 1).flatten(0, 1)).argmax(1).view(500, -1)
    assert bool((classes == y[known]).all())
    assert math.isclose(float(radii.max()), 0.06) or float(radii.max()) < 0.06


def test_the_schedules_are_those_of_the_code() -> None:
    def linear_schedule(step: int, init: int, final: int) -> float:
        return min(1.0, max(0.0, (step - init) / (final - init)))

    updates = 200
    for step in (0, 9, 10, 50, 110, 199):
        progress = Progress(
            epoch=step // 20, epochs=10, batch=step % 20, batches=20, update=step, updates=updates
        )
        expected = linear_schedule(step, 10, 110)
        assert ramp(progress, 0.05, 0.5) == pytest.approx(expected, abs=1e-9)
    assert ramp(Progress(), 0.0, 0.0) == 1
    assert ramp(Progress(), 0.5, 0.0) == 0


def test_the_worst_logits_are_the_bounds_of_gowal() -> None:
    # A linear last layer of an interval, its margins taken from both ends: no looser than logit by logit.
    torch.manual_seed(0)
    net, x, y = made("relu"), samples(), torch.tensor([0, 1, 2, 1])
    graph = read_graph(net, x)
    around = Ball.around(x, torch.full((4,), 0.05), "linf", (0.0, 1.0), slack=False)
    found = worst_case_loss(bounded(graph, around, y, "ibp", exact=True), y)
    low, high = intervals(graph, around, exact=True)[-1]
    worst = torch.where(nn.functional.one_hot(y, 3).bool(), low, high)
    assert bool((found <= nn.functional.cross_entropy(worst, y, reduction="none") + 1e-6).all())
    still = Ball.around(x, torch.zeros(4), "linf", (0.0, 1.0), slack=False)
    plain = nn.functional.cross_entropy(net(x), y, reduction="none")
    torch.testing.assert_close(worst_case_loss(bounded(graph, still, y, "ibp", exact=True), y), plain)


def test_training_for_bounds_lowers_the_loss_of_the_worst_logits() -> None:
    found = {}
    for name, options in (("erm", {}), ("ibp", {"warmup": 0.0, "rampup": 0.5})):
        vicinity = {"use": "linf", "eps": 0.02}
        bench = Bench(Subject("method", name, {**options, "vicinity": vicinity}), toy_plain)
        for _ in range(12):
            for step in bench.steps():
                bench.update(step)
        batch = bench.batch()
        with torch.no_grad():
            graph = read_graph(bench.model.eval(), batch.x)
            around = Ball.around(batch.x, torch.full((len(batch),), 0.02), "linf", (0.0, 1.0))
            worst = bounded(graph, around, batch.y, "ibp")
        found[name] = float(worst_case_loss(worst, batch.y).mean())
    assert found["ibp"] < found["erm"] / 3


def test_the_method_refuses_a_network_that_it_cannot_bound() -> None:
    def strange(info: Any) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.Softplus(), nn.Linear(4, 3))

    with pytest.raises(Refused, match=r"2 \(Softplus\) is not supported"):
        Bench(Subject("method", "ibp"), strange)


def test_the_initialisation_keeps_the_width_of_intervals() -> None:
    torch.manual_seed(0)
    widths = {}
    for kept in (False, True):
        layers = [layer for _ in range(6) for layer in (nn.Linear(200, 200), nn.ReLU())]
        net = nn.Sequential(*layers, nn.Linear(200, 3)).eval()
        if kept:
            keep_widths(net)
        x = torch.rand(4, 200)
        with torch.no_grad():
            found = intervals(
                read_graph(net, x), Ball.around(x, torch.full((4,), 0.05), "linf", (0, 1), False), True
            )
        low, high = found[-2]
        widths[kept] = float((high - low).mean())
    assert 0.02 < widths[True] < 0.3
    assert widths[False] > 100 * widths[True]
