"""IAAT against transcriptions of its algorithms, and its identities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import robustplug
from robustplug.api import Batch, Progress, Refused, View
from robustplug.cli import main
from robustplug.core.method import needs_sync
from robustplug.recipe.errors import RecipeError
from robustplug.testing import Bench, Subject, toy_plain
from robustplug.testing.checks_syncs import updates_need_no_host
from robustplug.testing.toys import toy_norm
from robustplug_iaat.history import History
from robustplug_iaat.method import Iaat, choose_candidate, line_search

ZERO = {"use": "pgd", "steps": 2, "start": "zero", "step_ratio": 0.6}


def bench(options: dict[str, Any] | None = None, name: str = "iaat", eps: float | None = None) -> Bench:
    return Bench(Subject("method", name, options or {}), toy_plain, eps)


def trained(made: Bench) -> dict[str, Tensor]:
    for step in made.steps():
        made.update(step)
    return {key: value for key, value in made.tensors().items() if key.startswith("model/")}


def below(limits: list[float]) -> Any:
    """Return an attack that fails up to a limit for each sample, and the rows that it was run on."""
    asked: list[list[int]] = []

    def withstands(rows: Tensor, radius: Tensor) -> Tensor:
        asked.append(rows.tolist())
        return radius <= torch.tensor(limits)[rows] + 1e-9

    return withstands, asked


def test_candidates_are_those_of_algorithm_2() -> None:
    withstands, asked = below([0.5, 0.2, 0.1, 0.0])
    remembered = torch.tensor([0.3, 0.2, 0.2, 0.05])
    chosen = choose_candidate(remembered, 0.1, withstands)
    torch.testing.assert_close(chosen, torch.tensor([0.4, 0.2, 0.1, 0.0]))
    assert asked == [[0, 1, 2, 3], [1, 2, 3]]


def test_with_fixed_shapes_all_are_asked_about_both_candidates() -> None:
    withstands, asked = below([0.5, 0.2, 0.1, 0.0])
    remembered = torch.tensor([0.3, 0.2, 0.2, 0.05])
    chosen = choose_candidate(remembered, 0.1, withstands, fixed=True)
    torch.testing.assert_close(chosen, torch.tensor([0.4, 0.2, 0.1, 0.0]))
    assert asked == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_a_line_search_takes_the_largest_radius_that_is_withstood() -> None:
    withstands, asked = below([0.35, 0.1, 0.0, 9.0])
    chosen = line_search(4, 0.1, 0.4, withstands, "cpu")
    torch.testing.assert_close(chosen, torch.tensor([0.3, 0.1, 0.0, 0.4]))
    assert asked == [[0, 1, 2, 3], [0, 1, 2], [1, 2], [1, 2]]


def test_a_line_search_is_exact_and_not_smoothed() -> None:
    options = {"search": "line", "line_step": 0.02, "line_max": 0.08, "warmup": 0, "beta": 0.1}
    made = bench({**options, "perturbation": ZERO}, eps=0.05)
    for step in made.steps(1):
        (view,) = made.update(step)[:1]
        steps = view.info["eps"] / 0.02
        torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)


def brute_force(made: Bench, batch: Batch, gamma: float, beta: float) -> Tensor:
    """Algorithm 2 with both attacks on all samples, whatever came of the first."""
    step, remembered = made.step(batch), made.method.eps.read(batch.index)  # type: ignore[attr-defined]
    view, right = View.of(batch, "adv"), []
    for radius in (remembered + gamma, remembered):
        attacked = made.method.perturbation(step, view.replace(radius=radius), made.method.vicinity)
        with step.attack_mode(), torch.no_grad():
            right.append(made.model(attacked.x).argmax(1) == batch.y)
    chosen = torch.where(right[1], remembered, (remembered - gamma).clamp_min(0))
    chosen = torch.where(right[0], remembered + gamma, chosen)
    smoothed: Tensor = (1 - beta) * remembered + beta * chosen
    return smoothed


def test_sparing_attacks_gives_what_running_all_gives() -> None:
    options = {"warmup": 0, "gamma": 0.05, "beta": 0.4, "perturbation": ZERO}
    made = bench(options, eps=0.15)
    for step in made.steps():
        expected = brute_force(made, step.batch, 0.05, 0.4)
        made.update(step)
        found = made.method.eps.read(step.batch.index)  # type: ignore[attr-defined]
        torch.testing.assert_close(found, expected)
    # Samples have gone up, stayed, and gone down.
    assert len(set(made.method.eps.values.tolist())) > 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("misclassified", ["clean", "attacked", "shrinking"])
def test_fixed_shapes_train_the_same(misclassified: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, where all samples are attacked; on the CPU, the right rows alone."""
    options = {"warmup": 1, "gamma": 0.05, "misclassified": misclassified, "perturbation": ZERO}
    chosen = trained(bench(options, eps=0.15))
    made = bench(options, eps=0.15)
    assert needs_sync(made.method)
    monkeypatch.setattr(Iaat, "_fixed", True)
    assert not needs_sync(made.method)
    for key, value in trained(made).items():
        torch.testing.assert_close(value, chosen[key], atol=1e-6, rtol=1e-5)
    updates_need_no_host(Subject("method", "iaat", options))


