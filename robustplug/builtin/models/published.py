"""The names that RobustBench's definitions give to the layers of our pre-activation networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Channels, number of blocks and first stride of a stage.
Stage = tuple[int, int, int]
# The layers of a block, as `preact.PreActBlock` names them.
_LAYERS = ("bn1", "conv1", "bn2", "conv2", "shortcut")


class Definition(NamedTuple):
    """Name the layers of a definition.

    Attributes:
        stem, norm, head: the first convolution, the last BatchNorm and the linear layer.
        block: of block {i} of stage {s}, both counted from 0; {t} is the stage counted from 1.
        layers: of a block, in the order of `_LAYERS`.
    """

    stem: str
    block: str
    layers: tuple[str, str, str, str, str]
    norm: str
    head: str


# Of RobustBench's model_zoo/architectures: wide_resnet.py (that of TRADES), dm_wide_resnet.py (that of
# Gowal et al.), and resnet.py's PreActResNet with PreActBlockV2 and `bn_before_fc`.
DEFINITIONS = {
    ("wide-resnet", "usual"): Definition(
        "conv1", "block{t}.layer.{i}", ("bn1", "conv1", "bn2", "conv2", "convShortcut"), "bn1", "fc"
    ),
    ("wide-resnet", "deepmind"): Definition(
        "init_conv",
        "layer.{s}.block.{i}",
        ("batchnorm_0", "conv_0", "batchnorm_1", "conv_1", "shortcut"),
        "batchnorm",
        "logits",
    ),
    ("preact-resnet18", "usual"): Definition(
        "conv1", "layer{t}.{i}", ("bn1", "conv1", "bn2", "conv2", "shortcut.0"), "bn", "linear"
    ),
    ("preact-resnet18", "deepmind"): Definition(
        "conv_2d",
        "layer_{s}.{i}",
        ("batchnorm_0", "conv_2d_1", "batchnorm_1", "conv_2d_2", "shortcut"),
        "batchnorm",
        "logits",
    ),
}


def layer_names(name: str, definition: str, stages: Sequence[Stage]) -> dict[str, str]:
    """Return the name of each layer with tensors in RobustBench's definition, by its name in our network.

    Args:
        name: "wide-resnet" or "preact-resnet18".
        definition: "usual" or "deepmind".
        stages: channels, number of blocks and first stride of each stage.
    """
    there = DEFINITIONS[name, definition]
    names, place, channels = {"0": there.stem}, 1, 16 if name == "wide-resnet" else 64
    for stage, (width, repeats, stride) in enumerate(stages):
        for number in range(repeats):
            block = there.block.format(s=stage, t=stage + 1, i=number)
            same = number > 0 or (stride == 1 and channels == width)
            for ours, theirs in zip(_LAYERS, there.layers, strict=True):
                if ours != "shortcut" or not same:
                    names[f"{place}.{ours}"] = f"{block}.{theirs}"
            place += 1
        channels = width
    return names | {str(place): there.norm, f"{place + 2}.2": there.head}
