"""The rows of SPROUT's Table 1 against NumPy transcriptions of their papers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustplug.api import Batch, Refused, View, stream, training_loss
from robustplug.testing import Bench, Subject, toy_linear, toy_plain
from robustplug_vrm.bilateral import bilateral_labels
from robustplug_vrm.vicinities import draw_box, draw_partners, mix

from . import reference as ref
from .reference import Array


def bench(name: str, options: dict[str, Any] | None = None, linear: bool = False) -> Bench:
    return Bench(Subject("method", name, options or {}), toy_linear if linear else toy_plain)


def logits_of(made: Bench, x: Tensor) -> Array:
    weight, bias = (p.detach().double().numpy() for p in made.model.parameters())
    return ref.logits(weight, bias, x.detach().flatten(1).double().numpy())


# --- Gaussian augmentation


def test_noise_has_the_standard_deviation_asked_for_and_is_not_clipped() -> None:
    made = bench("erm", {"vicinity": {"use": "gaussian", "sigma": 0.25}})
    x = torch.zeros(400, 3, 6, 6)
    batch = Batch(x, torch.zeros(400, dtype=torch.int64), torch.arange(400))
    noisy = made.method.vicinity.sample(made.step(batch), batch).x
    assert float(noisy.std()) == pytest.approx(0.25, rel=0.02)
    assert abs(float(noisy.mean())) < 0.005
    assert float(noisy.min()) < -0.5


def test_perturbations_of_noisy_samples_are_those_of_the_clipped_ones() -> None:
    vicinity = bench(
        "erm", {"vicinity": {"use": "gaussian", "inner": {"use": "linf", "eps": 0.1}}}
    ).method.vicinity
    origin, radius = torch.tensor([[[[1.2, -0.3, 0.5, 0.95]]]]), torch.tensor([0.1])
    high = vicinity.project(origin + 1, origin, radius)
    low = vicinity.project(origin - 1, origin, radius)
    torch.testing.assert_close(high, torch.tensor([[[[1.2, -0.2, 0.6, 1.0]]]]))
    torch.testing.assert_close(low, torch.tensor([[[[1.1, -0.3, 0.4, 0.85]]]]))
    for x, legal in ((high, True), (low, True), (origin, True), (origin + 0.05, False), (low - 0.05, False)):
        assert bool(vicinity.contains(x, origin, radius)) is legal
    assert torch.equal(vicinity.project(origin + 1, origin, torch.zeros(1)), origin)


# --- mixup


def test_mixup_is_the_convex_combination_of_samples_and_labels() -> None:
    made = bench("erm", {"vicinity": {"use": "mixup", "a": 0.4}})
    batch = made.batch()
    mixed = made.method.vicinity.sample(made.step(batch), batch)
    partner, share = draw_partners(len(batch), 0.4, made.step(batch).rng)
    x, rows, lam, j = batch.x.numpy(), np.eye(3)[batch.y.numpy()], float(share), partner.numpy()
    np.testing.assert_allclose(mixed.x.numpy(), lam * x + (1 - lam) * x[j], atol=1e-6)
    np.testing.assert_allclose(mixed.y.numpy(), lam * rows + (1 - lam) * rows[j], atol=1e-6)
    assert sorted(j.tolist()) == list(range(len(batch)))
    assert 0 < lam < 1


def test_mixup_shares_are_beta_distributed() -> None:
    rng = stream(0, "shares")
    shares = np.array([float(draw_partners(2, 0.2, rng)[1]) for _ in range(4000)])
    # Var Beta(a, a) = 1 / (4·(2a + 1)).
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * 1.4), rel=0.05)


@pytest.mark.parametrize("a", [0.001, 0.02])
def test_almost_no_mixup_mixes_almost_nothing(a: float) -> None:
    rng = stream(0, "shares")
    shares = np.array([float(draw_partners(2, a, rng)[1]) for _ in range(2000)])
    assert shares.var() == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.03)


def test_mixing_with_a_share_for_each_row() -> None:
    values, partner = torch.tensor([[0.0], [1.0]]), torch.tensor([1, 0])
    assert mix(values, partner, torch.tensor([0.25, 1.0])).tolist() == [[0.75], [1.0]]


# --- cutmix


def test_cutmix_puts_a_box_of_one_image_into_another_and_mixes_labels_by_area() -> None:
    made = bench("erm", {"vicinity": {"use": "cutmix"}})
    batch = made.batch()
    mixed = made.method.vicinity.sample(made.step(batch), batch)
    partner, _ = draw_partners(len(batch), 1.0, made.step(batch).rng)
    inside = (mixed.x != batch.x).any(0).any(0)
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
    box = torch.zeros_like(inside)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    assert torch.equal(inside, box)
    assert torch.equal(mixed.x, torch.where(box, batch.x[partner], batch.x))
    share = 1 - float(box.float().mean())
    hot = np.eye(3)[batch.y.numpy()]
    np.testing.assert_allclose(mixed.y.numpy(), share * hot + (1 - share) * hot[partner.numpy()], atol=1e-6)
    assert torch.allclose(mixed.info["shares"], torch.tensor([share, 1 - share]).expand(len(batch), 2))
    assert 0 < share < 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
def test_the_box_has_the_area_of_the_share_up_to_what_is_cut_off(share: float) -> None:
    rng, lam = stream(0, "boxes"), torch.tensor(share)
    areas = [float(draw_box(32, 24, lam, rng).float().mean()) for _ in range(400)]
    assert max(areas) <= 1 - share + 0.08
    assert max(areas) >= (1 - share) * 0.8
    assert len({round(area, 4) for area in areas}) > 3 or share == 1.0
    if share == 1.0:
        assert set(areas) == {0.0}


def test_cutmix_is_for_images() -> None:
    made = bench("erm", {"vicinity": {"use": "cutmix"}})
    batch = made.batch()
    table = dataclasses.replace(batch, x=batch.x.flatten(1))
    with pytest.raises(Refused, match="cutmix is for images"):
        made.method.vicinity.sample(made.step(table), table)


# --- stability training


def test_stability_is_cross_entropy_plus_the_divergence_of_the_predictions() -> None:
    made = bench("stability", {"alpha": 0.7}, linear=True)
    step = made.step(made.batch())
    total, (clean, virtual) = training_loss(made.method, step)
    p, hot = ref.softmax(logits_of(made, step.batch.x)), np.eye(3)[step.batch.y.numpy()]
    expected = ref.cross_entropy(logits_of(made, clean.x), hot).mean()
    expected += 0.7 * ref.cross_entropy(logits_of(made, virtual.x), p).mean()
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(virtual.x, clean.x)


def test_the_product_of_table_1_is_the_sum_of_both_cross_entropies() -> None:
    options = {"vicinity": {"use": "gaussian"}, "output_map": {"use": "product", "weight": 0.5}}
    made = bench("erm", {**options, "loss": {"use": "log-likelihood"}}, linear=True)
    step = made.step(made.batch())
    total, (view,) = training_loss(made.method, step)
    hot = np.eye(3)[step.batch.y.numpy()]
    expected = ref.cross_entropy(logits_of(made, step.batch.x), hot).mean()
    expected += 0.5 * ref.cross_entropy(logits_of(made, view.x), hot).mean()
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)


def test_rows_of_a_view_find_their_own_clean_samples() -> None:
    made = bench(
        "erm",
        {
            "vicinity": {"use": "gaussian"},
            "output_map": {"use": "product"},
            "loss": {"use": "log-likelihood"},
        },
    )
    step = made.step(made.batch())
    view = View.of(made.method.vicinity.sample(step, step.batch))
    rows = torch.tensor([5, 0, 3])
    with torch.no_grad():
        torch.testing.assert_close(step.output(view.rows(rows)), step.output(view)[rows])


# --- bilateral adversarial training


def transcribed_labels(p: Array, y: list[int], multi: float, gamma: float) -> Array:
    """The authors' closed form, one sample after the other."""
    result = np.zeros_like(p)
    for i, (row, label) in enumerate(zip(p, y, strict=True)):
        losses = -np.log(row)
        wrong = [k for k in range(len(row)) if k != label]
        least, most = min(losses[wrong]), max(losses[wrong])
        denominator = sum(losses[wrong]) - len(wrong) * (least - gamma)
        delta = 1 / (1 + multi * (most - least + gamma) / denominator)
        for k in wrong:
            result[i, k] = delta / denominator * (losses[k] - least + gamma)
        result[i, label] = 1 - delta
    return result


