"""The classification models of torchvision, untrained, for any number of channels and classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
import torchvision.models
from torch import nn

from ...api import TaskInfo, Weights, did_you_mean, evaluating
from . import Torchvision
from .common import ImageTask, image_task, in_front

_AUXILIARY = re.compile(r"aux\d|AuxLogits")


def torchvision_model(options: Torchvision, *, info: TaskInfo) -> nn.Module:
    """Build a classification model of torchvision with fresh weights.

    Auxiliary classifiers are left out, so that the output is one tensor of logits (N, K) during
    training too. Transformers are built for the task's image size. Most of these architectures were
    designed for 224x224: some reject small images, others shrink them to a single pixel, on which
    BatchNorm cannot train with a batch of one. Several contain dropout or stochastic depth.

    Raises:
        ValueError: the name is unknown, the task is not image classification, or the model rejects the
            image size.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if options.name not in known:
        close = did_you_mean(options.name, known)
        hint = f' Did you mean "{close}"?' if close else ""
        raise ValueError(
            f'torchvision has no classification model "{options.name}".{hint} Known: {", ".join(known)}.'
        )
    task = image_task(info, options.name)
    try:
        network = _construct(options.name, task)
        if task.channels != 3:
            _replace_first_convolution(network, task.channels)
        _try_shapes(network, task)
    except (AssertionError, RuntimeError, ValueError) as error:
        size = f"{task.channels}x{task.height}x{task.width}"
        raise ValueError(f"torchvision's {options.name} does not take images of {size}: {error}") from error
    return in_front(network, info, options)


def torchvision_weights(options: Torchvision, name: str | None, *, info: TaskInfo) -> Weights | None:
    """Return the state dict of torchvision's own weights, which torchvision downloads into its cache.

    Args:
        options: options of the model.
        name: name of the weights, such as "DEFAULT"; None for none.
        info: description of the task.

    Raises:
        ValueError: there are no such weights.
        OSError: they cannot be downloaded.
    """
    if name is None:
        return None
    members: Mapping[str, Any] = torchvision.models.get_model_weights(options.name).__members__
    if name not in members:
        raise ValueError(
            f'torchvision has no weights "{name}" of {options.name}, and there is no such file. Known: '
            f"{', '.join(members)}."
        )
    weights = members[name]
    # GoogLeNet and Inception come with auxiliary classifiers, which the model here does not have.
    state = {key: value for key, value in weights.get_state_dict().items() if not _AUXILIARY.match(key)}
    transforms = weights.transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    return Weights(state, f"torchvision's {options.name} {weights.name}", mean, std)


def _construct(name: str, task: ImageTask) -> nn.Module:
    builder = torchvision.models.get_model_builder(name)
    accepted = inspect.signature(inspect.signature(builder).return_annotation).parameters
    wanted: dict[str, Any] = {
        "num_classes": task.classes,
        "aux_logits": False,
        # If it is unset, GoogLeNet and Inception warn that its default will change.
        "init_weights": True,
        "image_size": task.height,
        "input_size": (task.height, task.width),
    }
    network: nn.Module = builder(weights=None, **{key: wanted[key] for key in wanted if key in accepted})
    return network


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    name, old = next((name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d))
    # torch's stubs type these as tuples of any length.
    geometry: dict[str, Any] = {
        key: getattr(old, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    new = nn.Conv2d(channels, old.out_channels, bias=old.bias is not None, **geometry)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(name, new)


def _try_shapes(network: nn.Module, task: ImageTask) -> None:
    # Tensors without storage: shapes are checked, nothing is computed or stored.
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    empty = {name: value.detach().to("meta") for name, value in state.items()}
    image = torch.empty(1, task.channels, task.height, task.width, device="meta")
    with evaluating(network), torch.no_grad():
        torch.func.functional_call(network, empty, (image,))
