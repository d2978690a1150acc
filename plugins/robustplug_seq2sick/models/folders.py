"""Local folders of Hugging Face: their models and tokenizers, read without running any of their code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustplug.api import check_model_folder, is_file, is_folder

from ..text.words import BEGIN, END, PAD

INSTALL = 'this needs transformers: pip install "robustplug[text]"'


def load_tokenizer(folder: str) -> Any:
    """Load the tokenizer of a local folder, without downloading or running any code.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the folder holds no readable tokenizer.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(INSTALL) from error
    if not is_folder(folder):
        raise ValueError(f"{folder} is not a folder: name the local folder of a tokenizer")
    try:
        check_model_folder(folder)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} holds no readable tokenizer: {_first_line(error)}") from error


def load_model(folder: str) -> Any:
    """Load the encoder-decoder of a local folder, without downloading, unpickling or running any code.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the folder holds no encoder-decoder, or its weights are not safetensors.
    """
    try:
        from transformers import AutoModelForSeq2SeqLM
    except ImportError as error:
        raise ImportError(INSTALL) from error
    if not is_file(Path(folder) / "config.json"):
        raise ValueError(f"{folder} holds no Hugging Face model: config.json is missing")
    try:
        check_model_folder(folder)
        found: Any = AutoModelForSeq2SeqLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        # Weights stored in half precision would otherwise stay in half precision.
        return found.float()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} holds no readable encoder-decoder in safetensors: {_first_line(error)}"
        ) from error


def load_language_model(folder: str) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer, as `load_model` and `load_tokenizer` do.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the folder holds no such model or no tokenizer.
    """
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise ImportError(INSTALL) from error
    tokenizer = load_tokenizer(folder)
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        return found.float().eval(), tokenizer
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} holds no readable causal language model in safetensors: {_first_line(error)}"
        ) from error


def new_model(words: int, layers: int, width: int) -> Any:
    """Create a BART with random weights, for this many words (Lewis et al. 2020, arXiv:1910.13461).

    Raises:
        ImportError: transformers is not installed.
    """
    try:
        from transformers import BartConfig, BartForConditionalGeneration
    except ImportError as error:
        raise ImportError(INSTALL) from error
    both = {"layers": layers, "ffn_dim": 4 * width, "attention_heads": max(1, width // 32)}
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()}
    numbers = {"pad_token_id": PAD, "bos_token_id": BEGIN, "eos_token_id": END, "forced_eos_token_id": None}
    configured: Any = BartConfig
    config = configured(
        vocab_size=words, d_model=width, decoder_start_token_id=BEGIN, init_std=0.1, **numbers, **sides
    )
    return BartForConditionalGeneration(config)


def prefix_of(config: Any, wanted: str | None, work: str) -> tuple[str, list[str]]:
    """Return the text that a model expects before each sentence, and notes on it.

    Args:
        config: config of the model; `task_specific_params` may state a prefix for each work.
        wanted: the prefix that is asked for; None for that of the config.
        work: what the model is asked for, such as "translation_en_to_de".
    """
    if wanted is not None:
        return wanted, []
    stated = getattr(config, "task_specific_params", None) or {}
    known = {name: each["prefix"] for name, each in stated.items() if str(each.get("prefix") or "")}
    if work in known:
        said = f'"{known[work]}" is put before each sentence, as the config of the model states for {work}'
        return str(known[work]), [f"{said}; model.prefix sets another"]
    if known:
        names = ", ".join(sorted(known))
        return "", [f"the config of the model has prefixes for {names}, and none is used: set model.prefix"]
    return "", []


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def has_tokenizer(folder: str) -> bool:
    """Return whether a folder holds a tokenizer besides the model."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "source.spm", "spiece.model")
    return any(is_file(Path(folder) / name) for name in names)


def options_of_task(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options that the task of a folder's model must have: the folder's tokenizer."""
    folder = table.get("folder")
    if not isinstance(folder, str) or not has_tokenizer(folder):
        return {}
    return {"vocabulary": "tokenizer", "tokenizer": folder}
