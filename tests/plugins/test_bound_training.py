"""Training for bounds: losses against transcriptions of the authors' codes, soundness, and the mechanism."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.core.types import Progress
from robustplug.errors import Refused
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe
from robustplug.testing import Bench, Subject, toy_plain
from robustplug_bounds import relaxation
from robustplug_bounds.ball import Ball
from robustplug_bounds.bounds import Bounds
from robustplug_bounds.graph import Graph, folded
from robustplug_bounds.propagation import intervals, margins, margins_within, transposed
from robustplug_bounds.reading import read_graph
from robustplug_bounds.training import chords, ramp, small_box, width_penalty, worst_case_loss

from ..training.runs import tiny

N, K = 5, 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 12),
        nn.ReLU(),
        nn.Linear(12, K),
    ).eval()


def samples() -> tuple[Tensor, Tensor]:
    x = torch.rand(N, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(N) % K


def around(radius: float) -> Ball:
    return Ball.around(samples()[0], torch.full((N,), radius), "linf", (0.0, 1.0), slack=False)


def made(name: str, **options: Any) -> Bench:
    fixed = {"warmup": 0.0, "rampup": 0.0, "ratio": 1.0, "vicinity": {"use": "linf", "eps": 0.05}}
    return Bench(Subject("method", name, {**fixed, **options}), toy_plain)


def rectified(info: Any) -> nn.Module:
    inputs = math.prod(info.shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 9), nn.ReLU(), nn.Linear(9, info.classes))


def losses_of(bench: Bench, role: str) -> tuple[Tensor, Graph, Ball, Tensor]:
    """Return the loss of a view, the network as a graph, the ball of the bounds, and the labels."""
    step = bench.step(bench.batch())
    view = next(each for each in bench.views(step) if each.role == role)
    graph = read_graph(bench.model, torch.cat([view.x[:1], view.x[:1]]), fixed=False)
    assert view.penalty is not None
    ball = Ball.around(view.origin, view.info["bound"], "linf", (0.0, 1.0), slack=False)
    return view.penalty(step, view), graph, ball, view.y


@pytest.mark.parametrize("beta", [1.0, 0.3, 0.0])
def test_crown_ibp_mixes_its_bounds_as_the_code_does(beta: float) -> None:
    found, graph, ball, y = losses_of(made("crown-ibp", beta=beta), "bound")
    linear, interval = (margins(graph, ball, y, mode, exact=True) for mode in ("crown-ibp", "ibp"))
    lower = linear * beta + interval * (1 - beta)
    torch.testing.assert_close(found, F.cross_entropy(-lower, y, reduction="none"))


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_the_fused_loss_is_above_the_loss_of_every_point(beta: float) -> None:
    found, graph, ball, y = losses_of(made("crown-ibp", beta=beta, fused=True), "bound")
    rng = torch.Generator().manual_seed(2)
    shape = (400, *ball.x.shape)
    points = ball.low + (ball.high - ball.low) * torch.rand(shape, generator=rng)
    corners = torch.where(torch.rand(shape, generator=rng) < 0.5, ball.low, ball.high)
    with torch.no_grad():
        for some in (points, corners):
            logits = graph(some.flatten(0, 1))
            worst = F.cross_entropy(logits, y.repeat(400), reduction="none").view(400, -1).amax(0)
            assert bool((worst <= found + 1e-5).all())
    # It is not vacuous: no looser than intervals alone, by much.
    interval = worst_case_loss(margins(graph, ball, y, "ibp", exact=True), y)
    assert float(found.detach().mean()) < 1.05 * float(interval.mean())


def test_the_fused_loss_of_a_point_is_its_cross_entropy() -> None:
    bench = made("crown-ibp", fused=True, vicinity={"use": "linf", "eps": 0.0}, beta=1.0)
    found, graph, ball, y = losses_of(bench, "bound")
    torch.testing.assert_close(found, F.cross_entropy(graph(ball.x), y, reduction="none"))


def test_lines_are_above_exp_and_meet_its_ends() -> None:
    low = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3
    high = low + torch.rand(50, 4, generator=torch.Generator().manual_seed(1)) * 4
    slope, shift, most = chords(low, high)
    for at in torch.linspace(0, 1, 21):
        z = low + at * (high - low)
        assert bool((slope * z + shift >= (z - most[:, None]).exp() - 1e-6).all())
    for end in (low, high):
        torch.testing.assert_close(slope * end + shift, (end - most[:, None]).exp(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("at", [0, 1, 4])
def test_coefficients_go_back_as_gradients_do(at: int) -> None:
    net, (x, _) = network(), samples()
    graph = read_graph(net, x)
    node = [each for each in graph.nodes if each.kind == "affine" and each.back is not None][at // 2]
    shapes = [graph.nodes[before].shape for before in node.inputs]
    rows = torch.randn(N, 3, *node.shape, generator=torch.Generator().manual_seed(at))
    (found,) = transposed(node, rows, shapes)
    zeros = torch.zeros(3 * N, *shapes[0], requires_grad=True)
    assert node.apply is not None
    (expected,) = torch.autograd.grad(node.apply(zeros), zeros, rows.flatten(0, 1))
    torch.testing.assert_close(found, expected.view(N, 3, *shapes[0]))


def regularisation(layers: list[tuple[Tensor, Tensor]], first: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of compute_reg, with its terms relu and tightness."""
    tol, tightness_0 = 0.5, ((first[1] - first[0]) / 2).mean()
    tightness_loss = relu_loss = torch.zeros(())
    for lower, upper in layers:
        center, diff = (upper + lower) / 2, (upper - lower) / 2
        tightness_loss = tightness_loss + F.relu(tol - tightness_0 / diff.mean().clamp(min=1e-12)) / tol
        mask_act, mask_inact = lower > 0, upper < 0
        mean_act, mean_inact = (center * mask_act).mean(), (center * mask_inact).mean()
        delta = (center - center.mean()) ** 2
        mean_ratio = mean_act / -mean_inact
        var_ratio = (delta * mask_act).sum() / (delta * mask_inact).sum()
        mean_ratio = torch.min(mean_ratio, 1 / mean_ratio.clamp(min=1e-12))
        var_ratio = torch.min(var_ratio, 1 / var_ratio.clamp(min=1e-12))
        own = (F.relu(tol - mean_ratio) + F.relu(tol - var_ratio)) / tol
        if not torch.isnan(own) and not torch.isinf(own):
            relu_loss = relu_loss + own
    return (tightness_loss + relu_loss) / len(layers)


