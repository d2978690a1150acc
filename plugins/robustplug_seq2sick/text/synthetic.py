"""A made-up target language with agreement and another word order.

The source is a small subset of English. In the invented target,

- a noun has a gender (m, f, n); its article and adjectives agree with it in gender, number and case;
- an adjective follows its noun, a relative clause follows both;
- objects, and nouns after a preposition, are in the accusative: their article ends in -n;
- the verb ends the main clause, but begins a clause after "ko" (that), and agrees with its subject;
- an adverb at the beginning moves to the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from .data import Pair

# Source noun: gender and stem of the target.
NOUNS = {
    "dog": ("m", "kand"), "cat": ("f", "mirel"), "bird": ("n", "avik"), "horse": ("m", "trovan"),
    "child": ("n", "pelit"), "woman": ("f", "sandra"), "man": ("m", "gorim"), "teacher": ("f", "lerena"),
    "king": ("m", "rovald"), "house": ("n", "dumik"), "river": ("f", "velna"), "tree": ("m", "borun"),
    "boat": ("n", "navit"), "stone": ("m", "karag"), "flower": ("f", "florisa"), "book": ("n", "librik"),
    "window": ("f", "fenula"), "garden": ("m", "hortal"), "bridge": ("f", "pontela"), "road": ("n", "varit"),
    "mountain": ("m", "montar"), "lamp": ("f", "lumera"), "ball": ("n", "kugit"), "table": ("m", "tavol"),
}  # fmt: skip
PEOPLE = ("child", "woman", "man", "teacher", "king")
ADJECTIVES = {
    "small": "pik", "big": "gram", "old": "vet", "young": "nov", "red": "rud", "green": "zel",
    "quiet": "tish", "happy": "vesel", "cold": "frig", "bright": "klar",
}  # fmt: skip
TRANSITIVE = {
    "see": "vid", "find": "nal", "carry": "nos", "paint": "pict", "follow": "sek", "love": "lub",
    "build": "mur", "watch": "spek",
}  # fmt: skip
INTRANSITIVE = {"sleep": "dorm", "run": "kur", "sing": "kant", "wait": "tard", "fall": "kad", "laugh": "rid"}
SAYING = {"say": "dik", "know": "zna", "hope": "spet"}
PREPOSITIONS = {"near": "apud", "behind": "post", "under": "sub", "with": "kum"}
ADVERBS = {"today": "heute", "often": "saepe", "slowly": "lent", "there": "ibi"}
ARTICLES = {"the": "al", "this": "hik", "every": "omn", "a": "un"}
PLURAL_ARTICLES = {"the": "al", "these": "hik", "two": "duo", "many": "mult"}
_GENDER = {"m": "o", "f": "a", "n": "e"}


class Phrase(NamedTuple):
    """Hold a phrase as words of the source and of the target."""

    source: list[str]
    target: list[str]


class Speaker:
    """Generate sentences.

    Args:
        rng: random generator of the sentences.
    """

    def __init__(self, rng: torch.Generator) -> None:
        self._rng = rng

    def sentence(self) -> Pair:
        """Generate a sentence and its only translation."""
        adverb = self._one(ADVERBS) if self._chance(0.25) else None
        if self._chance(0.2):
            subject, plural = self._noun_phrase(PEOPLE, "", plain=True)
            verb, inner = self._one(SAYING), self._clause(verb_first=True)
            source = [*subject.source, _verb(verb, plural), "that", *inner.source]
            target = [*subject.target, _bent(SAYING[verb], plural), "ko", *inner.target]
        else:
            source, target = self._clause()
        if adverb is not None:
            source, target = [adverb, ",", *source], [*target, ADVERBS[adverb]]
        return Pair(" ".join([*source, "."]), " ".join([*target, "."]))

    def _clause(self, verb_first: bool = False) -> Phrase:
        subject, plural = self._noun_phrase(NOUNS, "")
        source, rest = list(subject.source), Phrase([], [])
        if self._chance(0.65):
            verb = self._one(TRANSITIVE)
            stem = TRANSITIVE[verb]
            rest, _ = self._noun_phrase(NOUNS, "n")
        else:
            verb = self._one(INTRANSITIVE)
            stem = INTRANSITIVE[verb]
        place = Phrase([], [])
        if self._chance(0.35):
            preposition = self._one(PREPOSITIONS)
            where, _ = self._noun_phrase(NOUNS, "n", plain=True)
            place = Phrase([preposition, *where.source], [PREPOSITIONS[preposition], *where.target])
        source += [_verb(verb, plural), *rest.source, *place.source]
        said = [*subject.target, *place.target, *rest.target]
        bent = _bent(stem, plural)
        return Phrase(source, [bent, *said] if verb_first else [*said, bent])

    def _noun_phrase(self, nouns: Iterable[str], case: str, plain: bool = False) -> tuple[Phrase, bool]:
        noun, plural = self._one(nouns), self._chance(0.4)
        gender, stem = NOUNS[noun]
        articles = PLURAL_ARTICLES if plural else ARTICLES
        article = self._one(articles)
        ending = _GENDER[gender] + ("s" if plural else "")
        adjectives = [self._one(ADJECTIVES)] if self._chance(0.45) else []
        source = [article, *adjectives, _plural(noun) if plural else noun]
        target = [articles[article] + ending + case, stem + ("es" if plural else "")]
        target += [ADJECTIVES[adjective] + ending for adjective in adjectives]
        if not plain and self._chance(0.15):
            verb = self._one(INTRANSITIVE)
            source += ["that", _verb(verb, plural)]
            target += ["ke", _bent(INTRANSITIVE[verb], plural)]
        return Phrase(source, target), plural

    def _one(self, choices: Iterable[str]) -> str:
        options = list(choices)
        return options[int(torch.randint(len(options), (), generator=self._rng))]

    def _chance(self, share: float) -> bool:
        return float(torch.rand((), generator=self._rng)) < share


def _verb(verb: str, plural: bool) -> str:
    if plural:
        return verb
    if verb == "carry":
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith("ch") else f"{verb}s"


def _bent(stem: str, plural: bool) -> str:
    return stem + ("unt" if plural else "at")


def _plural(noun: str) -> str:
    return {"child": "children", "woman": "women", "man": "men"}.get(noun, f"{noun}s")
