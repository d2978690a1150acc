"""Words and their changes, records in TextAttack's columns, and packaged word embeddings."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
import torch

from robustplug.text.changes import (
    align_words,
    mark_changes,
    mark_changes_html,
    replace_words,
    word_spans,
    words_changed,
)
from robustplug.text.embeddings import WordEmbeddings, word_embeddings
from robustplug.text.records import COLUMNS, TextRecord, records_csv, records_html, records_json


def test_words_are_replaced_where_they_stand() -> None:
    text = "Don't go, it's   a well-known (bad) film."
    assert [text[start:stop] for start, stop in word_spans(text)] == [
        "Don't", "go", "it's", "a", "well-known", "bad", "film",
    ]  # fmt: skip
    assert replace_words(text, {1: "stay", 5: "good"}) == "Don't stay, it's   a well-known (good) film."
    assert replace_words(text, {}) == text
    assert replace_words("…", {0: "x"}) == "…"


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a b c", "a b x c", 1),
        ("a b c d", "b c d a", 2),
        ("", "a b", 2),
        ("a a a", "a a", 1),
        ("a b c d e", "x a b c d", 2),
        ("kitten s i t", "s i t t i n g", 5),
    ],
)
def test_words_changed_is_the_edit_distance(before: str, after: str, count: int) -> None:
    assert words_changed(before, after) == words_changed(after, before) == count
    pairs = align_words(before, after)
    assert [old for old, _ in pairs if old is not None] == before.split()
    assert [new for _, new in pairs if new is not None] == after.split()


def test_the_edit_distance_is_that_of_the_recursion() -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        one, two = (
            [
                "ab"[number]
                for number in torch.randint(2, (int(torch.randint(7, (), generator=rng)),), generator=rng)
            ]
            for _ in range(2)
        )

        def distance(a: int, b: int, one: list[str] = one, two: list[str] = two) -> int:
            if a == len(one) or b == len(two):
                return len(one) - a + len(two) - b
            options = (distance(a + 1, b + 1) + (one[a] != two[b]), distance(a + 1, b) + 1)
            return min(*options, distance(a, b + 1) + 1)

        assert words_changed(" ".join(one), " ".join(two)) == distance(0, 0)


def test_changes_are_marked() -> None:
    assert mark_changes("a dog runs", "a <cat> runs off") == ("a [[dog]] runs", "a [[<cat>]] runs [[off]]")
    assert mark_changes_html("a dog runs", "a <cat> runs") == (
        "a <del>dog</del> runs",
        "a <ins>&lt;cat&gt;</ins> runs",
    )


RECORD = TextRecord(
    "a dog, runs", "a cat, runs", 0.25, math.nan, "ein Hund", "eine „Katze“", "Hund", 7, "Successful"
)


def test_records_have_the_columns_of_textattack() -> None:
    (row,) = csv.DictReader(io.StringIO(records_csv([RECORD])))
    assert tuple(row) == COLUMNS == (
        "original_text", "perturbed_text", "original_score", "perturbed_score", "original_output",
        "perturbed_output", "ground_truth_output", "num_queries", "result_type",
    )  # fmt: skip
    assert (row["original_text"], row["perturbed_text"]) == ("a [[dog,]] runs", "a [[cat,]] runs")
    assert (row["num_queries"], row["result_type"]) == ("7", "Successful")
    (entry,) = json.loads(records_json([RECORD]))
    assert tuple(entry) == COLUMNS
    assert entry["original_text"] == "a dog, runs"
    assert entry["perturbed_score"] is None
    assert "„Katze“" in records_json([RECORD])


def test_the_page_marks_changes_and_escapes_texts() -> None:
    page = records_html([RECORD._replace(original_text="<script>x</script>")], "texts & words")
    assert "<script>" not in page
    assert "<del>&lt;script&gt;x&lt;/script&gt;</del>" in page
    assert "<h1>texts &amp; words</h1>" in page
    assert "7 queries" in page
    assert "1 query<" in records_html([RECORD._replace(num_queries=1)], "")


@pytest.fixture(scope="module")
def embeddings() -> WordEmbeddings:
    pytest.importorskip("wordllama")
    return word_embeddings()


def test_packaged_embeddings_know_what_is_alike(embeddings: WordEmbeddings) -> None:
    assert embeddings.table.shape == (32000, 256)
    near = dict(embeddings.neighbours("terrible", 8))
    assert near.keys() & {"horrible", "awful", "bad"}
    assert list(near.values()) == sorted(near.values(), reverse=True)
    assert "Terrible" not in near
    assert len(embeddings.neighbours("terrible", 50, 0.6)) < 50
    alike, other = embeddings.similarity(["the movie was good"] * 2, ["the film was great", "rain in May"])
    assert 0 < float(other) < float(alike) < 1


def test_vectors_do_not_depend_on_the_other_texts(embeddings: WordEmbeddings) -> None:
    texts = ["a dog", "the unhappily married woman runs home", "", "x"]
    together = embeddings.vectors(texts)
    for row, text in enumerate(texts):
        assert torch.equal(embeddings.vectors([text])[0], together[row])
    assert together.norm(dim=1).tolist() == pytest.approx([1, 1, 0, 1], abs=1e-5)
    assert embeddings.similarity(["a", ""], ["a", ""]).tolist() == [1, 1]


def test_missing_embeddings_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustplug.text.embeddings.PACKAGE", "no_such_package")
    word_embeddings.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "robustplug\[text\]"'):
        word_embeddings()
