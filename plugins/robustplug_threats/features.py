"""What may change in a row of a table: options, without torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from robustplug.api import Natural, NonNegative, Positive, Real, Traits

Change = Literal["any", "up", "down", "none"]


@dataclass(frozen=True)
class FeatureOptions:
    """Say how some columns may change.

    Attributes:
        columns: numbers of the columns, from 0.
        name: what they are, for the reader.
        change: "any", only "up", only "down", or "none".
        step: changes are multiples of this; 1 for whole numbers; None for any change.
        most: largest change, in the column's own units; None for no bound besides the valid range.
        cost: cost of a change by one unit.
    """

    columns: tuple[Natural, ...]
    name: str = ""
    change: Change = "any"
    step: Positive | None = None
    most: NonNegative | None = None
    cost: Positive = 1.0

    def __post_init__(self) -> None:
        if self.step is not None and self.most is not None and self.most < self.step:
            raise ValueError(f"most: {self.most:g} is below the step, {self.step:g}, so nothing may change")
        if self.change == "none" and (self.step is not None or self.most is not None):
            raise ValueError('change: "none" contradicts a step or a largest change')


@dataclass(frozen=True)
class GroupOptions:
    """Say which columns are one feature, one-hot.

    Attributes:
        columns: numbers of the columns, one for each category.
        name: what they are, for the reader.
        cost: cost of another category.
    """

    columns: tuple[Natural, ...]
    name: str = ""
    cost: Positive = 1.0

    def __post_init__(self) -> None:
        if len(self.columns) < 2:
            raise ValueError("columns: a one-hot feature has at least two")


@dataclass(frozen=True)
class SumOptions:
    """Say that a column follows from others: its change is the weighted sum of theirs, and costs nothing.

    Attributes:
        column: number of the column, such as that of all income.
        of: numbers of the others.
        weights: weight of each of them; empty for 1 each.
    """

    column: Natural
    of: tuple[Natural, ...]
    weights: tuple[Real, ...] = ()

    def __post_init__(self) -> None:
        if not self.of or self.column in self.of:
            raise ValueError("of: name other columns than the sum itself, at least one")
        if self.weights and len(self.weights) != len(self.of):
            raise ValueError(f"weights: {len(self.weights)} weights for {len(self.of)} columns")


@dataclass(frozen=True)
class TableOptions:
    """Options of `table`.

    Attributes:
        eps: budget: the largest sum of the costs of all changes of a row.
        others: whether columns that nothing names may change ("any", at a cost of 1 for one unit) or not.
        feature: columns with rules of their own.
        one_hot: groups of columns of which exactly one is 1.
        sums: columns that follow from others.
    """

    eps: NonNegative
    others: Literal["any", "none"] = "none"
    feature: tuple[FeatureOptions, ...] = ()
    one_hot: tuple[GroupOptions, ...] = ()
    sums: tuple[SumOptions, ...] = ()

    def __post_init__(self) -> None:
        named = [at for each in self.feature for at in each.columns]
        named += [at for group in self.one_hot for at in group.columns]
        named += [part.column for part in self.sums]
        twice = sorted(at for at, count in Counter(named).items() if count > 1)
        if twice:
            raise ValueError(f"column {twice[0]} has two rules, which contradict: give it one")
        if self.others == "none" and not self.moving:
            raise ValueError('nothing may change: name columns under feature or one_hot, or others = "any"')
        fixed = {at for part in self.one_hot for at in part.columns} | {part.column for part in self.sums}
        for part in self.sums:
            wrong = sorted(fixed & set(part.of))
            if wrong:
                raise ValueError(f"sums: column {wrong[0]} is one-hot or a sum itself, and cannot be summed")

    @property
    def moving(self) -> bool:
        """Return whether a rule lets a column change."""
        return bool(self.one_hot) or any(part.change != "none" for part in self.feature)


def table_traits(options: TableOptions) -> Traits:
    """Return what attacks and masks must know of a table."""
    discrete = bool(options.one_hot) or any(part.step is not None for part in options.feature)
    gives = {"plain"}
    gives |= {"discrete"} if discrete else set()
    # A value that is set back alone would break a sum or a one-hot group.
    gives |= set() if options.sums or options.one_hot else {"coordinates"}
    return Traits(gives=frozenset(gives))
