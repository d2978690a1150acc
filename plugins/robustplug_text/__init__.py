"""Text: its classification, attacks by word substitution, and adversarial training of embeddings."""

from __future__ import annotations

from collections.abc import Iterable

from robustplug.api import Component, Traits, hookimpl

from .options import (
    FreeLbOptions,
    HuggingFaceTextOptions,
    SmartOptions,
    SubstitutionOptions,
    TextFoolerOptions,
    TextOptions,
    WordCnnOptions,
    substitution_caption,
)

TASKS = ("text",)
_HERE = "robustplug_text"
FREELB = "Zhu et al. 2020, FreeLB: Enhanced Adversarial Training for NLU, arXiv:1909.11764"
SMART_OFFICIAL = {"proximal": 0.0, "step_size": 1e-5, "largest": 1.0, "rescale": True}
"""What the authors' code does by default."""
TEXTFOOLER = "Jin et al. 2020, Is BERT Really Robust?, arXiv:1907.11932"


@hookimpl
def robustplug_tasks() -> Iterable[Component]:
    """Offer the classification of text."""
    yield Component(
        "text",
        f"{_HERE}.data.task:TextTask",
        TextOptions,
        "classification of text: a table, a data set of Hugging Face, Python's documentation, or a grammar",
        trial={"data": "synthetic", "reviews": 60},
        modality="text",
        evaluate={"vicinity": {"use": "word-substitution"}, "attack": [{"use": "textfooler"}]},
    )


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer the classifiers of text."""
    yield Component(
        "word-cnn",
        f"{_HERE}.models.cnn:WordCnn",
        WordCnnOptions,
        "convolutions over word embeddings, and their maximum over the text",
        "Kim 2014, Convolutional Neural Networks for Sentence Classification, arXiv:1408.5882",
        {"width": 8, "filters": 6, "sizes": [1, 2]},
        tasks=TASKS,
    )
    yield Component(
        "huggingface-text",
        f"{_HERE}.models.huggingface:text_classifier",
        HuggingFaceTextOptions,
        "a sequence classifier of transformers, from a local folder, or a new one",
        "Wolf et al. 2020, Transformers: State-of-the-Art Natural Language Processing, EMNLP",
        {"config": {"dim": 8, "hidden_dim": 16, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 64}},
        tasks=TASKS,
    )


@hookimpl
def robustplug_vicinities() -> Iterable[Component]:
    """Offer the threat model of text."""
    yield Component(
        "word-substitution",
        f"{_HERE}.attacks.vicinity:WordSubstitution",
        SubstitutionOptions,
        "words become others of similar meaning, by the cosine of embeddings",
        TEXTFOOLER,
        tasks=TASKS,
        modality="text",
        caption=substitution_caption,
    )


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer the search for word substitutions."""
    yield Component(
        "textfooler",
        f"{_HERE}.attacks.textfooler:TextFooler",
        TextFoolerOptions,
        "replaces important words first, each by the similar word that hurts most; asks for probabilities",
        TEXTFOOLER,
        {"candidates": 4},
        tasks=TASKS,
    )


@hookimpl
def robustplug_output_maps() -> Iterable[Component]:
    """Offer the outputs at shifted embeddings."""
    yield Component(
        "shifted",
        f"{_HERE}.freelb:AtShifted",
        summary="the model's outputs at the embeddings that a method has shifted",
        paper=FREELB,
        tasks=TASKS,
    )


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer FreeLB and SMART."""
    yield Component(
        "freelb",
        f"{_HERE}.freelb:FreeLb",
        FreeLbOptions,
        "ascends in the space of embeddings, and updates with the mean gradient of all steps",
        FREELB,
        {"steps": 2},
        traits=Traits(
            needs={"stays": "it shifts embeddings itself: leave out perturbation"},
            excludes={"predictions": "its loss is that of the labels, at every step of the ascent"},
        ),
        tasks=TASKS,
    )
    yield Component(
        "smart",
        f"{_HERE}.smart:Smart",
        SmartOptions,
        "a penalty on outputs that change near a text, and one on leaving the weights of before",
        "Jiang et al. 2020, SMART: Robust and Efficient Fine-Tuning for Pre-trained Natural Language Models "
        "through Principled Regularized Optimization, arXiv:1911.03437",
        {"steps": 2, "step_size": 0.1, "largest": 0.2, "start": 0.01},
        variants={"official": SMART_OFFICIAL},
        traits=Traits(needs={"stays": "it shifts embeddings itself: leave out perturbation"}),
        tasks=TASKS,
    )
