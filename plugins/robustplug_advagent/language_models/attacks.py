"""Attacks that need no scores: by a language model, and by querying the target with sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from robustplug.api import Cost, Refused, Step, Vicinity, View, stream

from ..agents.talk import ADVERSARY, TARGET, Talk
from ..agents.voice import Speaker, Utterance, ending
from ..attacks.game import Game
from ..attacks.perturbations import merged
from ..attacks.replace import follow
from ..dialogues.layout import EOS, HEAD, PAD, SELECTION, SPECIALS, THEM, YOU
from ..dialogues.scenarios import decide, scores
from .agent import LanguageModelAgent, seed_of
from .options import CausalLmOptions, ChatOptions
from .prompts import as_texts, read_prompts
from .replies import Replier

if TYPE_CHECKING:
    from .options import LanguageModelAttackOptions, SampledOptions

KINDS = ("causal-lm", "openai-chat")


class LanguageModelAttack:
    """Negotiate with an adversary that is a language model with the attack's goal in its prompts.

    The adversary takes what the target's decision leaves. It sees its own values, not the target's.

    Raises:
        Refused: the language model cannot be had, or its prompts cannot be read.
    """

    # A dialogue ends when its words say so.
    needs_sync = True

    def __init__(self, options: LanguageModelAttackOptions) -> None:
        self.options = options
        self.prompts = read_prompts(options.prompts, "adversary")
        self._replier = None if options.agent == "target" else _replier(options)

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the dialogues."""
        game = Game(step, view, vicinity)
        adversary = self._adversary(game)
        return view.replace(x=game.play(adversary, game.either_first()).rows_so_far())

    def _adversary(self, game: Game) -> LanguageModelAgent:
        if self._replier is not None:
            info = game.task.info
            return LanguageModelAgent(self._replier, self.prompts, info, self.options.temperature)
        if not isinstance(game.target, LanguageModelAgent):
            raise Refused(
                f'the target is no language model: name one as "agent", such as "{KINDS[0]}:FOLDER"'
            )
        return game.target.played_by(self.prompts, self.options.temperature)

    def facts(self) -> dict[str, Any]:
        """Return what a result states: the adversary's prompts and what identifies its model."""
        return {"prompts": as_texts(self.prompts), **({} if self._replier is None else self._replier.facts())}

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on the dialogues."""
        return Cost.unknown()


def _replier(options: LanguageModelAttackOptions) -> Replier:
    kind, _, name = options.agent.partition(":")
    if kind not in KINDS or not name:
        raise Refused(
            f'agent must be "target", "{KINDS[0]}:FOLDER" or "{KINDS[1]}:NAME", not "{options.agent}"'
        )
    shared: Any = {"tokens": options.tokens, "max_queries": options.max_queries}
    if kind == "causal-lm":
        from .causal import CausalLm

        return CausalLm(CausalLmOptions(folder=name, **shared))
    from .endpoint import Endpoint

    return Endpoint(ChatOptions(name=name, limit=options.limit, omit=options.omit, **shared))


class _Draws(NamedTuple):
    """Hold the random numbers in [0, 1) of a round, for C sentences of L words at most.

    Attributes:
        speech: for the words of the speaker, (C, L).
        place, word: for the word that is replaced, and for the new one, (C,).
        answers: for the target's answers, (C, samples, L).
    """

    speech: Tensor
    place: Tensor
    word: Tensor
    answers: Tensor


def _draws(noise: Tensor, number: int, options: SampledOptions) -> _Draws:
    """Draw the numbers of a round, those of each dialogue by its own noise, (N, L)."""
    size, many, samples = noise.shape[1], options.candidates, options.samples
    rows = []
    for row in noise.tolist():
        rng = stream(seed_of(row), "sampled", number)
        rows.append(torch.rand(many, size + 2 + samples * size, generator=rng))
    drawn = torch.cat(rows).to(noise.device)
    answers = drawn[:, size + 2 :].view(-1, samples, size)
    return _Draws(drawn[:, :size], drawn[:, size], drawn[:, size + 1], answers)


def _words(numbers: Tensor, vocabulary: int) -> Tensor:
    """Return a word of the vocabulary, none of the special ones, for each number in [0, 1)."""
    return len(SPECIALS) + (numbers.double() * (vocabulary - len(SPECIALS))).long()


def _opened(said: Utterance, words: Tensor) -> Utterance:
    """Return sentences with one word in the place of those that end the dialogue."""
    padded = torch.nn.functional.pad(said.words, (0, max(0, 2 - said.words.shape[1])), value=PAD)
    new, ends = padded.clone(), said.ends
    new[ends, 0], new[ends, 1] = words[ends], EOS
    return Utterance(new, said.sizes.masked_fill(ends, 2))


def _replaced(said: Utterance, place: Tensor, words: Tensor) -> Utterance:
    """Return sentences with one word replaced, at a place for a number in [0, 1)."""
    places = (place.double() * (said.sizes - 1)).long()
    return Utterance(said.words.scatter(1, places[:, None], words[:, None]), said.sizes)


def _best(said: Utterance, worth: Tensor, many: int) -> tuple[Utterance, Tensor]:
    """Return the best of each dialogue's sentences, the first of ties, and what it is worth."""
    found = worth.view(-1, many).max(1)
    # The first of ties, on every device.
    places = (worth.view(-1, many) == found.values[:, None]).long().argmax(1)
    rows = torch.arange(len(places), device=worth.device) * many + places
    return said.rows(rows), found.values