@pytest.mark.parametrize(("ratio", "gamma"), [(9.0, 0.01), (2.0, 0.5)])
def test_bilateral_labels_are_the_closed_form(ratio: float, gamma: float) -> None:
    z = torch.empty(20, 10, dtype=torch.float64).normal_(0, 3, generator=stream(0, "z"))
    y = [number % 10 for number in range(20)]
    found = bilateral_labels(z, torch.tensor(y), ratio, gamma).double().numpy()
    expected = transcribed_labels(ref.softmax(z.numpy()), y, ratio, gamma)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    label = found[np.arange(20), y]
    rest = found.copy()
    rest[np.arange(20), y] = 0
    np.testing.assert_allclose(label / rest.max(1), ratio, rtol=1e-4)
    assert ratio / (ratio + 9) - 1e-6 <= label.min() <= label.max() <= ratio / (ratio + 1) + 1e-6


def test_bilateral_training_goes_towards_the_most_confusing_class() -> None:
    options = {"vicinity": {"eps": 0.05}, "perturbation": {"start": "zero"}}
    made = bench("bilateral", options, linear=True)
    step = made.step(made.batch())
    (view,) = made.views(step)
    weight = next(made.model.parameters()).detach().double().numpy()
    z, x, y = logits_of(made, step.batch.x), step.batch.x.flatten(1).double().numpy(), step.batch.y.numpy()
    wrong = z.copy()
    wrong[np.arange(len(y)), y] = -np.inf
    goal = np.eye(3)[wrong.argmax(1)]
    # Descend the cross entropy of the most confusing class: −∇ = (goal − p) W.
    direction = np.sign((goal - ref.softmax(z)) @ weight)
    expected = ref.project(x + 0.05 * direction, x, np.full(len(x), 0.05))
    np.testing.assert_allclose(view.x.flatten(1).numpy(), expected, atol=1e-6)


