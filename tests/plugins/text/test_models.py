"""Models of text, and a sequence classifier of transformers from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import robustplug
from robustplug.api import Feed, TaskInfo, isolated
from robustplug.recipe.errors import RecipeError
from robustplug_text.words import PAD, UNKNOWN, Numbers, Shifted, tokens

from .small import rows_of, small_task, vectors

TEXTS = ("The film was good.", "", "I hated the waiter, truly!")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_words_and_marks_are_tokens() -> None:
    assert tokens("Don't stop: a well-made film…") == ["don't", "stop", ":", "a", "well-made", "film", "…"]
    rows = Numbers(["a", "film"]).rows(["A film!", "", "film"])
    assert rows.tolist() == [[2, 3, UNKNOWN], [PAD] * 3, [3, PAD, PAD]]


def cnn(seed: int = 0, **options: Any) -> Any:
    with isolated(seed):
        return robustplug.build("model", "word-cnn", info=small_task().info, **options).eval()


def test_padding_and_case_do_not_change_the_outputs() -> None:
    model = cnn(width=8, filters=6)
    whole = model(rows_of(*TEXTS))
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(model(rows_of(text.upper(), width=40))[0], whole[row])
    assert not torch.allclose(whole[0], whole[2])


def test_windows_of_the_cnn_by_hand() -> None:
    model = cnn(width=5, filters=4, sizes=[2])
    (words,) = model._numbers.rows([TEXTS[0]])
    vectors = model.embed(words)
    following = torch.cat([vectors[1:], torch.zeros(1, 5)])
    weight, bias = model.convolutions[0].weight, model.convolutions[0].bias
    values = vectors @ weight[:, :, 0].T + following @ weight[:, :, 1].T + bias
    expected = model.classify(values.relu().amax(0))
    torch.testing.assert_close(model(rows_of(TEXTS[0]))[0], expected)


def test_a_shift_of_padding_has_no_effect() -> None:
    model, x = cnn(width=8, filters=6), rows_of(*TEXTS)
    there = model.there(x)
    beside = torch.where(there, 0.0, 5.0)[..., None].expand(-1, -1, 8)
    torch.testing.assert_close(model(Shifted(x, beside)), model(x))
    assert not torch.allclose(model(Shifted(x, torch.ones_like(beside)))[0], model(x)[0])


def test_weights_of_another_vocabulary_are_refused() -> None:
    other = robustplug.build("task", "text", data="synthetic", reviews=20)
    stranger = robustplug.build("model", "word-cnn", info=other.info)
    with pytest.raises(RuntimeError, match="another vocabulary"):
        cnn().load_state_dict(stranger.state_dict())


@pytest.mark.parametrize("name", ["word-cnn", "huggingface-text"])
def test_other_tasks_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match='the task "text"'):
        robustplug.build("model", name, info=TaskInfo({}, (3, 8, 8), 2))


# --- transformers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a small DistilBERT with a tokenizer of word pieces, as `save_pretrained` does."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "was", "go", "##od", "hat", "##ed", ".", "i"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(
        str(tmp_path / "vocab.txt"), do_lower_case=True, model_max_length=16
    )
    config = transformers.DistilBertConfig(
        vocab_size=len(words),
        dim=16,
        hidden_dim=16,
        n_layers=1,
        n_heads=2,
        max_position_embeddings=16,
        id2label={0: "positive", 1: "negative"},
        label2id={"positive": 0, "negative": 1},
    )
    with isolated(0):
        network = transformers.DistilBertForSequenceClassification(config)
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def expected(folder: Path, texts: tuple[str, ...]) -> torch.Tensor:
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        read = tokenizer(list(texts), padding=True, truncation=True, max_length=14, return_tensors="pt")
        found: torch.Tensor = model(**read).logits
    return found


def loaded(folder: Path, **options: Any) -> Any:
    with isolated(0):
        return robustplug.build(
            "model", "huggingface-text", folder=str(folder), info=small_task().info, **options
        ).eval()


def test_a_folder_is_read_with_its_tokenizer_and_its_classes(folder: Path) -> None:
    model = loaded(folder)
    # The task's classes are "negative" and "positive", those of the folder the other way round.
    torch.testing.assert_close(model(rows_of(*TEXTS)), expected(folder, TEXTS)[:, [1, 0]])
    long = "good film " * 20
    torch.testing.assert_close(model(rows_of(long, width=300)), expected(folder, (long,))[:, [1, 0]])


def test_embeddings_of_a_folder_can_be_shifted(folder: Path) -> None:
    model, x = loaded(folder), rows_of(*TEXTS)
    shift = torch.zeros(*model.there(x).shape, model.width)
    torch.testing.assert_close(model(Shifted(x, shift)), model(x), rtol=1e-4, atol=1e-5)
    shift[..., 0] = 5
    assert float((model(Shifted(x, shift)) - model(x)).abs().max()) > 1e-5


def test_a_folder_is_evaluated_in_one_command(folder: Path, tmp_path: Path) -> None:
    result = robustplug.evaluate(
        f"huggingface-text:{folder}",
        task={"use": "text", "data": "synthetic", "reviews": 60},
        threat={"use": "word-substitution", "embeddings": str(vectors(tmp_path))},
        samples=6,
    )
    clean, attack = result.attacks
    model, (batch,) = loaded(folder), tuple(task_of_60().batches("test", Feed(batch_size=6, samples=6)))
    assert list(clean.right) == (model(batch.x).argmax(1) == batch.y).tolist()
    assert attack.name == "textfooler"
    assert not attack.skipped
    assert attack.measures["queries"].count == attack.attempted == sum(clean.right) > 0
    records = result.texts["textfooler"]
    assert [record.num_queries for record in records]
    assert sum(record.result_type == "Successful" for record in records) == attack.broken
    asked = sum(record.num_queries or 0 for record in records)
    assert attack.measures["queries"].mean == pytest.approx(asked / len(records))
    assert all(0 <= record.original_score < 1 for record in records)


def task_of_60() -> Any:
    return robustplug.build("task", "text", data="synthetic", reviews=60)


@pytest.mark.parametrize("method", ["freelb", "smart"])
def test_a_folder_is_trained_at_its_embeddings(method: str, folder: Path, tmp_path: Path) -> None:
    recipe = {
        "task": {"use": "text", "data": "synthetic", "reviews": 40},
        "model": {"use": "huggingface-text", "folder": str(folder)},
        "method": {"use": method, "steps": 2},
        "train": {"epochs": 1, "batch_size": 14, "device": "cpu"},
        "validate": {"attack": {"use": "none"}},
        "evaluate": {"samples": 4},
    }
    run = robustplug.train(recipe, out=tmp_path / "run").folder
    assert robustplug.evaluate(run, samples=2, attacks=[]).samples == 2


def test_a_new_classifier_for_other_classes(folder: Path) -> None:
    info: Any = type(small_task().info)({}, None, 3, ("a", "b", "c"), vocabulary=("x",))
    with pytest.raises(ValueError, match=r"tells 2 classes apart, and the task has 3(.|\n)*new_classifier"):
        robustplug.build("model", "huggingface-text", folder=str(folder), info=info)
    with isolated(0):
        model = robustplug.build(
            "model", "huggingface-text", folder=str(folder), new_classifier=True, info=info
        )
    assert model(rows_of(*TEXTS)).shape == (3, 3)
    table = model.model.get_input_embeddings().weight
    torch.testing.assert_close(table, loaded(folder).model.get_input_embeddings().weight)


def test_a_model_without_a_classifier_is_not_used_as_it_is(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file(
        {n: v for n, v in state.items() if "classifier" not in n},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ValueError, match=r"lacks weights of a classifier(.|\n)*new_classifier = true"):
        loaded(folder)
    assert loaded(folder, new_classifier=True)(rows_of(*TEXTS)).shape == (3, 2)


def test_what_is_no_classifier(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no Hugging Face model: config\.json"):
        loaded(folder / "nowhere")
    with pytest.raises(ValueError, match='did you mean "distilbert"'):
        robustplug.build("model", "huggingface-text", kind="distilbertt", info=small_task().info)
    with pytest.raises(RecipeError, match="leave out config, or folder"):
        robustplug.build("model", "huggingface-text", folder="x", config={"dim": 8}, info=small_task().info)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no readable classifier in safetensors"):
        loaded(folder)


def test_a_new_model_reads_the_words_of_the_task() -> None:
    pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    info = small_task().info
    model = robustplug.build("model", "huggingface-text", kind="bert", config=sizes, info=info).eval()
    x = rows_of(*TEXTS)
    assert isinstance(model, nn.Module)
    assert model(x).shape == (3, 2)
    assert bool(model(x).isfinite().all())
    torch.testing.assert_close(model(x[:1]), model(x)[:1], rtol=1e-4, atol=1e-5)