def _turn(who: int, said: Utterance) -> tuple[Tensor, Tensor]:
    """Return turns with the name of the speaker before them, and their sizes."""
    names = torch.full_like(said.sizes, who)[:, None]
    return torch.cat([names, said.words], 1), said.sizes + 1


class Sampled:
    """Talk as usual for n turns, then say the sentence that queries of the target found best.

    The attacker says a sentence to the target in a dialogue so far, and sees its answer and its decision, as
    often as `samples`; then it goes on from there with another sentence. Only words and decisions are used. A
    reactive sentence must make the target answer <selection> each time; after a preemptive one the adversary
    ends the dialogue. The score is the mean of S_adv − S_ori (Eq. 3.7). Rounds: sentences of the speaker,
    then the best one with one word replaced by another of the vocabulary, until it is worth `enough`.
    """

    # A dialogue ends when its words say so.
    needs_sync = True
    preemptive = False

    def __init__(self, options: SampledOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the dialogues."""
        game, n = Game(step, view, vicinity), self.options.turns
        speaker = game.speaker(self.options.speaker)

        def say(talk: Talk, rows: Tensor, noise: Tensor) -> Utterance:
            if talk.turn < n or (talk.turn > n and not self.preemptive):
                return speaker.speak(talk.heard[ADVERSARY].rows(rows), noise)
            if talk.turn > n:
                return ending(len(rows), rows.device)
            return self._search(game, talk, rows, speaker, noise)

        talk = game.play(speaker, game.so_that_adversary_speaks(n), say)
        return view.replace(x=talk.rows_so_far())

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on the dialogues."""
        return Cost.unknown()

    def _search(self, game: Game, talk: Talk, rows: Tensor, speaker: Speaker, noise: Tensor) -> Utterance:
        o, vocabulary = self.options, len(game.task.info.words)
        drawn = _draws(noise, 0, o)
        owner = torch.arange(len(rows), device=rows.device).repeat_interleave(o.candidates)
        said = speaker.speak(talk.heard[ADVERSARY].rows(rows[owner]), drawn.speech, False)
        said = _opened(said, _words(drawn.word, vocabulary))
        worth = self._advantage(game, talk, rows[owner], said, drawn.answers)
        best, advantage = _best(said, worth, o.candidates)
        for number in range(1, o.rounds):
            left = (advantage < o.enough).nonzero()[:, 0]
            if not len(left):
                break
            drawn = _draws(noise[left], number, o)
            owner = left.repeat_interleave(o.candidates)
            said = _replaced(best.rows(owner), drawn.place, _words(drawn.word, vocabulary))
            worth = self._advantage(game, talk, rows[owner], said, drawn.answers)
            found, gained = _best(said, worth, o.candidates)
            better = gained > advantage[left]
            best = merged(best, left[better], found.rows(better))
            advantage[left[better]] = gained[better]
        return best

    def _advantage(self, game: Game, talk: Talk, rows: Tensor, said: Utterance, noise: Tensor) -> Tensor:
        """Return the mean advantage after sentences, (C,), by samples of the target's answer."""
        target = talk.sides[TARGET]
        heard = target.hear(talk.heard[TARGET].rows(rows), said, THEM)
        so_far = talk.rows_so_far()[rows]
        words, sizes = follow(so_far[:, HEAD:], talk.sizes[rows], *_turn(THEM, said))
        total = torch.zeros(len(rows), device=rows.device)
        for sample in range(noise.shape[1]):
            answer = target.speak(heard, noise[:, sample])
            answered, lengths = follow(words, sizes, *_turn(YOU, answer))
            if self.preemptive:
                going = ~answer.ends
                closing = torch.tensor([[THEM, SELECTION]], device=rows.device).expand(len(rows), -1)
                answered, lengths = follow(answered, lengths, closing, 2 * going.long())
                reached = torch.ones_like(going)
            else:
                reached = answer.ends
            x = torch.cat([so_far[:, :HEAD], answered], 1)
            gained = torch.full((len(rows),), -torch.inf, device=rows.device)
            if bool(reached.any()):
                choice = target.choice(x[reached])
                own, other, agree = scores(x[reached], decide(choice, x[reached], game.task.info.walk_away))
                # Without a decision nobody gains anything.
                gained[reached] = (other - own).masked_fill(~agree, 0).float()
            game.step.meter.forwards += len(rows) + int(reached.sum())
            total += gained / noise.shape[1]
        return total


class ReactiveSampled(Sampled):
    """The reactive attack by queries: the target must end the dialogue after the sentence (§3.2.3.1)."""


class PreemptiveSampled(Sampled):
    """The preemptive attack by queries: the adversary ends the dialogue after the target's answer."""

    preemptive = True
