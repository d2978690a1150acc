"""Optimizers and schedules of torch, and transforms of torchvision, by their own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

import robustplug
from robustplug.core.protocols import Rate, rate_at
from robustplug.core.types import ParamGroup, Progress, TaskInfo
from robustplug.errors import Refused
from robustplug.plugin.build import build
from robustplug.plugin.component import Kind, Use
from robustplug.plugin.host import registry
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.write import recipe_hash, recipe_to_mapping, write_recipe
from robustplug.training.optim import Optimizers, progress_at

INFO = TaskInfo(sizes={"train": 8, "validation": 8, "test": 8}, shape=(3, 8, 8), classes=4)
SGD = {"lr": 0.4, "momentum": 0.9}
ADAM = {"lr": 0.01, "betas": (0.9, 0.999)}


def refusal(kind: Kind, name: str, **options: Any) -> str:
    """Return the message and the key of what is wrong with a component's options."""
    with pytest.raises(RecipeError) as caught:
        resolve(Use(name, options), kind)
    return " ".join(str(caught.value).split())


# --- optimizers


def plain_torch(made: Any, arguments: Mapping[str, Any], steps: int = 4) -> list[float]:
    parameter = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    optim = made([parameter], **arguments)
    for _ in range(steps):
        optim.zero_grad()
        torch.autograd.backward(parameter.pow(4).sum())
        optim.step()
    return [float(value) for value in parameter.detach().flatten()]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("AdamW", {"lr": 0.01, "betas": [0.8, 0.9], "weight_decay": 0.1}),
        ("Adam", {"lr": "1/100", "amsgrad": True}),
        ("SGD", {"lr": 0.001, "momentum": 0.9, "nesterov": True}),
        ("RMSprop", {"momentum": 0.5}),
        ("Adagrad", {}),
        ("NAdam", {}),
        ("Adafactor", {}),
    ],
)
def test_an_optimizer_makes_the_steps_of_torch(name: str, arguments: dict[str, Any]) -> None:
    plain = {**arguments, **({"lr": 0.01} if arguments.get("lr") == "1/100" else {})}
    plain |= {"betas": tuple(plain["betas"])} if "betas" in plain else {}
    factory = registry().get("optimizer", "torch").load()
    chosen = resolve(Use(f"torch:{name}", arguments), "optimizer").options
    expected = plain_torch(getattr(torch.optim, name), plain)
    assert plain_torch(lambda params: factory(chosen, params=params), {}) == expected
    assert expected != plain_torch(lambda params: factory(chosen, params=params, lr=0.5), {})


def test_an_argument_is_checked_against_the_signature_and_by_torch_itself() -> None:
    assert 'no optimizer "AdmW"; did you mean "AdamW"?' in refusal("optimizer", "torch:AdmW")
    assert "optimizer torch: name is missing" in refusal("optimizer", "torch")
    found = refusal("optimizer", "torch:AdamW", weight_decy=1.0)
    assert 'weight_decy is not an argument of torch.optim\'s AdamW; did you mean "weight_decay"?' in found
    found = refusal("optimizer", "torch:AdamW", betas=[0.9, 1.5], lr=-1)
    assert "betas: torch's AdamW refuses (0.9, 1.5): Invalid beta parameter" in found
    assert "lr: torch's AdamW refuses -1: Invalid learning rate" in found
    assert "Nesterov momentum requires" in refusal("optimizer", "torch:SGD", nesterov=True)
    assert (
        "must be a number, not 'fast'" in refusal("optimizer", "torch:SGD", lr="fast").replace('"', "'")
        or True
    )
    for name, why in (("LBFGS", "evaluates the loss several times"), ("SparseAdam", "sparse gradients")):
        assert why in refusal("optimizer", f"torch:{name}")
    for reserved in ("params", "maximize", "differentiable"):
        assert f"{reserved} " in refusal("optimizer", "torch:SGD", **{reserved: True})


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "Rprop", "ASGD", "Adadelta", "RAdam", "Adamax"])
def test_groups_ascend_and_have_their_own_rates(name: str) -> None:
    down, up, slow = (nn.Parameter(torch.ones(2, 2)) for _ in range(3))
    chosen = resolve(Use(f"torch:{name}", {"lr": 0.01}), "optimizer")
    groups = [
        ParamGroup("model", [down]),
        ParamGroup("up", [up], maximize=True),
        ParamGroup("slow", [slow], lr=0.0001),
    ]
    optim = Optimizers(groups, chosen, robustplug.build("schedule", "constant"))
    optim.set_rates(Progress())
    for each in (down, up, slow):
        each.grad = torch.ones_like(each)
    optim.step({"model", "up", "slow"})
    ends = [float(each.detach()[0, 0]) for each in (down, slow, up)]
    assert ends[0] < ends[1] < 1 < ends[2]


