"""Models of timm for any number of classes and channels, and timm's weights for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from robustplug.api import TaskInfo, Weights, did_you_mean, evaluating, normalized

from . import TimmOptions


# Every plugin names its own library and extra, so these lines repeat on purpose.
def _library() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError('this needs timm: pip install "robustplug[timm]"') from error
    return timm


def timm_model(options: TimmOptions, *, info: TaskInfo) -> nn.Module:
    """Build a model of timm with fresh weights, for the task's classes, channels and image size.

    Raises:
        ImportError: timm is not installed.
        ValueError: the name is unknown, the task is not image classification, or the model rejects the
            images.
    """
    timm = _library()
    if info.shape is None or len(info.shape) != 3 or info.classes is None:
        raise ValueError(
            f"timm's {options.name} classifies images (C, H, W), not inputs of shape {info.shape}"
        )
    if not timm.is_model(options.name):
        close = did_you_mean(options.name, timm.list_models())
        hint = f'; did you mean "{close}"?' if close else ': see timm.list_models("*NAME*")'
        raise ValueError(f'timm has no model "{options.name}"{hint}')
    try:
        network = _created(timm, options.name, info.shape, num_classes=info.classes)
        with evaluating(network), torch.no_grad():
            network(torch.zeros(1, *info.shape))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        shape = "x".join(map(str, info.shape))
        raise ValueError(f"timm's {options.name} does not take images of {shape}: {error}") from error
    return normalized(network, info, options.normalize)


def timm_weights(options: TimmOptions, name: str | None, *, info: TaskInfo) -> Weights | None:
    """Return the state dict of timm's weights, which timm downloads into its cache.

    timm itself fits the first convolution to the number of channels, and position embeddings to the image
    size.

    Args:
        options: options of the model.
        name: "DEFAULT" for the tag in the model's name, or else timm's default; or another tag. None for no
            weights.
        info: description of the task.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such weights.
        OSError: they cannot be downloaded.
    """
    if name is None:
        return None
    timm = _library()
    architecture, _, tag = options.name.partition(".")
    tag = tag if name == "DEFAULT" else name
    full = f"{architecture}.{tag}" if tag else architecture
    known = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if not known or (tag and tag not in known):
        raise ValueError(
            f'timm has no weights "{tag or name}" of {architecture}; known: {", ".join(known) or "none"}'
        )
    assert info.shape is not None
    try:
        network = _created(timm, full, info.shape, pretrained=True)
    except Exception as error:  # urllib, the libraries of the Hub and torch each have their own
        raise OSError(
            str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        ) from error
    found: Any = network.pretrained_cfg
    mean, std = tuple(found["mean"]), tuple(found["std"])
    if len(mean) != info.shape[0]:
        # timm adds or repeats the channels of the first convolution: one number must do for all of them.
        mean, std = ((sum(each) / len(each),) * info.shape[0] for each in (mean, std))
    return Weights(network.state_dict(), f"timm's {architecture}.{found['tag']}", mean, std)


def _created(timm: Any, name: str, shape: tuple[int, ...], **wanted: Any) -> nn.Module:
    """Create a network for images (C, H, W), of whose size the architecture of some depends."""
    wanted["in_chans"] = shape[0]
    try:
        network: nn.Module = timm.create_model(name, img_size=shape[1:], **wanted)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        network = timm.create_model(name, **wanted)
    return network
