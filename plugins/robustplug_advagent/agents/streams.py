"""Let two agents negotiate in many dialogues at once, one word of every dialogue at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..dialogues.layout import EOS, PAD, SELECTION, THEM, YOU, swapped
from .voice import Heard, Voice


class Said(NamedTuple):
    """Hold finished dialogues, as the target sees them.

    Attributes:
        words: the words, padded: (N, T).
        sizes: number of words of each dialogue, (N,).
        asked: number of turns that the target was asked for.
    """

    words: Tensor
    sizes: Tensor
    asked: int


@torch.no_grad()
def streamed(scenarios: Tensor, target: Voice, adversary: Voice, first: Tensor, noise: Tensor) -> Said:
    """Negotiate as `talk.play` does, without waiting for the longest turn of each round.

    Dialogues run on independently: at any moment some are in their first turn, and others in their last. A
    word costs each side one product for all dialogues that are still open. Those that are over are dropped.

    Args:
        scenarios: rows (N, 12) as the target sees them.
        target, adversary: the two sides.
        first: side that speaks first, 0 for the target and 1 for the adversary, int64 (N,).
        noise: random numbers, (N, turns, words + 1); the last turn is <selection>.
    """
    count, turns, most = noise.shape
    voices = (target, adversary)
    heard: list[Heard] = [target.begin(scenarios), adversary.begin(swapped(scenarios))]
    live = torch.arange(count, device=scenarios.device)
    turn, place, speaking = torch.zeros_like(live), torch.full_like(live, -1), first.clone()
    columns: list[Tensor] = []
    sizes, asked = torch.zeros_like(live), torch.zeros_like(live)
    while len(live):
        naming, last = place < 0, turn == turns - 1
        mine = speaking == 0
        token = torch.where(mine, YOU, THEM)
        drawing = ~naming & ~last
        for side, voice in enumerate(voices):
            rows = (drawing & (mine if side == 0 else ~mine)).nonzero()[:, 0]
            if len(rows):
                at = place[rows]
                token[rows] = voice.word(heard[side].rows(rows), noise[live[rows], turn[rows], at], at == 0)
        token = torch.where(drawing & (place == most - 1), EOS, token)
        token = torch.where(~naming & last, SELECTION, token)
        asked[live] += (naming & mine & ~last).long()
        column = scenarios.new_full((count,), PAD)
        column[live] = token
        columns.append(column)
        sizes[live] += 1
        going = token != SELECTION
        if not bool(going.all()):
            live, turn, place = live[going], turn[going], place[going]
            token, speaking = token[going], speaking[going]
            heard = [state.rows(going) for state in heard]
        over = token == EOS
        theirs = torch.where(token == YOU, THEM, torch.where(token == THEM, YOU, token))
        heard = [
            voice.after(state, said)
            for voice, state, said in zip(voices, heard, (token, theirs), strict=True)
        ]
        turn, speaking = turn + over, speaking ^ over.long()
        place = torch.where(over, -1, place + 1)
    return Said(torch.stack(columns, 1), sizes, int(asked.sum()))
