"""What every attack needs for a batch: the rules, the target, and a speaker for the adversary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustplug.api import Refused, Step, Vicinity, View

from ..agents.agent import Agent
from ..agents.mind import Glass, Mind
from ..agents.talk import ADVERSARY, TARGET, Say, Talk, noise_of, play
from ..agents.voice import Speaker, Voice
from ..dialogues.scenarios import without_dialogue
from ..dialogues.task import NegotiationTask, negotiating
from ..protocol import OwnAgent
from .adversary import speaking


class Game:
    """Hold what an attack needs for one batch.

    Attributes:
        step: step of the evaluation.
        task, rules: task and rules of the game.
        x: scenarios (N, 12) as the target sees them.
        target: the target as a speaker.
    """

    def __init__(self, step: Step, view: View, vicinity: Vicinity) -> None:
        self.step = step
        self.task, self.rules = negotiating(step.task, vicinity)
        self.x = without_dialogue(view.origin)
        self.target = as_speaker(step.model, self.task)
        self._first, self._noise = noise_of(
            step, view.index.to(self.x.device), self.rules.turns, self.rules.words
        )

    @property
    def device(self) -> torch.device:
        """Return the device of the dialogues."""
        device: torch.device = self.x.device
        return device

    def play(self, adversary: Speaker, first: Tensor, say: Say | None = None) -> Talk:
        """Negotiate, and count one forward of the target for each turn that it is asked for."""
        talk = play(self.x, self.target, adversary, first, self._noise, say)
        self.step.meter.forwards += talk.asked
        return talk

    def prepared(self, queries: int) -> None:
        """Count queries of the target that prepared the attack, once for all batches of an evaluation."""
        if self.step.evaluating:
            self.step.meter.prepared = queries
        else:
            self.step.meter.forwards += queries

    def either_first(self) -> Tensor:
        """Return the side that speaks first in each dialogue, drawn at random."""
        return self._first

    def so_that_adversary_speaks(self, turn: int) -> Tensor:
        """Return the side that must speak first for a turn, counted from 0, to be the adversary's."""
        return torch.full((len(self.x),), ADVERSARY if turn % 2 == 0 else TARGET, device=self.device)

    def glass(self) -> Glass:
        """Return the target as a white-box attack sees it.

        Raises:
            Refused: the target does not expose logits.
        """
        if isinstance(self.target, Voice):
            return Mind(self.target, self.task.info.walk_away)
        if isinstance(self.target, OwnAgent):
            return self.target.glass()
        raise Refused("this target exposes no logits: only black-box attacks can run on it")

    def speaker(self, name: str) -> Speaker:
        """Return the adversary's speaker: the agent of a run, or the target itself."""
        if name == "target":
            return self.target
        return Voice(speaking(name, self.step.model, self.task, self.device))


def as_speaker(model: Any, task: NegotiationTask) -> Speaker:
    """Return a model as one side of negotiations.

    Raises:
        Refused: the model cannot negotiate in this task.
    """
    if isinstance(model, Agent):
        if model.words() != task.info.words:
            raise Refused(
                "the vocabulary of the target differs from the task's: use the data of its training"
            )
        return Voice(model)
    if isinstance(model, OwnAgent):
        return model.to_play(task.info.words)
    raise Refused('the model cannot negotiate: train a "negotiator", or adapt your own agent')