@pytest.mark.parametrize("radius", [1e-6, 0.01, 0.5])
def test_the_regularisation_is_that_of_the_code(radius: float) -> None:
    net, (x, _) = network(), samples()
    graph, ball = read_graph(net, x), around(radius)
    bounds = intervals(graph, ball, exact=True)
    fronts = [bounds[node.inputs[0]] for node in graph.nodes if node.kind == "activation"]
    expected = regularisation([(b.low, b.high) for b in fronts], (ball.low, ball.high))
    torch.testing.assert_close(width_penalty(graph, bounds), expected)


def test_the_regularisation_falls_to_nothing_as_the_radius_rises() -> None:
    found = {}
    for weight in (0.0, 2.0):
        options = {"regularisation": weight, "warmup": 0.0, "rampup": 1.0}
        bench = Bench(Subject("method", "ibp", options), rectified)
        with torch.no_grad():
            for parameter in bench.model.parameters():
                parameter.mul_(5)  # so that intervals grow by more than twice
        step = bench.step(bench.batch())
        clean, *bounds = bench.views(step)
        assert clean.weight == 1.0
        assert [bound.weight for bound in bounds] == ([1.0] if weight else [])
        for bound in bounds:
            assert bound.penalty is not None
            found[weight] = bound.penalty(step, bound)
        step.progress = Progress(epoch=1, epochs=1, batch=0, batches=1)
        assert bench.views(step)[1].weight == 0.5
    assert float(found[2.0].detach().mean()) > 0


