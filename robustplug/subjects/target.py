"""A model of any kind, ready for evaluation: a module from images in [0, 1] to logits.

Its source may be a module, a function, a scikit-learn classifier, weights, a TorchScript or torch.export
program, an ONNX file, boosted trees of LightGBM or XGBoost, or a torchvision model. Importing this module
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
    "library",
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
    """The interface of a fitted scikit-learn classifier; its classes are class indices of the task."""

    @property
    def classes_(self) -> Any:
        """Return the class indices that it was fitted on."""
        ...

    def predict(self, X: Any, /) -> Any:  # noqa: N803 - scikit-learn's name
        """Return a class index for each row (N, features)."""
        ...


Model: TypeAlias = "nn.Module | Classifier | Callable[[Any], Any] | str | Path"
"""The accepted forms of a model: a module, a fitted classifier, a function, or a path or name."""


@dataclass(frozen=True)
class Target:
    """Hold a model that has passed its trial.

    Attributes:
        module: maps float32 images (N, C, H, W) in [0, 1] to logits (N, K), for every N of at least 1.
        kind: the kind of its source.
        gradients: whether its logits have gradients with respect to the images.
        description: plain JSON values: "source", "kind", "gradients", "input_range", "normalisation"
            ("mean", "std", "where"), "notes" (remarks for the reader of a result), and, where known,
            "sha256", "model", "weights", "batch", "prefix", "providers", "layout" ("NHWC") and "objective";
            "decisions" is true if the logits are 1 and 0, built from class indices.
    """

    module: nn.Module
    kind: TargetKind
    gradients: bool
    description: Mapping[str, Any] = field(default_factory=dict)
