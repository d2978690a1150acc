"""Read the replies of language models, by strict rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..dialogues.layout import ITEMS, Words
from .replies import Reply

SELECTION = "<selection>"
NOTHING = "..."
"""Turn of a model that said nothing."""

_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.S)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")
_DEAL = re.compile(" ".join(rf"{item}=([0-9]{{1,3}})" for item in ITEMS))
_NO_DEAL = "no agreement"


def answer_of(reply: Reply) -> str:
    """Return a reply without the thoughts that a reasoning model writes before it."""
    return _THOUGHT.sub("", reply.text, count=1).strip()


def words_in(text: str) -> list[str]:
    """Return the words of a text as the published dialogues are written: lower case, punctuation apart.

    None of them is a special word of the vocabulary, whatever the text is. What cannot be printed is left
    out.
    """
    found = _WORD.findall(text.lower())
    return [word.replace("’", "'") for word in found if word.isprintable()]


def turn_of(reply: Reply, vocabulary: Words, most: int) -> tuple[list[int], bool]:
    """Return a reply as a turn, and whether it is one.

    A reply with <selection> ends the dialogue. One that is empty, refused or cut off is no turn; its words
    are said all the same, or "..." where there are none.

    Args:
        reply: the reply.
        vocabulary: the words of the task; others keep numbers of their own.
        most: largest number of words; further ones are left out.

    Returns:
        Numbers of the words without <eos>, or of "<selection>" alone.
    """
    text = answer_of(reply)
    if SELECTION in text and reply.whole:
        return vocabulary.encode([SELECTION]), True
    words = words_in(text.replace(SELECTION, " "))
    spoken = vocabulary.spell(words or [NOTHING])
    return spoken[:most], reply.whole and bool(words)


def deal_of(reply: Reply, counts: Mapping[str, int], walk_away: bool) -> Sequence[int] | str | None:
    """Return the pieces of each item that a reply takes; "walk away"; or None for no answer of the form.

    The form is "book=1 hat=0 ball=2", or "no agreement" where that is allowed, with any spaces around it and
    nothing else. Pieces that do not exist are no answer.
    """
    text = " ".join(answer_of(reply).lower().split())
    if not reply.whole:
        return None
    if walk_away and text == _NO_DEAL:
        return "walk away"
    match = _DEAL.fullmatch(text)
    if match is None:
        return None
    pieces = [int(number) for number in match.groups()]
    fits = all(piece <= counts[item] for item, piece in zip(ITEMS, pieces, strict=True))
    return pieces if fits else None
