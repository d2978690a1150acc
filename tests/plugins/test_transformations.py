"""Sets of transformed images: against torchvision, closed forms, and exact checks of parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

import robustplug
from robustplug.core.method import Objective
from robustplug.core.random import stream
from robustplug.core.step import Step
from robustplug.core.types import Batch, View
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.testing.toys import ToyTask

SETS: dict[str, dict[str, Any]] = {
    "spatial": {"degrees": 20, "shift": 0.1, "zoom": 0.1},
    "colour": {"brightness": 0.2, "contrast": 0.3, "saturation": 0.5},
    "blur": {"sigma": 1.5},
    "jpeg": {"quality": 30},
}


def images(count: int = 6, size: int = 16) -> Tensor:
    """Draw smooth images (N, 3, size, size) within the range."""
    noise = torch.rand(count, 3, size // 4 + 1, size // 4 + 1, generator=stream(7, "images"))
    return nn.functional.interpolate(0.2 + 0.6 * noise, (size, size), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("name", SETS)
def test_images_of_the_set_are_known_found_again_and_others_refused(name: str) -> None:
    vicinity, x = robustplug.build("vicinity", name, **SETS[name]), images()
    radius = torch.tensor([1.0, 1.0, 0.5, 0.25, 0.0, 1.0])
    found = vicinity.random_point(x, radius, stream(7, "points"))
    assert torch.equal(found[4], x[4])
    assert not torch.equal(found[0], x[0])
    assert bool(vicinity.contains(found, x, radius).all())
    # One that knows no parameters searches them, and finds the same.
    other = robustplug.build("vicinity", name, **SETS[name])
    assert bool(other.contains(found, x, radius).all())
    assert torch.equal(other.project(found, x, radius), found)
    # Known parameters beyond the radius are none of the set, and neither is any other image.
    far = vicinity.of(x, vicinity.ends(radius)[1])
    assert bool(vicinity.contains(far, x, radius).all())
    assert not bool(vicinity.contains(far, x, radius * 0.5)[[0, 1, 5]].any())
    changed = found.clone()
    changed[:, 0, 3, 3] = (changed[:, 0, 3, 3] + 0.5) % 1
    assert not bool(vicinity.contains(changed, x, radius).any())
    assert not bool(vicinity.contains(torch.full_like(x, torch.nan), x, radius).any())


def test_rotations_and_shifts_are_those_of_torchvision() -> None:
    x = images(3, 17)
    vicinity = robustplug.build("vicinity", "spatial", degrees=30, shift=0, zoom=0)
    turned = vicinity.render(x, torch.full((3, 1), 0.5))
    bilinear = functional.InterpolationMode.BILINEAR
    # A positive angle of torchvision is counter-clockwise, as ours is.
    expected = functional.rotate(x, 15.0, interpolation=bilinear)
    assert float((turned - expected)[:, :, 3:-3, 3:-3].abs().max()) < 1e-4
    moved = robustplug.build("vicinity", "spatial", degrees=0, shift=2 / 17)
    right = moved.render(x, torch.tensor([[1.0, 0.0]] * 3))
    assert torch.allclose(right[..., 2:], x[..., :-2], atol=1e-5)
    assert float(right[..., :1].abs().max()) == 0
    down = moved.render(x, torch.tensor([[0.0, 1.0]] * 3))
    assert torch.allclose(down[..., 2:, :], x[..., :-2, :], atol=1e-5)
    # Zoomed by a half, the middle of the image has its place again.
    zoomed = robustplug.build("vicinity", "spatial", degrees=0, shift=0, zoom=1)
    twice = zoomed.render(x, torch.ones(3, 1))
    assert torch.allclose(twice[..., 8, 8], x[..., 8, 8], atol=1e-5)
    assert torch.allclose(twice[..., 10, 12], x[..., 9, 10], atol=1e-5)


def test_wide_images_turn_without_shear() -> None:
    x = torch.zeros(1, 1, 21, 41)
    x[..., 10, 15:26] = 1
    vicinity = robustplug.build("vicinity", "spatial", degrees=90, shift=0)
    turned = vicinity.render(x, torch.ones(1, 1))
    assert torch.allclose(turned[0, 0, 5:16, 20], torch.ones(11), atol=1e-4)
    assert float(turned.sum()) == pytest.approx(11, abs=1e-3)


def test_colours_and_blur_are_those_of_torchvision() -> None:
    x = 0.3 + 0.4 * images()
    colour = robustplug.build("vicinity", "colour", brightness=0.1, contrast=0.5)
    found = colour.render(x, torch.tensor([[1.0, 0.4]] * 6))
    mean = x.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(found, mean + 1.2 * (x - mean) + 0.1, atol=1e-6)
    grey = robustplug.build("vicinity", "colour", brightness=0, contrast=0, saturation=1)
    assert torch.allclose(grey.render(x, -torch.ones(6, 1)), x.mean(1, keepdim=True).expand_as(x), atol=1e-6)
    blur = robustplug.build("vicinity", "blur", sigma=1.5)
    inside = blur.render(x, torch.full((6, 1), 0.8))[:, :, 5:-5, 5:-5]
    expected = functional.gaussian_blur(x, [11, 11], [1.2, 1.2])[:, :, 5:-5, 5:-5]
    assert torch.allclose(inside, expected, atol=1e-4)
    assert torch.allclose(blur.render(x, torch.full((6, 1), 1e-4)), x, atol=1e-6)


def test_compression_loses_more_at_lower_qualities() -> None:
    x, vicinity = images(), robustplug.build("vicinity", "jpeg", quality=10)
    away = [
        float((vicinity.render(x, torch.full((6, 1), share)) - x).abs().mean()) for share in (0.01, 0.5, 1)
    ]
    assert 0 < away[0] < away[1] < away[2] < 0.1
    grey = vicinity.render(x[:, :2], torch.ones(6, 1))
    assert torch.equal(grey[:, :1], vicinity.render(x[:, :1], torch.ones(6, 1)))


@pytest.mark.parametrize("name", ["spatial", "colour", "blur"])
def test_gradients_lead_to_the_parameters(name: str) -> None:
    vicinity, x = robustplug.build("vicinity", name, **SETS[name]), 0.2 + 0.6 * images().double()
    weight = torch.randn(x.shape, generator=stream(7, "weight"), dtype=torch.float64)
    theta = torch.full((6, len(vicinity.names)), 0.3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((vicinity.render(x, theta) * weight).sum(), theta)
    for number in range(theta.shape[1]):
        step = torch.zeros_like(theta)
        step[:, number] = 1e-6
        sides = [(vicinity.render(x, theta + sign * step) * weight).flatten(1).sum(1) for sign in (1, -1)]
        assert torch.allclose(gradient[:, number], (sides[0] - sides[1]) / 2e-6, rtol=1e-2, atol=1e-4)
    still = torch.zeros_like(theta).requires_grad_()
    image = vicinity.render(x, still)
    assert torch.equal(image, x)
    (gradient,) = torch.autograd.grad((image * weight).sum(), still)
    assert bool((gradient != 0).all()) or name == "blur"


class Tilted(nn.Module):
    """Says 0 for upright bars, 1 for bars that are turned far to the right."""

    def forward(self, x: Tensor) -> Tensor:
        side = torch.linspace(-1, 1, x.shape[-1])
        tilt = -(x * side[None, None, :, None] * side[None, None, None, :]).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(tilt) + 0.9, tilt], 1)


def upright(evaluating: bool = True) -> tuple[Step, View]:
    x = torch.zeros(4, 1, 21, 21)
    x[:, :, 3:18, 9:12] = 1
    batch = Batch(x, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    loss = robustplug.build("loss", "ce")
    plain = Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)
    step = Step(Tilted(), plain, ToyTask(classes=2), batch, stream(0, "attack"), evaluating=evaluating)
    return step, View.of(batch, "adv")


@pytest.mark.parametrize("evaluating", [False, True])
@pytest.mark.parametrize(
    ("attack", "options"),
    [
        ("grid", {"points": 9}),
        ("worst-of-k", {"k": 30}),
        ("in-parameters", {"attack": {"use": "pgd", "steps": 20, "restarts": 2}}),
        ("in-parameters", {"attack": {"use": "apgd-ce", "steps": 10}}),
        ("in-parameters", {"attack": {"use": "noise"}}),
    ],
)
def test_attacks_on_angles_turn_a_bar(attack: str, options: dict[str, Any], evaluating: bool) -> None:
    vicinity = robustplug.build("vicinity", "spatial", degrees=40, shift=0.05)
    step, view = upright(evaluating)
    found = robustplug.build("perturbation", attack, **options)(step, view, vicinity)
    assert bool(vicinity.contains(found.x, view.origin, torch.ones(4)).all())
    assert set(step.reported) == {"rotation (degrees)", "shift right (sides)", "shift down (sides)"}
    model = Tilted()
    losses = [nn.functional.cross_entropy(model(x), view.y) for x in (view.x, found.x)]
    if options.get("attack") != {"use": "noise"}:
        assert float(losses[1]) > float(losses[0]) + 0.1
        if evaluating:
            assert bool((model(found.x).argmax(1) == 1).all())
            assert float(step.reported["rotation (degrees)"].min()) > 5
    assert float(step.reported["rotation (degrees)"].max()) <= 40.001


def test_the_grid_has_every_combination() -> None:
    vicinity = robustplug.build("vicinity", "spatial", degrees=30, shift=0.1)
    found = torch.stack([theta[0] for theta in vicinity.grid(torch.ones(1), 3)])
    assert len(found) == len({tuple(row) for row in found.tolist()}) == 27
    blur = robustplug.build("vicinity", "blur")
    assert [float(theta[0, 0]) for theta in blur.grid(torch.full((1,), 0.5), 3)] == [0, 0.25, 0.5]


def test_a_grid_without_the_middle_is_never_better_than_no_change() -> None:
    class Grey(nn.Module):
        """Says 0 the less, the nearer the mean is to a half."""

        def forward(self, x: Tensor) -> Tensor:
            away = (x.flatten(1).mean(1) - 0.5).abs()
            return torch.stack([10 * away, torch.zeros_like(away)], 1)

    step, view = upright(evaluating=False)
    step.model, view = Grey(), view.replace(x=view.x * 0 + 0.5, origin=view.x * 0 + 0.5)
    vicinity = robustplug.build("vicinity", "colour", brightness=0.2, contrast=0.0)
    found = robustplug.build("perturbation", "grid", points=2)(step, view, vicinity)
    assert torch.equal(found.x, view.origin)


@pytest.mark.parametrize(("attack", "options"), [("grid", {"points": 3}), ("worst-of-k", {"k": 8})])
def test_targets_of_several_tensors_follow_the_samples_that_are_left(
    attack: str, options: dict[str, Any]
) -> None:
    step, view = upright()
    view = view.replace(x=(half := view.x * torch.tensor([1.0, 1, 0, 0]).view(-1, 1, 1, 1)), origin=half)
    seen = []

    def loss(step: Step, view: View, output: Tensor, target: Any) -> Tensor:
        seen.append(len(target["label"]))
        return nn.functional.cross_entropy(output, target["label"], reduction="none")

    step.method = Objective(
        lambda step, view: {"label": view.y}, lambda step, view: step.forward(view.x), loss
    )
    vicinity = robustplug.build("vicinity", "spatial", degrees=40, shift=0.05)
    robustplug.build("perturbation", attack, **options)(step, view, vicinity)
    assert seen[0] == 4
    assert seen[-1] == 2


BASE: dict[str, Any] = {"task": {"use": "digits"}, "method": {"use": "erm"}}


@pytest.mark.parametrize(
    ("vicinity", "attack", "said"),
    [
        ({"use": "spatial"}, {"use": "pgd"}, "put it into in-parameters"),
        ({"use": "blur"}, {"use": "square"}, "whole L∞, L2 or L1 ball"),
        (
            {"use": "colour"},
            {"use": "in-parameters", "attack": {"use": "square"}},
            "the parameters of vicinity",
        ),
        ({"use": "linf"}, {"use": "grid"}, "use vicinity spatial, colour, blur or jpeg"),
        ({"use": "jpeg"}, {"use": "in-parameters"}, "without gradients"),
        ({"use": "spatial", "degrees": 0, "shift": 0}, {"use": "grid"}, "nothing may change"),
        ({"use": "jpeg", "quality": 100}, {"use": "grid"}, "99"),
        ({"use": "mask", "frame": 1, "inner": {"use": "blur"}}, {"use": "grid"}, "not legal in part"),
    ],
)
def test_attacks_and_sets_that_do_not_fit_are_refused(
    vicinity: dict[str, Any], attack: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe_from_mapping({**BASE, "evaluate": {"vicinity": vicinity, "attack": [attack]}})


def test_grey_images_have_no_saturation() -> None:
    vicinity = {"use": "colour", "brightness": 0, "contrast": 0, "saturation": 0.5}
    x = torch.rand(4, 1, 8, 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with pytest.raises(RecipeError, match="saturation: grey images have none"):
        robustplug.evaluate(
            model, data=(x, torch.tensor([0, 1, 0, 1])), threat=vicinity, attacks=[{"use": "worst-of-k"}]
        )


def test_a_run_is_trained_and_evaluated_in_transformed_images(tmp_path: Any) -> None:
    attack = {"use": "in-parameters", "attack": {"use": "pgd", "steps": 2}}
    recipe = {
        "task": {"use": "digits"},
        "method": {
            "use": "pgd-at",
            "vicinity": {"use": "spatial"},
            "perturbation": {"use": "worst-of-k", "k": 2},
        },
        "train": {"epochs": 1},
        "validate": {"attack": attack, "samples": 20},
        "evaluate": {"attack": [attack, {"use": "worst-of-k", "k": 5}], "samples": 40},
    }
    result = robustplug.train(recipe, out=tmp_path / "run")
    rows = {row.name: row for row in result.result.attacks}
    assert len(rows) == 3
    for row in list(rows.values())[1:]:
        assert not row.skipped
        assert row.rejected == 0
        assert "rotation (degrees)" in row.measures
