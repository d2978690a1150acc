"""Image classifiers of transformers as modules from images to logits, and their weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustplug.api import (
    TaskInfo,
    Weights,
    check_model_folder,
    did_you_mean,
    evaluating,
    is_folder,
    normalized,
)

from . import HuggingFaceOptions


class Logits(nn.Module):
    """Return the logits (N, K) of a classifier of transformers for images (N, C, H, W)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.model(pixel_values=x).logits
        return logits


# Every plugin names its own library and extra, so these lines repeat on purpose.
def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError('this needs transformers: pip install "robustplug[huggingface]"') from error
    return transformers


def image_classifier(options: HuggingFaceOptions, *, info: TaskInfo) -> nn.Module:
    """Build an image classifier of transformers with fresh weights, for the task's classes.

    A new model is also made for the task's channels and image size.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the task is not image classification, the configuration cannot be had, or the model does
            not take the images.
    """
    transformers = _library()
    if info.shape is None or len(info.shape) != 3 or info.classes is None:
        raise ValueError(f"{options.name} classifies images (C, H, W), not inputs of shape {info.shape}")
    check_model_folder(options.name)
    channels, height, width = info.shape
    changes = {"num_labels": info.classes, **options.config}
    if _is_type(options.name):
        size = {"num_channels": channels, "image_size": height}
        config = transformers.AutoConfig.for_model(options.name, **size, **changes)
    else:
        try:
            config = transformers.AutoConfig.from_pretrained(options.name, **_where(options.name), **changes)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{options.name} is neither a type of model nor a folder or model of the Hub that can be had"
                f"{_hint(options.name)}: {str(error).strip().splitlines()[0]}"
            ) from error
    try:
        network = Logits(transformers.AutoModelForImageClassification.from_config(config).float())
        with evaluating(network), torch.no_grad():
            network(torch.zeros(1, *info.shape))
    except (RuntimeError, TypeError, ValueError) as error:
        shape = f"{channels}x{height}x{width}"
        raise ValueError(
            f"{options.name} does not take images of {shape}: {str(error).splitlines()[0]}"
        ) from error
    return normalized(network.train(), info, options.normalize)


def trained_weights(options: HuggingFaceOptions, name: str | None, *, info: TaskInfo) -> Weights | None:
    """Return the state dict of a folder or of the Hub, and the normalisation of its image processor.

    Only safetensors are read.

    Args:
        options: options of the model.
        name: None, or "DEFAULT" for the same: the weights of the folder or the Hub, which a type has not.
        info: description of the task.

    Raises:
        ImportError: transformers is not installed.
        ValueError: there are no other weights than those.
        OSError: they cannot be read or downloaded.
    """
    if name not in (None, "DEFAULT"):
        raise ValueError(f'there is no file "{name}"; leave `from` out for the weights of {options.name}')
    if _is_type(options.name):
        if name is not None:
            raise ValueError(
                f'"{options.name}" is a type of model, without weights: name a folder or a model of the Hub'
            )
        return None
    check_model_folder(options.name)
    transformers = _library()
    found = transformers.AutoModelForImageClassification.from_pretrained(
        options.name, use_safetensors=True, **_where(options.name)
    )
    mean, std = _normalisation(transformers, options.name) if options.normalize else ((), ())
    return Weights(found.float().state_dict(), options.name, mean, std)


def _is_type(name: str) -> bool:
    return name in _library().CONFIG_MAPPING and not is_folder(name)


def _hint(name: str) -> str:
    close = did_you_mean(name, _library().CONFIG_MAPPING)
    return f' (did you mean "{close}"?)' if close else ""


def _where(name: str) -> dict[str, Any]:
    return {"local_files_only": is_folder(name), "trust_remote_code": False}


def _normalisation(transformers: Any, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation for inputs in [0, 1] of the image processor; () for a model without one."""
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, **_where(name))
    except (OSError, ValueError):
        return (), ()
    if not getattr(processor, "do_normalize", False):
        return (), ()
    return tuple(map(float, processor.image_mean)), tuple(map(float, processor.image_std))
