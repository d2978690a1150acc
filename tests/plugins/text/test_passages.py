"""Texts as rows of code points."""

from __future__ import annotations

import pytest
import torch

from robustplug_text.data.passages import FIXED, Passage, fixing, passages, room, texts, written

STRANGE = ["", "A well-made film; truly.", "naïve Größe 😀 漢字", "tabs\tand\nlines  two"]


def test_a_text_comes_back_as_it_was() -> None:
    x = written([Passage(text) for text in STRANGE], 40)
    assert x.dtype == torch.int32
    assert texts(x) == STRANGE
    assert [passage.text for passage in passages(x)] == STRANGE


def test_fixed_words_are_marked_and_stay_readable() -> None:
    passage = fixing("Sports news: no SPORTS today", ["sports"])
    assert passage.fixed == {0, 3}
    x = written([passage], 40)
    assert int((x >= FIXED).sum()) == len("Sports") + len("SPORTS")
    assert (texts(x), passages(x)) == ([passage.text], [passage])


def test_fixed_words_are_found_after_others_became_longer() -> None:
    passage = fixing("a big sports day", ["sports"]).replaced({1: "tremendous"})
    assert passage.text == "a tremendous sports day"
    assert passages(written([passage], 40)) == [passage]


@pytest.mark.parametrize("text", ["too long for it", "with\0nul"])
def test_what_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        written([Passage(text)], 8)


def test_numbers_that_are_no_characters_are_refused() -> None:
    with pytest.raises(ValueError):
        texts(torch.tensor([[65, 0x110000, 0]], dtype=torch.int32))


def test_rows_have_room_for_longer_words() -> None:
    assert (room([]), room([10, 40]), room([400])) == (32, 72, 500)
