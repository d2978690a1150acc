"""The model under attack, as attacks use it: embeddings, translations and their losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustplug.api import Cost, Refused, Step, View

from ..models.lstm import Embedded
from ..text.search import Translation
from ..text.words import Words, lengths
from .goals import Goal, draw_keywords, keyword_loss, non_overlapping_loss

if TYPE_CHECKING:
    from .options import GoalOptions


class Victim:
    """Translate with the attacked model, and count the forward passes.

    Args:
        step: step whose model is attacked.
        options: options of the attack's goal.

    Raises:
        Refused: the model does not translate from embeddings, or the task has no words.
    """

    def __init__(self, step: Step, options: GoalOptions) -> None:
        self.step, self.options = step, options
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
        self.usable = source.usable().to(self.table.device)

    def translate(self, goal: Goal, vectors: Tensor, sizes: Tensor) -> Translation:
        """Return the likeliest words of sentences given as embeddings (N, S, d), with scores for the loss."""
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

    def breaks(self, goal: Goal, x: Tensor) -> Tensor:
        """Return whether the model's own translations of words (N, S) reach the goal, bool (N,)."""
        with torch.no_grad():
            found: Translation = self.step.forward(x)
        return goal.reached(found.words)


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
        said = found.words
        return {
            "said": said,
            "keywords": draw_keywords(said, view.index, candidates, o.keywords, o.keyword_seed),
        }

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