def test_what_reads_the_number_of_the_batch_is_the_first_update_of_an_epoch_alone() -> None:
    made = bench({"warmup": 0, "perturbation": ZERO})
    noted: list[tuple[int, int]] = []

    class Noted(Progress):
        def __getattribute__(self, name: str) -> Any:
            if name == "batch":
                noted.append((self.epoch, object.__getattribute__(self, "batch")))
            return object.__getattribute__(self, name)

    for step in made.steps():
        step.progress = Noted(**vars(step.progress))
        made.update(step)
    assert sorted(set(noted)) == [(1, 0)]


def test_with_statistics_of_the_batch_the_second_candidate_sees_the_whole_batch() -> None:
    """As the official variant has them: a sample's fate then depends on the others."""
    attack = {**ZERO, "batchnorm": "train"}
    options = {"warmup": 0, "gamma": 0.05, "beta": 0.4, "mode": "train", "perturbation": attack}
    made = Bench(Subject("method", "iaat", {**options, "misclassified": "attacked"}), toy_norm, 0.15)
    for step in made.steps():
        remembered = made.method.eps.read(step.batch.index).clone()  # type: ignore[attr-defined]
        fresh = made.step(step.batch)
        view, gamma, vicinity = View.of(step.batch, "adv"), 0.05, made.method.vicinity
        attacked = made.method.perturbation(fresh, view.replace(radius=remembered + gamma), vicinity)
        with fresh.attack_mode("train"), torch.no_grad():
            high = made.model(attacked.x).argmax(1) == step.batch.y
        attacked = made.method.perturbation(fresh, view.replace(radius=remembered), vicinity)
        with fresh.attack_mode("train"), torch.no_grad():
            same = made.model(attacked.x).argmax(1) == step.batch.y
        chosen = torch.where(same, remembered, (remembered - gamma).clamp_min(0))
        chosen = torch.where(high, remembered + gamma, chosen)
        made.update(step)
        found = made.method.eps.read(step.batch.index)  # type: ignore[attr-defined]
        torch.testing.assert_close(found, 0.6 * remembered + 0.4 * chosen)


def test_misclassified_samples_are_trained_on_their_clean_images() -> None:
    made = bench({"warmup": 0, "perturbation": ZERO}, eps=0.2)
    step = made.step(made.batch())
    with torch.no_grad():
        right = made.model.eval()(step.batch.x).argmax(1) == step.batch.y
    made.model.train()
    assert 0 < int(right.sum()) < len(right)
    (view,) = made.views(step)
    same = (view.x == step.batch.x).flatten(1).all(1)
    assert torch.equal(same, ~right)


def test_warming_up_is_adversarial_training_with_eps_w() -> None:
    options = {"warmup": 9, "eps_warmup": 0.07, "misclassified": "attacked", "perturbation": ZERO}
    first = trained(bench(options, eps=0.2))
    second = trained(bench({"perturbation": ZERO}, "pgd-at", eps=0.07))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("start", ["zero", "uniform"])
