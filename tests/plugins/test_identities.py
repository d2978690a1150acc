"""What methods become at special values of their options, as their papers say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from robustplug.api import View, stream
from robustplug.plugin.component import Kind
from robustplug.testing import Bench, Subject, toy_plain

PGD = {"use": "pgd", "steps": 2, "start": "zero"}
STARTED = {**PGD, "start": "uniform"}
FRIENDLY = {"use": "early-stopped", "steps": 2, "tau": 1, "step_size": 0.05}
BOUNDED = {"warmup": 0, "rampup": 0, "ratio": 1}
NETWORK = {"use": "small-cnn", "width": 2, "hidden": 4}


def bench(name: str, options: dict[str, Any], kind: Kind = "method") -> Bench:
    return Bench(Subject(kind, name, options), toy_plain)


def trained(name: str, options: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights after two epochs."""
    made = bench(name, options)
    for step in made.steps():
        made.update(step)
    return {key: value for key, value in made.tensors().items() if key.startswith("model/")}


METHODS: list[tuple[str, str, dict[str, Any], str, dict[str, Any]]] = [
    ("TRADES with β = 0 is clean training", "trades", {"beta": 0, "perturbation": STARTED}, "erm", {}),
    (
        "CAT with c = 0, fixed radii and cross entropy is PGD adversarial training",
        "cat",
        {"adaptive": False, "perturbation": PGD, "label_map": {"c": 0}, "loss": {"use": "ce"}},
        "pgd-at",
        {"perturbation": PGD},
    ),
    (
        "CAT with η = 0 starts at radius 0 and stays there",
        "cat",
        {"eta": 0, "perturbation": PGD, "label_map": {"c": 0}, "loss": {"use": "ce"}},
        "erm",
        {},
    ),
    ("adversarial training without a perturbation", "pgd-at", {"perturbation": {"use": "none"}}, "erm", {}),
    ("adversarial training of radius 0", "pgd-at", {"vicinity": {"eps": 0}, "perturbation": PGD}, "erm", {}),
    (
        "one PGD step of full size from the sample is FGSM",
        "pgd-at",
        {"perturbation": {"use": "pgd", "steps": 1, "start": "zero", "step_size": "8/255"}},
        "pgd-at",
        {"perturbation": {"use": "fgsm"}},
    ),
    (
        "one noisy copy without an attack is training on Gaussian noise",
        "smooth-adv",
        {"sigma": 0.1, "draws": 1, "perturbation": {"use": "none"}},
        "erm",
        {"vicinity": {"use": "gaussian", "sigma": 0.1, "inner": {"use": "l2"}}},
    ),
    (
        "consistency with λ = η = 0 is the mean loss under noise",
        "consistency",
        {"weight": 0, "entropy": 0, "perturbation": {**PGD, "step_size": 0.1}},
        "smooth-adv",
        {"perturbation": {**PGD, "step_size": 0.1}},
    ),
    (
        "mixtures of no weight are noisy copies",
        "smooth-mix",
        {"draws": 2, "weight": 0, "perturbation": {"use": "none"}},
        "smooth-adv",
        {"draws": 2, "perturbation": {"use": "none"}},
    ),
    ("interval bounds of no weight", "ibp", {"kappa": 1, "rampup": 0}, "erm", {}),
    (
        "CROWN-IBP without linear bounds is IBP",
        "crown-ibp",
        {"beta": 0, **BOUNDED},
        "ibp",
        BOUNDED,
    ),
    (
        "SABR with boxes of the whole ball is IBP",
        "sabr",
        {"share": 1, "kappa": 0, "perturbation": PGD, **BOUNDED},
        "ibp",
        {"kappa": 0, **BOUNDED},
    ),
    (
        "MTL-IBP with bounds alone is IBP",
        "mtl-ibp",
        {"alpha": 1, "perturbation": {"use": "none"}, **BOUNDED},
        "ibp",
        {"kappa": 0, **BOUNDED},
    ),
    (
        "MTL-IBP without bounds is adversarial training",
        "mtl-ibp",
        {"alpha": 0, **BOUNDED, "vicinity": {"eps": 0.05}, "perturbation": {**PGD, "step_ratio": 0.4}},
        "pgd-at",
        {"vicinity": {"eps": 0.05}, "perturbation": {**PGD, "step_ratio": 0.4}},
    ),
    (
        "AWP around TRADES with moves of no size",
        "awp",
        {"gamma": 1e-20, "inner": {"use": "trades", "perturbation": STARTED}},
        "trades",
        {"perturbation": STARTED},
    ),
    (
        "MART with β = 0 is adversarial training with the boosted cross entropy",
        "mart",
        {
            "beta": 0,
            "vicinity": {"eps": 0.1},
            "perturbation": {**STARTED, "step_size": 0.05, "loss": {"use": "ce"}},
        },
        "pgd-at",
        {
            "vicinity": {"eps": 0.1},
            "perturbation": {**STARTED, "step_size": 0.05, "loss": {"use": "ce"}},
            "loss": {"use": "mart"},
        },
    ),
    (
        "MART of radius 0 is clean training with the boosted cross entropy",
        "mart",
        {"vicinity": {"eps": 0}, "perturbation": PGD},
        "erm",
        {"loss": {"use": "mart"}},
    ),
    ("GradAlign of no strength", "gradalign", {"strength": 0, "inner": {"use": "fast-at"}}, "fast-at", {}),
    (
        "DKL of equal parts in the place of the divergence is TRADES",
        "trades",
        {
            "beta": 3,
            "perturbation": STARTED,
            "loss": {"use": "dkl", "mse_weight": 1, "entropy_weight": 1, "symmetric": False},
        },
        "trades",
        {"beta": 3, "perturbation": STARTED},
    ),
    (
        "IKL of no weight is clean training",
        "dkl",
        {"loss": {"mse_weight": 0, "entropy_weight": 0}, "perturbation": STARTED},
        "erm",
        {},
    ),
    (
        "RSLAD with α = 0 and labels at the clean samples is clean training",
        "rslad",
        {"teacher": NETWORK, "alpha": 0, "clean": "label", "perturbation": STARTED},
        "erm",
        {},
    ),
    *(
        (
            f"RSLAD without a perturbation learns the teacher's prediction at the sample {how} as with α = 0",
            "rslad",
            {"teacher": NETWORK, "perturbation": {"use": "none"}, **options},
            "rslad",
            {"teacher": NETWORK, "perturbation": {"use": "none"}, "alpha": 0},
        )
        for how, options in (
            ("with α = 1", {"alpha": 1}),
            ("with α = 0.5", {"alpha": 0.5}),
            ("asked at the perturbed sample", {"alpha": 1, "asked_at": "perturbed"}),
        )
    ),
    (
        "HAT without helper examples is TRADES",
        "hat",
        {"helper": NETWORK, "gamma": 0, "beta": 3, "perturbation": {**STARTED, "step_size": 0.01}},
        "trades",
        {"beta": 3, "vicinity": {"eps": "8/255"}, "perturbation": {**STARTED, "step_size": 0.01}},
    ),
    (
        "TRADES with β = 0 and smoothed labels is label smoothing",
        "trades",
        {
            "beta": 0,
            "perturbation": STARTED,
            "label_map": {"labels": {"use": "smooth", "alpha": 0.2}},
        },
        "erm",
        {"label_map": {"use": "smooth", "alpha": 0.2}},
    ),
    (
        "early-stopped PGD that never stops is PGD",
        "pgd-at",
        {"perturbation": {"use": "early-stopped", "steps": 2, "tau": 2, "noise": 0}},
        "pgd-at",
        {"perturbation": STARTED},
    ),
    (
        "GAIRAT with a large λ weighs all samples the same",
        "gairat",
        {"shift": 50, "inner": {"use": "trades", "perturbation": FRIENDLY}},
        "trades",
        {"perturbation": FRIENDLY},
    ),
    ("noise of no size", "pgd-at", {"perturbation": {"use": "noise", "scale": 0}}, "erm", {}),
    ("label smoothing with α = 0", "erm", {"label_map": {"use": "smooth", "alpha": 0}}, "erm", {}),
    ("KL divergence from hard labels is cross entropy", "erm", {"loss": {"use": "kl"}}, "erm", {}),
]


