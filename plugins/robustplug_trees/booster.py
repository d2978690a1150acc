"""A LightGBM booster as a PyTorch module."""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import Tensor, nn

from robustplug.api import TaskInfo

from . import LightGbmOptions

# Walks of a row through a tree, and values of training inputs, from which on threads pay: each call of
# LightGBM waits for all of its threads, on busy cores for longer than one thread computes.
_WALKS, _VALUES = 2**15, 2**18


def _library() -> Any:
    try:
        return importlib.import_module("lightgbm")
    except ImportError as error:
        raise ValueError(f'LightGBM is not installed: pip install "robustplug[trees]" ({error})') from error


def _threads(work: int, pays: int) -> int:
    """Return the number of threads; it changes no bit."""
    return torch.get_num_threads() if work >= pays else 1


def _flat(x: Tensor) -> Any:
    return x.detach().to("cpu", torch.float32).flatten(1).numpy()


def weighted_labels(y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return labels as weighted classes: sample number, class and weight of each.

    The cross entropy −Σ_k ỹ_k · log g_k of a row ỹ is that of the classes k, weighted by ỹ_k.

    Args:
        y: labels, int64 (N,), whose weights are None, or float rows (N, K).
    """
    if y.dim() == 1:
        return torch.arange(len(y), device=y.device), y, None
    sample, label = y.nonzero(as_tuple=True)
    return sample, label, y[sample, label]


class BoostedTrees(nn.Module):
    """Compute the raw scores (N, K) of boosted trees for flattened images (N, C, H, W); 0 before fitting.

    The state dict holds the text of the model, as LightGBM writes it, in one tensor of bytes.

    Args:
        options: options of the component.
        features: number of values in an image.
        classes: K.
    """

    def __init__(self, options: LightGbmOptions, features: int, classes: int) -> None:
        super().__init__()
        self.options, self.features, self.classes = options, features, classes
        self.text = torch.empty(0, dtype=torch.uint8)
        self.booster: Any = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores, without a graph."""
        if self.booster is None:
            return torch.zeros(len(x), self.classes, device=x.device)
        threads = _threads(len(x) * self.booster.num_trees(), _WALKS)
        scores = self.booster.predict(_flat(x), raw_score=True, num_threads=threads)
        return torch.from_numpy(scores).to(x.device, torch.float32)

    def fit(self, x: Tensor, y: Tensor, seed: int) -> None:
        """Fit all trees anew to images (N, C, H, W) and labels (N,) or (N, K); see SelfTrained.

        The same samples and seed give the same trees, whatever the number of threads.
        """
        library = _library()
        sample, label, weight = weighted_labels(y)
        data = library.Dataset(
            _flat(x[sample]),
            label.cpu().numpy(),
            weight=None if weight is None else weight.cpu().numpy(),
        )
        parameters = {
            "objective": "multiclass",
            "num_class": self.classes,
            "num_leaves": self.options.leaves,
            "learning_rate": self.options.learning_rate,
            "seed": seed % 2**31,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": _threads(x.numel(), _VALUES),
            "verbosity": -1,
        }
        booster = library.train(parameters, data, num_boost_round=self.options.trees)
        self.text = torch.frombuffer(bytearray(booster.model_to_string().encode()), dtype=torch.uint8)
        self.booster = booster

    def get_extra_state(self) -> Tensor:
        """Return the model's text, uint8 (bytes,); empty before fitting."""
        return self.text

    def set_extra_state(self, state: Tensor) -> None:
        """Load the trees from a text.

        Raises:
            RuntimeError: the text is not a LightGBM model, or is one for other images or classes.
        """
        if not len(state):
            self.text, self.booster = state, None
            return
        library = _library()
        try:
            booster = library.Booster(model_str=state.cpu().numpy().tobytes().decode())
        except (library.basic.LightGBMError, ValueError) as error:
            raise RuntimeError(f"the trees cannot be read: {error}") from error
        sizes = (booster.num_feature(), booster.num_model_per_iteration())
        if sizes != (self.features, self.classes):
            raise RuntimeError(
                f"the trees are for {sizes[0]} features and {sizes[1]} classes, not for {self.features} and "
                f"{self.classes}"
            )
        self.text, self.booster = state.cpu().clone(), booster


def boosted_trees(options: LightGbmOptions, *, info: TaskInfo) -> BoostedTrees:
    """Build the model, which is not fitted yet.

    Raises:
        ValueError: LightGBM is not installed, or the task is not a classification of inputs of one size.
    """
    _library()
    if info.shape is None or info.classes is None:
        raise ValueError("lightgbm needs a task with inputs of one size and a number of classes")
    return BoostedTrees(options, math.prod(info.shape), info.classes)
