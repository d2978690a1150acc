"""The model under attack, as attacks use it: embeddings, translations and their losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from robustplug.api import Cost, Refused, Step, Vicinity, View

from ..models.lstm import Embedded
from ..text.search import Translation
from ..text.words import Words, lengths, padded, rows_of
from .goals import Goal, bleu_of_rows, draw_keywords, keyword_loss, non_overlapping_loss

if TYPE_CHECKING:
    from .options import GoalOptions


# One number orders candidates by merit first, then by words changed.
_MERIT = 1e6


class Tried(NamedTuple):
    """Hold what came of sentences that an attack tried.

    Attributes:
        x: what the tokenizer makes of their text, int64 (N, W).
        price: merit first, then words changed, as one number, float64 (N,); infinite for a sentence that is
            not legal, or no better than the limit.
        reached: which of them reach the goal, bool (N,).
    """

    x: Tensor
    price: Tensor
    reached: Tensor


class Victim:
    """Translate with the attacked model, and count how often each sentence asks it.

    Args:
        step: step whose model is attacked.
        options: options of the attack's goal.
        view: the sentences.
        vicinity: their threat model.

    Attributes:
        queries: number of translations for each sentence, that of the original included, int64 (N,).

    Raises:
        Refused: the model does not translate from embeddings, or the task has no words.
    """

    def __init__(self, step: Step, options: GoalOptions, view: View, vicinity: Vicinity) -> None:
        self.step, self.options, self._vicinity = step, options, vicinity
        self._origin, self._radius = view.origin, step.radii(view, vicinity)
        self.queries = torch.ones_like(view.index)
        info: Any = step.task.info
        model: Any = step.model
        source = getattr(info, "source", None)
        if not isinstance(source, Words):
            raise Refused('this attack needs sentences: task "translation" or "synthetic-translation"')
        if not hasattr(model, "vectors") or not hasattr(model, "limits"):
            raise Refused("this attack needs a model with vectors() and limits(), such as lstm-attention")
        self._limits: Any = model.limits
        with torch.no_grad():
            self.table: Tensor = model.vectors().detach()
        self.source, device = source, self.table.device
        self.usable, self.begins = source.usable().to(device), source.begins().to(device)

    def translate(self, rows: Tensor, goal: Goal, vectors: Tensor, sizes: Tensor) -> Translation:
        """Return the likeliest words of sentences given as embeddings (N, S, d), with scores for the loss.

        Args:
            rows: which sentence of the batch each one is made from, int64 (N,).
            goal: their goals.
            vectors, sizes: see `Embedded`.
        """
        self.queries.index_add_(0, rows, torch.ones_like(rows))
        asked = Embedded(vectors, sizes, self._limits(sizes), goal.watched())
        found: Translation = self.step.forward(asked)
        return found

    def loss(self, goal: Goal, found: Translation) -> Tensor:
        """Return the loss that an attack minimises, for each sentence, (N,)."""
        o = self.options
        assert found.scores is not None
        if goal.keywords.shape[1]:
            return keyword_loss(found.scores, found.words, goal.keywords, o.margin, o.mask)
        return non_overlapping_loss(found.scores, found.words, goal.said, o.margin)

    def kinds(self, words: Tensor) -> Tensor:
        """Return which pieces may take the place of words: 1 for those that begin a word, else 0, int64 (…).

        A piece within a word in the place of one that begins it, or the reverse, would move its boundaries.
        """
        return self.begins[words].long()

    def attempt(self, rows: Tensor, goal: Goal, words: Tensor, limit: Tensor) -> Tried:
        """Ask the model for its own translations of what the tokenizer makes of the text of sentences.

        Args:
            rows: which sentence of the batch each one is made from, int64 (N,).
            goal: their goals.
            words: the sentences, int64 (N, S).
            limit: prices that they must be below, float64 (N,).
        """
        origin, radius = self._origin[rows], self._radius[rows]
        settled = [self.source.settled(row) for row in words.tolist()]
        width = origin.shape[1]
        fits = torch.tensor([len(row) <= width for row in settled], dtype=torch.bool, device=origin.device)
        x = padded([row[:width] for row in settled], width).to(origin.device)
        worth = fits & (x != origin).any(1)
        x = torch.where(worth[:, None], x, origin)
        changed = self._changed(origin, x)
        # Sentences with a goal can be no better than words changed: their merit is 0.
        if goal.ceiling is None:
            worth &= changed < limit
        kept = worth.nonzero()[:, 0]
        kept = kept[self._vicinity.contains(x[kept], origin[kept], radius[kept])]
        price = torch.full_like(limit, torch.inf)
        reached = torch.zeros_like(worth)
        if len(kept):
            self.queries.index_add_(0, rows[kept], torch.ones_like(kept))
            with torch.no_grad():
                said: Translation = self.step.forward(x[kept])
            own = goal.rows(kept)
            price[kept] = own.merit(said.words) * _MERIT + changed[kept]
            reached[kept] = own.reached(said.words)
        better = price < limit
        return Tried(x, price.masked_fill(~better, torch.inf), reached & better)

    def promising(self, goal: Goal, words: Tensor, limit: Tensor) -> Tensor:
        """Return which translations may make a sentence worth an attempt, bool (N,)."""
        return goal.merit(words) * _MERIT < limit

    def _changed(self, origin: Tensor, x: Tensor) -> Tensor:
        if self.source.literal:
            return (origin != x).sum(1).double()
        pairs = zip(rows_of(origin.tolist()), rows_of(x.tolist()), strict=True)
        counts = [float(self.source.changed(*pair)) for pair in pairs]
        return torch.tensor(counts, dtype=torch.float64, device=x.device)


class Best:
    """The best sentence so far of each row, and its price; the original where there is none.

    Args:
        view: the sentences.
        goal: their goals.
    """

    def __init__(self, view: View, goal: Goal) -> None:
        self.x = view.origin.clone()
        start = goal.start() * _MERIT
        # Where there is a goal, the original has not reached it: any price is better.
        self.price = start if goal.ceiling is not None else torch.full_like(start, torch.inf)
        self.reached = torch.zeros(len(start), dtype=torch.bool, device=start.device)

    def take(self, rows: Tensor, tried: Tried) -> Tensor:
        """Keep what is better than before, and return the rows of which that is so."""
        better = tried.price < self.price[rows]
        rows = rows[better]
        self.x[rows], self.price[rows] = tried.x[better], tried.price[better]
        self.reached[rows] = tried.reached[better]
        return rows


class Aimed:
    """Base of all attacks on translations: state a goal before the attack starts.

    Args:
        options: options of the attack.
    """

    # A sentence leaves the batch when it is broken.
    needs_sync = True

    def __init__(self, options: GoalOptions) -> None:
        self.goal = options

    def aim(self, step: Step, view: View) -> Mapping[str, Any]:
        """Return the translations of the clean sentences, "said", and the "keywords" to force.

        Raises:
            Refused: the model does not translate, or the task has too few candidate keywords.
        """
        candidates, o = getattr(step.task.info, "keywords", ()), self.goal
        if len(candidates) < o.keywords:
            raise Refused(
                f"keywords = {o.keywords}, but {len(candidates)} words of the task may be keywords: reduce "
                "keywords, or lower task.keyword_above or task.stop_words"
            )
        with step.attack_mode(), torch.no_grad():
            found = step.forward(view.origin)
        if not isinstance(found, Translation):
            raise Refused("this attack needs a model that translates, such as lstm-attention")
        said, target = found.words, getattr(step.task.info, "target", None) or Words(())
        keywords = draw_keywords(said, view.index, candidates, o.keywords, o.keyword_seed, target)
        if not o.untargeted:
            return {"said": said, "keywords": keywords}
        ceiling = o.share * bleu_of_rows(said, view.y, target)
        return {"said": said, "keywords": keywords, "known": view.y, "ceiling": ceiling}

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on when each sentence is broken."""
        return Cost.unknown()

    def _goal(self, step: Step, view: View) -> Goal:
        """Return the goal in the view's info, or that of `aim` if the engine did not call `aim`."""
        target: Words = getattr(step.task.info, "target", None) or Words(())
        goal = Goal.of(view.info, target) or Goal.of(self.aim(step, view), target)
        assert goal is not None
        return goal


def attackable(goal: Goal, x: Tensor, radius: Tensor) -> Tensor:
    """Return the rows that can be attacked, int64: those with words, a goal and a radius of at least 1."""
    return ((lengths(x) > 0) & goal.possible() & (radius >= 1)).nonzero()[:, 0]