@pytest.mark.parametrize(
    ("name", "options", "other", "other_options"), [case[1:] for case in METHODS], ids=[c[0] for c in METHODS]
)
def test_trained_weights_agree(
    name: str, options: dict[str, Any], other: str, other_options: dict[str, Any]
) -> None:
    first, second = trained(name, options), trained(other, other_options)
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("trades", {"beta": 1, "perturbation": STARTED}),
        ("rslad", {"teacher": NETWORK, "alpha": 0, "clean": "teacher", "perturbation": STARTED}),
        ("hat", {"helper": NETWORK, "beta": 0, "gamma": 1, "perturbation": STARTED}),
        ("cat", {"perturbation": PGD}),
        ("free-at", {"replays": 1}),
    ],
)
def test_other_values_train_other_weights(name: str, options: dict[str, Any]) -> None:
    first, clean = trained(name, options), trained("erm", {})
    assert max(float((value - clean[key]).abs().max()) for key, value in first.items()) > 1e-4


def test_free_with_one_replay_moves_delta_as_fgsm_does() -> None:
    free, fgsm = bench("free-at", {"replays": 1}), bench("pgd-at", {"perturbation": {"use": "fgsm"}})
    batch = free.batch()
    (attacked,) = fgsm.views(fgsm.step(batch))
    free.update(free.step(batch))
    delta = free.method.state.get_local("delta")
    assert delta is not None
    torch.testing.assert_close(delta, attacked.x - batch.x)


