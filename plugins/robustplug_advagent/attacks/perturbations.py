"""Partners and adversaries as perturbations: each turns scenarios into dialogues (§3.2.2, §3.2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor, nn

from robustplug.api import Cost, Step, Vicinity, View, weights_digest

from ..agents.agent import Agent
from ..agents.talk import ADVERSARY, Talk, claims, with_claims
from ..agents.voice import Utterance, Voice, ending
from ..dialogues.layout import EOS, PAD, lengths
from ..dialogues.task import NegotiationTask
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


Prepared = TypeVar("Prepared")


class _Once(Generic[Prepared]):
    """Prepare an attack for all batches with the same target and task, and count what that cost.

    Args:
        prepare: function from the game of a batch to what the attack needs, and the queries of the target
            that it took.
    """

    def __init__(self, prepare: Callable[[Game], tuple[Prepared, int]]) -> None:
        self._prepare = prepare
        self._known: tuple[nn.Module, NegotiationTask, str, tuple[Prepared, int]] | None = None

    def __call__(self, game: Game) -> Prepared:
        """Return what the attack needs."""
        model, task, weights = game.step.model, game.task, weights_digest(game.step.model)
        known = self._known
        if known is None or known[0] is not model or known[1] is not task or known[2] != weights:
            known = self._known = (model, task, weights, self._prepare(game))
        prepared, queries = known[3]
        game.prepared(queries)
        return prepared


def _learned(game: Game, options: AdversaryOptions) -> tuple[Agent, int]:
    found = trained_adversary(game.target, game.step.model, game.task, game.rules, options, game.device)
    return found.agent, found.queries


class RlAttack(_Attack):
    """Negotiate with an adversary trained to get more than the target (§3.2.2.1)."""

    def __init__(self, options: AdversaryOptions) -> None:
        self._adversary = _Once(lambda game: _learned(game, options))

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the dialogues."""
        game = Game(step, view, vicinity)
        adversary = Voice(self._adversary(game))
        return view.replace(x=game.play(adversary, game.either_first()).rows_so_far())


class Sentences:
    """Say one of a list of sentences, drawn at random (§3.2.2.2).

    Args:
        found: the sentences, without <eos>.
        device: device of the dialogues.
    """

    def __init__(self, found: Sequence[Sequence[int]], device: torch.device) -> None:
        most = max(map(len, found)) + 1
        rows = [[*said, EOS] + [PAD] * (most - 1 - len(said)) for said in found]
        self.words = torch.tensor(rows, device=device)
        self.sizes = torch.tensor([len(said) + 1 for said in found], device=device)

    @classmethod
    def of(cls, game: Game, options: TransferOptions | AnyTurnOptions) -> tuple[Sentences, int]:
        """Train an adversary, and return its best sentences and the queries of the target that it took."""
        adversary, queries = _learned(game, options)
        found, more = best_sentences(
            game.target, adversary, game.task, game.rules, options.sentences, options.seed, game.device
        )
        return cls(found, game.device), queries + more

    def draw(self, noise: Tensor) -> Utterance:
        """Return a sentence for each number in [0, 1)."""
        chosen = (noise * len(self.words)).long()
        return Utterance(self.words[chosen], self.sizes[chosen])


class TransferAttack(_Attack):
    """Talk as usual for n turns, then say a sentence that worked in another dialogue."""

    def __init__(self, options: TransferOptions) -> None:
        self.options = options
        self._sentences = _Once(lambda game: Sentences.of(game, options))

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
        self._sentences = _Once(lambda game: Sentences.of(game, options))

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the dialogues."""
        game, o = Game(step, view, vicinity), self.options
        attack = Searching(game, o)
        sentences = self._sentences(game) if o.otherwise == "transfer" else None
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
                said = _merged(said, left[good], found.said.rows(good))
                if reply_words is not None:
                    closing[rows[left[good]]] = True
                elif o.constraint == "penalty":
                    talk.forced[rows[left[good]]] = True
                left = left[~good]
            return _merged(said, ends.nonzero()[:, 0], closed.rows(ends))

        talk = game.play(attack.speaker, game.either_first(), say)
        return view.replace(x=talk.rows_so_far())


def _merged(said: Utterance, rows: Tensor, new: Utterance) -> Utterance:
    """Replace the turns of some rows."""
    width = max(said.words.shape[1], new.words.shape[1])
    words, other = (
        torch.nn.functional.pad(part.words, (0, width - part.words.shape[1]), value=PAD)
        for part in (said, new)
    )
    return Utterance(words.index_copy(0, rows, other), said.sizes.index_copy(0, rows, new.sizes))
