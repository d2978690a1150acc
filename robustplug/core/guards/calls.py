"""A call of code that is not the engine's: what it changed is put back, and its result is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import Refused
from . import switches
from .values import same

if TYPE_CHECKING:
    from ..types import Batch, View
    from .models import Kept

# What a component was handed, what it must still be equal to, and its name in messages.
Given = tuple[Any, Any, str]

_NAMES = {
    "x": "its inputs",
    "y": "the labels",
    "origin": "the origins",
    "index": "the indices",
    "radius": "the radii",
    "weight": "the weights of the samples",
    "info": "the info of the samples",
}


def refusal(who: str, changes: Sequence[str], where: str = "") -> Refused:
    """Return the refusal of a result whose maker changed what it was handed, with the place in the run."""
    named = ", ".join(dict.fromkeys(changes))
    return Refused(f"{who} changed {named}{where and f' in {where}'}, which it must leave as it was")


@contextlib.contextmanager
def unchanged(
    kept: Kept | None,
    who: Callable[[], str],
    *given: Given,
    values: bool = False,
    model_alone: Callable[[], object] | None = None,
) -> Iterator[None]:
    """Check after a block what the code in it changed, and put it back, even after an exception.

    Args:
        kept: the model that the code can reach; None for none.
        who: returns the name of what runs in the block.
        given: what it was handed.
        values: whether to compare the values of all tensors of the model; see `Kept.put_back`.
        model_alone: calls the model alone: what this changes as well is not the code's fault.

    Raises:
        Refused: the code changed something.
    """
    before = switches.read()
    try:
        yield
    except BaseException:
        switches.put_back(before)
        if kept is not None:
            kept.put_back(values=True)
        raise
    changes = switches.put_back(before) + ([] if kept is None else kept.put_back(values))
    if changes and kept is not None and model_alone is not None:
        model_alone()
        own = switches.put_back(before) + kept.put_back(values=True)
        changes = [change for change in changes if change not in own]
    changes += [name for one, other, name in given if not same(one, other)]
    if changes:
        raise refusal(who(), changes)


def limits(vicinity: object) -> dict[str, Any]:
    """Return the radius, the norm and the range of the inputs of a vicinity, as far as it has them."""
    own = getattr(vicinity, "__dict__", {})
    return {key: own[key] for key in ("eps", "norm", "low", "high") if key in own}


def compared(handed: Batch | View, own: Batch | View) -> list[Given]:
    """Pair the fields of a batch or view that is handed out with those that they must stay equal to."""
    fields = [name for name in _NAMES if hasattr(own, name)]
    return [(getattr(handed, name), getattr(own, name), _NAMES[name]) for name in fields]
