"""Networks that others publish, under their names: weights go both ways, and the logits are the same."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import robustplug
from robustplug.api import TaskInfo, isolated, published_state, stream
from robustplug.errors import RunError
from robustplug.plugin.component import Use
from robustplug.subjects.loading import load_target

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
CIFAR = TaskInfo({}, (3, 32, 32), 10)
NORMAL = {"mean": list(MEAN), "std": list(STD)}
SMALL = {"depth": 16, "width": 2}
# Architecture, options, and the names of some tensors in RobustBench's files with their shapes there.
KNOWN: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "TRADES": (
        "wide-resnet",
        SMALL,
        {
            "conv1.weight": (16, 3, 3, 3),
            "block1.layer.0.convShortcut.weight": (32, 16, 1, 1),
            "block2.layer.1.bn2.running_mean": (64,),
            "block3.layer.0.conv1.weight": (128, 64, 3, 3),
            "bn1.num_batches_tracked": (),
            "fc.bias": (10,),
        },
    ),
    "Gowal et al.": (
        "wide-resnet",
        {**SMALL, "activation": "silu", "definition": "deepmind"},
        {
            "init_conv.weight": (16, 3, 3, 3),
            "layer.0.block.0.shortcut.weight": (32, 16, 1, 1),
            "layer.1.block.1.batchnorm_1.running_var": (64,),
            "layer.2.block.0.conv_0.weight": (128, 64, 3, 3),
            "batchnorm.weight": (128,),
            "logits.weight": (10, 128),
        },
    ),
    "PreAct-18": (
        "preact-resnet18",
        {},
        {
            "conv1.weight": (64, 3, 3, 3),
            "layer1.0.bn1.weight": (64,),
            "layer2.0.shortcut.0.weight": (128, 64, 1, 1),
            "layer4.1.conv2.weight": (512, 512, 3, 3),
            "bn.running_mean": (512,),
            "linear.weight": (10, 512),
        },
    ),
    "PreAct-18 of Gowal et al.": (
        "preact-resnet18",
        {"activation": "silu", "definition": "deepmind"},
        {
            "conv_2d.weight": (64, 3, 3, 3),
            "layer_0.0.batchnorm_0.weight": (64,),
            "layer_1.0.shortcut.weight": (128, 64, 3, 3),
            "layer_3.1.conv_2d_2.weight": (512, 512, 3, 3),
            "batchnorm.bias": (512,),
            "logits.bias": (10,),
        },
    ),
}


def ours(name: str, seed: int = 0, **options: Any) -> nn.Module:
    """Build one of our networks, with statistics of BatchNorm that are not those of a new one."""
    with isolated(seed):
        model: nn.Module = robustplug.build("model", name, info=CIFAR, **options)
        shake(model)
    return model.eval()


def shake(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for value, low in ((part.running_mean, -0.2), (part.running_var, 0.5), (part.bias.data, -0.2)):
                assert value is not None
                value.uniform_(low, low + 1)


def images(size: int = 32) -> Tensor:
    return torch.rand(3, 3, size, size, generator=stream(0, "images"))


@pytest.mark.parametrize("name", KNOWN)
def test_the_names_are_those_of_the_published_definition(name: str) -> None:
    architecture, options, some = KNOWN[name]
    model = ours(architecture, **options)
    state = published_state(model)
    assert len(state) == len(model.state_dict())
    assert {key: tuple(state[key].shape) for key in some} == some
    assert sorted(value.numel() for value in state.values()) == sorted(
        value.numel() for value in model.state_dict().values()
    )


@pytest.mark.table(2)
@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_file_is_loaded(name: str, prefix: str, tmp_path: Path) -> None:
    architecture, options, _ = KNOWN[name]
    model = ours(architecture, 7, **options, normalize=False)
    state = {prefix + key: value.clone() for key, value in published_state(model).items()}
    if name == "TRADES":
        # RobustBench's files of Wide ResNets may hold a stage that is never run.
        state[f"{prefix}sub_block1.layer.0.bn1.weight"] = torch.zeros(16)
    save_file(state, tmp_path / "net.safetensors")
    use = Use(architecture, {**options, "normalize": False})
    target = load_target(tmp_path / "net.safetensors", CIFAR, model=use)
    torch.testing.assert_close(target.module(images()), model(images()))
    assert "names of RobustBench" in " ".join(target.description["notes"])


def test_other_files_are_left_as_they_are(tmp_path: Path) -> None:
    model = ours("wide-resnet", 7, **SMALL, normalize=False)
    state = published_state(model)
    del state["block3.layer.0.convShortcut.weight"]
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "net.safetensors")
    use = Use("wide-resnet", {**SMALL, "normalize": False})
    with pytest.raises(RunError, match="does not fit"):
        load_target(tmp_path / "net.safetensors", CIFAR, model=use)
    with pytest.raises(RunError, match="no published definition of Sequential"):
        published_state(nn.Sequential(nn.Linear(1, 1)))


def test_the_definition_of_deepmind_pads_on_the_right_and_below() -> None:
    model = ours("wide-resnet", depth=10, width=1, activation="silu", definition="deepmind")
    (first,) = [part for name, part in model.named_modules() if re.fullmatch(r"(network\.)?2\.conv1", name)]
    assert isinstance(first, nn.Conv2d)
    x = torch.zeros(1, 16, 8, 8)
    x[..., 7, 7] = 1
    torch.testing.assert_close(first(x)[0, :, 3, 3], first.weight[:, :, 1, 1].sum(1))
    assert not first(x)[0, :, :3, :3].any()
    assert first(torch.zeros(1, 16, 7, 5)).shape == (1, 32, 4, 3)
    usual = ours("wide-resnet", depth=10, width=1, activation="silu")
    usual.load_state_dict(model.state_dict())
    assert not torch.allclose(model(images()), usual(images()), atol=1e-3)


def definitions() -> Mapping[str, Any]:
    """Return RobustBench's own definitions of the networks above."""
    found = importlib.util.find_spec("robustbench")
    if found is None or not found.submodule_search_locations:
        pytest.skip("robustbench is not installed")
    folder = Path(found.submodule_search_locations[0], "model_zoo", "architectures")

    def module(name: str) -> Any:
        # The package itself imports its pinned timm, which these files do not need.
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made

    dm, resnet, wide_resnet = (module(name) for name in ("dm_wide_resnet", "resnet", "wide_resnet"))
    numbers = {"mean": MEAN, "std": STD}
    return {
        "TRADES": lambda: wide_resnet.WideResNet(depth=16, widen_factor=2, sub_block1=False),
        "Gowal et al.": lambda: dm.DMWideResNet(depth=16, width=2, activation_fn=dm.Swish, **numbers),
        "PreAct-18": lambda: resnet.PreActResNet(
            resnet.PreActBlockV2, [2, 2, 2, 2], bn_before_fc=True, out_shortcut=True
        ),
        "PreAct-18 of Gowal et al.": lambda: dm.DMPreActResNet(activation_fn=dm.Swish, **numbers),
    }


