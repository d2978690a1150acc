"""RobMask and AdvProp: the masks, their folding and interpolation, and the commands."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

import robustplug
from robustplug.api import Refused, open_run, stream, training_loss
from robustplug.cli import main
from robustplug.recipe.errors import RecipeError
from robustplug.testing import Bench, Subject, toy_plain
from robustplug_robmask.masks import Drawn, MaskedNorm, encode, fold, interpolate, masks, put_masks, switch

ATTACK = {"use": "pgd", "steps": 2, "start": "zero", "step_ratio": 0.5}
RECIPE = {
    "name": "tiny",
    "task": {"use": "digits", "validation": 64, "test": 1600},
    "model": {"use": "small-cnn", "width": 4, "hidden": 16},
    "train": {"epochs": 1, "batch_size": 64, "device": "cpu"},
    "validate": {"samples": 32, "attack": {"use": "fgsm"}},
    "evaluate": {"samples": 48, "attack": [{"use": "fgsm"}]},
}


def network() -> nn.Sequential:
    rng = stream(0, "network")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.uniform_(0.1, 1.0, generator=rng)
    return model


def masked(bases: int = 2, separate: bool = False) -> nn.Sequential:
    """Return a network whose masks differ from one another."""
    model, rng = network(), stream(1, "masks")
    for layer in put_masks(model, bases, separate):
        with torch.no_grad():
            for value in (layer.weight, layer.bias, layer.mean, layer.variance):
                value.uniform_(0.1, 1.0, generator=rng)
    return model.eval()


def norm_of(model: nn.Module) -> nn.BatchNorm2d:
    (found,) = (module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    return found


def images() -> Tensor:
    return torch.rand(5, 3, 6, 6, generator=stream(2, "images"))


def bench(name: str, options: dict[str, Any] | None = None) -> Bench:
    return Bench(Subject("method", name, {"perturbation": ATTACK, **(options or {})}), toy_plain)


# --- masks


@pytest.mark.parametrize(
    ("strength", "bases", "expected"),
    [
        (0.0, 2, [1, 0]),
        (1.0, 2, [0, 1]),
        (0.75, 2, [0.25, 0.75]),
        (0.5, 3, [0, 1, 0]),
        (0.25, 3, [0.5, 0.5, 0]),
        (0.3, 1, [1]),
    ],
)
def test_strengths_are_encoded_as_in_equation_6_2(strength: float, bases: int, expected: list[float]) -> None:
    assert encode(strength, bases) == pytest.approx(expected)


def test_separate_norms_do_not_mix() -> None:
    found = [encode(strength, 3, mixture=False) for strength in (0.0, 0.3, 0.5, 0.51, 1.0)]
    assert found == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize(("bases", "mixture"), [(1, True), (2, True), (3, True), (4, True), (3, False)])
def test_a_drawn_strength_has_the_same_u_to_the_bit(bases: int, mixture: bool) -> None:
    draws = torch.rand(50, generator=stream(0, "strengths")).double()
    for p in (*draws.unbind(), *torch.linspace(0, 1, 7, dtype=torch.float64).unbind()):
        found = Drawn.of(p, bases, mixture)
        expected = encode(float(p), bases, mixture)
        assert torch.equal(torch.stack(found.shares), torch.tensor(expected))
        assert expected[int(found.place)] == max(expected)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_drawn_strength_computes_and_moves_what_the_number_does(separate: bool, training: bool) -> None:
    number, drawn = (masked(3, separate).train(training) for _ in range(2))
    for p in (0.0, 0.3, 0.5, 1.0):
        switch(number, p)
        switch(drawn, Drawn.of(torch.tensor(p, dtype=torch.float64), 3, mixture=not separate))
        assert torch.equal(number(images()), drawn(images()))
    for (name, value), other in zip(number.named_buffers(), drawn.buffers(), strict=True):
        assert torch.equal(value, other), name


def test_gradients_flow_through_several_masks_with_statistics_of_their_own() -> None:
    model = masked(2, separate=True).train()
    outputs = []
    for strength in (0.0, Drawn.of(torch.ones((), dtype=torch.float64), 2, mixture=False), 1.0, 0.0):
        switch(model, strength)
        outputs.append(model(images()).sum())
    torch.stack(outputs).sum().backward()  # type: ignore[no-untyped-call]
    (layer,) = masks(model)
    assert layer.weight.grad is not None
    assert bool(layer.weight.grad.isfinite().all())


@pytest.mark.parametrize("training", [False, True])
def test_a_mask_is_a_rescaling_after_normalisation(training: bool) -> None:
    norm = nn.BatchNorm2d(4)
    layer = MaskedNorm(norm, 2, separate=False).train(training)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2, generator=stream(0, "w"))
        layer.bias.uniform_(-1, 1, generator=stream(0, "b"))
        layer.mean.fill_(0.3)
        layer.variance.fill_(2.0)
    x = torch.rand(6, 4, 3, 3, generator=stream(0, "x"))
    layer.encoding = encode(0.25, 2)
    mean = x.mean((0, 2, 3)) if training else torch.full((4,), 0.3)
    variance = x.var((0, 2, 3), unbiased=False) if training else torch.full((4,), 2.0)
    gamma = 0.75 * layer.weight[:, 0] + 0.25 * layer.weight[:, 1]
    beta = 0.75 * layer.bias[:, 0] + 0.25 * layer.bias[:, 1]

    def spread(values: Tensor) -> Tensor:
        return values.view(1, 4, 1, 1)

    expected = spread(gamma) * (x - spread(mean)) / (spread(variance) + norm.eps).sqrt() + spread(beta)
    torch.testing.assert_close(layer(x), expected)


def test_masks_start_as_the_layer_that_they_replace() -> None:
    model = network().eval()
    expected = model(images())
    put_masks(model, 3, separate=True)
    for strength in (0.0, 0.4, 1.0):
        switch(model, strength)
        torch.testing.assert_close(model(images()), expected)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("strength", [0.0, 0.3, 0.5, 1.0])
def test_folding_computes_what_the_mask_computes(strength: float, separate: bool) -> None:
    model = masked(3, separate)
    folded = fold(model, strength)
    assert not list(masks(folded))
    assert norm_of(folded).affine
    assert len(list(masks(model))) == 1
    switch(model, strength)
    torch.testing.assert_close(folded(images()), model(images()), atol=1e-6, rtol=0)


def test_separate_statistics_move_with_their_own_mask_only() -> None:
    model = masked(2, separate=True).train()
    (layer,) = masks(model)
    before = layer.mean.clone()
    switch(model, 1.0)
    model(images())
    assert torch.equal(layer.mean[0], before[0])
    assert not torch.equal(layer.mean[1], before[1])
    assert layer.batches.tolist() == [0, 1]


def test_a_model_without_batchnorm_is_refused() -> None:
    with pytest.raises(Refused, match="BatchNorm"):
        put_masks(nn.Sequential(nn.Linear(2, 2)), 2, separate=False)
    recipe = {**RECIPE, "method": {"use": "robmask"}, "model": {"use": "small-cnn", "batchnorm": False}}
    with pytest.raises(RecipeError, match="this model has none"):
        robustplug.train(recipe)


# --- training


def test_the_attack_and_the_loss_see_the_mask_of_the_strength() -> None:
    made = bench("robmask", {"clean_weight": 0.25})
    for layer in masks(made.model):
        with torch.no_grad():
            layer.weight[:, 1] += 0.5
    step = made.step(made.batch())
    total, (clean, adv) = training_loss(made.method, step)
    drawn = adv.info["strength"]
    assert isinstance(drawn, Drawn)
    p = float(drawn.p)
    assert adv.radius is not None
    assert torch.equal(adv.radius, torch.full((8,), p * float(made.method.vicinity.eps)))
    losses = []
    for strength, view in ((0.0, clean), (p, adv)):
        copied = copy.deepcopy(made.model).train()
        switch(copied, strength)
        losses.append(nn.functional.cross_entropy(copied(view.x), view.y))
    torch.testing.assert_close(total, 0.25 * losses[0] + 0.75 * losses[1])
    assert [layer.encoding for layer in masks(made.model)] == [[1.0, 0.0]]


def test_advprop_trains_at_full_strength_with_statistics_of_its_own() -> None:
    made = bench("advprop")
    step = made.step(made.batch())
    _, (clean, adv) = training_loss(made.method, step)
    assert (clean.role, adv.role, adv.info["strength"]) == ("clean", "adv", 1.0)
    assert all(len(layer.mean) == 2 for layer in masks(made.model))


def test_several_auxiliary_norms_have_strengths_of_their_own() -> None:
    made = bench("advprop", {"bases": 4})
    seen = {float(made.views(made.step(made.batch()))[1].info["strength"].p)}
    for step in made.steps(6):
        seen.add(float(made.update(step)[1].info["strength"].p))
    assert sorted(seen) == [1 / 3, 2 / 3, 1]


def test_one_basis_is_one_shared_rescaling() -> None:
    """K = 1: the gradients are those of a plain BatchNorm that both views go through."""
    made = bench("robmask", {"bases": 1})
    plain = fold(made.model, 0.0).train()
    step = made.step(made.batch())
    total, views = training_loss(made.method, step)
    total.backward()  # type: ignore[no-untyped-call]
    losses = [nn.functional.cross_entropy(plain(view.x), view.y) for view in views]
    (0.5 * losses[0] + 0.5 * losses[1]).backward()  # type: ignore[no-untyped-call]
    (layer,) = masks(made.model)
    norm = norm_of(plain)
    for found, expected in ((layer.weight, norm.weight), (layer.bias, norm.bias)):
        assert found.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(found.grad[:, 0], expected.grad)


def test_masks_compute_under_autocast() -> None:
    for separate in (False, True):
        model = masked(2, separate).train()
        switch(model, 1.0 if separate else 0.3)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(images())
        output.float().sum().backward()
        (layer,) = masks(model)
        assert layer.weight.grad is not None
        assert layer.weight.grad.dtype == torch.float32
        plain = fold(model, 1.0 if separate else 0.3).train()
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(plain(images()), model(images()))


def test_a_shared_norm_stays_shared() -> None:
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(nn.Sequential(norm), nn.Sequential(norm), norm)
    (layer,) = put_masks(model, 2, separate=False)
    assert [module for child in model for module in child.modules()].count(layer) == 3
    folded = fold(model, 0.5)
    assert not list(masks(folded))


def test_masks_that_nothing_switches_are_refused() -> None:
    with pytest.raises(RecipeError, match="never be used"):
        bench("robmask", {"output_map": {"use": "identity"}})


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(RecipeError, match="at least 2"):
        bench("robmask", {"strengths": "anchors", "bases": 1})


# --- only BatchNorm, and interpolation


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a plainly trained run, and one that fine-tuned its BatchNorm adversarially."""
    top = tmp_path_factory.mktemp("pair")
    plain = robustplug.train({**RECIPE, "method": {"use": "erm"}}, out=top / "plain").folder
    tuned = {
        **RECIPE,
        "model": {"from": str(plain)},
        "method": {"use": "pgd-at", "perturbation": {"steps": 2}},
        "train": {"epochs": 1, "batch_size": 64, "device": "cpu", "only": "batchnorm"},
    }
    return plain, robustplug.train(tuned, out=top / "tuned").folder