def test_gamma_of_zero_is_adversarial_training_bit_for_bit(start: str) -> None:
    attack = {**ZERO, "start": start}
    first = trained(bench({"gamma": 0, "warmup": 1, "misclassified": "attacked", "perturbation": attack}))
    second = trained(bench({"perturbation": attack}, "pgd-at"))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_the_official_variant_forgets_misclassified_samples_by_and_by() -> None:
    options = {"variant": "official", "warmup": 1, "perturbation": {"steps": 2, "batchnorm": "eval"}}
    made = bench({**options, "mode": "eval"}, eps=0.1)
    memory = made.method.eps  # type: ignore[attr-defined]
    for step in made.steps():
        before = memory.read(step.batch.index).clone()
        with torch.no_grad():
            right = made.model.eval()(step.batch.x).argmax(1) == step.batch.y
        made.model.train()
        (view,) = made.update(step)
        after = memory.read(step.batch.index)
        if step.progress.epoch == 0:
            torch.testing.assert_close(after, 0.1 * right.float())
        else:
            torch.testing.assert_close(after[~right], 0.9 * before[~right])
        assert view.radius is not None
        assert torch.equal(view.radius, after)


def test_a_lower_bound_holds_from_the_first_choice_on() -> None:
    made = bench({"warmup": 0, "gamma": 0.5, "beta": 1, "eps_min": 0.03, "perturbation": ZERO}, eps=0.4)
    for step in made.steps():
        made.update(step)
    values = made.method.eps.values  # type: ignore[attr-defined]
    assert float(values.min()) == pytest.approx(0.03)


def test_a_weaker_attack_may_choose_the_radii() -> None:
    weak = {"use": "none"}
    made = bench({"warmup": 0, "gamma": 0.1, "beta": 1, "selection": weak, "perturbation": ZERO}, eps=0.1)
    step = made.step(made.batch())
    with torch.no_grad():
        right = made.model.eval()(step.batch.x).argmax(1) == step.batch.y
    made.model.train()
    made.update(step)
    found = made.method.eps.read(step.batch.index)  # type: ignore[attr-defined]
    torch.testing.assert_close(found, torch.where(right, 0.2, 0.0))


def test_history_keeps_evenly_spaced_snapshots() -> None:
    history = History(4, 2)
    for epoch in range(1, 12):
        history.note(epoch, torch.tensor([epoch / 16, 0.0]))
    epochs, values = history.snapshots()
    assert epochs.tolist() == [1, 5, 9]
    assert values[:, 0].tolist() == [1 / 16, 5 / 16, 9 / 16]


@pytest.mark.slow
def test_the_radii_are_drawn_and_kept(tmp_path: Path) -> None:
    recipe = {
        "name": "tiny",
        "task": {"use": "digits", "validation": 64, "test": 1600},
        "model": {"use": "small-cnn", "width": 4, "hidden": 16},
        "method": {"use": "iaat", "warmup": 1, "beta": 0.5, "perturbation": {"steps": 2}},
        "train": {"epochs": 4, "batch_size": 64, "device": "cpu"},
        "validate": {"samples": 32, "attack": {"use": "fgsm"}},
        "evaluate": {"samples": 32},
    }
    folder = robustplug.train(recipe, out=tmp_path / "run").folder
    result = CliRunner().invoke(main, ["iaat", "radii", str(folder)])
    assert result.exit_code == 0, result.output
    body = json.loads((folder / "result.json").read_text())["radii"]
    assert body["epochs"] == [1, 2, 3, 4]
    assert body["mean"][0] == pytest.approx(8 / 255, rel=1e-3)
    assert body["least"][0]["eps"] <= body["most"][0]["eps"]
    assert [len(trace) for trace in body["samples"].values()] == [4, 4, 4]
    names = sorted(path.name for path in (folder / "figures").glob("*.png"))
    assert names == ["radii-histograms.png", "radii-progress.png", "radii-samples.png"]
    other = robustplug.train({**recipe, "method": {"use": "erm"}}, out=tmp_path / "erm").folder
    assert CliRunner().invoke(main, ["iaat", "radii", str(other)]).exit_code == 2


def test_options_that_contradict_each_other_are_refused() -> None:
    for options, text in (
        ({"search": "line", "gamma": 0}, "line_step"),
        ({"search": "line", "line_step": 0.1, "line_max": 0.05}, "line_max"),
        ({"search": "line", "line_step": 0.1}, "nothing to try"),
        ({"history": 3}, "even"),
    ):
        with pytest.raises((RecipeError, Refused), match=text):
            bench(options)
