"""Encoder-decoders of Hugging Face as targets; none is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import robustplug
from robustplug.api import Feed, Refused, isolated
from robustplug_seq2sick.models.lstm import Embedded, Forced
from robustplug_seq2sick.text.words import lengths

from .models import small_task

transformers = pytest.importorskip("transformers")

SUITE = """
schema = 1
name = "two-attacks"

[[row]]
label = "non-overlap"
attack = { use = "seq2sick", steps = 3, lr = [1.0], patience = 0 }
vicinity = { use = "word-replacement" }

[[row]]
label = "greedy"
attack = { use = "greedy-replacement", keywords = 1, rounds = 1, words = 4 }
vicinity = { use = "word-replacement" }
"""


def tiny(kind: str, size: int, folder: Path) -> Path:
    """Save a randomly initialised model whose words are the task's."""
    numbers = {"pad_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 3, "vocab_size": size}
    sizes = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "max_position_embeddings": 64,
        "scale_embedding": True,
        "forced_eos_token_id": None,
        "bos_token_id": 2,
        "dropout": 0.0,
    }
    if kind == "t5":
        config: Any = transformers.T5Config(
            d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0, **numbers
        )
        made: Any = transformers.T5ForConditionalGeneration
    elif kind == "marian":
        config = transformers.MarianConfig(**numbers, **sizes)
        made = transformers.MarianMTModel
    else:
        config = transformers.BartConfig(**numbers, **sizes)
        made = transformers.BartForConditionalGeneration
    with isolated(3):
        made(config).save_pretrained(folder)
    return folder


def opened(kind: str, folder: Path) -> tuple[Any, Any]:
    task = small_task()
    tiny(kind, max(len(task.info.source), len(task.info.target)), folder)
    model = robustplug.build("model", "huggingface", folder=str(folder), info=task.info)
    return task, model.eval()


@pytest.mark.parametrize("kind", ["bart", "marian", "t5"])
def test_words_and_their_embeddings_give_the_logits_of_the_library(kind: str, tmp_path: Path) -> None:
    task, model = opened(kind, tmp_path / kind)
    batch = next(iter(task.batches("test", Feed(batch_size=3))))
    sizes = lengths(batch.x)
    with torch.no_grad():
        ours = model(Forced(batch.x, batch.y))
        vectors = model.vectors()[batch.x]
        free = model(Embedded(vectors, sizes, model.limits(sizes), batch.y[..., None]))
    for row in range(3):
        words = [*batch.x[row, : sizes[row]].tolist(), 3]
        known = batch.y[row][batch.y[row] != 0].tolist()
        with torch.no_grad():
            theirs = model.inner(
                input_ids=torch.tensor([words]), decoder_input_ids=torch.tensor([[2, *known]])
            ).logits
        size = len(task.info.target)
        torch.testing.assert_close(ours[row, : len(known) + 1], theirs[0, :, :size], atol=1e-4, rtol=1e-4)
        first = theirs[0, 0, :size].clone()
        first[[0, 2]] = -torch.inf
        assert int(free.words[row, 0]) == (0 if int(first.argmax()) == 3 else int(first.argmax()))