def test_only_batchnorm_is_trained(pair: tuple[Path, Path]) -> None:
    plain, tuned = (open_run(folder).model for folder in pair)
    other = tuned.state_dict()
    inside = {
        f"{name}.{key}"
        for name, module in plain.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key in module.state_dict()
    }
    changed = {key for key, value in plain.state_dict().items() if not torch.equal(value, other[key])}
    assert changed <= inside
    assert any(key.endswith("weight") for key in changed)


def test_masks_are_fine_tuned_with_only_batchnorm(pair: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = {
        **RECIPE,
        "model": {"from": str(pair[0])},
        "method": {"use": "robmask", "perturbation": {"steps": 2}},
        "train": {"epochs": 1, "batch_size": 64, "device": "cpu", "only": "batchnorm"},
    }
    tuned = open_run(robustplug.train(recipe, out=tmp_path / "run").folder)
    plain = open_run(pair[0]).model.state_dict()
    for name, value in tuned.trained.named_parameters():
        assert value.requires_grad == (name not in plain or value.shape != plain[name].shape)
        if not value.requires_grad:
            assert torch.equal(value, plain[name])
    assert any(not torch.equal(layer.weight[:, 0], layer.weight[:, 1]) for layer in masks(tuned.trained))


@pytest.mark.parametrize(("p", "which"), [(1.0, 0), (0.0, 1)])
def test_the_ends_of_an_interpolation_are_the_runs(pair: tuple[Path, Path], p: float, which: int) -> None:
    models = [open_run(folder).model for folder in pair]
    found, expected = interpolate(models[0], models[1], p).state_dict(), models[which].state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def test_between_two_runs_every_rescaling_is_between() -> None:
    first, second = network(), network()
    with torch.no_grad():
        norm_of(second).weight.add_(1)
        norm_of(second).bias.sub_(2)
    found, start = norm_of(interpolate(first, second, 0.25)), norm_of(first)
    torch.testing.assert_close(found.weight, start.weight + 0.75)
    torch.testing.assert_close(found.bias, start.bias - 1.5)


def test_models_that_differ_elsewhere_are_not_interpolated() -> None:
    first, second = network(), network()
    with torch.no_grad():
        second[4].get_parameter("bias").add_(1)
    with pytest.raises(Refused, match=r"4\.bias"):
        interpolate(first, second, 0.5)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["mask", *map(str, arguments)])