@pytest.mark.table(2)
@pytest.mark.parametrize("name", KNOWN)
def test_weights_go_both_ways_with_equal_logits(name: str, tmp_path: Path) -> None:
    architecture, options, _ = KNOWN[name]
    theirs_normalise = "Gowal" in name
    with isolated(3):
        theirs: nn.Module = definitions()[name]()
        shake(theirs)
    theirs.eval()
    save_file(
        {f"module.{key}": value.clone() for key, value in theirs.state_dict().items()},
        tmp_path / "net.safetensors",
    )
    target = load_target(
        tmp_path / "net.safetensors", CIFAR, model=Use(architecture, {**options, "normalize": False})
    )
    x = images()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    inside = (x - mean) / std if theirs_normalise else x
    torch.testing.assert_close(target.module(inside), theirs(x), atol=1e-4, rtol=1e-4)
    mine = ours(architecture, 5, **options, **(NORMAL if theirs_normalise else {"normalize": False}))
    theirs.load_state_dict(published_state(mine))
    torch.testing.assert_close(theirs(x), mine(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("depth", "width", "activation", "count"),
    [
        (28, 10, "relu", 36_479_194),
        (28, 10, "silu", 36_479_194),
        (34, 10, "relu", 46_160_474),
        (70, 16, "silu", 266_796_506),
    ],
)
def test_the_sizes_of_the_published_networks(depth: int, width: int, activation: str, count: int) -> None:
    with torch.device("meta"):
        options = {"depth": depth, "width": width, "activation": activation, "normalize": False}
        model = robustplug.build("model", "wide-resnet", info=CIFAR, **options)
    assert sum(p.numel() for p in model.parameters()) == count