def test_small_boxes_are_those_of_the_code_and_lie_in_the_ball() -> None:
    ball, share = around(0.2), 0.4
    point = ball.low + (ball.high - ball.low) * torch.rand(
        ball.x.shape, generator=torch.Generator().manual_seed(0)
    )
    box = small_box(ball, point, share)
    tau = torch.minimum(0.5 * (ball.high - ball.low), torch.tensor(share * 0.2))
    centre = torch.clamp(point, ball.low + tau, ball.high - tau)
    torch.testing.assert_close(box.low, centre - tau)
    torch.testing.assert_close(box.high, centre + tau)
    for share in (0.0, 0.4, 0.9, 1.0):
        box = small_box(ball, point, share)
        assert bool((box.low >= ball.low - 1e-6).all())
        assert bool((box.high <= ball.high + 1e-6).all())
    torch.testing.assert_close(small_box(ball, point, 1.0).low, ball.low)


def test_the_smoothed_schedule_is_that_of_the_code() -> None:
    def smooth(step: int, init: int, final: int) -> float:
        mid = int((final - init) * 0.25) + init
        t = (mid - init) ** 3.0
        alpha = 1 / ((final - mid) * 4.0 * t + (mid - init) * t)
        value = alpha * (mid - init) ** 4.0
        if step <= init:
            return 0.0
        if step < mid:
            return float(alpha * float(step - init) ** 4.0)
        return float(min(1.0, value + (1 - value) * (step - mid) / (final - mid)))

    for step in (0, 20, 21, 30, 44, 45, 80, 120, 199):
        progress = Progress(
            epoch=step // 20, epochs=10, batch=step % 20, batches=20, update=step, updates=200
        )
        assert ramp(progress, 0.1, 0.5, smoothed=True) == pytest.approx(smooth(step, 20, 120), abs=1e-9)


def test_sabr_attacks_within_the_ball_and_bounds_the_box_around_the_result() -> None:
    bench = made("sabr", share=0.5, perturbation={"use": "pgd", "steps": 3})
    step = bench.step(bench.batch())
    (bound,) = bench.views(step)
    assert bound.weight == 1.0
    moved = (bound.x - bound.origin).abs().flatten(1).amax(1)
    assert bool((moved > 0).all())
    assert bool((moved <= 0.05 + 1e-6).all())
    torch.testing.assert_close(bound.info["bound"], torch.full((len(bound),), 0.025))
    # Until the radius rises, the samples are trained on.
    early = made("sabr", warmup=0.5)
    (clean,) = early.views(early.step(early.batch()))
    assert (clean.weight, clean.penalty) == (1.0, None)


@pytest.mark.parametrize(
    ("method", "options", "passes"),
    [
        ("ibp", {}, (1, 3)),
        ("ibp", {"kappa": 0.0}, (1, 2)),
        ("ibp", {"kappa": 1.0}, (1, 1)),
        ("sabr", {"perturbation": {"use": "pgd", "steps": 3}}, (1, 5)),
    ],
)
def test_what_has_no_weight_costs_no_pass(
    method: str, options: dict[str, Any], passes: tuple[int, int]
) -> None:
    bench = Bench(Subject("method", method, {"warmup": 0.5, "rampup": 0.0, **options}), rectified)
    for epoch, most in enumerate(passes):
        step = bench.step(bench.batch(), progress=Progress(epoch=epoch, epochs=2, batches=3))
        bench.update(step)
        assert step.meter.forwards == step.meter.backwards == most * len(step.batch)
        means = bench.method.mechanism(step, bench.views(step))
        assert bool((means["bound"] > 0).all()) == bool(epoch and options.get("kappa") != 1.0)


def test_sabr_refuses_l2() -> None:
    with pytest.raises(Refused, match="sabr is for threat models of L∞"):
        made("sabr", vicinity={"use": "l2", "eps": 0.1})


