"""Made-up reviews: two classes, told apart by words that have near synonyms."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from robustplug.api import stream

# Frequent words first: the last ones of each list are rare, so that a model hardly knows them.
PRAISE = ("good", "great", "excellent", "wonderful", "nice", "brilliant", "delightful", "superb", "pleasant")
BLAME = ("bad", "poor", "terrible", "awful", "boring", "dull", "horrible", "weak", "disappointing")
LIKES = ("loved", "enjoyed", "liked", "admired", "adored")
DISLIKES = ("hated", "disliked", "despised", "regretted", "loathed")
THINGS = ("film", "movie", "story", "plot", "music", "picture", "script", "novel", "meal", "hotel", "service")
PEOPLE = ("actor", "director", "writer", "singer", "waiter", "guide")
LINKS = ("was", "seemed", "looked", "remained", "felt")
WAYS = ("really", "rather", "quite", "truly", "simply")
TAILS = (
    "for the whole evening",
    "from the first minute",
    "in this small town",
    "with my old friends",
    "during the long winter",
    "at the beginning",
)


def reviews(count: int, seed: int) -> list[tuple[str, str]]:
    """Return reviews and their classes, "positive" and "negative", in turn.

    Args:
        count: number of reviews.
        seed: seed of the words.
    """
    rng = stream(seed, "text", "reviews")
    return [(_review(rng, number % 2 == 0), ("positive", "negative")[number % 2]) for number in range(count)]


def _review(rng: torch.Generator, praise: bool) -> str:
    quality = _pick(PRAISE if praise else BLAME, rng, 0.6)
    thing, person = _pick(THINGS, rng), _pick(PEOPLE, rng)
    clauses = (
        f"the {thing} {_pick(LINKS, rng)} {_pick(WAYS, rng)} {quality}",
        f"I {_pick(LIKES if praise else DISLIKES, rng, 0.6)} the {thing} and its {person}",
        f"the {person} of this {thing} {_pick(LINKS, rng)} {quality}",
    )
    said = f"{_pick(clauses, rng)} {_pick(TAILS, rng)}"
    return f"{said[:1].upper()}{said[1:]}."


def _pick(words: Sequence[str], rng: torch.Generator, falling: float = 1.0) -> str:
    """Draw a word; each is `falling` times as frequent as the one before."""
    weights = falling ** torch.arange(len(words), dtype=torch.float64)
    return words[int(torch.multinomial(weights, 1, generator=rng))]
