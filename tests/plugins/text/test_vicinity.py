"""The threat model of text, checked on what the text is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import robustplug
from robustplug.api import BrokenData, DataMissing, Refused
from robustplug_text.attacks.embeddings import read_vectors
from robustplug_text.attacks.vicinity import in_case_of
from robustplug_text.data.passages import fixing, texts, written

from .small import rows_of, vectors

TEXT = "The film was really good, and the plot seemed dull."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return vectors(tmp_path)


def threat(path: Path, **options: Any) -> Any:
    return robustplug.build("vicinity", "word-substitution", embeddings=str(path), **options)


def legal(vicinity: Any, after: str, before: str = TEXT, radius: float = 9.0) -> bool:
    x, origin = rows_of(after, width=70), rows_of(before, width=70)
    return bool(vicinity.contains(x, origin, torch.tensor([radius])).item())


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (TEXT, True),
        (TEXT.replace("good", "excellent"), True),
        (TEXT.replace("good", "EXCELLENT"), True),
        (TEXT.replace("good", "movie"), False),  # another meaning
        (TEXT.replace("good", "unheard"), False),  # no embedding
        (TEXT.replace("The", "A"), False),  # a stop word
        (TEXT.replace("good,", "good;"), False),  # between words
        (TEXT.replace("good", "very good"), False),  # two words for one
        (TEXT.replace("good", ""), False),
        (TEXT + " ", False),
    ],
)
def test_what_is_legal(path: Path, after: str, expected: bool) -> None:
    assert legal(threat(path), after) == expected


def test_number_and_share_of_changed_words(path: Path) -> None:
    three = TEXT.replace("good", "great").replace("film", "movie").replace("dull", "weak")
    for radius, expected in ((3.0, True), (2.9, False), (0.0, False)):
        assert legal(threat(path), three, radius=radius) == expected
    # 10 words: 0.21 of them are 2.1, rounded up to 3.
    for share, expected in ((0.21, True), (0.2, False), (0.0, False)):
        assert legal(threat(path, share=share), three) == expected


def test_stop_words_may_change_if_the_options_say_so(path: Path) -> None:
    after = TEXT.replace("seemed", "felt").replace("was", "looked")
    assert not legal(threat(path), after)  # "was" is a stop word
    assert legal(threat(path, stop_words=False), after)


def test_similarity_of_words_and_of_texts(path: Path) -> None:
    near = TEXT.replace("good", "excellent")
    vectors = read_vectors(path)
    cosine = float(vectors.similarity(["good"], ["excellent"]))
    assert 0.4 < cosine < 0.95
    assert legal(threat(path, similarity=cosine - 0.01), near)
    assert not legal(threat(path, similarity=min(1.0, cosine + 0.01)), near)
    whole = float(vectors.similarity([TEXT], [near]))
    assert legal(threat(path, sentence=whole - 0.001), near)
    assert not legal(threat(path, sentence=whole + 0.001), near)


def test_fixed_words_must_stay(path: Path) -> None:
    origin = written([fixing(TEXT, ["film"])], 70)
    after = written([fixing(TEXT.replace("good", "great"), ["film"])], 70)
    radius = torch.tensor([5.0])
    assert bool(threat(path).contains(after, origin, radius))
    changed = written([fixing(TEXT, ["film"]).replaced({1: "movie"})], 70)
    assert not bool(threat(path).contains(changed, origin, radius))
    # A word that loses its mark is not the same.
    assert not bool(threat(path).contains(rows_of(TEXT, width=70), origin, radius))


def corrupted(change: Any) -> Tensor:
    x = rows_of(TEXT, width=70)
    change(x)
    return x


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.fill_(-1),
        lambda x: x[:, 3].fill_(0xD800),
        lambda x: x[:, 3].fill_(0x110000),
        lambda x: x[:, 65].fill_(65),  # behind the end
        lambda x: x[:, 1].add_(1 << 24),  # half a word is marked
    ],
)
def test_rows_that_are_no_text_are_illegal(path: Path, change: Any) -> None:
    origin, radius = rows_of(TEXT, width=70), torch.tensor([9.0])
    assert not bool(threat(path).contains(corrupted(change), origin, radius))
    assert torch.equal(threat(path).project(corrupted(change), origin, radius), origin)


def test_project_keeps_the_first_legal_changes(path: Path) -> None:
    after = TEXT.replace("film", "novel").replace("good", "movie").replace("dull", "weak")
    origin = rows_of(TEXT, width=70).repeat(3, 1)
    x = rows_of(after, width=70).repeat(3, 1)
    projected = threat(path).project(x, origin, torch.tensor([0.0, 1.0, 9.0]))
    first = TEXT.replace("film", "novel")
    assert texts(projected) == [TEXT, first, first.replace("dull", "weak")]
    assert threat(path).contains(projected, origin, torch.tensor([0.0, 1.0, 9.0])).all()


def test_other_shapes_and_directions_are_refused(path: Path) -> None:
    vicinity, x = threat(path), rows_of(TEXT, width=70)
    with pytest.raises(Refused, match="shape"):
        vicinity.contains(x[:, :60], x, torch.tensor([1.0]))
    with pytest.raises(Refused, match="textfooler"):
        vicinity.steepest(x.float())
    with pytest.raises(Refused, match="textfooler"):
        vicinity.random_point(x, torch.tensor([1.0]), torch.Generator())


def test_candidates_have_the_case_of_the_word(path: Path) -> None:
    found = threat(path).candidates("Good", 30)
    assert {"Excellent", "Great"} <= set(found)
    assert all(word[0].isupper() for word in found)
    assert "Good" not in found
    assert threat(path).candidates("unheard", 30) == []
    assert len(threat(path).candidates("good", 3)) == 3
    cases = [in_case_of("fine", other) for other in ("good", "Good", "GOOD", "A", "iPad")]
    assert cases == ["fine", "Fine", "FINE", "Fine", "fine"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("good 1 2\nbad 1\n", r"v\.txt:2: must hold a word and 2 finite numbers"),
        ("good 1 x\n", r"v\.txt:1: must hold a word and its finite numbers"),
        ("good 1 nan\n", r"v\.txt:1"),
        ("", "holds no word embeddings"),
        ("1 2\n", "holds no word embeddings"),
    ],
)
def test_broken_files_of_embeddings(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "v.txt").write_text(content)
    with pytest.raises(BrokenData, match=message):
        read_vectors(tmp_path / "v.txt")
    with pytest.raises(Refused, match=message):
        legal(threat(tmp_path / "v.txt"), TEXT.replace("good", "great"))


def test_a_file_of_embeddings_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"nowhere\.txt"):
        read_vectors(tmp_path / "nowhere.txt")


def test_the_packaged_embeddings_tell_synonyms_from_others() -> None:
    pytest.importorskip("wordllama")
    vicinity = robustplug.build("vicinity", "word-substitution")
    found = vicinity.candidates("terrible", 20)
    assert "awful" in found
    assert "excellent" not in found
    assert legal(vicinity, TEXT.replace("good", "great"))
    assert not legal(vicinity, TEXT.replace("good", "dull"))
