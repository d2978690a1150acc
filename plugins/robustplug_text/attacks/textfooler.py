"""TextFooler, Jin et al. 2020 (arXiv:1907.11932): greedy word substitution, by the model's probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Cost, Refused, Step, Vicinity, View

from ..data.passages import Passage, passages, written
from .vicinity import WordSubstitution

if TYPE_CHECKING:
    from ..options import TextFoolerOptions

CHUNK = 256
"""Number of texts that the model is asked about together."""
TIE = 1e-6
"""Probabilities that differ by less count as equal: so much may depend on the other texts of a call."""
QUERIES, SCORE = "queries", "_score"
"""What is reported of each text: the queries, and the probability of the other classes before the attack."""


@dataclass
class Attacked:
    """Hold the search for one text.

    Attributes:
        origin: the text.
        label: its class.
        limit: number of words that may change.
        order: places of the words that are left to try, most important first.
        words: the substitutes so far, by place.
        clean, score: probability of the class, of the text as it was and at present; NaN if not asked.
        queries: number of texts that the model was asked about.
        done: whether the search is over.
    """

    origin: Passage
    label: int
    limit: int
    order: list[int] = field(default_factory=list)
    words: dict[int, str] = field(default_factory=dict)
    clean: float = math.nan
    score: float = math.nan
    queries: int = 0
    done: bool = False

    @property
    def text(self) -> Passage:
        """Return the text with the substitutes so far."""
        return self.origin.replaced(self.words)


class TextFooler:
    """Try similar words where deletion hurts most, until the prediction changes (Jin et al. 2020).

    All texts of a batch are searched at once; the result of a text does not depend on the others. The
    probability of the class is all that the model is asked for.

    Args:
        options: options of the component.
    """

    # A text leaves the search when it is broken.
    needs_sync = True

    def __init__(self, options: TextFoolerOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with texts that are predicted wrongly, or where that failed, with the worst found.

        Raises:
            Refused: the threat model is another one than word-substitution.
        """
        if not isinstance(vicinity, WordSubstitution):
            raise Refused('textfooler attacks texts: set the vicinity to { use = "word-substitution" }')
        labels = (view.y if view.y.dim() == 1 else view.y.argmax(1)).tolist()
        radii = step.radii(view, vicinity).tolist()
        searches = [
            Attacked(origin, label, vicinity.limit(origin, radius))
            for origin, label, radius in zip(passages(view.origin), labels, radii, strict=True)
        ]
        with step.attack_mode(), torch.no_grad():
            search = _Search(step, vicinity, self.options, view.origin)
            search.rank(searches)
            while active := [each for each in searches if not each.done]:
                search.substitute(active)
        queries = torch.tensor([float(each.queries) for each in searches], device=view.index.device)
        step.report(QUERIES, queries)
        step.report(SCORE, torch.tensor([1 - each.clean for each in searches], device=view.index.device))
        x = written([each.text for each in searches], view.origin.shape[1]).to(view.origin.device)
        return view.replace(x=x)

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on when each text is broken."""
        return Cost.unknown()


class _Search:
    """Ask a model about texts, and choose substitutes by what it answers."""

    def __init__(
        self, step: Step, vicinity: WordSubstitution, options: TextFoolerOptions, origin: Tensor
    ) -> None:
        self.step, self.vicinity, self.options = step, vicinity, options
        self.width, self.device = origin.shape[1], origin.device
        own = vicinity.options.embeddings is None
        known = own if options.known is None else options.known
        self.vocabulary = frozenset(getattr(step.task.info, "vocabulary", ())) if known else None

    def rank(self, searches: Sequence[Attacked]) -> None:
        """Order the places of each text by importance; see `importance`.

        Stop words are left out before the model is asked, not after: the order of the others is the same. A
        text that is predicted wrongly as it is needs no attack.
        """
        cleans = self._ask([(each, [each.text]) for each in searches])
        asked = []
        for each, clean in zip(searches, cleans, strict=True):
            each.order = self.vicinity.changeable(each.origin)
            each.clean = each.score = float(clean[0, each.label]) if len(clean) else math.nan
            right = len(clean) > 0 and int(clean[0].argmax()) == each.label
            each.done = not right or not each.order or not each.limit
            if not each.done:
                deleted = [each.origin.replaced({place: ""}) for place in each.order]
                asked.append((each, clean[0], deleted))
        answers = self._ask([(each, deleted) for each, _, deleted in asked])
        for (each, clean, _), without in zip(asked, answers, strict=True):
            if len(without):
                each.order = [each.order[at] for at in descending(importance(clean, without, each.label))]

    def substitute(self, searches: Sequence[Attacked]) -> None:
        """Try the substitutes of the next place of each text."""
        asked = [(each, self._trials(each, each.order.pop(0))) for each in searches]
        answers = self._ask([(each, [text for _, text in trials]) for each, trials in asked])
        for (each, trials), scores in zip(asked, answers, strict=True):
            if len(scores):
                self._choose(each, trials[: len(scores)], scores)
            each.done = each.done or not each.order or len(each.words) >= each.limit

    def _choose(
        self, each: Attacked, trials: Sequence[tuple[Mapping[int, str], Passage]], scores: Tensor
    ) -> None:
        wrong = (scores.argmax(1) != each.label).nonzero()[:, 0].tolist()
        own = scores[:, each.label]
        if wrong:  # of the texts that change the prediction, the one most like the original
            cosines = self.vicinity.close(each.origin, [trials[at][1] for at in wrong])
            best, each.done = wrong[descending(cosines.double())[0]], True
        else:  # the text with the lowest probability of the class, if that is lower than so far
            best = descending(-own)[0]
            if float(own[best]) >= each.score - TIE:
                return
        each.words, each.score = dict(trials[best][0]), float(own[best])

    def _trials(self, each: Attacked, place: int) -> list[tuple[Mapping[int, str], Passage]]:
        """Return the legal texts with each candidate at a place; parts of speech are not compared."""
        word = each.origin.words[place]
        found = self.vicinity.candidates(word, self.options.candidates)
        if self.vocabulary is not None:
            found = [near for near in found if near.lower() in self.vocabulary]
        trials: list[Mapping[int, str]] = [{**each.words, place: near} for near in found]
        pairs = [(words, each.origin.replaced(words)) for words in trials]
        pairs = [(words, passage) for words, passage in pairs if len(passage.text) <= self.width]
        if not pairs or not self.vicinity.options.sentence:
            return pairs
        legal = self.vicinity.close_enough(self.vicinity.close(each.origin, [p for _, p in pairs])).tolist()
        return [pair for pair, fine in zip(pairs, legal, strict=True) if fine]

    def _ask(self, asked: Sequence[tuple[Attacked, Sequence[Passage]]]) -> Sequence[Tensor]:
        """Return the probabilities of each search's texts, float64 (M, K), as far as its queries last."""
        most = self.options.queries
        counts = [
            len(texts) if most is None else min(len(texts), max(0, most - each.queries))
            for each, texts in asked
        ]
        rows = [text for (_, texts), count in zip(asked, counts, strict=True) for text in texts[:count]]
        parts = [
            self.step.forward(written(rows[at : at + CHUNK], self.width).to(self.device))
            for at in range(0, len(rows), CHUNK)
        ]
        for (each, texts), count in zip(asked, counts, strict=True):
            each.queries += count
            each.done = each.done or count < len(texts)
        found = torch.cat(parts).double().softmax(1).cpu() if parts else torch.zeros(0, 1)
        return list(torch.split(found, counts))


def importance(clean: Tensor, without: Tensor, label: int) -> Tensor:
    """Return the importance of words, (M,), as `import_scores` in the authors' attack_classification.py.

    Args:
        clean: probabilities of the text, (K,).
        without: probabilities of the text without each word, (M, K).
        label: the class of the text, which is also its prediction.
    """
    drop, other = clean[label] - without[:, label], without.argmax(1)
    # Where the prediction changes, what the other class gains counts, too.
    gain = without.gather(1, other[:, None])[:, 0] - clean[other]
    return torch.where(other == label, drop, drop + gain)


def descending(values: Tensor) -> list[int]:
    """Return the places of values (M,), largest first; of values equal up to TIE, the first first."""
    left, found = values.clone(), []
    for _ in range(len(values)):
        best = int((left >= left.max() - TIE).nonzero()[0, 0])
        found.append(best)
        left[best] = -torch.inf
    return found