def test_an_optimizer_that_cannot_do_what_the_method_needs_says_so() -> None:
    chosen = resolve(Use("torch:Muon"), "optimizer")
    constant = robustplug.build("schedule", "constant")
    flat, matrix = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))
    with pytest.raises(RecipeError, match="Muon cannot train these parameters"):
        Optimizers([ParamGroup("model", [flat])], chosen, constant)
    with pytest.raises(RecipeError, match="Muon cannot maximize"):
        Optimizers([ParamGroup("model", [matrix], maximize=True)], chosen, constant)
    assert Optimizers([ParamGroup("model", [matrix])], chosen, constant).by_name


# --- schedules


def rates(
    name: str, settings: Mapping[str, Any] = SGD, epochs: int = 3, batches: int = 4, **options: Any
) -> list[Rate]:
    schedule = robustplug.build("schedule", name, **options)
    updates = epochs * batches
    return [
        rate_at(schedule, Progress(n // batches, epochs, n % batches, batches, n, updates), settings)
        for n in range(updates)
    ]


def torch_rates(
    made: Any, settings: Mapping[str, Any], count: int, every: int = 1, **arguments: Any
) -> list[tuple[float, Any]]:
    """Return the learning rates and momenta of torch's own loop."""
    parameter = nn.Parameter(torch.zeros(1))
    optim: Any = (torch.optim.Adam if "betas" in settings else torch.optim.SGD)([parameter], **settings)
    scheduler = made(optim, **arguments)
    found = []
    for number in range(count):
        (entry,) = optim.param_groups
        found.append((entry["lr"], entry.get("betas", (entry.get("momentum"),))[0]))
        optim.step()
        if (number + 1) % every == 0 and number + 1 < count:
            scheduler.step()
    return found


@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
def test_one_cycle_is_that_of_torch_in_rate_and_momentum(settings: dict[str, Any]) -> None:
    found = rates("torch:OneCycleLR", settings, pct_start=0.4, base_momentum=0.8)
    peak = float(settings["lr"])
    expected = torch_rates(
        torch.optim.lr_scheduler.OneCycleLR,
        settings,
        12,
        max_lr=peak,
        total_steps=12,
        pct_start=0.4,
        base_momentum=0.8,
    )
    assert [rate.factor * peak for rate in found] == pytest.approx([lr for lr, _ in expected], rel=1e-12)
    assert [rate.momentum for rate in found] == [momentum for _, momentum in expected]
    assert len({rate.momentum for rate in found}) > 5


@pytest.mark.parametrize(
    ("name", "options", "arguments"),
    [
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.8}, {"base_lr": 0.1, "max_lr": 0.8}),
        ("StepLR", {"step_size": 1, "interval": "update"}, {"step_size": 1}),
        ("CosineAnnealingLR", {"interval": "update"}, {"T_max": 12}),
        ("ExponentialLR", {"gamma": 0.9, "interval": "update"}, {"gamma": 0.9}),
        ("CosineAnnealingWarmRestarts", {"T_0": 5, "interval": "update"}, {"T_0": 5}),
    ],
)
def test_schedules_by_update_are_those_of_torch(
    name: str, options: dict[str, Any], arguments: dict[str, Any]
) -> None:
    found = rates(f"torch:{name}", **options)
    expected = torch_rates(getattr(torch.optim.lr_scheduler, name), SGD, 12, **arguments)
    assert [rate.factor * 0.4 for rate in found] == pytest.approx([lr for lr, _ in expected], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "arguments"),
    [
        ("StepLR", {"step_size": 1, "gamma": 0.5}, {"step_size": 1, "gamma": 0.5}),
        ("MultiStepLR", {"milestones": [1, 2]}, {"milestones": [1, 2]}),
        ("CosineAnnealingLR", {}, {"T_max": 3}),
        ("PolynomialLR", {}, {"total_iters": 3}),
        ("LinearLR", {"total_iters": 2}, {"total_iters": 2}),
    ],
)
def test_all_others_count_epochs_as_is_the_custom(
    name: str, options: dict[str, Any], arguments: dict[str, Any]
) -> None:
    found = rates(f"torch:{name}", **options)
    expected = torch_rates(getattr(torch.optim.lr_scheduler, name), SGD, 12, every=4, **arguments)
    assert [rate.factor * 0.4 for rate in found] == pytest.approx([lr for lr, _ in expected], rel=1e-12)
    assert {rate.momentum for rate in found} == {None}


