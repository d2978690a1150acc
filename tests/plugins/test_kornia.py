"""Transformations of kornia in front of a model, against direct calls of kornia."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.api import TaskInfo, isolated, stream
from robustplug.plugin.build import build
from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError

COLOUR = TaskInfo({}, (3, 12, 12), 4)
GREY = TaskInfo({}, (1, 8, 8), 10)
SHIFT: dict[str, Any] = {"name": "RandomAffine", "degrees": 20.0, "translate": [0.2, 0.2], "p": 1.0}
BLUR: dict[str, Any] = {"name": "GaussianBlur2d", "kernel_size": [3, 3], "sigma": [0.8, 0.8]}


def test_without_kornia_the_error_says_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    with pytest.raises(RecipeError, match=r'this needs kornia: pip install "robustplug\[kornia\]"'):
        resolve(Use("kornia:GaussianBlur2d"), "wrapper")


@pytest.fixture
def kornia() -> Any:
    return pytest.importorskip("kornia")


class Flat(nn.Module):
    """A linear model of images."""

    def __init__(self, info: TaskInfo) -> None:
        super().__init__()
        assert info.shape is not None
        size = info.shape[0] * info.shape[1] * info.shape[2]
        with isolated(0):
            self.head = nn.Linear(size, info.classes or 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(x.flatten(1))
        return result


def images(info: TaskInfo = COLOUR, rows: int = 5) -> Tensor:
    assert info.shape is not None
    return torch.rand(rows, *info.shape, generator=stream(0, "images"))


def behind(info: TaskInfo = COLOUR, **options: Any) -> Any:
    reference = resolve(Use("kornia", options), "wrapper")
    model = Flat(info) if info.shape and len(info.shape) == 3 else nn.Identity()
    return build(reference, "wrapper", info, model=model)


def test_outputs_and_gradients_are_those_of_kornia(kornia: Any) -> None:
    x, model = images().requires_grad_(), behind(**BLUR)
    direct = model.model(kornia.filters.GaussianBlur2d((3, 3), (0.8, 0.8))(x))
    found = model(x)
    assert torch.equal(found, direct)
    own, theirs = (torch.autograd.grad(y[:, 1].sum(), x)[0] for y in (found, direct))
    assert torch.equal(own, theirs)
    assert bool(own.abs().sum() > 0)
    # Brightness is a function of [0, 1]: other images are moved to it, and back.
    info = TaskInfo({}, (3, 12, 12), 4, bounds=(-1.0, 3.0))
    model = behind(info, name="AdjustGamma", gamma=2.0)
    wide = 4 * images() - 1
    expected = 4 * kornia.enhance.adjust_gamma(images(), 2.0) - 1
    assert torch.allclose(model.transformed(wide), expected, atol=1e-5)


def test_draws_of_a_random_transformation_are_kept_for_every_image(kornia: Any) -> None:
    state, x = torch.get_rng_state(), images()
    model, again, other = (behind(**SHIFT, draws=3, seed=seed) for seed in (1, 1, 2))
    found = model(x)
    assert torch.equal(found, model(x))
    assert torch.equal(found, again(x))
    assert not torch.allclose(found, other(x))
    assert torch.allclose(found[[3, 1]], model(x[[3, 1]]), atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.passes_per_row == 3
    # Each draw is what kornia draws for an image alone, from a generator of that seed.
    affine = kornia.augmentation.RandomAffine(20.0, translate=(0.2, 0.2), p=1.0)
    shares = []
    for number in range(3):
        rows = []
        for image in torch.split(x, 1):
            with isolated(robustplug.api.derive(1, "kornia", number)):
                rows.append(affine(image))
        shares.append(model.model(torch.cat(rows)).softmax(1))
    assert torch.allclose(found.softmax(1), torch.stack(shares).mean(0), atol=1e-5)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    assert bool((slope.flatten(1).abs().sum(1) > 0).all())


def test_one_stands_behind_another_in_a_model_that_is_trained(kornia: Any) -> None:
    inner = {"use": "kornia:AdjustGamma", "gamma": 2.0, "model": {"use": "small-cnn"}}
    reference = resolve(Use("kornia", {**SHIFT, "draws": 1, "model": inner}), "model")
    with isolated(0):
        model = build(reference, "model", COLOUR)
    assert model.training
    assert model.passes_per_row == 1
    network = model.model.model
    seen = model.model.transformed(model.transformed(images(), model.draws[0]))
    assert torch.allclose(model.eval()(images()), network(seen), atol=1e-6)
    assert list(model.state_dict()) == [f"model.model.{name}" for name in network.state_dict()]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "GausianBlur2d"}, 'did you mean "GaussianBlur2d"'),
        ({**BLUR, "sgima": 1.0}, 'did you mean "sigma"'),
        ({"name": "GaussianBlur2d", "kernel_size": [3, 3]}, "sigma is missing"),
        ({"name": "RandomAffine", "degrees": -1.0, "draws": 1}, "kornia's RandomAffine refuses"),
        (SHIFT, "is random: state the number of draws"),
        ({**BLUR, "draws": 2}, "is not random: leave it out"),
        ({**SHIFT, "draws": 2, "same_on_batch": True}, "same for every image"),
        ({"name": "RandomMixUpV2"}, "mixes samples"),
        ({"name": "RandomAffine3D", "degrees": 1.0}, "is for volumes"),
        ({"name": "ImageSequential"}, "joins transformations"),
    ],
)
def test_what_cannot_be_is_refused_when_the_recipe_is_read(
    kornia: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError) as error:
        resolve(Use("kornia", options), "wrapper")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("info", "options", "said"),
    [
        (TaskInfo({}, (5,), 2), BLUR, "is for images"),
        (COLOUR, {"name": "SpatialGradient"}, r"turns them into \(3, 2, 12, 12\)"),
        (COLOUR, {"name": "RandomChannelDropout", "p": 1.0, "draws": 1}, "depends on its batch"),
        (GREY, {"name": "AdjustHue", "hue_factor": 0.1}, "fails on images of shape"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(
    kornia: Any, info: TaskInfo, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        behind(info, **options)


def test_attacks_see_through_it_in_recipes_and_average_over_draws_of_a_model(
    kornia: Any, tmp_path: Path
) -> None:
    pgd = {"use": "pgd", "steps": 3, "step_ratio": 0.5}
    around = {"use": "kornia:RandomAffine", "degrees": 10.0, "p": 1.0, "draws": 2}
    recipe = {
        "task": {"use": "digits"},
        "model": {"use": "kornia:BoxBlur", "kernel_size": [3, 3]},
        "method": {"use": "erm", "vicinity": {"use": "linf", "eps": 0.2}},
        "train": {"epochs": 1},
        "validate": {"samples": 16},
        "evaluate": {
            "wrapper": around,
            "attack": [{"use": "eot", "draws": 2, "attack": pgd}],
            "samples": 60,
        },
    }
    run = robustplug.train(recipe, out=tmp_path / "run")
    clean, eot = run.result.attacks
    assert clean.right.count(True) == eot.attempted > 0
    assert eot.broken > 0.2 * eot.attempted
    # At least one step, of two draws of the attack and two of the model each.
    assert eot.backwards >= 2 * 2 * eot.attempted / 60

    class Anew(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.affine = kornia.augmentation.RandomAffine(10.0, p=1.0)
            self.model = Flat(GREY)

        def forward(self, x: Tensor) -> Any:
            return self.model(self.affine(x))

    found = robustplug.evaluate(
        Anew().eval(),
        task="digits",
        vicinity={"use": "linf", "eps": 0.2},
        samples=20,
        attacks=[{"use": "eot", "draws": 2, "attack": pgd}],
    )
    assert found.attacks[1].attempted == found.attacks[0].right.count(True)
    assert not found.attacks[1].skipped
