"""The transforms of torchvision.transforms.v2 by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...api import Library, Refused, TaskInfo, classes_in, isolated
from .common import tried

if TYPE_CHECKING:
    from . import TorchvisionAugmentationOptions

# Draws of a transform that are tried before training, since most errors depend on the draw.
TRIALS = 8

_JOINED = "joins transforms: write a table [[train.augment]] for each, which run in this order"
_TYPE = "changes the type of the inputs"
_OTHER = "is for boxes, key points or videos"
_SEVERAL = "makes several images of one"
UNFIT = {
    **dict.fromkeys(("Compose", "RandomApply", "RandomChoice", "RandomOrder"), _JOINED),
    **dict.fromkeys(
        ("ConvertImageDtype", "PILToTensor", "ToDtype", "ToImage", "ToPILImage", "ToPureTensor", "ToTensor"),
        _TYPE,
    ),
    **dict.fromkeys(
        (
            "ClampBoundingBoxes",
            "ClampKeyPoints",
            "ConvertBoundingBoxFormat",
            "RandomIoUCrop",
            "SanitizeBoundingBoxes",
            "SanitizeKeyPoints",
            "SetClampingMode",
            "UniformTemporalSubsample",
        ),
        _OTHER,
    ),
    **dict.fromkeys(("FiveCrop", "TenCrop"), _SEVERAL),
    "CutMix": 'mixes samples and their labels: write [method.vicinity] use = "cutmix"',
    "MixUp": 'mixes samples and their labels: write [method.vicinity] use = "mixup"',
    "Lambda": "takes a function, which a recipe cannot hold: offer an augmentation in a plugin",
    "LinearTransformation": "takes tensors, which a recipe cannot hold: offer an augmentation in a plugin",
    "Normalize": "leaves the range of the inputs; models normalise by themselves: model.normalize",
    "Transform": "changes nothing",
}


def transform_classes() -> dict[str, type[Any]]:
    """Return the transforms of torchvision by name."""
    from torchvision.transforms import v2

    return classes_in(v2, v2.Transform)


LIBRARY = Library(
    "torchvision.transforms.v2", "transform", transform_classes, {}, lambda name, _: UNFIT.get(name)
)


def checked(options: TorchvisionAugmentationOptions) -> dict[str, Any]:
    """Return the arguments of the transform, converted.

    Raises:
        ValueError, ExceptionGroup: there is no such transform, or an argument is wrong.
    """
    arguments, made = LIBRARY.checked(options), transform_classes()[options.name]
    tried(made, arguments, made.__init__, f"{LIBRARY.owner} {options.name}")
    return arguments


class TorchvisionAugmentation:
    """Apply a transform of torchvision to each image of a batch by itself, on the device of the batch.

    The transform draws from torch's global generator, which is seeded for each image and restored. Images of
    another range than [0, 1] are moved to it for the transform and back afterwards; results are clipped.

    The cost is one run of the transform for each image: 0.1 to 0.5 ms on a CPU, where `Augmentation` of
    `digits` and `cifar10` takes a hundredth of that; on a GPU, the time to launch its kernels.

    Args:
        options: the transform and its arguments.
        info: description of the task.

    Raises:
        ValueError: the task has no images, or the transform fails on them or changes their shape.
    """

    def __init__(self, options: TorchvisionAugmentationOptions, *, info: TaskInfo) -> None:
        self.name = options.name
        if info.shape is None or len(info.shape) != 3:
            raise ValueError(
                f"torchvision's {self.name} is for images (C, H, W), but the task has inputs of shape "
                f"{info.shape}"
            )
        self.transform = transform_classes()[options.name](**checked(options))
        self.unit = tuple(info.bounds) == (0.0, 1.0)
        self.low, self.high = (
            torch.as_tensor(side, dtype=torch.float32).view(-1, 1, 1) for side in info.bounds
        )
        grey = self.low + (self.high - self.low) * torch.linspace(0, 1, info.shape[-1])
        try:
            self(grey.expand(TRIALS, *info.shape).clone(), range(TRIALS))
        except Refused as error:
            raise ValueError(str(error)) from error

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return changed images (N, C, H, W).

        Args:
            x: images, floating point.
            seeds: seed of each image.

        Raises:
            Refused: the transform fails, or changes the shape.
        """
        low, high = self.low.to(x.device), self.high.to(x.device)
        rows = x if self.unit else (x - low) / (high - low)
        changed = []
        for image, seed in zip(rows, seeds, strict=True):
            with isolated(seed, x.device):
                changed.append(self._changed(image))
        result = torch.stack(changed).clamp(0, 1) if changed else rows
        return result if self.unit else (low + (high - low) * result).maximum(low).minimum(high)

    def _changed(self, image: Tensor) -> Tensor:
        try:
            # Some transforms work in place.
            result: Any = self.transform(image.clone())
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise Refused(
                f"torchvision's {self.name} fails on images of shape {tuple(image.shape)}: {reason}"
            ) from error
        if not isinstance(result, Tensor) or result.shape != image.shape or result.dtype != image.dtype:
            shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise Refused(
                f"torchvision's {self.name} turns images of shape {tuple(image.shape)} into {shape}: an "
                "augmentation keeps the shape, so give that of the task, for example as size"
            )
        return result
