"""The built-in models: shapes, sizes known from the literature, gradients, normalisation, errors."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import robustplug
from robustplug.builtin.models import MODELS, SmallCnn, WideResNet
from robustplug.core.modules import Normalized
from robustplug.core.random import isolated, stream
from robustplug.core.types import TaskInfo
from robustplug.recipe.toml.files import bundled_recipes

COMPONENTS = {component.name: component for component in MODELS}
CIFAR = TaskInfo({}, shape=(3, 32, 32), classes=10)
MNIST = TaskInfo({}, shape=(1, 28, 28), classes=10)
DIGITS = TaskInfo({}, shape=(1, 8, 8), classes=10)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(model_name: str, info: TaskInfo, /, **options: Any) -> nn.Module:
    component = COMPONENTS[model_name]
    with isolated(0):
        model = component.load()(component.options(**options), info=info)
    assert isinstance(model, nn.Module)
    return model


def images(info: TaskInfo, size: int = 2) -> Tensor:
    assert info.shape is not None
    return torch.rand(size, *info.shape, generator=stream(0, "images"))


@pytest.mark.parametrize("name", COMPONENTS)
def test_logits_and_gradients_reach_every_parameter(name: str) -> None:
    info = TaskInfo({}, shape=(3, 32, 32), classes=7, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.2))
    model = make(name, info, **COMPONENTS[name].trial)
    assert model.training
    logits = model(images(info, 4))
    assert logits.shape == (4, 7)
    torch.autograd.backward(cross_entropy(logits, torch.arange(4)))
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
        # A convolution's bias in front of BatchNorm would fail here: its gradient is rounding noise.
        assert parameter.grad.abs().max() > 1e-7, path


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet18", {}, 11_173_962),
        # 11,171,146 without the last BatchNorm, which has 512 scales and 512 shifts.
        ("preact-resnet18", {}, 11_171_146 + 1_024),
        ("wide-resnet", {}, 46_160_474),
        ("wide-resnet", {"depth": 28}, 36_479_194),
        # 14,728,266 with the biases of the 13 convolutions.
        ("vgg16", {}, 14_728_266 - 2 * (64 + 128) - 3 * (256 + 512 + 512)),
        ("densenet121", {}, 6_956_298),
        # 9,128,778 with a 1x1 instead of a 3x3 stem.
        ("resnext29", {}, 9_128_778 + 64 * 3 * (9 - 1)),
        ("resnext29", {"cardinality": 32, "base_width": 4}, 4_775_754),
        ("resnext29", {"cardinality": 16}, 68_155_210),
    ],
)
def test_published_parameter_counts(name: str, options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        model = make(name, CIFAR, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", ["small-cnn", "resnet18", "preact-resnet18", "wide-resnet", "resnext29"])
def test_mnist_fits(name: str) -> None:
    model = make(name, MNIST, **COMPONENTS[name].trial)
    assert model(images(MNIST)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("small-cnn", 4),
        ("vgg16", 32),
        ("resnet18", 9),
        ("preact-resnet18", 9),
        ("wide-resnet", 5),
        ("densenet121", 16),
        ("resnext29", 5),
    ],
)
def test_smallest_images(name: str, least: int) -> None:
    trial = COMPONENTS[name].trial
    info = TaskInfo({}, shape=(1, least, least), classes=3)
    # One image in training mode: BatchNorm raises where it sees a single value per channel.
    assert make(name, info, **trial)(images(info, 1)).shape == (1, 3)
    with pytest.raises(ValueError, match=f"{name} needs images of at least {least}x{least} pixels"):
        make(name, TaskInfo({}, shape=(1, least + 1, least - 1), classes=3), **trial)


@pytest.mark.parametrize("name", sorted(COMPONENTS.keys() - {"mlp"}))
def test_tasks_that_are_no_image_classification(name: str) -> None:
    trial = COMPONENTS[name].trial
    for shape in (None, (32,), (3, 4, 32, 32)):
        with pytest.raises(ValueError, match=r"shape \(C, H, W\)"):
            make(name, TaskInfo({}, shape=shape, classes=10), **trial)
    with pytest.raises(ValueError, match="no number of classes"):
        make(name, TaskInfo({}, shape=(3, 32, 32)), **trial)


@pytest.mark.parametrize("name", sorted(COMPONENTS.keys() - {"torchvision"}))
def test_normalize_option(name: str) -> None:
    info = TaskInfo({}, shape=(3, 32, 32), classes=10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1))
    trial = COMPONENTS[name].trial
    with torch.device("meta"):
        assert isinstance(make(name, info, **trial), Normalized)
        for plain in (make(name, info, **trial, normalize=False), make(name, CIFAR, **trial)):
            assert not any(isinstance(part, Normalized) for part in plain.modules())


@pytest.mark.parametrize(
    ("name", "options"), [("small-cnn", {"width": 4}), ("torchvision", {"name": "shufflenet_v2_x0_5"})]
)
def test_networks_get_normalized_images(name: str, options: dict[str, Any]) -> None:
    info = TaskInfo({}, shape=(3, 32, 32), classes=10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1))
    # The same seed gives the same weights, so only the layer in front makes a difference.
    model = make(name, info, **options).eval()
    plain = make(name, info, **options, normalize=False).eval()
    x = images(info)
    channels = [(x[:, c] - info.mean[c]) / info.std[c] for c in range(3)]
    torch.testing.assert_close(model(x), plain(torch.stack(channels, 1)))
    assert not torch.allclose(model(x), plain(x))


def test_normalized_is_exact_and_saved() -> None:
    model = Normalized(nn.Identity(), mean=(0.25, 0.5), std=(0.5, 0.125))
    x = torch.tensor([0.75, 1.0]).view(1, 2, 1, 1).expand(3, 2, 4, 5)
    expected = torch.tensor([1.0, 4.0]).view(1, 2, 1, 1).expand(3, 2, 4, 5)
    assert torch.equal(model(x), expected)
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        "mean": (1, 2, 1, 1),
        "std": (1, 2, 1, 1),
    }
    assert not list(model.parameters())


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,), (1.0, 1.0)), ((0.5,), (0.0,)), ((0.5,), ()), ((0.5, 0.5), (1.0, 1.0))]
)
def test_bad_normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="mean"):
        make("small-cnn", TaskInfo({}, shape=(1, 8, 8), classes=10, mean=mean, std=std))


def test_small_cnn_without_batchnorm_has_none() -> None:
    def norms(model: nn.Module) -> int:
        return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())

    plain = make("small-cnn", MNIST, batchnorm=False)
    assert norms(plain) == 0
    assert not list(plain.buffers())
    assert norms(make("small-cnn", MNIST)) == 4
    assert not any("Dropout" in type(part).__name__ for part in plain.modules())


def test_small_cnn_learns_digits() -> None:
    pixels, digits = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(digits)
    order = torch.randperm(len(x), generator=stream(0, "split"))
    train, test = order[:1437], order[1437:]
    mean, std = x[train].mean().item(), x[train].std().item()
    info = TaskInfo({}, shape=(1, 8, 8), classes=10, mean=(mean,), std=(std,))
    model = make("small-cnn", info, width=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(6):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - epoch / 6)
        shuffled = train[torch.randperm(len(train), generator=stream(0, "order", epoch))]
        for rows in torch.split(shuffled, 64):
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(model(x[rows]), y[rows]))
            optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(x[test]).argmax(1) == y[test]).float().mean()
    assert accuracy >= 0.98


@pytest.mark.parametrize("depth", [4, 9, 11, 32])
def test_wide_resnet_depth(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth must be 6n \\+ 4 .* not {depth}"):
        WideResNet(depth=depth)


def test_convolutions_start_from_kaiming_fan_out() -> None:
    model = make("resnet18", CIFAR)
    last = [part for part in model.modules() if isinstance(part, nn.Conv2d)][-1]
    assert last.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_torchvision_unknown_name() -> None:
    with pytest.raises(ValueError, match=r'"resnet-18".* Did you mean "resnet18"'):
        make("torchvision", CIFAR, name="resnet-18")
    # Known to torchvision, but it segments, and its output is a dictionary.
    with pytest.raises(ValueError, match="no classification model"):
        make("torchvision", CIFAR, name="fcn_resnet50")


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v3_small",
        "regnet_x_400mf",
        "squeezenet1_1",
        # Built for one image size; it has 86 million parameters.
        pytest.param("vit_b_16", marks=pytest.mark.slow),
    ],
)
def test_torchvision_takes_any_channels_and_leaves_the_rest(name: str) -> None:
    info = TaskInfo({}, shape=(1, 64, 64), classes=5)
    model = make("torchvision", info, name=name)
    assert all(part.training for part in model.modules())
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in model.parameters())
    first = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    rgb = next(
        part
        for part in torchvision.models.get_model(name, weights=None).modules()
        if isinstance(part, nn.Conv2d)
    )
    assert first.weight.shape == (rgb.out_channels, 1, *rgb.kernel_size)
    assert (first.stride, first.padding, first.bias is None) == (rgb.stride, rgb.padding, rgb.bias is None)
    assert model.eval()(images(info)).shape == (2, 5)


def test_torchvision_without_auxiliary_outputs_or_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make("torchvision", TaskInfo({}, shape=(3, 64, 64), classes=4), name="googlenet")
    assert isinstance(model(torch.zeros(2, 3, 64, 64)), Tensor)


@pytest.mark.parametrize(("name", "size"), [("squeezenet1_1", 8), ("vit_b_16", 30), ("maxvit_t", 32)])
def test_torchvision_says_when_images_do_not_fit(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"{name} does not take images of 3x{size}x{size}: "):
        make("torchvision", TaskInfo({}, shape=(3, size, size), classes=10), name=name)


def test_components_are_declared_without_torch() -> None:
    code = (
        "import robustplug.builtin.models as m, sys; m.SmallCnn(); "
        "assert not {'torch', 'torchvision', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_and_defaults() -> None:
    assert len(COMPONENTS) == len(MODELS)
    assert SmallCnn() == SmallCnn(normalize=True, width=32, hidden=200, batchnorm=True)
    for component in MODELS:
        component.options(**component.trial)
        assert component.summary


# --- the vision transformer


TINY_VIT: dict[str, Any] = {"dim": 16, "depth": 1, "heads": 2}


@pytest.mark.parametrize(("info", "patch"), [(DIGITS, 2), (DIGITS, 8), (TaskInfo({}, (3, 12, 12), 4), 3)])
def test_a_vit_has_a_token_for_each_patch(info: TaskInfo, patch: int) -> None:
    model = make("vit", info, patch=patch, **TINY_VIT)
    side = (info.shape or (0, 0))[1] // patch
    assert model.state_dict()["transformer.encoder.pos_embedding"].shape == (1, side**2 + 1, 16)
    assert model(images(info, 3)).shape == (3, info.classes)


def test_a_vit_has_the_gradient_of_a_gradient_and_attacks_from_the_start() -> None:
    model = make("vit", DIGITS, patch=2, **TINY_VIT).eval()
    x = images(DIGITS).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x, create_graph=True)
    assert bool(gradient.any())
    torch.autograd.backward(gradient.square().sum())
    weight = model.get_parameter("transformer.encoder.layers.encoder_layer_0.self_attention.in_proj_weight")
    assert weight.grad is not None
    assert bool(weight.grad.any())


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"patch": 3}, (1, 8, 8), "square images whose side is a multiple"),
        ({}, (1, 8, 12), "square images whose side is a multiple"),
        ({"dim": 16, "heads": 3}, (1, 8, 8), "dim must be a multiple of heads"),
    ],
)
def test_a_vit_that_cannot_be_says_why(options: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("vit", TaskInfo({}, shape, 10), **options)


# --- mlp, and normalisation of rows of features


TABLE = TaskInfo({}, shape=(5,), classes=3, mean=(0.0, 1.0, 2.0, 3.0, 4.0), std=(1.0, 2.0, 1.0, 2.0, 1.0))


def test_an_mlp_takes_tables_and_images() -> None:
    rows = torch.rand(4, 5, generator=stream(0, "rows"))
    assert make("mlp", TABLE)(rows).shape == (4, 3)
    assert make("mlp", CIFAR)(images(CIFAR, 4)).shape == (4, 10)
    linear = make("mlp", TABLE, hidden=(), normalize=False)
    assert [type(layer).__name__ for layer in linear] == ["Flatten", "Linear"]  # type: ignore[attr-defined]
    deep = make("mlp", TABLE, hidden=(7, 6), activation="tanh", dropout=0.5, normalize=False)
    names = [type(layer).__name__ for layer in deep]  # type: ignore[attr-defined]
    assert names == ["Flatten", *["Linear", "Tanh", "Dropout"] * 2, "Linear"]
    assert [tuple(p.shape) for p in deep.parameters() if p.dim() == 2] == [(7, 5), (6, 7), (3, 6)]


@pytest.mark.parametrize("info", [TaskInfo({}, shape=None, classes=3), TaskInfo({}, shape=(5,))])
def test_an_mlp_needs_one_shape_and_a_number_of_outputs(info: TaskInfo) -> None:
    with pytest.raises(ValueError, match="mlp takes inputs of one shape"):
        make("mlp", info)


def test_rows_of_features_are_normalised_feature_by_feature() -> None:
    network = Normalized(nn.Identity(), TABLE.mean, TABLE.std)
    rows = torch.rand(4, 5, generator=stream(0, "rows"))
    expected = (rows - torch.tensor(TABLE.mean)) / torch.tensor(TABLE.std)
    assert torch.equal(network(rows), expected)
    # The buffers keep the shape that checkpoints of images have.
    assert network.mean.shape == (1, 5, 1, 1)
    three = Normalized(nn.Identity(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.2))
    x = images(CIFAR)
    assert torch.equal(three(x), (x - three.mean) / three.std)


def test_an_activation_that_does_not_exist_is_named() -> None:
    from robustplug.api import mlp

    with pytest.raises(ValueError, match='activation "swish" is none of relu, gelu, tanh, silu'):
        mlp(3, 2, activation="swish")


@pytest.mark.slow
def test_the_recipe_of_the_vit_learns_to_withstand_attacks(tmp_path: Path) -> None:
    attack = {"evaluate": {"attack": [{"use": "pgd", "steps": 50, "restarts": 5}]}}
    recipe = tomllib.loads(bundled_recipes()["vit"].read_text(encoding="utf-8")) | attack
    robust = robustplug.train(recipe, out=tmp_path / "vit").result
    plainly = {**recipe, "method": {"use": "erm", "vicinity": recipe["method"]["vicinity"]}}
    plain = robustplug.train(plainly, out=tmp_path / "plain").result
    assert robust.attacks[0].accuracy >= 0.9
    assert robust.attacks[-1].accuracy >= plain.attacks[-1].accuracy + 0.4
