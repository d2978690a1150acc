"""Any model, ready to be evaluated: a module from images in [0, 1] to logits.

What is given may be a module, a function, a classifier of scikit-learn, weights, a program of TorchScript or
torch.export, an ONNX file, boosted trees of LightGBM or XGBoost, or a model of torchvision. Importing this
does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import nn


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


Model: TypeAlias = "nn.Module | Classifier | Callable[[Any], Any] | str | Path"
"""What a model may come as: a module, a fitted classifier, a function, or where it is."""


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
