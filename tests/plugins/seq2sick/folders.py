"""A tiny encoder-decoder of transformers with a tokenizer of pieces, and aligned files for it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from robustplug.api import isolated, stream
from robustplug_seq2sick.text.synthetic import Speaker

SIZES: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 96,
    "dropout": 0.0,
    "init_std": 0.5,
}


def aligned(folder: Path, sentences: int = 48) -> Path:
    """Write the three splits of the default names."""
    speaker = Speaker(stream(0, "files"))
    for name in ("train", "val", "test_2016_flickr"):
        drawn = (speaker.sentence() for _ in itertools.count())
        # Short ones: a random model always talks as long as it may.
        pairs = list(itertools.islice((pair for pair in drawn if pair.source.count(" ") < 5), sentences))
        for side, ending in enumerate(("en", "de")):
            text = "\n".join(pair[side] for pair in pairs)
            (folder / f"{name}.{ending}").write_text(f"{text}\n", encoding="utf-8")
    return folder


def tokenizer(data: Path, folder: Path, size: int = 220) -> Any:
    """Train pieces on the training text of both sides, and save them."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    texts = [(data / f"train.{ending}").read_text(encoding="utf-8") for ending in ("en", "de")]
    made.train_from_iterator([line for text in texts for line in text.splitlines()], trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 3)]
    )
    fast: Any = PreTrainedTokenizerFast
    marks = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    result = fast(tokenizer_object=made, **marks)
    result.save_pretrained(folder)
    return result


def model_folder(data: Path, folder: Path, kind: str = "marian") -> Path:
    """Save a randomly initialised model with a tokenizer of pieces."""
    import transformers

    pieces = tokenizer(data, folder)
    numbers: dict[str, Any] = {
        "pad_token_id": 0,
        "decoder_start_token_id": 2,
        "eos_token_id": 3,
        "vocab_size": len(pieces),
    }
    if kind == "t5":
        config: Any = transformers.T5Config(
            d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0, **numbers
        )
        made: Any = transformers.T5ForConditionalGeneration
    else:
        config = transformers.MarianConfig(**numbers, **SIZES, bos_token_id=2, forced_eos_token_id=None)
        made = transformers.MarianMTModel
    with isolated(3):
        made(config).save_pretrained(folder)
    return folder


def language_model(data: Path, folder: Path) -> Path:
    """Save a randomly initialised causal language model with the same pieces."""
    import transformers

    pieces = tokenizer(data, folder)
    config: Any = transformers.GPT2Config
    sizes: dict[str, Any] = {
        "n_embd": 16,
        "n_layer": 1,
        "n_head": 2,
        "n_positions": 96,
        "initializer_range": 0.5,
    }
    with isolated(5):
        transformers.GPT2LMHeadModel(
            config(vocab_size=len(pieces), bos_token_id=2, eos_token_id=3, **sizes)
        ).save_pretrained(folder)
    return folder
