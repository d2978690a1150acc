"""The attacks of an audit: a chain of white-box attacks, and blinder attacks on what withstood the chain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...core.calling.outputs import AsLogits
from ...plugin.host import registry
from ...recipe.load import read_suite
from ..rows import suite_attacks
from ..setting import Attack
from .inspection import Inspection
from .stand_ins import Borrowed, Bridged, Rescaled

if TYPE_CHECKING:
    from ...core.types import TaskInfo
    from ...plugin.component import Use
    from ...subjects.subject import Source

WHITE = "white-box"
# Steps of the gradient-based attacks, and queries of those without gradients.
STEPS, QUERIES = 100, 2000
# Rows of the chain that ascend cross entropy, or the difference of logits ratio, on the model's own outputs.
CROSS_ENTROPY = ("pgd", "apgd-ce")
SQUEEZED = "apgd-ce, logits rescaled"
RATIO = ("apgd-dlr", "apgd-t")
UNBOUNDED, SINGLE, NOISE, SQUARE = "unbounded", "fgsm", "noise", "square"
BRIDGED, BORROWED, SUBSTITUTE = "straight-through", "substitute's gradients", "transfer from a substitute"
AS_LOGITS = "apgd-ce, outputs as logits"
TRANSFER = "transfer"
# A decision-based attack, where a plugin offers it, for models without gradients.
HARD_LABEL = "rays"


@dataclass(frozen=True)
class _Row:
    """A row: its attack, the chain, and the module that the attack runs on."""

    label: str
    attack: Mapping[str, Any]
    chain: str | None = None
    after: str = ""
    stand_in: Callable[[nn.Module], nn.Module] | None = None
    transfers: bool = False
    eps: float | None = None


def _margin(steps: int, restarts: int = 1) -> dict[str, Any]:
    return {"use": "pgd", "steps": steps, "restarts": restarts, "loss": {"use": "margin"}}


def white_box(scale: float) -> list[_Row]:
    """Return the chain of white-box attacks.

    Args:
        scale: factor that brings the logits to a usual size.
    """
    entropy = {"use": "apgd-ce", "steps": STEPS}
    return [
        _Row("pgd", {"use": "pgd", "steps": STEPS // 2, "restarts": 2}, WHITE),
        _Row("apgd-ce", entropy, WHITE),
        _Row(SQUEEZED, entropy, WHITE, stand_in=lambda model: Rescaled(model, scale)),
        _Row("apgd-dlr", {"use": "apgd-dlr", "steps": STEPS}, WHITE),
        _Row("apgd-t", {"use": "apgd-t", "steps": STEPS // 2}, WHITE),
        _Row("margin", _margin(STEPS, 2), WHITE),
    ]


def blind(found: Inspection, substitute: nn.Module | None, everything: float | None) -> list[_Row]:
    """Return the attacks that should find nothing more, each on the samples that withstood the chain.

    Args:
        found: what the inspection found.
        substitute: a network that imitates the model; None for none.
        everything: the radius at which every input is legal; None if there is none.
    """
    margin = _margin(STEPS // 2)
    rows = [
        _Row(SINGLE, {"use": "fgsm"}, after=WHITE),
        _Row(NOISE, {"use": "noise"}, after=WHITE),
        _Row(SQUARE, {"use": "square", "queries": QUERIES}, after=WHITE),
    ]
    if found.absent and HARD_LABEL in registry().names("perturbation"):
        rows.append(_Row(HARD_LABEL, {"use": HARD_LABEL, "queries": QUERIES}, after=WHITE))
    if found.bridge is not None:
        bridge = found.bridge
        rows.append(_Row(BRIDGED, _margin(STEPS), after=WHITE, stand_in=lambda model: Bridged(model, bridge)))
    if substitute is not None:
        rows += [
            _Row(BORROWED, margin, after=WHITE, stand_in=lambda model: Borrowed(model, substitute)),
            _Row(SUBSTITUTE, margin, after=WHITE, stand_in=lambda _: substitute, transfers=True),
        ]
    if found.probabilities:
        rows.append(_Row(AS_LOGITS, {"use": "apgd-ce"}, stand_in=_as_logits))
    if everything is not None:
        rows.append(_Row(UNBOUNDED, _margin(STEPS), after=WHITE, eps=everything))
    return rows


def adaptive(found: Inspection, substitute: nn.Module | None, chain: str) -> list[_Row]:
    """Return the attacks that an inspection finds necessary, as further rows of a chain.

    Args:
        found, substitute: as for `blind`.
        chain: name of the chain.
    """
    margin = _margin(STEPS, 2)
    rows = [_Row(SQUEEZED, {"use": "apgd-ce"}, chain, stand_in=lambda model: Rescaled(model, found.scale))]
    if found.bridge is not None:
        bridge = found.bridge
        rows.append(_Row(BRIDGED, margin, chain, stand_in=lambda model: Bridged(model, bridge)))
    if substitute is not None:
        rows += [
            _Row(BORROWED, margin, chain, stand_in=lambda model: Borrowed(model, substitute)),
            _Row(SUBSTITUTE, _margin(STEPS // 2), chain, stand_in=lambda _: substitute, transfers=True),
        ]
    return rows


def _as_logits(model: nn.Module) -> nn.Module:
    """Return a model that attacks take at its word, although its outputs are probabilities."""
    return Rescaled(model.model if isinstance(model, AsLogits) else model, 1.0)


def attacks_of(
    rows: Sequence[_Row],
    threat: Mapping[str, Any],
    vicinity: Use,
    sources: Sequence[Source],
    info: TaskInfo,
    labels: str | None,
) -> list[Attack]:
    """Build the attacks of an audit.

    Args:
        rows: the rows.
        threat: the threat model, as a table.
        vicinity: the same, resolved.
        sources: surrogate models that were given; each is a transfer row of its own.
        info: the task's description.
        labels: what labels the task has; None if it is not known.
    """
    tables: list[dict[str, Any]] = []
    for row in rows:
        table = {"label": row.label, "attack": row.attack, "chain": row.chain}
        changed = {} if row.eps is None else {"vicinity": {**threat, "eps": row.eps}}
        tables.append({key: value for key, value in table.items() if value is not None} | changed)
    if sources:
        attack = {"use": "pgd", "steps": STEPS // 2}
        tables.append({"label": TRANSFER, "attack": attack, "transfer": True})
    suite = read_suite({"name": "audit", "row": tables}, threat)
    built = suite_attacks(suite, vicinity, sources, info, labels)
    named = {row.label: row for row in rows}
    return [
        replace(attack, stand_in=row.stand_in, transfers=row.transfers, after=row.after)
        for attack in built
        for row in [named.get(attack.label, _Row("", {}, after=WHITE))]
    ]


def reach(info: TaskInfo, norm: float | None) -> float | None:
    """Return a radius at which every input can be reached from every other; None for a norm without one."""
    low, high = (torch.as_tensor(side, dtype=torch.float64).view(-1) for side in info.bounds)
    widths = high - low
    if norm == math.inf:
        return float(widths.max())
    if norm not in (1, 2) or not info.shape:
        return None
    each = math.prod(info.shape) / len(widths)
    return math.pow(float((widths**norm * each).sum()), 1 / norm)