def test_mtl_ibp_weighs_an_attack_against_bounds() -> None:
    bench = made("mtl-ibp", alpha=0.3, attack_ratio=2.0, ratio=1.5)
    step = bench.step(bench.batch())
    adv, bound = bench.views(step)
    assert (adv.weight, bound.weight) == (0.7, 0.3)
    torch.testing.assert_close(bound.info["bound"], torch.full((len(bound),), 0.075))
    torch.testing.assert_close(adv.radius, torch.full((len(adv),), 0.15))
    # One step of ten radii ends at the surface of the ball, but for the valid range.
    moved = (adv.x - adv.origin).abs().flatten(1).amax(1)
    assert bool((moved > 0.14).all())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("crown-ibp", {"beta": 0.1}),
        ("crown-ibp", {"beta": 0.1, "fused": True}),
        ("sabr", {"share": 0.7, "perturbation": {"use": "pgd", "steps": 2}}),
        ("mtl-ibp", {"alpha": 0.5}),
        ("ibp", {"regularisation": 0.5, "ramp": "smoothed"}),
    ],
)
def test_training_lowers_the_loss_of_the_worst_logits(name: str, options: dict[str, Any]) -> None:
    found = {}
    vicinity = {"use": "linf", "eps": 0.02}
    for each, more in (("erm", {}), (name, {"warmup": 0.0, "rampup": 0.5, **options})):
        bench = Bench(Subject("method", each, {**more, "vicinity": vicinity}), toy_plain)
        for _ in range(12):
            for step in bench.steps():
                bench.update(step)
        batch = bench.batch()
        with torch.no_grad():
            graph = read_graph(bench.model.eval(), batch.x)
            ball = Ball.around(batch.x, torch.full((len(batch),), 0.02), "linf", (0.0, 1.0))
            found[each] = float(worst_case_loss(margins(graph, ball, batch.y, "ibp"), batch.y).mean())
    assert found[name] < found["erm"] / 1.5


def test_cat_grows_the_radius_of_each_sample_until_its_bounds_fail() -> None:
    options = {
        "eta": 0.01,
        "vicinity": {"use": "linf", "eps": 0.05},
        "perturbation": {"use": "none"},
        "output_map": {"use": "worst-logits"},
        "label_map": {"use": "one-hot"},
        "loss": {"use": "ce"},
    }
    bench = Bench(Subject("method", "cat", options), toy_plain)
    for _ in range(6):
        for step in bench.steps():
            bench.update(step)
    step = bench.step(bench.batch())
    before = bench.method.eps.read(step.batch.index).clone()  # type: ignore[attr-defined]
    (view,) = bench.views(step)
    graph = read_graph(bench.model, torch.cat([view.x[:1], view.x[:1]]), fixed=False)
    assert view.radius is not None
    ball = Ball.around(view.origin, view.radius, "linf", (0.0, 1.0), slack=False)
    with torch.no_grad():
        margin = margins(graph, ball, view.y, "ibp", exact=True)
        torch.testing.assert_close(step.output(view), -margin)
        holds = margin.scatter(1, view.y[:, None], torch.inf).amin(1) > 0
    assert bool(holds.any())
    expected = torch.where(holds, (before + 0.01).clamp_max(0.05), 0.0)
    torch.testing.assert_close(view.info["eps"], expected)


def test_worst_logits_need_a_method_with_radii() -> None:
    with pytest.raises(RecipeError, match="within its own radius"):
        robustplug.train(tiny("pgd-at", method={"output_map": {"use": "worst-logits"}}))


@pytest.mark.parametrize("name", ["crown-ibp", "sabr", "mtl-ibp"])
def test_the_recipes_train_and_certify(name: str, tmp_path: Path) -> None:
    short = ["train.epochs=2", "model.hidden=[8]", "evaluate.samples=16", "evaluate.attack.0.steps=2"]
    trained = robustplug.train(name, overrides=short, out=tmp_path / name)
    rows = {row.name: row for row in trained.result.attacks}
    assert {row.bound for row in rows.values()} == {"upper", "lower"}
    assert "contradictions" not in trained.result.meta


