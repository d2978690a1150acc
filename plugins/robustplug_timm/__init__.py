"""Every image classifier of timm: `use = "timm:resnet18"`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, hookimpl


@dataclass(frozen=True)
class TimmOptions:
    """Options of `timm`; the model starts untrained, without `from`.

    Attributes:
        name: name of a model of timm, with or without the tag of its weights, such as "resnet18" or
            "resnet18.a1_in1k".
        normalize: whether to prepend a normalisation: that of the weights, or else that of the training
            images.
    """

    name: str
    normalize: bool = True


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer the image classifiers of timm."""
    yield Component(
        "timm",
        "robustplug_timm.model:timm_model",
        TimmOptions,
        'any image classifier of timm, trained with from = "DEFAULT"',
        "Wightman 2019, PyTorch Image Models, github.com/huggingface/pytorch-image-models",
        {"name": "test_efficientnet"},
        weights="robustplug_timm.model:timm_weights",
    )