def test_free_with_one_replay_starts_with_a_clean_update() -> None:
    free, erm = bench("free-at", {"replays": 1}), bench("erm", {})
    for made in (free, erm):
        made.update(made.step(made.batch()))
    for key, value in erm.tensors().items():
        assert torch.equal(value, free.tensors()[key])


def objective_of(options: dict[str, Any]) -> Tensor:
    """Return the objective of each sample at the attacked points of a fresh model."""
    made = bench("pgd-at", {"perturbation": options})
    step = made.step(made.batch())
    (view,) = made.views(step)
    with torch.no_grad():
        return step.objective(view)


def test_the_best_iterate_of_restarts_is_never_worse_than_one_attack() -> None:
    once = {"use": "pgd", "steps": 2, "keep": "best"}
    one, five = objective_of(once), objective_of({**once, "restarts": 5})
    # A point that fools the model beats one of higher loss that does not, so compare the mean.
    assert float(five.mean()) >= float(one.mean())


def test_cat_loss_is_cross_entropy_plus_margin() -> None:
    made = bench("erm", {})
    step = made.step(made.batch())
    view = View.of(step.batch, radius=torch.zeros(len(step.batch)))
    logits = torch.empty(len(view), 3).normal_(generator=stream(0, "logits"))
    losses = [
        bench(name, options, "loss").method.loss(step, view, logits, view.y)
        for name, options in (("cat", {"kappa": 0.5}), ("ce", {}), ("margin", {"kappa": 0.5}))
    ]
    torch.testing.assert_close(losses[0], losses[1] + losses[2])


def test_trades_label_map_is_the_clean_prediction() -> None:
    made = bench("trades", {"perturbation": STARTED})
    step = made.step(made.batch())
    clean, adv = made.views(step)
    assert torch.equal(step.target(clean), step.batch.y)
    torch.testing.assert_close(step.target(adv), made.model(step.batch.x).softmax(1))
    assert step.target(adv).requires_grad