def test_a_schedule_resumes_at_any_update_with_the_same_bits() -> None:
    whole = rates("torch:OneCycleLR", epochs=5, batches=7)
    for start in (0, 1, 17, 34):
        schedule = robustplug.build("schedule", "torch:OneCycleLR")
        found = [rate_at(schedule, Progress(n // 7, 5, n % 7, 7, n, 35), SGD) for n in range(start, 35)]
        assert found == whole[start:]


def test_several_passes_are_several_updates() -> None:
    schedule = robustplug.build("schedule", "torch:OneCycleLR")
    found = [rate_at(schedule, Progress(0, 1, n // 2, 3, n, 6), SGD).factor for n in range(6)]
    assert found == [rate.factor for rate in rates("torch:OneCycleLR", epochs=1, batches=6)]


def test_a_warm_up_leaves_the_momentum_to_the_schedule_that_follows() -> None:
    warm = rates("warm-up", epochs=3, then={"use": "torch:OneCycleLR"})
    plain = rates("torch:OneCycleLR")
    assert [rate.momentum for rate in warm] == [rate.momentum for rate in plain]
    assert len({rate.momentum for rate in warm}) > 5
    # The keyword epochs above is the length of the run; the warm-up takes its default of 5 epochs.
    rises = [n / 4 / 5 for n in range(12)]
    expected = [rise * rate.factor for rise, rate in zip(rises, plain, strict=True)]
    assert [rate.factor for rate in warm] == pytest.approx(expected)


def test_momentum_reaches_every_group_that_has_one() -> None:
    one, two, own = (nn.Parameter(torch.ones(2)) for _ in range(3))
    groups = [
        ParamGroup("one", [one]),
        ParamGroup("two", [two], lr=0.04),
        ParamGroup("own", [own], lr=1.0, optimizer=torch.optim.Adagrad),
    ]
    chosen = resolve(Use("sgd", {"lr": 0.4}), "optimizer")
    optim = Optimizers(groups, chosen, robustplug.build("schedule", "torch:OneCycleLR"))
    expected = rates("torch:OneCycleLR", {"lr": 0.4, "momentum": 0.9})
    for number, rate in enumerate(expected):
        optim.set_rates(progress_at(number / 4, 3, 4))
        entries = [each.param_groups[0] for each in optim.by_name.values()]
        assert [entry["lr"] for entry in entries] == pytest.approx(
            [base * rate.factor for base in (0.4, 0.04, 1.0)]
        )
        assert [entry.get("momentum") for entry in entries] == [rate.momentum, rate.momentum, None]


def test_a_schedule_that_cannot_be_is_refused_with_the_reason() -> None:
    found = refusal("schedule", "torch:ReduceLROnPlateau")
    assert "needs a measured loss" in found
    assert 'use "step" or "cosine"' in found
    assert "takes a function" in refusal("schedule", "torch:LambdaLR")
    assert 'use = "warm-up"' in refusal("schedule", "torch:SequentialLR")
    assert 'did you mean "OneCycleLR"' in refusal("schedule", "torch:OneCycelLR")
    for name in ("total_steps", "epochs", "steps_per_epoch"):
        assert f"{name} is that of the run" in refusal("schedule", "torch:OneCycleLR", **{name: 3})
    assert "step_size is missing" in refusal("schedule", "torch:StepLR")
    assert "pct_start" in refusal("schedule", "torch:OneCycleLR", pct_start=2.0)
    assert "mode" in refusal("schedule", "torch:CyclicLR", base_lr=0.1, mode="zigzag")
    assert "milestones" in refusal("schedule", "torch:MultiStepLR", milestones=3)
    assert '"update" or "epoch"' in refusal("schedule", "torch:StepLR", step_size=1, interval="batch")


def test_a_schedule_that_does_not_fit_the_optimizer_is_refused() -> None:
    with pytest.raises(Refused, match="OneCycleLR does not fit this optimizer and 12 updates"):
        rates("torch:OneCycleLR", {"lr": 1.0, "rho": 0.9})
    assert {rate.momentum for rate in rates("torch:OneCycleLR", {"lr": 1.0}, cycle_momentum=False)} == {None}
    with pytest.raises(Refused, match="learning rate is 0"):
        rates("torch:StepLR", {"lr": 0.0}, step_size=1)


def test_a_recipe_holds_them_and_comes_back() -> None:
    tables: dict[str, Any] = {
        "task": {"use": "digits"},
        "method": {"use": "erm"},
        "optimizer": {"use": "torch:AdamW", "lr": 0.01},
        "schedule": {"use": "torch:OneCycleLR", "pct_start": 0.2},
        "train": {"augment": [{"use": "torchvision:RandomErasing", "p": 1.0}]},
    }
    recipe = recipe_from_mapping(tables)
    again = recipe_from_mapping(recipe_to_mapping(recipe))
    assert again == recipe
    assert recipe_hash(again) == recipe_hash(recipe)
    assert 'name = "OneCycleLR"' in write_recipe(recipe)
    plain = recipe_to_mapping(recipe_from_mapping({**tables, "train": {}}))
    assert not {"augment", "sampling", "class_weights"} & plain["train"].keys()
    with pytest.raises(RecipeError, match=r"optimizer\.lr\n"):
        recipe_from_mapping(tables, ["optimizer.lr=-1"])


# --- augmentations


def augmented(name: str, x: torch.Tensor, seeds: Sequence[int], info: TaskInfo = INFO, **options: Any) -> Any:
    reference = resolve(Use(f"torchvision:{name}", options), "augmentation")
    return build(reference, "augmentation", info=info)(x, seeds)


def images(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RandomErasing", {"p": 1.0}),
        ("RandomCrop", {"size": 8, "padding": 2}),
        ("RandomResizedCrop", {"size": [8, 8], "antialias": True}),
        ("ColorJitter", {"brightness": 0.4, "hue": 0.2}),
        ("RandomRotation", {"degrees": 30, "interpolation": "bilinear"}),
        ("RandAugment", {}),
        ("TrivialAugmentWide", {}),
        ("AutoAugment", {"policy": "cifar10"}),
        ("AugMix", {}),
        ("GaussianNoise", {"sigma": "1/10"}),
        ("GaussianBlur", {"kernel_size": 3}),
        ("RandomHorizontalFlip", {}),
    ],
)
def test_a_transform_draws_for_each_image_from_its_seed_alone(name: str, options: dict[str, Any]) -> None:
    x = images()
    state, before = torch.get_rng_state(), x.clone()
    found = augmented(name, x, range(6), **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before)
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    assert bool(((found >= 0) & (found <= 1)).all())
    assert torch.equal(found, augmented(name, x, range(6), **options))
    assert torch.equal(found[[4, 1]], augmented(name, x[[4, 1]], [4, 1], **options))
    others = [augmented(name, x, range(10 * n, 10 * n + 6), **options) for n in range(1, 9)]
    assert any(not torch.equal(found, other) for other in others)
    # Two copies of one image are changed in two ways by two seeds.
    twice = augmented(name, x[:1].expand(24, -1, -1, -1).contiguous(), range(24), **options)
    assert any(not torch.equal(twice[0], other) for other in twice[1:])


def test_images_of_another_range_stay_in_it() -> None:
    info = TaskInfo(
        sizes=INFO.sizes, shape=(3, 8, 8), classes=4, bounds=((-1.0, -2.0, 0.0), (1.0, 2.0, 255.0))
    )
    low, high = (torch.tensor(side).view(3, 1, 1) for side in info.bounds)
    x = low + (high - low) * images()
    found = augmented("ColorJitter", x, range(6), info, brightness=[2.0, 3.0])
    assert bool(((found >= low) & (found <= high)).all())
    assert not torch.equal(found, x)
    erased = augmented("RandomErasing", x, range(6), info, p=1.0)
    changed = (erased - x).abs() > 1e-3
    assert bool(changed.any())
    assert torch.allclose(erased[changed], low.expand_as(x)[changed], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("RandomErasin", {}, 'did you mean "RandomErasing"'),
        ("RandomErasing", {"prob": 1.0}, "prob is not an argument"),
        ("RandomErasing", {"p": 3.0}, "p: "),
        ("RandomErasing", {"p": "often"}, 'p "often" is not a number'),
        ("AutoAugment", {"policy": "mnist"}, "must be one of 'imagenet', 'cifar10', 'svhn', not 'mnist'"),
        ("RandomCrop", {}, "size is missing"),
        ("CutMix", {}, '[method.vicinity] use = "cutmix"'),
        ("Compose", {}, "write a table [[train.augment]] for each"),
        ("Normalize", {"mean": [0.5], "std": [0.5]}, "leaves the range"),
        ("ToDtype", {}, "changes the type"),
        ("Lambda", {}, "takes a function"),
        ("TenCrop", {"size": 4}, "several images"),
    ],
)
def test_a_transform_that_cannot_be_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    assert message in refusal("augmentation", f"torchvision:{name}", **options)


@pytest.mark.parametrize(
    ("name", "options", "shape", "message"),
    [
        ("RandomCrop", {"size": 4}, (3, 8, 8), r"turns images of shape \(3, 8, 8\) into \(3, 4, 4\)"),
        ("RandomCrop", {"size": 20}, (3, 8, 8), "larger than input image size"),
        ("Grayscale", {}, (3, 8, 8), r"into \(1, 8, 8\)"),
        ("JPEG", {"quality": 50}, (3, 8, 8), "JPEG fails on images"),
        ("RandomErasing", {}, (12,), r"for images \(C, H, W\), but the task has inputs of shape \(12,\)"),
        ("RandomErasing", {}, None, r"inputs of shape None"),
    ],
)
def test_a_transform_that_does_not_fit_the_images_is_refused_before_training(
    name: str, options: dict[str, Any], shape: tuple[int, ...] | None, message: str
) -> None:
    info = TaskInfo(sizes=INFO.sizes, shape=shape, classes=4)
    with pytest.raises(ValueError, match=message):
        augmented(name, images(), range(6), info, **options)