def test_interpolation_on_the_command_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("interpolate", *pair, "--p", "0:1:0.5", "--samples", 40, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    body = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [row["p"] for row in body["rows"]] == [0, 0.5, 1]
    assert body["samples"] == 40
    for end, folder in ((0, pair[1]), (2, pair[0])):
        own = robustplug.evaluate(folder, samples=40)
        assert body["rows"][end]["clean"] == own.attacks[0].accuracy
    assert (tmp_path / "out" / "masks.png").is_file()


def test_a_sweep_evaluates_folded_models(tmp_path: Path) -> None:
    method = {"use": "robmask", "vicinity": {"eps": 0.1}, "perturbation": {"steps": 2}}
    folder = robustplug.train({**RECIPE, "method": method}, out=tmp_path / "run").folder
    assert not list(masks(open_run(folder).model))
    result = run("sweep", folder, "--eps", "0,0.05,0.1", "--samples", 40)
    assert result.exit_code == 0, result.output
    rows = json.loads((folder / "masks.json").read_text())["rows"]
    assert [row["eps"] for row in rows] == [0, 0.05, 0.1]
    assert rows[0]["clean"] == robustplug.evaluate(folder, samples=40).attacks[0].accuracy
    assert (folder / "figures" / "masks.png").is_file()
    beyond = run("sweep", folder, "--eps", "0.2")
    assert beyond.exit_code == 2
    assert "largest radius" in beyond.output


@pytest.mark.parametrize("text", ["0:1", "1:0:0.1", "0:1:0", "a", "0:x:1"])
def test_a_range_that_is_none_is_refused(pair: tuple[Path, Path], text: str) -> None:
    result = run("interpolate", *pair, "--p", text)
    assert result.exit_code == 2
    assert "FIRST:LAST:STEP" in result.output


def test_other_runs_have_no_masks(pair: tuple[Path, Path]) -> None:
    assert run("sweep", pair[0]).exit_code == 2
