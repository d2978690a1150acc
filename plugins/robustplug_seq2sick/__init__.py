"""Seq2Sick: attacks on translation models, and translation models to attack."""

from __future__ import annotations

from collections.abc import Iterable

from robustplug.api import Component, hookimpl

from .attacks.options import GreedyOptions, Seq2SickOptions
from .options import (
    DocstringsOptions,
    HuggingFaceOptions,
    ReplacementOptions,
    Seq2SeqOptions,
    SyntheticOptions,
    TranslationLossOptions,
    TranslationOptions,
    replacement_caption,
)

PAPER = "Cheng et al. 2020, Seq2Sick, arXiv:1803.01128; Cheng 2021, doctoral thesis, §3.1"
LPM15 = "Luong et al. 2015, Effective Approaches to Attention-based NMT, arXiv:1508.04025"
TASKS = ("synthetic-translation", "translation", "docstrings")
_HERE = "robustplug_seq2sick"

EVALUATE = {
    "vicinity": {"use": "word-replacement"},
    "loss": {"use": "translation"},
    "attack": [{"use": "seq2sick"}],
}
"""What an evaluation of a translation model does by default."""
LETTER = {"lr": [0.5], "lambda1": 1.0, "lambda2": 1.0, "overwrite": True, "patience": 0}
"""Algorithm 6 as printed."""
OFFICIAL = {
    "steps": 200,
    "lr": [0.1, 0.5],
    "lambda1": 1.0,
    "lambda2": 0.0,
    "mask": False,
    "specials": True,
    "largest": 1.0,
    "reset": False,
    "patience": 200,
}


@hookimpl
def robustplug_tasks() -> Iterable[Component]:
    """Offer the translation tasks: aligned files, and a made-up language."""
    yield Component(
        "synthetic-translation",
        f"{_HERE}.task:synthetic",
        SyntheticOptions,
        "simple English into a made-up language with agreement and another word order; no download",
        trial={"sentences": 24, "keyword_above": 1},
        modality="text",
        evaluate=EVALUATE,
    )
    yield Component(
        "translation",
        f"{_HERE}.task:translation",
        TranslationOptions,
        "aligned text files, by default Multi30k, English to German",
        "Elliott et al. 2016, Multi30K, arXiv:1605.00459",
        modality="text",
        evaluate=EVALUATE,
    )
    yield Component(
        "docstrings",
        f"{_HERE}.task:docstrings",
        DocstringsOptions,
        "summarisation of documentation strings of installed Python packages; no download",
        trial={
            "packages": ["asyncio", "email", "importlib", "json", "logging"],
            "keyword_above": 1,
        },
        modality="text",
        evaluate=EVALUATE,
    )


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer the translation models."""
    yield Component(
        "lstm-attention",
        f"{_HERE}.models.lstm:LstmAttention",
        Seq2SeqOptions,
        "LSTM encoder, LSTM decoder with attention and input feeding",
        LPM15,
        {"word": 8, "hidden": 12, "dropout": 0.0, "beam": 2, "longer": 2},
        tasks=TASKS,
    )
    yield Component(
        "huggingface",
        f"{_HERE}.models.huggingface:HuggingFace",
        HuggingFaceOptions,
        "a Hugging Face encoder-decoder (Marian, T5, BART and others) from a local folder, or a new BART",
        trial={"layers": 1, "width": 12, "beam": 2, "longer": 2},
        tasks=TASKS,
        task_options=f"{_HERE}.models.folders:options_of_task",
    )


@hookimpl
def robustplug_vicinities() -> Iterable[Component]:
    """Offer the vicinity of sentences with replaced words."""
    yield Component(
        "word-replacement",
        f"{_HERE}.attacks.vicinity:WordReplacement",
        ReplacementOptions,
        "words replaced by other words, one for one",
        PAPER,
        tasks=TASKS,
        modality="text",
        caption=replacement_caption,
    )


@hookimpl
def robustplug_output_maps() -> Iterable[Component]:
    """Offer teacher forcing."""
    yield Component(
        "teacher-forcing",
        f"{_HERE}.models.training:TeacherForcing",
        summary="logits of each word of the reference translation",
        tasks=TASKS,
    )


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer the translation loss."""
    yield Component(
        "translation",
        f"{_HERE}.models.training:TranslationLoss",
        TranslationLossOptions,
        "mean cross entropy of the words",
        tasks=TASKS,
    )


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer the attacks on translation models."""
    yield Component(
        "seq2sick",
        f"{_HERE}.attacks.seq2sick:Seq2Sick",
        Seq2SickOptions,
        "projected gradient descent on embeddings, with a non-overlapping or a keyword goal",
        PAPER,
        {"steps": 2, "lr": [0.3]},
        variants={"paper": LETTER, "official": OFFICIAL},
        tasks=TASKS,
    )
    yield Component(
        "greedy-replacement",
        f"{_HERE}.attacks.greedy:GreedyReplacement",
        GreedyOptions,
        "gradient-free: replaces the word whose removal helps most with the best frequent word",
        "Cheng 2021, doctoral thesis, §3.2.2 (YCH18 with <PAD>)",
        {"rounds": 1, "words": 3},
        tasks=TASKS,
    )
