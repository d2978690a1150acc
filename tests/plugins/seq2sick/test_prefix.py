"""The text before each sentence: that of the model's own config, or what the option says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import robustplug
from robustplug_seq2sick.models.folders import load_tokenizer, prefix_of

from .folders import aligned, model_folder

GERMAN = "translate English to German: "
STATED = {
    "summarization": {"prefix": "summarize: ", "num_beams": 4},
    "translation_en_to_de": {"prefix": GERMAN},
    "translation_en_to_fr": {"prefix": ""},
}


def test_the_config_states_the_prefix_unless_the_option_does() -> None:
    config = SimpleNamespace(task_specific_params=STATED)
    for work, prefix in (
        ("summarization", "summarize: "),
        ("translation_en_to_de", "translate English to German: "),
    ):
        found, notes = prefix_of(config, None, work)
        assert found == prefix
        assert f'"{prefix}" is put before each sentence' in notes[0]
        assert prefix_of(config, "", work) == ("", [])
        assert prefix_of(config, "x: ", work) == ("x: ", [])
    found, notes = prefix_of(config, None, "translation_en_to_fr")
    assert found == ""
    assert "has prefixes for summarization, translation_en_to_de, and none is used" in notes[0]
    for bare in (SimpleNamespace(), SimpleNamespace(task_specific_params=None)):
        assert prefix_of(bare, None, "summarization") == ("", [])


def test_a_folder_of_t5_is_asked_with_its_own_prefix(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    data, folder = aligned(tmp_path, 12), tmp_path / "t5"
    model_folder(data, folder, "t5")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task_specific_params": STATED}))
    table: dict[str, Any] = {"vocabulary": "tokenizer", "tokenizer": str(folder), "root": str(data)}
    task = robustplug.build("task", "translation", **table)
    assert task.info.work == "translation_en_to_de"
    pieces = load_tokenizer(str(folder))
    for own, prefix in (
        ({}, "translate English to German: "),
        ({"prefix": "say: "}, "say: "),
        ({"prefix": ""}, ""),
    ):
        model = robustplug.build("model", "huggingface", folder=str(folder), info=task.info, **own)
        assert model.before.tolist() == pieces(prefix, add_special_tokens=False).input_ids
        assert model.facts()["prefix"] == prefix
    model = robustplug.build("model", "huggingface", folder=str(folder), info=task.info, beam=1, longer=1)
    with pytest.warns(UserWarning, match=f'"{GERMAN}" is put before each sentence'):
        result = robustplug.evaluate(model, task={"use": "translation", **table}, samples=2, attacks=["none"])
    assert result.meta["loaded"]["prefix"] == GERMAN
