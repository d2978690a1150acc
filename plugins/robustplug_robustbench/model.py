"""Definitions and weights of RobustBench's zoo."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pyautoattack.state
import torch
from torch import nn

from robustplug.api import TaskInfo, Weights, did_you_mean, evaluating, new_head

from . import RobustBenchOptions

INSTALL = (
    'this needs robustbench: pip install "robustplug[robustbench]", in an environment without a newer timm, '
    "since it pins timm==1.0.9"
)


def _library() -> Any:
    try:
        with _autoattack():
            import robustbench.utils
    except ImportError as error:
        raise ImportError(f"{INSTALL} ({error})") from error
    return robustbench.utils


@contextlib.contextmanager
def _autoattack() -> Iterator[None]:
    """Let robustbench find AutoAttack, which it imports by the name of its repository, under that of PyPI."""
    known = {"autoattack": pyautoattack, "autoattack.state": pyautoattack.state}
    added = [] if importlib.util.find_spec("autoattack") is not None else list(known)
    sys.modules.update({name: known[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def zoo_model(options: RobustBenchOptions, *, info: TaskInfo) -> nn.Module:
    """Build the definition of a model of the zoo with fresh weights.

    The definitions normalise their inputs themselves. For another number of classes than that of the data
    set, the last linear layer is replaced.

    Raises:
        ImportError: robustbench is not installed.
        ValueError: the name is unknown, or the task has other images.
    """
    library = _library()
    definition, classes = (
        _entry(options, library)["model"],
        library.DATASET_CLASSES[_dataset(options, library)],
    )
    if info.shape is None or len(info.shape) != 3 or info.shape[0] != 3 or info.classes is None:
        raise ValueError(
            f"the models of RobustBench classify colour images, not inputs of shape {info.shape}"
        )
    network: nn.Module = definition()
    if info.classes != classes:
        new_head(network, classes, info.classes)
    try:
        with evaluating(network), torch.no_grad():
            network(torch.zeros(1, *info.shape))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"{options.name} does not take images of {tuple(info.shape)}: {error}") from error
    return network.train()


def zoo_weights(options: RobustBenchOptions, name: str | None, *, info: TaskInfo) -> Weights:
    """Return the weights of the zoo, which robustbench downloads into `root`, as it prepares them itself.

    Args:
        options: options of the model.
        name: None, or "DEFAULT" for the same.
        info: description of the task.

    Raises:
        ImportError: robustbench is not installed.
        ValueError: there are no other weights than those of the zoo.
        OSError: the weights cannot be downloaded.
    """
    if name not in (None, "DEFAULT"):
        raise ValueError(f'there is no file "{name}"; leave `from` out for the weights of the zoo')
    library = _library()
    _entry(options, library)
    try:
        network = library.load_model(options.name, options.root, options.dataset, options.threat)
    except Exception as error:  # gdown, requests and torch each have their own
        raise OSError(str(error) or type(error).__name__) from error
    return Weights(
        network.state_dict(), f"RobustBench's {options.name} ({options.dataset}, {options.threat})"
    )


def _dataset(options: RobustBenchOptions, library: Any) -> Any:
    return library.BenchmarkDataset(options.dataset)


def _entry(options: RobustBenchOptions, library: Any) -> Mapping[str, Any]:
    models: Mapping[str, Mapping[str, Any]] = library.all_models[_dataset(options, library)][
        library.ThreatModel(options.threat)
    ]
    if options.name not in models:
        close = did_you_mean(options.name, models)
        hint = f'did you mean "{close}"?' if close else f"known: {', '.join(sorted(models))}"
        where = f"{options.dataset}, {options.threat}"
        raise ValueError(f'the zoo has no model "{options.name}" for {where}; {hint}')
    return models[options.name]
