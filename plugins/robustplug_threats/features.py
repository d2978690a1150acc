"""What may change in a row of a table: options, without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from robustplug.api import Natural, NonNegative, Positive, Real, Traits, did_you_mean

Name = Natural | str
"""The number of an input, from 0, or the name of a column of the task's table."""
Change = Literal["any", "up", "down", "none"]


@dataclass(frozen=True)
class FeatureOptions:
    """Say how some columns may change.

    Attributes:
        columns: the columns: numbers, from 0, or names of the task's table.
        name: what they are, for the reader.
        change: "any", only "up", only "down", or "none".
        step: changes are multiples of this; 1 for whole numbers; None for any change.
        most: largest change, in the column's own units; None for no bound besides the valid range.
        cost: cost of a change by one unit.
    """

    columns: tuple[Name, ...]
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
        columns: the columns, one for each category: numbers, or the name of a column of categories.
        name: what they are, for the reader.
        cost: cost of another category.
    """

    columns: tuple[Name, ...]
    name: str = ""
    cost: Positive = 1.0

    def __post_init__(self) -> None:
        if len(self.columns) < 2 and not any(isinstance(each, str) for each in self.columns):
            raise ValueError("columns: a one-hot feature has at least two")


@dataclass(frozen=True)
class SumOptions:
    """Say that a column follows from others: its change is the weighted sum of theirs, and costs nothing.

    Attributes:
        column: number or name of the column, such as that of all income.
        of: numbers or names of the others.
        weights: weight of each of them; empty for 1 each.
    """

    column: Name
    of: tuple[Name, ...]
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
        twice = [at for at, count in Counter(named).items() if count > 1]
        if twice:
            raise ValueError(f"column {twice[0]} has two rules, which contradict: give it one")
        if self.others == "none" and not self.moving:
            raise ValueError('nothing may change: name columns under feature or one_hot, or others = "any"')
        fixed = {at for part in self.one_hot for at in part.columns} | {part.column for part in self.sums}
        for part in self.sums:
            wrong = [at for at in part.of if at in fixed]
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


class Group(NamedTuple):
    """A one-hot group: its inputs, and the cost of another category."""

    columns: list[int]
    cost: float


class Sum(NamedTuple):
    """An input whose change is the weighted sum of those of others."""

    column: int
    of: list[int]
    weights: tuple[float, ...]


class Rules(NamedTuple):
    """The rules of a table, with numbers of inputs in the place of names of columns."""

    feature: list[tuple[list[int], FeatureOptions]]
    one_hot: list[Group]
    sums: list[Sum]


def inputs_of(names: Sequence[Name], places: Mapping[str, Sequence[int]], key: str = "columns") -> list[int]:
    """Return the inputs of columns.

    Args:
        names: the columns.
        places: the inputs of each column of the task, by name.
        key: the option that names them, for errors.

    Raises:
        ValueError: there is no such column, or the columns of the task have no names.
    """
    found: list[int] = []
    for name in names:
        if isinstance(name, int):
            found.append(name)
        elif not places:
            raise ValueError(
                f'{key}: "{name}" is a name, and the columns of the task have none: give numbers'
            )
        elif name not in places:
            close = did_you_mean(name, places)
            hint = f'did you mean "{close}"?' if close else f"there are {', '.join(places)}"
            raise ValueError(f'{key}: there is no column "{name}"; {hint}')
        else:
            found += places[name]
    return found


def numbered(options: TableOptions, places: Mapping[str, Sequence[int]]) -> Rules:
    """Return the rules of a table of a task.

    Args:
        options: the options.
        places: the inputs of each column, by name.

    Raises:
        ValueError: there is no such column, one of a sum has categories, or the rules contradict.
    """

    def one(name: Name) -> int:
        first, *others = inputs_of([name], places)
        if others:
            raise ValueError(f'sums: the column "{name}" has categories, and is no number')
        return first

    feature = [(inputs_of(part.columns, places), part) for part in options.feature]
    groups = [Group(inputs_of(part.columns, places), part.cost) for part in options.one_hot]
    sums = [
        Sum(one(part.column), [one(each) for each in part.of], part.weights or (1.0,) * len(part.of))
        for part in options.sums
    ]
    # The rules are checked again: a name and a number may be the same column.
    replace(
        options,
        feature=tuple(replace(part, columns=tuple(at)) for at, part in feature),
        one_hot=tuple(
            replace(part, columns=tuple(group.columns))
            for group, part in zip(groups, options.one_hot, strict=True)
        ),
        sums=tuple(
            replace(part, column=each.column, of=tuple(each.of))
            for each, part in zip(sums, options.sums, strict=True)
        ),
    )
    return Rules(feature, groups, sums)


def described(options: TableOptions, eps: float) -> str:
    """Return a budget and the rules of columns, as a part of a sentence."""
    said = [f"changes that cost at most {eps:g}"]
    for part in options.feature:
        ways = {"any": "any change", "up": "only up", "down": "only down", "none": "no change"}
        how = ways[part.change]
        most = "" if part.most is None else f" by at most {part.most:g}"
        step = "" if part.step is None else f" in steps of {part.step:g}"
        price = "" if part.change == "none" else f", {part.cost:g} for one unit"
        said.append(f"{part.name or _called(part.columns)}: {how}{most}{step}{price}")
    said += [
        f"{part.name or _called(part.columns[:1])}: another category, {part.cost:g}"
        for part in options.one_hot
    ]
    said += [f"{_called((part.column,))} follows from {len(part.of)} others" for part in options.sums]
    return "; ".join([*said, "others stay" if options.others == "none" else "others change, 1 for one unit"])


def _called(columns: Sequence[Name]) -> str:
    named = all(isinstance(each, str) for each in columns)
    shown = f"{', '.join(map(str, columns[:8]))}{', …' * (len(columns) > 8)}"
    return shown if named else f"column{'s' * (len(columns) > 1)} {shown}"
