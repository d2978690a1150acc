"""What an attack did to each sentence, in the columns of TextAttack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from robustplug.api import TextRecord, View

from .attacks.goals import Goal, readable_data
from .text.scores import bleu
from .text.search import Translation
from .text.words import Words, rows_of


def records(view: View, output: Any, source: Words, target: Words) -> list[TextRecord]:
    """Return a record for each sentence; none without a goal.

    The score is what the attack wants to raise, 1 at the goal: the share of words that moved from their
    place, the share of the keywords, or, untargeted, 1 − BLEU against the data.
    """
    goal = Goal.of(view.info, target)
    if goal is None or not isinstance(output, Translation):
        return []
    possible, reached = goal.possible().tolist(), goal.reached(output.words).tolist()
    queries = view.info["queries"].tolist() if "queries" in view.info else [None] * len(view)
    texts = [[source.text(row) for row in part.tolist()] for part in (view.origin, view.x)]
    answers = [[target.text(row) for row in part.tolist()] for part in (goal.said, output.words)]
    scores = [_scores(goal, part, target, view.y) for part in (goal.said, output.words)]
    data = [target.text(row) for row in view.y.tolist()]
    rows: Iterator[Any] = zip(*texts, *scores, *answers, data, queries, strict=True)
    kinds = [
        "Skipped" if not can else "Successful" if won else "Failed"
        for can, won in zip(possible, reached, strict=True)
    ]
    return [TextRecord._make((*row, kind)) for row, kind in zip(rows, kinds, strict=True)]


def _scores(goal: Goal, words: Tensor, target: Words, data: Tensor) -> list[float]:
    found = []
    said, keywords = rows_of(goal.said.tolist()), rows_of(goal.keywords.tolist())
    for at, row in enumerate(rows_of(words.tolist())):
        spoken = target.spoken(row)
        if goal.ceiling is not None:
            known = readable_data(target, data[at].tolist())
            found.append(1 - bleu(target.text(row), known, target.literal))
        elif goal.keywords.shape[1]:
            wanted = [target.text([word]).strip() for word in keywords[at]]
            found.append(sum(word in spoken for word in wanted) / goal.keywords.shape[1])
        else:
            before = target.spoken(said[at])
            same = sum(one == other for one, other in zip(spoken, before, strict=False))
            found.append(1 - same / max(1, len(before)) if spoken else 0.0)
    return found
