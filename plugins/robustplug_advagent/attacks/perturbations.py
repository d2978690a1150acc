"""Partners and adversaries as perturbations: each turns scenarios into dialogues (§3.2.2, §3.2.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Cost, Step, Vicinity, View

from ..agents.agent import Agent, load_agent
from ..agents.talk import ADVERSARY, Talk, claims, with_claims
from ..agents.voice import Utterance, Voice, ending
from ..dialogues.layout import EOS, PAD, lengths
from .adversary import best_sentences, trained_adversary
from .game import Game
from .replace import Found, Objective, Score, preemptive, reactive, search

if TYPE_CHECKING:
    from .options import (
        AdversaryOptions,
        AnyTurnOptions,
        PartnerOptions,
        PreemptiveOptions,
        ReactiveOptions,
        SearchOptions,
        TransferOptions,
    )


class _Attack:
    """Base of all attacks: the number of the target's forwards depends on the dialogues."""

    # A dialogue ends when its words say so.
    needs_sync = True

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on the dialogues."""
        return Cost.unknown()


class Partner(_Attack):
    """Negotiate with an agent that does not attack and makes its own decision."""

    def __init__(self, options: PartnerOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the dialogues, with what the partner takes."""
        game = Game(step, view, vicinity)
        talk = game.play(game.speaker(self.options.agent), game.either_first())
        return view.replace(x=with_claims(talk.rows_so_far(), claims(talk, game.task.info.walk_away)))


