"""Aligned files, vocabularies and the made-up language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import BrokenData, DataMissing, Feed, stream
from robustplug_seq2sick.task import keyword_candidates
from robustplug_seq2sick.text.data import Pair, read_pairs
from robustplug_seq2sick.text.synthetic import ADJECTIVES, NOUNS, Speaker
from robustplug_seq2sick.text.words import PAD, UNKNOWN, word_vocabulary

ENGLISH = "a dog runs .\nthe cat sleeps .\na dog sleeps .\n"
GERMAN = "ein hund rennt .\ndie katze schläft .\nein hund schläft .\n"


def folder(root: Path, english: str = ENGLISH, german: str = GERMAN) -> Path:
    for name in ("train", "val", "test_2016_flickr"):
        (root / f"{name}.en").write_text(english, encoding="utf-8")
        (root / f"{name}.de").write_text(german, encoding="utf-8")
    return root


def task(root: Path, **options: Any) -> Any:
    chosen = {"unknown_below": 0, "stop_words": 1, "keyword_above": 1, **options}
    return robustplug.build("task", "translation", root=str(root), **chosen)


def test_aligned_files_become_rows(tmp_path: Path) -> None:
    made = task(folder(tmp_path))
    batch = next(iter(made.batches("test", Feed(batch_size=3))))
    assert [made.info.source.text(row) for row in batch.x.tolist()] == ENGLISH.splitlines()
    assert [made.info.target.text(row) for row in batch.y.tolist()] == GERMAN.splitlines()
    assert {made.info.target.all[number] for number in made.info.keywords} == {"ein", "hund", "schläft"}


def test_the_folder_is_found_in_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "multi30k").mkdir()
    folder(tmp_path / "multi30k")
    monkeypatch.setenv("ROBUSTPLUG_DATA", str(tmp_path))
    assert robustplug.build("task", "translation").info.sizes["train"] == 3
    (tmp_path / "multi30k" / "val.de").unlink()
    with pytest.raises(DataMissing, match=r"val\.de not found in .*multi30k.*synthetic-translation"):
        robustplug.build("task", "translation")


@pytest.mark.parametrize(
    ("english", "german", "said"),
    [
        (b"a\nb\n", b"x\n", r"a\.en:2: has no counterpart: .*a\.en has 2 lines, .*a\.de 1"),
        (b"a\n\xff\xfe\n", b"x\ny\n", r"a\.en:2: not UTF-8"),
        (b"a\nb\n", b"x\n\x00\x01\n", r"a\.de:2: holds control characters"),
        (b"", b"", "are empty"),
        (b"\n", b"", r"a\.en:1: has no counterpart"),
    ],
)
def test_what_is_not_aligned_text_is_named(tmp_path: Path, english: bytes, german: bytes, said: str) -> None:
    one, other = tmp_path / "a.en", tmp_path / "a.de"
    one.write_bytes(english)
    other.write_bytes(german)
    with pytest.raises(BrokenData, match=said):
        read_pairs(one, other)


def test_lines_end_where_the_file_says(tmp_path: Path) -> None:
    one, other = tmp_path / "a.en", tmp_path / "a.de"
    # A line separator, a next-line character and a form within a sentence misalign splitlines().
    one.write_bytes("\ufeffa\u2028b\r\n\r\nc\u0085d".encode())
    other.write_bytes(b"x\ny\nz\n")
    assert read_pairs(one, other) == [Pair("a\u2028b", "x"), Pair("", "y"), Pair("c\u0085d", "z")]


def test_long_and_empty_sentences(tmp_path: Path) -> None:
    english = "a dog runs .\n\na dog and a dog and a dog .\n"
    with pytest.warns(UserWarning, match=r"(left out|cut to 4 words)"):
        made = task(folder(tmp_path, english), longest=4)
    assert made.info.sizes == {"train": 1, "validation": 3, "test": 3}
    batch = next(iter(made.batches("test", Feed(batch_size=3))))
    assert (batch.x != PAD).sum(1).tolist() == [4, 0, 4]


def test_rare_words_are_unknown() -> None:
    words = word_vocabulary([["b", "a", "a"], ["b", "c"]], 1)
    assert words.all[4:] == ("a", "b")
    assert words.encode("a c b") == [4, UNKNOWN, 5]


def test_special_words_in_a_text_are_unknown_words() -> None:
    words = word_vocabulary([["a", "<pad>", "</s>", "<pad>"]], 0)
    assert words.encode("a <pad> </s> <s> a") == [4, UNKNOWN, UNKNOWN, UNKNOWN, 4]


def test_a_text_whose_words_are_all_too_rare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="occurs more than 50 times: lower unknown_below"):
        task(folder(tmp_path), unknown_below=50)


def test_keywords_are_words_of_letters_that_are_frequent_but_not_the_most_frequent() -> None:
    words = word_vocabulary([["ein", "ein", "ein", "haus", "haus", "ab", "ab", "12b", "12b", "rar"]], 0)
    counts = torch.zeros(len(words), dtype=torch.int64)
    for word, count in (("ein", 3), ("haus", 2), ("ab", 2), ("12b", 2), ("rar", 1)):
        counts[words.encode(word)[0]] = count
    found = keyword_candidates(words, counts, 1, 1)
    assert [words.all[number] for number in found] == ["haus"]


def test_pieces_bring_the_text_back() -> None:
    pytest.importorskip("sentencepiece")
    from robustplug_seq2sick.tokens import sentence_pieces

    lines = [line for line in ENGLISH.splitlines() for _ in range(5)]
    words = sentence_pieces(lines, 20)
    assert words.text(words.encode("the dog sleeps .")) == "the dog sleeps ."
    assert sentence_pieces(lines, 20) == words
    with pytest.raises(ValueError, match=r"^sentencepiece: Vocabulary size too high .*task.pieces"):
        sentence_pieces(lines, 4000)


def test_the_made_up_language_agrees() -> None:
    speaker = Speaker(stream(0, "test"))
    stems = {stem: gender for gender, stem in NOUNS.values()}
    endings = {"m": "o", "f": "a", "n": "e"}
    seen = 0
    for _ in range(200):
        source, target = speaker.sentence()
        words = target.split()
        assert source.split()[-1] == words[-1] == "."
        assert sum(word in stems or word.removesuffix("es") in stems for word in words) == sum(
            word in NOUNS or word.removesuffix("s") in NOUNS or word in ("men", "women", "children")
            for word in source.split()
        )
        for article, noun, after in zip(words, words[1:], words[2:], strict=False):
            stem = noun if noun in stems else noun.removesuffix("es")
            if stem not in stems:
                continue
            ending = endings[stems[stem]] + ("s" if noun != stem else "")
            assert article.endswith((ending, f"{ending}n"))
            if any(after.startswith(adjective) for adjective in ADJECTIVES.values()):
                assert after.endswith(ending)
                seen += 1
    assert seen > 50


def test_the_same_seed_gives_the_same_sentences() -> None:
    def made(seed: int) -> list[Pair]:
        speaker = Speaker(stream(seed, "x"))
        return [speaker.sentence() for _ in range(5)]

    assert made(1) == made(1) != made(2)
