"""The built-in models: their names and options.

Every factory is `factory(options, *, info: TaskInfo)` and returns an `nn.Module` that maps images
(N, C, H, W), or for `mlp` also tables (N, F), to logits (N, info.outputs). It raises ValueError if the
task's inputs are no images or are too small for the architecture. Convolutions are initialised
with Kaiming normal (fan_out), all other layers with torch's defaults. The random numbers come from torch's
global generator, see `robustplug.core.random.isolated`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ...api import Bounds, Component, Decay, Positive, Real, Size


@dataclass(frozen=True)
class ImageModel:
    """Options of all image models.

    Attributes:
        normalize: whether to prepend (x - mean) / std of the training images, so that inputs and radii
            stay in [0, 1]; without effect if the task states no mean.
        mean, std: other numbers for it, one for each channel, such as those that the weights in `from` were
            trained with; None for those of the training images.

    Raises:
        ValueError: only one of mean and std is given, they differ in length, or normalize is false.
    """

    normalize: bool = True
    mean: tuple[Real, ...] | None = None
    std: tuple[Positive, ...] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError("mean and std belong together: give one number of each for every channel")
        if self.mean is not None and not self.normalize:
            raise ValueError("mean and std have no effect with normalize = false: leave them out")


@dataclass(frozen=True)
class SmallCnn(ImageModel):
    """Options of `small-cnn`.

    Attributes:
        width: number of channels of the first two convolutions; the other two have twice as many.
        hidden: number of units of each of the two hidden linear layers.
        batchnorm: whether to use BatchNorm after each convolution; otherwise the network has none.
    """

    width: Size = 32
    hidden: Size = 200
    batchnorm: bool = True


@dataclass(frozen=True)
class ConvSmall(ImageModel):
    """Options of `conv-small`.

    Attributes:
        width: number of channels of the first convolution; the second has twice as many.
        hidden: number of units of the hidden linear layer.
    """

    width: Size = 16
    hidden: Size = 100


@dataclass(frozen=True)
class Cnn7(ImageModel):
    """Options of `cnn7`.

    Attributes:
        width: number of channels of the first two convolutions; the other three have twice as many.
        hidden: number of units of the hidden linear layer.
        batchnorm: whether to use BatchNorm after each convolution; otherwise the network has none.
    """

    width: Size = 64
    hidden: Size = 512
    batchnorm: bool = True


@dataclass(frozen=True)
class Mlp(ImageModel):
    """Options of `mlp`.

    Attributes:
        hidden: number of units of each hidden layer; empty for a linear model.
        activation: function after each hidden layer.
        dropout: probability of dropping a unit after each hidden layer during training.
    """

    hidden: tuple[Size, ...] = (256, 256)
    activation: Literal["relu", "gelu", "tanh", "silu"] = "relu"
    dropout: Decay = 0.0


@dataclass(frozen=True)
class PreActResNet(ImageModel):
    """Options of `preact-resnet18`.

    Attributes:
        activation: function after each BatchNorm.
        definition: "usual": that of TRADES and most others; "deepmind": that of Gowal et al. 2020, which pads
            strided convolutions on the right and below only, and whose `preact-resnet18` has 3x3 shortcuts.
            Either loads the weights of RobustBench's networks of this definition.
    """

    activation: Literal["relu", "silu"] = "relu"
    definition: Literal["usual", "deepmind"] = "usual"


@dataclass(frozen=True)
class WideResNet(PreActResNet):
    """Options of `wide-resnet`.

    Attributes:
        activation, definition: as in `preact-resnet18`.
        depth: number of layers with weights, 6n + 4 for n blocks in each of the three stages.
        width: factor on the channels 16, 32, 64 of the stages.

    Raises:
        ValueError: the depth is not 6n + 4 with n of at least 1.
    """

    depth: Annotated[int, Bounds(ge=10, le=10_000)] = 34
    width: Size = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(f"depth must be 6n + 4 (10, 16, 22, 28, 34, 40, …), not {self.depth}")


@dataclass(frozen=True)
class ResNeXt(ImageModel):
    """Options of `resnext29`; the paper writes "cardinality x base_width d", so the default is 2x64d.

    Attributes:
        cardinality: number of groups of the 3x3 convolutions.
        base_width: number of channels per group in the first stage, doubled in each of the other two.
    """

    cardinality: Annotated[int, Bounds(ge=1, le=1024)] = 2
    base_width: Size = 64


@dataclass(frozen=True)
class Vit(ImageModel):
    """Options of `vit`.

    Attributes:
        patch: side of a patch in pixels, of which the side of the images must be a multiple.
        dim: width of the transformer, a multiple of heads; its hidden layers have four times as many units.
        depth: number of blocks.
        heads: number of attention heads.

    Raises:
        ValueError: dim is not a multiple of heads.
    """

    patch: Size = 4
    dim: Size = 192
    depth: Size = 6
    heads: Size = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads, {self.heads}, not {self.dim}")


@dataclass(frozen=True)
class Torchvision(ImageModel):
    """Options of `torchvision`; the model starts untrained, without `from`.

    Attributes:
        name: model name, as listed by `torchvision.models.list_models(module=torchvision.models)`.
    """

    name: str = "resnet18"


MODELS: tuple[Component, ...] = (
    Component(
        "small-cnn",
        factory="robustplug.builtin.models.small:small_cnn",
        options=SmallCnn,
        summary="four convolutions, two hidden layers, for images of at least 4x4, such as digits and MNIST",
        paper="after Carlini & Wagner 2017, arXiv:1608.04644, Table I",
        trial={"width": 4, "hidden": 16},
    ),
    Component(
        "conv-small",
        factory="robustplug.builtin.models.small:conv_small",
        options=ConvSmall,
        summary="two strided convolutions, a hidden layer: what verifiers bound, for images of at least 4x4",
        paper="after Wong & Kolter 2018, arXiv:1711.00851",
        trial={"width": 4, "hidden": 16},
    ),
    Component(
        "cnn7",
        factory="robustplug.builtin.models.small:cnn7",
        options=Cnn7,
        summary="five convolutions and a hidden layer, of training for bounds, for images of at least 4x4",
        paper="Shi et al. 2021, arXiv:2103.17268",
        trial={"width": 4, "hidden": 16},
    ),
    Component(
        "mlp",
        factory="robustplug.builtin.models.small:multilayer_perceptron",
        options=Mlp,
        summary="multilayer perceptron, for tables (F features), and for images as rows of pixels",
        trial={"hidden": [16], "dropout": 0.1},
    ),
    Component(
        "vgg16",
        factory="robustplug.builtin.models.vgg:vgg16",
        options=ImageModel,
        summary="VGG-16 with BatchNorm and one linear layer, for images of at least 32x32",
        paper="Simonyan & Zisserman 2015, arXiv:1409.1556",
    ),
    Component(
        "resnet18",
        factory="robustplug.builtin.models.resnet:resnet18",
        options=ImageModel,
        summary="ResNet-18 with a 3x3 stem, for images of at least 9x9",
        paper="He et al. 2016, arXiv:1512.03385",
    ),
    Component(
        "preact-resnet18",
        factory="robustplug.builtin.models.preact:preact_resnet18",
        options=PreActResNet,
        summary="pre-activation ResNet-18 with a 3x3 stem, for images of at least 9x9",
        paper="He et al. 2016, arXiv:1603.05027",
    ),
    Component(
        "wide-resnet",
        factory="robustplug.builtin.models.preact:wide_resnet",
        options=WideResNet,
        summary="Wide ResNet, by default WRN-34-10 with ReLU, for images of at least 5x5",
        paper="Zagoruyko & Komodakis 2016, arXiv:1605.07146",
        trial={"depth": 10, "width": 1},
    ),
    Component(
        "densenet121",
        factory="robustplug.builtin.models.densenet:densenet121",
        options=ImageModel,
        summary="DenseNet-121 with growth 32 and a 3x3 stem, for images of at least 16x16",
        paper="Huang et al. 2017, arXiv:1608.06993",
    ),
    Component(
        "resnext29",
        factory="robustplug.builtin.models.resnet:resnext29",
        options=ResNeXt,
        summary="ResNeXt-29, by default 2x64d, for images of at least 5x5",
        paper="Xie et al. 2017, arXiv:1611.05431",
        trial={"cardinality": 2, "base_width": 4},
    ),
    Component(
        "vit",
        factory="robustplug.builtin.models.vit:vit",
        options=Vit,
        summary="vision transformer for small square images, by default 6 blocks of width 192",
        paper="Dosovitskiy et al. 2021, arXiv:2010.11929",
        trial={"dim": 16, "depth": 1, "heads": 2},
    ),
    Component(
        "torchvision",
        factory="robustplug.builtin.models.torchvision_models:torchvision_model",
        options=Torchvision,
        summary='any classification model of torchvision, trained with from = "DEFAULT"',
        weights="robustplug.builtin.models.torchvision_models:torchvision_weights",
    ),
)
