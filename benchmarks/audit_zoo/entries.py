"""What an entry of the zoo is, and which words of the audit name its mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

CUT = ("no gradients", "zero gradients", "not differentiable")
BLIND = ("random search wins", "transfer wins", "weak attacks")
# What hides, or spoils, the gradient: the zoo's word, and the kinds of findings that name it.
KINDS: Mapping[str, Sequence[str]] = {
    "detached": (*CUT, *BLIND),
    "decisions": (*CUT, *BLIND),
    "quantised": CUT,
    "stochastic": ("random",),
    "saturated": ("saturated", "zero gradients", "scaled logits", "probabilities"),
    "rounded": CUT,
    "squeezed": ("scaled logits", "losses"),
    "wrong-gradient": ("wrong gradients",),
    "nan-gradient": ("not finite",),
    "shattered": ("shattered gradients",),
    "detector": ("wrong gradients", *CUT, *BLIND),
}


class Made(NamedTuple):
    """A model of the zoo and what it is audited on.

    Attributes:
        module: a module from images (N, 1, H, W) to logits, or a fitted classifier.
        data: test samples and their labels.
        vicinity: the threat model, as a table.
        bounds: lowest and highest value of an input.
    """

    module: Any
    data: tuple[Tensor, Tensor]
    vicinity: Mapping[str, Any]
    bounds: tuple[float, float]


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes:
        name: its name.
        kind: a key of KINDS; "" for an honest model.
        make: makes the model, always the same.
        stand_ins: makes what a white-box attack differentiates in its place, from the model; the model
            itself is always differentiated, too.
        random: whether two calls on the same input differ.
    """

    name: str
    kind: str
    make: Callable[[], Made]
    stand_ins: Callable[[Any], Sequence[nn.Module]] = lambda module: ()
    random: bool = False
