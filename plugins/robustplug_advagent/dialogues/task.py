"""Negotiation as a task: dialogues to learn from, and scenarios to negotiate about."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustplug.api import (
    Batch,
    DataMissing,
    Feed,
    Quantity,
    Refused,
    Split,
    TaskInfo,
    View,
    index_batches,
    stream,
)

from .data import (
    Dialogue,
    encode,
    parse_dialogue,
    read_dialogues,
    read_scenarios,
    read_test_scenarios,
    vocabulary,
)
from .layout import COUNTS, HEAD, Words, lengths, turns
from .rules import Rules
from .scenarios import Answer, as_rows, decide, generate, pareto_optimal, pieces, scores, undecided
from .scripted import scripted_lines
from .tell import tell

if TYPE_CHECKING:
    from ..options import DealOptions, NegotiationOptions, ScriptedOptions


@dataclass(frozen=True)
class NegotiationInfo(TaskInfo):
    """Describe a negotiation task.

    Attributes:
        words: the vocabulary.
        walk_away: whether a side may decide to agree on nothing.
    """

    words: Words = field(default_factory=lambda: Words(()))
    walk_away: bool = False


class NegotiationTask:
    """Serve dialogues, and scenarios without a dialogue.

    For dialogues, y are their outcomes; for scenarios, y is −1. Training and validation use dialogues or
    scenarios, as `learn_from` sets. The test always uses scenarios: an attack turns each into a dialogue, and
    the score is that of the agent's decision after it.

    Args:
        options: options of either task.
        dialogues: dialogues of each split, the test split optional; the vocabulary is that of the training
            split.
        published: scenarios of each split, (S, 9); those of other splits are generated.
        notes: sentences on the data for the user.
    """

    default_model = "negotiator"
    score_name = "success"
    quantities = (
        Quantity("agree %", share=True, headline=True),
        Quantity("target", better="higher", headline=True),
        Quantity("adversary", better="lower", headline=True),
        Quantity("Pareto %", better="higher", share=True, headline=True),
        Quantity("advantage", better="lower"),
        Quantity("PAR %", better="lower", share=True),
        Quantity("turns"),
        Quantity("failed deals %", better="lower", share=True),
        Quantity("failed turns", better="lower"),
    )

    def __init__(
        self,
        options: NegotiationOptions,
        dialogues: Mapping[Split, Sequence[Dialogue]],
        published: Mapping[Split, Tensor],
        notes: Sequence[str] = (),
    ) -> None:
        self.notes = notes
        words = vocabulary(dialogues["train"], options.unknown_below)
        self._dialogues = {split: encode(members, words) for split, members in dialogues.items()}
        counts: dict[Split, int] = {
            "validation": options.scenarios,
            "test": options.scenarios,
            "train": options.train_scenarios,
        }
        self._scenarios: dict[Split, Tensor] = {
            split: as_rows(published[split])
            if split in published
            else generate(count, stream(options.scenario_seed, "scenarios", split))
            for split, count in counts.items()
        }
        splits: dict[Split, tuple[Tensor, Tensor]] = {}
        for split, scenarios in self._scenarios.items():
            of_dialogues = split != "test" and options.learn_from == "dialogues"
            unknown = torch.full((len(scenarios), 6), -1)
            splits[split] = self._dialogues[split] if of_dialogues else (scenarios, unknown)
        self._data = splits
        self._lengths = {split: lengths(x) for split, (x, _) in splits.items()}
        self.info = NegotiationInfo(
            sizes={split: len(x) for split, (x, _) in splits.items()},
            words=words,
            walk_away=options.walk_away,
        )

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of one epoch of a split; dialogues of similar lengths share a batch."""
        x, y = self._data[split]
        for index in index_batches(len(x), feed, self._lengths[split]):
            yield Batch(x[index].to(feed.device), y[index].to(feed.device), index.to(feed.device))

    def dialogues(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return the dialogues of a split, (N, 12 + T), and their outcomes, (N, 6).

        Raises:
            KeyError: the split has no dialogues.
        """
        return self._dialogues[split]

    def by_length(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return the dialogues of a split and their outcomes, shortest first: neighbours fit one batch.

        Raises:
            KeyError: the split has no dialogues.
        """
        x, y = self._dialogues[split]
        order = lengths(x).argsort(stable=True)
        return x[order], y[order]

    def refuse_more_people(self, people: int) -> None:
        """Refuse to imitate more dialogues at once than there are.

        Raises:
            Refused: there are fewer training dialogues.
        """
        known = len(self._dialogues["train"][0])
        if people > known:
            raise Refused(f"people = {people} is more than the {known} training dialogues: lower it")

    @functools.cached_property
    def digest(self) -> str:
        """Return a digest of what an adversary learns from: scenarios, dialogues, words, and rules."""
        found = hashlib.sha256(repr((self.info.words.all, self.info.walk_away)).encode())
        for rows in (self._scenarios["train"], *self._dialogues["train"]):
            found.update(repr(tuple(rows.shape)).encode())
            found.update(rows.contiguous().numpy().tobytes())
        return found.hexdigest()

    def scenarios(self, split: Split) -> Tensor:
        """Return the scenarios of a split, (N, 12)."""
        return self._scenarios[split]

    def decide(self, x: Tensor, output: Any) -> Tensor:
        """Return the decision in an agent's output, int64 (N,): Eq. 3.6."""
        return decide(output.choice, x, self.info.walk_away)

    def score(self, view: View, output: Any) -> Tensor:
        """Return for each sample whether the agent succeeds: bool (N,).

        In a negotiation, the agent succeeds if it gets at least as much as the other side; before the first
        turn it always succeeds, and without an answer for a decision it fails. In a dialogue with a known
        outcome, it succeeds if it decides as the person did; if the two people did not agree, it always
        fails.
        """
        decision = self.decide(view.x, output)
        own, other, _ = scores(view.x, decision)
        known = ((view.y[:, :3] >= 0) & (view.y[:, :3] <= view.x[:, COUNTS])).all(1)
        same = (pieces(decision) == view.y[:, :3]).all(1)
        played = view.y[:, 0] < 0
        silent = lengths(view.x) == 0
        won = (own >= other) & ~undecided(output.choice)
        return torch.where(played, won | silent, same & known)

    def measure(self, view: View, output: Any) -> Mapping[str, Tensor]:
        """Measure negotiations: the scores of both sides, how often they agree, and the number of turns.

        "Pareto %" is the share of the agreements that no other allocation improves for one side at no cost
        for the other. "PAR %", the positive advantage rate, is the share of dialogues in which the other
        side gets more than the own side.
        """
        decision = self.decide(view.x, output)
        own, other, agree = scores(view.x, decision)
        spoken = torch.tensor([float(len(turns(row))) for row in view.x[:, HEAD:].tolist()])
        found = {
            "agree %": 100.0 * agree,
            "target": own.float(),
            "adversary": other.float(),
            "Pareto %": (100.0 * pareto_optimal(view.x, decision)).masked_fill(~agree, torch.nan),
            "advantage": (other - own).float(),
            "PAR %": 100.0 * (other > own),
            "turns": spoken.to(view.x.device),
        }
        if isinstance(output, Answer):
            found |= {"failed deals %": 100.0 * undecided(output.choice), **output.costs}
        apart = (view.y[:, 0] >= 0) | (lengths(view.x) == 0)
        return {name: values.masked_fill(apart, torch.nan) for name, values in found.items()}

    def tell(self, view: View, output: Any) -> Sequence[str]:
        """Return each negotiation as text, as in Tables 3.11 to 3.13."""
        return tell(view.x, self.decide(view.x, output), self.info.words)


def negotiating(task: Any, vicinity: Any) -> tuple[NegotiationTask, Rules]:
    """Return the task and the rules of a negotiation.

    Raises:
        Refused: the task is not a negotiation, or the vicinity is not `rules`.
    """
    if not isinstance(task, NegotiationTask):
        raise Refused('this needs a negotiation: set the task to "negotiation" or "scripted-negotiation"')
    if not isinstance(vicinity, Rules):
        raise Refused('a negotiation needs the rules of the game: set the vicinity to "rules"')
    return task, vicinity


def scripted(options: ScriptedOptions) -> NegotiationTask:
    """Build the task of scripted dialogues."""
    sizes: dict[Split, int] = {
        "train": options.dialogues,
        "validation": max(1, options.dialogues // 8),
        "test": max(1, options.dialogues // 8),
    }
    dialogues = {
        split: [
            parse_dialogue(line)
            for line in scripted_lines(size, stream(options.scenario_seed, "scripted", split))
        ]
        for split, size in sizes.items()
    }
    return NegotiationTask(options, dialogues, {})


def deal_or_no_deal(options: DealOptions) -> NegotiationTask:
    """Build the task of the published dialogues.

    Raises:
        DataMissing: a file is missing.
        BrokenData: lines are malformed.
    """
    from .fetch import data_folder

    folder = data_folder(options)
    told: list[str] = []
    notes = told if options.skip_malformed else None
    train, validation = (read_dialogues(folder / f"{name}.txt", notes) for name in ("train", "val"))
    dialogues: dict[Split, Sequence[Dialogue]] = {"train": train, "validation": validation}
    test, selfplay = folder / "test.txt", folder / "selfplay.txt"
    if test.is_file():
        dialogues["test"] = read_dialogues(test, notes)
    published: dict[Split, Tensor] = {}
    if selfplay.is_file():
        published["train"] = read_scenarios(selfplay, notes)
    if options.test is not None:
        if not Path(options.test).is_file():
            raise DataMissing(f"task.test: there is no file {options.test}")
        published["test"] = read_test_scenarios(Path(options.test), notes)
    return NegotiationTask(options, dialogues, published, told)
