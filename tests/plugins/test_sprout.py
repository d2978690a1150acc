"""SPROUT against its equations, transcribed in NumPy and SciPy, and against its released code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from robustplug.api import Batch, View, dirichlet, gamma, stream, training_loss
from robustplug.testing import Bench, Check, Subject, parametrize_with_checks, toy_linear, toy_plain
from robustplug_sprout.method import FLOOR, DirichletLabels, concentration

from . import reference as ref

NOTHING: dict[str, Any] = {
    "label_map": {"alpha": 0},
    "vicinity": {"a": 0, "inner": {"use": "gaussian", "sigma": 0}},
}


def bench(options: dict[str, Any] | None = None, name: str = "sprout") -> Bench:
    return Bench(Subject("method", name, options or {}), toy_plain)


def labels_of(made: Bench) -> DirichletLabels:
    found = made.method.label_map
    assert isinstance(found, DirichletLabels)
    return found


def trained(made: Bench) -> dict[str, Tensor]:
    for step in made.steps():
        made.update(step)
    return {key: value for key, value in made.tensors().items() if key.startswith("model/")}


# --- the label distribution


@pytest.mark.parametrize(("alpha", "scale"), [(0.01, 1.0), (0.3, 4.0), (1.0, 2.0), (1 / 11, 11.0)])
def test_concentration_is_that_of_section_3_1(alpha: float, scale: float) -> None:
    rows = torch.tensor([[1.0, 0, 0], [0.3, 0.7, 0]], dtype=torch.float64)
    beta = torch.tensor([0.5, 1.5, 3.0], dtype=torch.float64)
    expected = [
        [scale * ((1 - alpha) * y + alpha * b) for y, b in zip(row, beta.tolist(), strict=True)]
        for row in rows.tolist()
    ]
    found = concentration(rows, beta, alpha, scale).numpy()
    np.testing.assert_allclose(found, np.maximum(expected, FLOOR))


def test_the_official_concentration_is_ten_times_the_label_plus_u() -> None:
    made = bench({"variant": "official"})
    o, u = labels_of(made).options, labels_of(made).beta
    rows = torch.eye(3)
    torch.testing.assert_close(u.detach(), torch.ones(3))
    torch.testing.assert_close(concentration(rows, u, o.alpha, o.scale).detach(), 10 * rows + 1)


def test_sampled_labels_have_the_moments_of_equation_7() -> None:
    made = bench({"label_map": {"alpha": 0.6, "scale": 5.0, "beta_init": 0.7}})
    batch, count = made.batch(), 40_000
    same = Batch(batch.x[:1].expand(count, -1, -1, -1), batch.y[:1].expand(count), torch.arange(count))
    draws = labels_of(made)(made.step(batch), View.of(same)).detach().double().numpy()
    b = 5.0 * (0.4 * np.eye(3)[int(batch.y[0])] + 0.6 * 0.7)
    total = b.sum()
    np.testing.assert_allclose(draws.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(draws.mean(0), b / total, atol=0.005)
    off = ~np.eye(3, dtype=bool)
    found, expected = np.cov(draws.T), -np.outer(b, b) / (total**2 * (total + 1))
    np.testing.assert_allclose(found[off], expected[off], atol=0.001)
    np.testing.assert_allclose(np.diag(found), b * (total - b) / (total**2 * (total + 1)), atol=0.001)


def test_the_gradient_of_a_draw_in_beta_matches_finite_differences() -> None:
    """A gamma sample moves with its concentration so that its quantile stays (Figurnov et al. 2018)."""
    rng = np.random.default_rng(0)
    rows = torch.eye(4, dtype=torch.float64)[[0, 2, 3]]
    weight = torch.tensor(rng.normal(size=(3, 4)))
    raw = torch.tensor([0.3, -0.2, 0.9, 0.1], dtype=torch.float64, requires_grad=True)

    def at(values: Tensor) -> Tensor:
        return concentration(rows, torch.nn.functional.softplus(values), 0.4, 3.0)

    (gradient,) = torch.autograd.grad((weight * dirichlet(at(raw), stream(0, "draw"))).sum(), raw)
    with torch.no_grad():
        quantiles = special.gammainc(at(raw).numpy(), gamma(at(raw), stream(0, "draw")).numpy())

    def moved(values: Tensor) -> float:
        samples = special.gammaincinv(at(values).numpy(), quantiles)
        return float((weight.numpy() * samples / samples.sum(1, keepdims=True)).sum())

    for k in range(4):
        step = 1e-5 * torch.eye(4, dtype=torch.float64)[k]
        numeric = (moved(raw.detach() + step) - moved(raw.detach() - step)) / 2e-5
        assert float(gradient[k]) == pytest.approx(numeric, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("value", [1e-6, 1e-3, 0.01, 1.0, 50.0])
@pytest.mark.parametrize("positivity", ["softplus", "clamp"])
def test_extreme_concentrations_train(value: float, positivity: str) -> None:
    made = bench({"label_map": {"beta_init": value, "positivity": positivity}})
    torch.testing.assert_close(labels_of(made).beta.detach(), torch.full((3,), value))
    for step in made.steps(1):
        made.update(step)
    assert torch.isfinite(labels_of(made).raw).all()


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
def test_small_concentrations_keep_the_mean_of_equation_7(scale: float) -> None:
    """Where every gamma draw of float32 underflows, a quotient of draws would be uniform."""
    rows = torch.eye(10)[:1].expand(50_000, 10)
    draws = dirichlet(concentration(rows, torch.ones(10), 0.01, scale), stream(0, "small"))
    assert float(draws[:, 0].mean()) == pytest.approx((0.99 + 0.01) / 1.09, abs=0.005)
    assert float((draws - 0.1).abs().amax(1).min()) > 1e-3


def test_a_concentration_below_the_floor_stays_legal_and_gives_no_gradient() -> None:
    made = bench({"label_map": {"positivity": "clamp", "alpha": 0.5}})
    labels = labels_of(made)
    with torch.no_grad():
        labels.raw.copy_(torch.tensor([-2.0, 1.0, 1.0]))
    step = made.step(made.batch())
    rows = labels(step, View.of(step.batch))
    torch.testing.assert_close(rows.sum(1), torch.ones(len(rows)))
    (gradient,) = torch.autograd.grad((rows * torch.arange(3.0)).sum(), labels.raw)
    assert gradient[0] == 0
    assert bool((gradient[1:] != 0).all())


def test_random_beta_depends_on_the_seed_of_the_setup_alone() -> None:
    first, second = labels_of(bench()).beta.detach(), labels_of(bench()).beta.detach()
    assert torch.equal(first, second)
    assert len(set(first.tolist())) == 3
    assert 0.5 <= float(first.min()) <= float(first.max()) <= 1.5


# --- the algorithm


@pytest.mark.parametrize("beta_lr", [None, 0.7])
def test_one_backward_descends_in_theta_and_ascends_in_beta(beta_lr: float | None) -> None:
    """Algorithm 1 by hand, from the virtual samples and the labels that the same generator gives."""
    labels_options: dict[str, Any] = {"alpha": 0.5, "scale": 2.0}
    if beta_lr is not None:
        labels_options["beta_lr"] = beta_lr
    made = Bench(Subject("method", "sprout", {"label_map": labels_options}), toy_linear)
    labels, batch = labels_of(made), made.batch()
    weight, bias = (p.detach().double().numpy().copy() for p in made.model.parameters())
    raw = labels.raw.detach().clone()
    again = made.step(batch)
    view = View.of(made.method.vicinity.sample(again, batch))
    target = labels(again, view)
    x, z = view.x.flatten(1).double().numpy(), target.detach().double().numpy()
    p = ref.softmax(ref.logits(weight, bias, x))
    # ∂L/∂z = −log p / N; how z depends on β is checked above.
    constant = torch.tensor(-np.log(p) / len(x), dtype=torch.float32)
    (gradient,) = torch.autograd.grad((target * constant).sum(), labels.raw)
    made.update(made.step(batch))

    lr, decay = 0.1, 5e-4
    expected = weight - lr * ((p - z).T @ x / len(x) + decay * weight)
    np.testing.assert_allclose(next(made.model.parameters()).detach().numpy(), expected, atol=1e-5)
    rate = lr if beta_lr is None else beta_lr
    torch.testing.assert_close(
        labels.raw.detach(), raw + rate * (gradient - decay * raw), atol=1e-6, rtol=1e-5
    )
    assert not torch.equal(labels.raw.detach(), raw)


def test_ascent_on_beta_makes_the_labels_harder() -> None:
    made = bench({"beta_inputs": "clean", "label_map": {"alpha": 0.5, "beta_lr": 0.5, "beta_init": 1.0}})
    batch = made.batch()
    _, alone = made.passes(made.step(batch).progress)
    assert alone.update == {"beta"}

    def expected_loss() -> float:
        with torch.no_grad():
            losses = -made.model.eval()(batch.x).log_softmax(1)
            rows = torch.nn.functional.one_hot(batch.y, 3).float()
            conc = concentration(rows, labels_of(made).beta, 0.5, 1.0)
            return float((conc / conc.sum(1, keepdim=True) * losses).sum(1).mean())

    before = expected_loss()
    weights = {key: value.clone() for key, value in made.model.state_dict().items()}
    for _ in range(200):
        made.update(made.step(batch, alone))
    assert expected_loss() > before + 0.01
    assert all(torch.equal(weights[key], value) for key, value in made.model.state_dict().items())


def test_alpha_sigma_and_mixup_of_zero_are_erm_bit_for_bit() -> None:
    first, second = trained(bench(NOTHING)), trained(bench(name="erm"))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize(
    "part",
    [{"label_map": {"alpha": 0.01}}, {"vicinity": {"a": 0.2}}, {"vicinity": {"inner": {"sigma": 0.1}}}],
)
def test_each_module_alone_is_not_erm(part: dict[str, Any]) -> None:
    options = {**NOTHING, **part}
    if "vicinity" in part:
        inner = {**NOTHING["vicinity"]["inner"], **part["vicinity"].get("inner", {})}
        options["vicinity"] = {**NOTHING["vicinity"], **part["vicinity"], "inner": inner}
    first, second = trained(bench(options)), trained(bench(name="erm"))
    assert any(not torch.equal(value, second[key]) for key, value in first.items())


# --- the released code


def test_the_official_variant_makes_three_updates_and_one_of_beta() -> None:
    made = bench({"variant": "official"})
    passes = made.passes(made.step(made.batch()).progress)
    assert [set(pass_.update) for pass_ in passes] == [{"model"}] * 3 + [{"beta"}]


def test_the_official_beta_pass_sees_the_samples_as_they_are_and_spares_the_model() -> None:
    made = bench({"variant": "official"})
    batch = made.batch()
    *_, alone = made.passes(made.step(batch).progress)
    step = made.step(batch, alone)
    (view,) = made.update(step)
    assert view.x is batch.x
    assert view.y is batch.y
    assert (step.meter.forwards, step.meter.backwards) == (len(batch), 0)
    assert all(parameter.requires_grad for parameter in made.model.parameters())
    assert all(parameter.grad is None for parameter in made.model.parameters())


def test_the_official_labels_are_drawn_for_each_partner_and_mixed() -> None:
    """λ·L(z_a) + (1 − λ)·L(z_b) is L(λ·z_a + (1 − λ)·z_b): the cross entropy is linear in the label."""
    made = bench({"variant": "official"})
    batch, labels = made.batch(), labels_of(made)
    step, again = made.step(batch), made.step(batch)
    view = View.of(made.method.vicinity.sample(step, batch))
    with torch.no_grad():
        found = labels(step, view)
        made.method.vicinity.sample(again, batch)
        rows = torch.stack([torch.eye(3)[batch.y], view.info["partner-labels"][:, 1]], 1)
        draws = dirichlet(10 * rows + labels.beta, again.rng)
    share = view.info["shares"][0, 0]
    torch.testing.assert_close(found, share * draws[:, 0] + (1 - share) * draws[:, 1])
    torch.testing.assert_close(view.y, share * rows[:, 0] + (1 - share) * rows[:, 1])


def test_partners_are_drawn_for_what_the_inner_map_makes_of_them() -> None:
    smooth = {"use": "smooth", "alpha": 1.0}
    made = bench({"variant": "official", "label_map": {"inner": smooth, "scale": 1e5}})
    step = made.step(made.batch())
    view = View.of(made.method.vicinity.sample(step, step.batch))
    with torch.no_grad():
        rows = labels_of(made)(step, view)
    torch.testing.assert_close(rows, torch.full_like(rows, 1 / 3), atol=0.02, rtol=0)


def test_a_variant_gives_way_to_what_the_recipe_says() -> None:
    made = bench({"variant": "official", "updates": 2, "label_map": {"scale": 5.0}})
    passes = made.passes(made.step(made.batch()).progress)
    assert len(passes) == 3
    assert (labels_of(made).options.scale, labels_of(made).options.draw) == (5.0, "partner")


# --- in other methods


@pytest.mark.parametrize("name", ["erm", "cat", "pgd-at", "free-at"])
def test_beta_learns_in_methods_that_know_nothing_of_it(name: str) -> None:
    made = bench({"label_map": {"use": "dirichlet", "alpha": 0.3}}, name)
    before = labels_of(made).raw.detach().clone()
    made.update(made.step(made.batch()))
    assert not torch.equal(labels_of(made).raw.detach(), before)


def test_a_label_map_that_learns_nothing_leaves_sprout_with_one_pass() -> None:
    made = bench({"label_map": {"use": "smooth"}, "beta_inputs": "clean"})
    assert [set(pass_.update) for pass_ in made.passes(made.step(made.batch()).progress)] == [{"model"}]
    total, _ = training_loss(made.method, made.step(made.batch()))
    assert torch.isfinite(total)


MIXES: dict[str, tuple[str, dict[str, Any]]] = {
    "official": ("sprout", {"variant": "official"}),
    "sprout with PGD": ("sprout", {"perturbation": {"use": "pgd", "steps": 2}}),
    "radii of CAT under the labels of SPROUT": ("cat", {"label_map": {"use": "dirichlet"}}),
    "TRADES on mixtures": ("trades", {"vicinity": {"use": "mixup"}, "perturbation": {"steps": 2}}),
    "noise under CAT": ("cat", {"vicinity": {"use": "gaussian"}, "perturbation": {"steps": 2}}),
}


@pytest.mark.table(30)
@pytest.mark.parametrize("mix", MIXES)
@parametrize_with_checks("sprout", "method")
def test_mixes_pass_the_checks_of_methods(mix: str, check: Check) -> None:
    name, options = MIXES[mix]
    Check(check.function, Subject("method", name, options))()