class RlAttack(_Attack):
    """Negotiate with an adversary trained to get more than the target (§3.2.2.1)."""

    def __init__(self, options: AdversaryOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the dialogues."""
        game = Game(step, view, vicinity)
        adversary = Voice(_adversary(game, self.options))
        return view.replace(x=game.play(adversary, game.either_first()).rows_so_far())


def _adversary(game: Game, options: AdversaryOptions, surrogate: Agent | None = None) -> Agent:
    """Return the adversary trained against a surrogate, or else against the target."""
    target = game.target if surrogate is None else Voice(surrogate)
    model = game.step.model if surrogate is None else surrogate
    return trained_adversary(target, model, game.task, game.rules, options, game.device)


class Sentences:
    """Say one of a list of sentences, drawn at random (§3.2.2.2).

    Args:
        game: game of the batch.
        options: the number of sentences, and the training of the adversary that first said them.
        surrogate: agent to which it said them; None for the target.
    """

    def __init__(
        self, game: Game, options: TransferOptions | AnyTurnOptions, surrogate: Agent | None = None
    ) -> None:
        adversary = _adversary(game, options, surrogate)
        found = best_sentences(
            game.target if surrogate is None else Voice(surrogate),
            adversary,
            game.task,
            game.rules,
            options.sentences,
            options.seed,
            game.device,
        )
        most = max(map(len, found)) + 1
        rows = [[*said, EOS] + [PAD] * (most - 1 - len(said)) for said in found]
        self.words = torch.tensor(rows, device=game.device)
        self.sizes = torch.tensor([len(said) + 1 for said in found], device=game.device)

    def draw(self, noise: Tensor) -> Utterance:
        """Return a sentence for each number in [0, 1)."""
        chosen = (noise * len(self.words)).long()
        return Utterance(self.words[chosen], self.sizes[chosen])


class TransferAttack(_Attack):
    """Talk as usual for n turns, then say a sentence that worked in another dialogue."""

    def __init__(self, options: TransferOptions) -> None:
        self.options = options
        self._found: Sentences | None = None

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the dialogues."""
        game, n = Game(step, view, vicinity), self.options.turns
        sentences, speaker = self._sentences(game), game.speaker(self.options.speaker)

        def say(talk: Talk, rows: Tensor, noise: Tensor) -> Utterance:
            if talk.turn == n:
                return sentences.draw(noise[:, 0])
            return speaker.speak(talk.heard[ADVERSARY].rows(rows), noise)

        talk = game.play(speaker, game.so_that_adversary_speaks(n), say)
        return view.replace(x=talk.rows_so_far())

    def _sentences(self, game: Game) -> Sentences:
        """Return the sentences; those said to a surrogate are the same for every batch."""
        if self.options.surrogate is None:
            return Sentences(game, self.options)
        if self._found is None:
            surrogate = load_agent(self.options.surrogate, game.task.info, game.device)
            self._found = Sentences(game, self.options, surrogate)
        return self._found


class Searching:
    """Search for sentences at the adversary's turns, and count the forwards of the search.

    Args:
        game: game of the batch.
        options: options of the search.
    """

    def __init__(self, game: Game, options: SearchOptions) -> None:
        self.game, self.options = game, options
        self.speaker, self._glass = game.speaker(options.speaker), game.glass()

    def usual(self, talk: Talk, rows: Tensor, noise: Tensor, may_end: bool = True) -> Utterance:
        """Return what the adversary would say without an attack."""
        return self.speaker.speak(talk.heard[ADVERSARY].rows(rows), noise, may_end)

    def find(self, talk: Talk, rows: Tensor, base: Utterance, reply_words: int | None) -> Found:
        """Search from some sentences for a reactive attack, or for a preemptive one if a reply is allowed."""
        x = talk.rows_so_far()[rows]
        # Sentences in dialogues of similar lengths are scored together, which saves padding.
        order = lengths(x).argsort(stable=True)
        memory = self._glass.recall(x[order])
        if reply_words is None:
            objective = reactive(self._glass, memory, self.options)
        else:
            objective = preemptive(self._glass, memory, self.options, reply_words)
        slack = None if objective.slack is None else self._counted(objective.slack)
        objective = Objective(self._counted(objective.loss), slack)
        found = search(base.rows(order), objective, len(self.game.task.info.words), self.options)
        return found.rows(order.argsort())

    def _counted(self, score: Score) -> Score:
        def count(owner: Tensor, said: Utterance) -> Tensor:
            self.game.step.meter.forwards += len(owner)
            return score(owner, said)

        return count


class ReactiveAttack(_Attack):
    """Talk as usual for n turns, then make the target end the dialogue and decide badly."""

    def __init__(self, options: ReactiveOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the dialogues."""
        game, n = Game(step, view, vicinity), self.options.turns
        attack = Searching(game, self.options)

        def say(talk: Talk, rows: Tensor, noise: Tensor) -> Utterance:
            if talk.turn != n:
                return attack.usual(talk, rows, noise)
            if self.options.constraint == "penalty":
                talk.forced[rows] = True
            return attack.find(talk, rows, attack.usual(talk, rows, noise, False), None).said

        talk = game.play(attack.speaker, game.so_that_adversary_speaks(n), say)
        return view.replace(x=talk.rows_so_far())


class PreemptiveAttack(_Attack):
    """Talk as usual for n turns, then make the target lower its demand, and end the dialogue."""

    def __init__(self, options: PreemptiveOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the dialogues."""
        game, o = Game(step, view, vicinity), self.options
        attack = Searching(game, o)

        def say(talk: Talk, rows: Tensor, noise: Tensor) -> Utterance:
            if talk.turn > o.turns:
                return ending(len(rows), rows.device)
            if talk.turn < o.turns:
                return attack.usual(talk, rows, noise)
            return attack.find(talk, rows, attack.usual(talk, rows, noise, False), o.reply_words).said

        talk = game.play(attack.speaker, game.so_that_adversary_speaks(o.turns), say)
        return view.replace(x=talk.rows_so_far())


class AnyTurnAttack(_Attack):
    """Attack at the first turn for which the search finds a sentence (Algorithm 7).

    At each of its turns the adversary searches for a reactive attack, then for a preemptive one. If neither
    has L < 0, it talks as usual (delayed attack), or says one of a list of sentences (transfer attack).
    """

    def __init__(self, options: AnyTurnOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the dialogues."""
        game, o = Game(step, view, vicinity), self.options
        attack = Searching(game, o)
        sentences = Sentences(game, o) if o.otherwise == "transfer" else None
        closing = torch.zeros(len(game.x), dtype=torch.bool, device=game.device)

        def say(talk: Talk, rows: Tensor, noise: Tensor) -> Utterance:
            said = sentences.draw(noise[:, 0]) if sentences else attack.usual(talk, rows, noise)
            ends = closing[rows]
            closed = ending(len(rows), rows.device)
            left = (~ends).nonzero()[:, 0]
            for reply_words in (None, o.reply_words):
                if not len(left):
                    break
                base = attack.usual(talk, rows[left], noise[left], False)
                found = attack.find(talk, rows[left], base, reply_words)
                good = (found.scores.loss < 0) & (found.scores.slack >= 0)
                said = merged(said, left[good], found.said.rows(good))
                if reply_words is not None:
                    closing[rows[left[good]]] = True
                elif o.constraint == "penalty":
                    talk.forced[rows[left[good]]] = True
                left = left[~good]
            return merged(said, ends.nonzero()[:, 0], closed.rows(ends))

        talk = game.play(attack.speaker, game.either_first(), say)
        return view.replace(x=talk.rows_so_far())


def merged(said: Utterance, rows: Tensor, new: Utterance) -> Utterance:
    """Replace the turns of some rows."""
    width = max(said.words.shape[1], new.words.shape[1])
    words, other = (
        torch.nn.functional.pad(part.words, (0, width - part.words.shape[1]), value=PAD)
        for part in (said, new)
    )
    return Utterance(words.index_copy(0, rows, other), said.sizes.index_copy(0, rows, new.sizes))