def test_bilateral_labels_come_from_the_clean_samples_in_eval_mode() -> None:
    made = Bench(Subject("method", "bilateral", {}))
    step = made.step(made.batch())
    (view,) = made.views(step)
    found = step.target(view)
    with torch.no_grad():
        logits = made.model.eval()(step.batch.x)
    torch.testing.assert_close(found, bilateral_labels(logits, step.batch.y, 9.0, 0.01))


# --- interpolated adversarial training


def test_interpolated_training_mixes_clean_and_attacked_samples_half_each() -> None:
    made = bench("interpolated", {"perturbation": {"steps": 2, "start": "zero"}}, linear=True)
    step = made.step(made.batch())
    total, (clean, adv) = training_loss(made.method, step)
    attacked = bench("pgd-at", {"perturbation": {"steps": 2, "start": "zero"}}, linear=True)
    (plain,) = attacked.views(attacked.step(step.batch))
    again = made.step(step.batch)
    hot, expected = np.eye(3)[step.batch.y.numpy()], 0.0
    for x, view in ((step.batch.x, clean), (plain.x, adv)):
        partner, share = draw_partners(len(x), 1.0, again.rng)
        lam, j = float(share), partner.numpy()
        mixed = lam * x.numpy() + (1 - lam) * x.numpy()[j]
        np.testing.assert_allclose(view.x.numpy(), mixed, atol=1e-6)
        losses = ref.cross_entropy(logits_of(made, view.x), lam * hot + (1 - lam) * hot[j])
        expected += 0.5 * losses.mean()
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)