def test_weights_that_are_drawn_anew_are_no_trained_ones(tmp_path: Path) -> None:
    trained = robustplug.train({**tiny(), "method": {"use": "erm"}}, out=tmp_path / "run")
    with pytest.raises(
        RecipeError, match=r'"ibp" cannot be mixed with trained weights: .*method.init = "model"'
    ):
        read_recipe("ibp", [f"model.from={trained.folder}"])
    started = read_recipe("ibp", [f"model.from={trained.folder}", "method.init=model"])
    assert started.model is not None
    assert started.model.start is not None


class Normed(nn.Module):
    """Layers with BatchNorm behind them; the outputs of one of them are read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm_one = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.two, self.norm_two = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4, affine=False)
        self.rows, self.norm_rows = nn.Linear(6, 5), nn.BatchNorm1d(24)
        self.last, self.norm_last = nn.Linear(120, K), nn.BatchNorm1d(K)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm_one(self.one(x)))
        again = self.two(x)
        x = (torch.relu(self.norm_two(again)) + again).flatten(1, 2)
        outputs: Tensor = self.norm_last(self.last(torch.relu(self.norm_rows(self.rows(x))).flatten(1)))
        return outputs


def test_a_batchnorm_is_part_of_the_layer_in_front_of_it() -> None:
    torch.manual_seed(0)
    net = Normed().eval().double()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for values in (*norm.parameters(), *norm.buffers()):
                if values.is_floating_point():
                    torch.nn.init.uniform_(values, 0.5, 2)
            for values in norm.parameters():
                torch.nn.init.normal_(values)
    x, y = samples()[0].double(), samples()[1]
    around_x = Ball.around(x, torch.full((N,), 0.1), "linf", (0.0, 1.0), slack=False)
    whole = read_graph(net, x)
    short = folded(whole)
    # The first and the last: the outputs of `two` are read twice, and `norm_rows` is over other channels.
    left = {node.name for node in short.nodes}
    assert [node.name for node in whole.nodes if node.name not in left] == ["norm_one", "norm_last"]
    torch.testing.assert_close(short(x), net(x))
    for mode in ("ibp", "crown-ibp"):
        gradients = []
        for graph in (whole, short):
            bounds = intervals(graph, around_x, exact=True)
            found = margins_within(graph, bounds, around_x, y, mode != "ibp", exact=True)
            gradients.append(
                (found, *torch.autograd.grad(found.sum(), list(net.parameters()), allow_unused=True))
            )
        for one, other in zip(*gradients, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other)


def test_gradients_of_intervals_and_lines_are_those_of_differences() -> None:
    # Undecided, on, off, and on or off with one end at 0.
    low = torch.tensor([-1.0, -0.2, 0.3, -2.0, 0.1], dtype=torch.float64, requires_grad=True)
    high = torch.tensor([0.5, 1.5, 0.9, -0.4, 0.1], dtype=torch.float64, requires_grad=True)

    def lines(slope: float) -> Callable[..., tuple[Tensor, Tensor]]:
        def of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
            found = relaxation.rectified(low, high, slope)
            return found.high_slope, found.high_shift

        return of

    for of in (lines(0.0), lines(0.2)):
        assert torch.autograd.gradcheck(of, (low, high))
    assert torch.autograd.gradcheck(lambda low, high: Bounds(low, high).middle, (low, high))
    assert torch.autograd.gradcheck(lambda centre, radius: Bounds(middle=(centre, radius)).ends, (low, high))
    # An interval at 0, as behind a channel that nothing reaches, has a finite gradient.
    point = torch.zeros(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(torch.cat(lines(0.0)(point, point)).sum(), point)
    assert gradient.tolist() == [0.0, 0.0, 0.0]


def test_the_first_bounds_are_those_of_the_inputs() -> None:
    # What `width_penalty` takes for the input is what `intervals` gives.
    (first, *_) = intervals(read_graph(network(), samples()[0]), around(0.1), exact=True)
    assert isinstance(first, Bounds)
    torch.testing.assert_close(first.low, around(0.1).low)
