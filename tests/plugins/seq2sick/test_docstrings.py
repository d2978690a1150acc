"""Documentation strings as texts with a summary that a person wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

import robustplug
from robustplug.api import DataMissing, Feed
from robustplug_seq2sick.text.data import Pair
from robustplug_seq2sick.text.docstrings import BODY, SUMMARY, pair_of, pairs_in, read_docstrings

PACKAGES = ("asyncio", "email", "importlib", "json", "logging")
LONG = """Open the file and return a reader.

The reader keeps the file open. It is closed with the reader, or when the block ends.

Args:
    path: where the file is.
"""


def test_a_text_and_its_first_sentence() -> None:
    assert pair_of(LONG) == Pair(
        "the reader keeps the file open . it is closed with the reader , or when the block ends .",
        "open the file and return a reader .",
    )
    both = "Close the file again. What was not written before is lost, and nobody is told about it."
    assert pair_of(both) == Pair(
        "what was not written before is lost , and nobody is told about it .", "close the file again ."
    )


@pytest.mark.parametrize(
    "text",
    [
        "Open the file and return a reader.",  # no text below
        LONG.replace("reader.", "reader", 1),  # no sentence
        LONG.replace("Open the file and return a reader", "open(path) -> reader"),
        LONG.replace("The reader keeps the file open.", ">>> reader = open(path)"),
        "Open.\n\n" + "The reader keeps the file open and waits for more. " * 2,  # too short
        LONG.replace("The reader", "word " * 100),  # too long
    ],
)
def test_what_is_no_summary_is_left_out(text: str) -> None:
    assert pair_of(text) is None


def test_files_that_are_no_python_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(f'def f():\n    """{LONG}"""\n\n\nclass A:\n    """No."""\n', encoding="utf-8")
    assert len(list(pairs_in(path))) == 1
    path.write_bytes(b"\xff\x00def")
    assert not list(pairs_in(path))


@pytest.mark.slow
def test_the_splits_share_no_text() -> None:
    found = read_docstrings(PACKAGES)
    texts = [pair.source for pairs in found.values() for pair in pairs]
    assert len(texts) == len(set(texts)) > 10
    for pairs in found.values():
        for pair in pairs:
            assert len(pair.source.split()) in BODY
            assert len(pair.target.split()) in SUMMARY
    assert read_docstrings(PACKAGES) == found
    with pytest.raises(DataMissing, match="no_such is not an installed package"):
        read_docstrings(("no_such",))
    with pytest.raises(DataMissing, match="name more packages"):
        read_docstrings(("json",))


def test_summaries_are_a_task() -> None:
    task = robustplug.build("task", "docstrings", packages=list(PACKAGES), keyword_above=1)
    batch = next(iter(task.batches("train", Feed(batch_size=2))))
    assert task.info.source.text(batch.x[0].tolist()).endswith(".")
    assert task.info.sizes["test"] >= 1