def test_a_tokenizer_maps_the_words_of_the_task_to_those_of_the_model(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    texts = {"en": "the dog runs\nthe cat runs\n", "de": "der hund rennt\ndie katze rennt\n"}
    for name in ("train", "val", "test_2016_flickr"):
        for side, text in texts.items():
            (tmp_path / f"{name}.{side}").write_text(text)
    known = sorted({word for text in texts.values() for word in text.split()})
    words = {word: number for number, word in enumerate(["<eos>", *known, "<pad>", "<start>", "<none>"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<none>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A <eos>", special_tokens=[("<start>", words["<start>"]), ("<eos>", 0)]
    )
    fast: Any = transformers.PreTrainedTokenizerFast
    folder = tmp_path / "model"
    fast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<none>", bos_token="<start>"
    ).save_pretrained(folder)
    numbers = {"pad": words["<pad>"], "eos": 0, "decoder_start": words["<start>"], "bos": words["<start>"]}
    config: Any = transformers.BartConfig
    small = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": len(words), "dropout": 0.0}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {f"{name}_token_id": number for name, number in numbers.items()}
    with isolated(1):
        network = transformers.BartForConditionalGeneration(config(**small, **heads, **ids))
    network.save_pretrained(folder)
    given = {"vocabulary": "tokenizer", "tokenizer": str(folder), "root": str(tmp_path)}
    task = robustplug.build("task", "translation", **given)
    model = robustplug.build("model", "huggingface", folder=str(folder), info=task.info).eval()
    batch = next(iter(task.batches("test", Feed(batch_size=2))))
    assert task.info.source.text(batch.x[1].tolist()) == "the cat runs"
    assert not task.info.source.usable()[:4].any()
    special = [
        word
        for word, usable in zip(task.info.source.all, task.info.source.usable(), strict=True)
        if not usable
    ]
    assert {"<eos>", "<pad>", "<start>", "<none>"} <= set(special)
    with torch.no_grad():
        ours = model(Forced(batch.x, batch.y))
        theirs = model.inner(
            input_ids=torch.tensor([[words[w] for w in ["<start>", "the", "cat", "runs", "<eos>"]]]),
            decoder_input_ids=torch.tensor([[words[w] for w in ["<start>", "die", "katze", "rennt"]]]),
        ).logits
    for word in known:
        number = task.info.target.encode(word)[0]
        torch.testing.assert_close(ours[1, :, number], theirs[0, :, words[word]], atol=1e-4, rtol=1e-4)
    plain = robustplug.build("task", "translation", root=str(tmp_path), unknown_below=0)
    assert robustplug.build("model", "huggingface", folder=str(folder), info=plain.info) is not None
    stranger = small_task()
    with pytest.raises(ValueError, match='set task.vocabulary = "tokenizer"'):
        robustplug.build("model", "huggingface", folder=str(folder), info=stranger.info)


def test_batching_equals_one_by_one(tmp_path: Path) -> None:
    task, model = opened("bart", tmp_path)
    batch = next(iter(task.batches("test", Feed(batch_size=5))))
    with torch.no_grad():
        together: Tensor = model(batch.x).words
        for row in range(5):
            alone = model(batch.x[row : row + 1]).words[0]
            width = min(len(alone), together.shape[1])
            assert torch.equal(alone[:width], together[row, :width])


def test_a_tiny_model_is_trained_and_attacked_from_its_folder(tmp_path: Path) -> None:
    task = small_task()
    size = max(len(task.info.source), len(task.info.target))
    table = {"use": "synthetic-translation", "sentences": 96, "keyword_above": 1}
    recipe = {
        "schema": 1,
        "name": "tiny-bart",
        "task": table,
        "model": {"use": "huggingface", "folder": str(tiny("bart", size, tmp_path / "start")), "beam": 2},
        "method": {
            "use": "erm",
            "vicinity": {"use": "word-replacement"},
            "output_map": {"use": "teacher-forcing"},
            "loss": {"use": "translation"},
        },
        "optimizer": {"use": "adamw", "lr": 0.01},
        "train": {"epochs": 3, "batch_size": 16, "select": "last"},
        "validate": {"samples": 4, "attack": {"use": "none"}},
        "evaluate": {"samples": 4, "loss": {"use": "translation"}},
    }
    run = robustplug.train(recipe, out=tmp_path / "run")
    assert run.history[-1].train["loss"] < run.history[0].train["loss"]
    inner: Any = run.model.inner
    inner.save_pretrained(tmp_path / "trained")
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE)
    result = robustplug.evaluate(
        tmp_path / "trained",
        task=table,
        architecture={"use": "huggingface", "beam": 2},
        suite=suite,
        samples=4,
        out=tmp_path / "out",
    )
    again = robustplug.evaluate(tmp_path / "run", suite=suite)
    assert [row.skipped for row in result.attacks] == ["", "", ""]
    assert [row.right for row in again.attacks] == [row.right for row in result.attacks]
    assert result.attacks[1].attempted == 4


def test_a_forced_first_word_is_said_and_not_shown(tmp_path: Path) -> None:
    task, _ = opened("bart", tmp_path / "bart")
    settings = tmp_path / "bart" / "generation_config.json"
    settings.write_text(settings.read_text().replace("{", '{"forced_bos_token_id": 7,', 1))
    model = robustplug.build("model", "huggingface", folder=str(tmp_path / "bart"), info=task.info).eval()
    batch = next(iter(task.batches("test", Feed(batch_size=1))))
    words = batch.x[0, : int(lengths(batch.x)[0])].tolist()
    known = batch.y[0, : int(lengths(batch.y)[0])].tolist()
    with torch.no_grad():
        ours = model(Forced(batch.x, batch.y))[0]
        asked = {
            "input_ids": torch.tensor([[*words, 3]]),
            "decoder_input_ids": torch.tensor([[2, 7, *known]]),
        }
        theirs = model.inner(**asked).logits[0, 1:, : len(task.info.target)]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_half_precision_becomes_float32_and_too_long_sentences_are_refused(tmp_path: Path) -> None:
    task = small_task()
    folder = tiny("bart", max(len(task.info.source), len(task.info.target)), tmp_path / "half")
    transformers.BartForConditionalGeneration.from_pretrained(folder).half().save_pretrained(folder)
    model = robustplug.build("model", "huggingface", folder=str(folder), beam=2, info=task.info).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # A translation ends where the model's positions do; what cannot be read is named.
    assert model.limits(torch.tensor([5, 40])).tolist() == [20, 63]
    with torch.no_grad():
        model(torch.full((1, 40), 5))
        with pytest.raises(Refused, match=r"has 65 words, .* 64 at most: lower task.longest"):
            model(torch.full((1, 64), 5))


def test_what_is_no_such_folder_is_refused(tmp_path: Path) -> None:
    task = small_task()
    with pytest.raises(Exception, match="no Hugging Face model: config.json is missing"):
        robustplug.build("model", "huggingface", folder=str(tmp_path), info=task.info)
    small = tiny("bart", 20, tmp_path / "small")
    with pytest.raises(Exception, match="its words must be the task's"):
        robustplug.build("model", "huggingface", folder=str(small), info=task.info)
    (small / "model.safetensors").unlink()
    torch.save({}, small / "pytorch_model.bin")
    with pytest.raises(Exception, match="no readable encoder-decoder in safetensors"):
        robustplug.build("model", "huggingface", folder=str(small), info=task.info)
    with pytest.raises(Exception, match="with a model component that reads folders"):
        robustplug.subjects.loading.load_target(small, task.info)
