"""Any model, ready to be evaluated: a module from images in [0, 1] to logits.

What is given may be a module, a function, a classifier of scikit-learn, weights, a program of TorchScript or
torch.export, an ONNX file, boosted trees of LightGBM or XGBoost, or a model of torchvision. Importing this
does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..core.types import TaskInfo
    from ..plugin.component import Use

TargetKind = Literal[
    "torchvision",
    "state-dict",
    "torchscript",
    "export",
    "onnx",
    "lightgbm",
    "xgboost",
    "module",
    "classifier",
    "callable",
]


class Classifier(Protocol):
    """What a fitted classifier of scikit-learn has; its classes are class numbers of the task."""

    @property
    def classes_(self) -> Any:
        """Return the class numbers that it knows."""
        ...

    def predict(self, X: Any, /) -> Any:  # noqa: N803 - scikit-learn's name
        """Return a class number for each row (N, features)."""
        ...


@dataclass(frozen=True)
class Target:
    """Hold a model that has passed a trial.

    Attributes:
        module: from float32 images (N, C, H, W) in [0, 1] to logits (N, K), for every N of at least 1.
        kind: what it was made of.
        gradients: whether it gives gradients of its logits with respect to the images.
        description: plain JSON values: "source", "kind", "gradients", "input_range", "normalisation"
            ("mean", "std", "where"), "notes" (what the reader of a result should know), and, where
            known, "sha256", "model", "weights", "batch", "prefix", "providers" and "objective";
            "decisions" is true where the logits are made of class numbers, 1 and 0.
    """

    module: nn.Module
    kind: TargetKind
    gradients: bool
    description: Mapping[str, Any] = field(default_factory=dict)


def load_target(
    source: nn.Module | Classifier | Callable[[Any], Any] | str | Path,
    info: TaskInfo,
    *,
    model: Use | None = None,
    weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: torch.device | str = "cpu",
) -> Target:
    """Load a model and try it on a few images.

    What a file is, its content says; its suffix does not matter. Python unpickles nothing but tensors
    (`weights_only=True`), and torch.export files that would need more are refused; docs/models.md says
    what else loading runs. Modules are moved to the device and else left as they are; those that are made
    here are in eval mode.

    Args:
        source: a module, a fitted classifier of flat images, a function, a file, or "torchvision:NAME".
        info: of the task: the shape of an image and the number of classes.
        model: the component that a state dict belongs to.
        weights: of a torchvision model: a name such as "DEFAULT", or a file with a state dict.
        mean, std: a number for each channel; (x − mean) / std is put in front of the model.
        device: where the model runs.

    Raises:
        RunError: the model cannot be loaded, or does not fit the task; the message names the file, what
            is wrong with it and how to mend it.
        RecipeError: the component or one of its options is wrong.
    """
    from .loading import load

    return load(source, info, model, weights, (mean, std), device)


__all__ = ["Classifier", "Target", "TargetKind", "load_target"]
