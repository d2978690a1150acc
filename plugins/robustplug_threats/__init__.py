"""Threat models beyond norm balls: radii of each feature, masks, few pixels, patches, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from robustplug.api import Component, Count, Natural, NonNegative, Traits, UnitInterval, Use, hookimpl

from .features import Name, TableOptions, table_traits

_HERE = "robustplug_threats"
_SPARSE_RS = "Croce et al. 2022, Sparse-RS, arXiv:2006.12834"


@dataclass(frozen=True)
class ScaledOptions:
    """Options of `scaled`.

    Attributes:
        eps: radius in multiples of the scales.
        norm: norm of the changes, each divided by its scale.
        scales: one number, or one for each channel or feature, for each pixel, or for each value, in units of
            the input range; 0 where nothing may change. "std" takes the standard deviations of the training
            inputs, "range" the widths of their bounds. For tables also a table of scales by the names of
            columns; others then stay as they are.
    """

    scales: Literal["std", "range"] | tuple[NonNegative, ...] | Mapping[str, NonNegative]
    eps: NonNegative = 0.1
    norm: Literal["linf", "l2", "l1"] = "linf"

    def __post_init__(self) -> None:
        every = self.scales.values() if isinstance(self.scales, Mapping) else self.scales
        if not isinstance(self.scales, str) and not any(every):
            raise ValueError("scales: every scale is 0, so nothing may change")


@dataclass(frozen=True)
class MaskOptions:
    """Options of `mask`: exactly one of `box`, `frame`, `columns` and `file`.

    Attributes:
        inner: vicinity whose perturbations are restricted.
        box: rows and columns of images that may change: (top, left, height, width).
        frame: number of pixels along the edges of images that may change.
        columns: features of tables, by name or number, or channels of images that may change, counted from 0.
        file: .npy file of booleans, of the shape of an input or of its pixels (H, W): what may change.
        outside: whether all others may change instead.
    """

    inner: Annotated[Use, "vicinity"]
    box: tuple[Natural, Natural, Count, Count] | None = None
    frame: Count | None = None
    columns: tuple[Name, ...] | None = None
    file: str | None = None
    outside: bool = False

    def __post_init__(self) -> None:
        rules = [rule for rule in (self.box, self.frame, self.columns, self.file) if rule is not None]
        if len(rules) != 1:
            raise ValueError(f"give one of box, frame, columns and file, not {len(rules)} of them")
        if self.columns == ():
            raise ValueError("columns: nothing may change")


@dataclass(frozen=True)
class PartsOptions:
    """Options of `union` and `intersection`.

    Attributes:
        parts: the vicinities, at least two.
    """

    parts: Annotated[tuple[Use, ...], "vicinity"]

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ValueError("parts: name at least two vicinities")


@dataclass(frozen=True)
class L0Options:
    """Options of `l0`.

    Attributes:
        eps: number of pixels that may change, to any value; of a table, number of features.
    """

    eps: Count = 10


@dataclass(frozen=True)
class PatchOptions:
    """Options of `patch`.

    Attributes:
        eps: side of the square that may change, to any values, anywhere in the image; in pixels.
    """

    eps: Count = 5


@dataclass(frozen=True)
class SparseRsOptions:
    """Options of `sparse-rs`.

    Attributes:
        queries: number of forwards for each sample, including the start.
        alpha: share of the pixels, or of the patch, that the first proposals change.
    """

    queries: Count = 5000
    alpha: UnitInterval = 0.3


@dataclass(frozen=True)
class GreedyOptions:
    """Options of `greedy`.

    Attributes:
        rounds: number of rounds; each takes the best of its proposals, if it raises the loss.
        candidates: number of values that a round tries to change, drawn for each round; all if there are
            fewer.
    """

    rounds: Count = 10
    candidates: Count = 64


_PLAIN = frozenset({"plain"})
_IN_PART = {"coordinates": "its perturbations are not legal in part"}


def _counts(part: Use) -> bool:
    """Return whether a vicinity, or one inside it, counts changed pixels."""
    inside = (getattr(part.options, "inner", None), *getattr(part.options, "parts", ()))
    return part.name in ("l0", "patch") or any(_counts(each) for each in inside if each is not None)


def _intersection_traits(options: PartsOptions) -> Traits:
    counted = {"discrete"} if any(_counts(part) for part in options.parts) else set()
    return Traits(gives=_PLAIN | {"coordinates"} | counted, needs=_IN_PART)


@hookimpl
def robustplug_vicinities() -> Iterable[Component]:
    """Offer the threat models."""
    yield Component(
        "scaled",
        f"{_HERE}.scaled:build",
        ScaledOptions,
        "L∞, L2 or L1 ball with a radius for each feature, channel or pixel",
        trial={"scales": [0.25 + (at % 4) / 4 for at in range(36)], "eps": 0.4},
        traits=Traits(gives=_PLAIN | {"coordinates"}),
    )
    yield Component(
        "mask",
        f"{_HERE}.masks:build",
        MaskOptions,
        "another vicinity, in which only some pixels or features may change",
        trial={"box": [0, 1, 4, 3], "inner": {"use": "linf", "eps": 0.3}},
        traits=Traits(
            gives=_PLAIN | {"restricts", "coordinates"},
            needs=_IN_PART,
        ),
    )
    yield Component(
        "union",
        f"{_HERE}.unions:Union",
        PartsOptions,
        "what is legal in at least one of several vicinities",
        trial={"parts": [{"use": "linf", "eps": 0.1}, {"use": "l1", "eps": 0.3}]},
        traits=Traits(gives=_PLAIN),
    )
    yield Component(
        "intersection",
        f"{_HERE}.intersections:build",
        PartsOptions,
        "what is legal in each of several vicinities",
        trial={"parts": [{"use": "linf", "eps": 0.1}, {"use": "l2", "eps": 0.5}]},
        traits=_intersection_traits,
    )
    few = Traits(gives=_PLAIN | {"coordinates", "discrete", "few-pixels"})
    yield Component("l0", f"{_HERE}.pixels:L0", L0Options, "a number of pixels or features", traits=few)
    yield Component(
        "patch",
        f"{_HERE}.pixels:Patch",
        PatchOptions,
        "a square of images, anywhere",
        trial={"eps": 3},
        traits=few,
    )
    yield Component(
        "table",
        f"{_HERE}.tables:Table",
        TableOptions,
        "rows of tables: budgets of costs, steps, one-hot groups, sums, directions, immutable features",
        trial={"eps": 0.5, "others": "any", "feature": [{"columns": [0], "change": "up", "cost": 2.0}]},
        traits=table_traits,
    )


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer the attacks that these threat models need."""
    yield Component(
        "sparse-rs",
        f"{_HERE}.search:SparseRs",
        SparseRsOptions,
        "random search over few pixels or a patch, from logits only",
        _SPARSE_RS,
        {"queries": 8},
        traits=Traits(needs={"few-pixels": "it changes pixels to any value: use vicinity l0 or patch"}),
    )
    yield Component(
        "greedy",
        f"{_HERE}.greedy:Greedy",
        GreedyOptions,
        "the best change of one value at a time, from logits only",
        trial={"rounds": 2, "candidates": 4},
        traits=Traits(excludes={"parameters": "it moves the values of inputs: use grid or worst-of-k"}),
    )
