"""Image classifiers of Hugging Face's transformers: `use = "huggingface-image:microsoft/resnet-18"`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from robustplug.api import Component, hookimpl


@dataclass(frozen=True)
class HuggingFaceOptions:
    """Options of `huggingface-image`.

    Attributes:
        name: local folder of a model, or its name on the Hub, whose weights the model starts from; or a
            type of model, such as "vit" or "resnet", which starts untrained.
        config: values of its configuration that replace those of the folder or the type.
        normalize: whether to prepend a normalisation: that of the image processor in the folder, or else that
            of the training images.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    normalize: bool = True


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer the image classifiers of transformers."""
    yield Component(
        "huggingface-image",
        "robustplug_huggingface.model:image_classifier",
        HuggingFaceOptions,
        "an image classifier of transformers, from a local folder or the Hub, or a new one",
        "Wolf et al. 2020, Transformers: State-of-the-Art Natural Language Processing, EMNLP",
        {
            "name": "resnet",
            "config": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        },
        weights="robustplug_huggingface.model:trained_weights",
    )
