"""Rows of tables: what costs how much, and what must stay true."""

from __future__ import annotations

import torch
from torch import Tensor

from robustplug.api import TaskInfo, finite, to_unit, uniform_like

from .features import Rules, TableOptions, described, numbered
from .nearest import TOLERANCE, Ranged, at_least_single, nearest, widths
from .scaled import largest

# Relative rounding errors of whole steps and of sums; halvings of a change that a sum makes illegal.
_CLOSE, _HALVINGS = 1e-4, 12


class Table(Ranged):
    """Rows whose changes cost at most the radius, and keep the rules of their columns.

    A change of a column costs |change| · cost, another category of a one-hot group the cost of the group.
    Sums, one-hot groups and steps hold relative to the original row, which is always legal.

    `project` always returns a legal row. Without steps, one-hot groups and sums it is the nearest, where
    distances are measured in costs. Steps are rounded to the nearest if the budget allows, else towards
    the original; groups take the category of the largest value, the largest gain first, while the budget
    lasts; sums follow, and a change that would take a sum out of its range is halved until it does not.

    Args:
        options: see TableOptions.
    """

    # Rules are lists of columns, which are copied to the device where they are used.
    needs_sync = True

    def __init__(self, options: TableOptions) -> None:
        super().__init__(options.eps)
        self.options = options
        # Names of columns become numbers when the task is known.
        self.known: Rules | None = None
        self.rules: dict[str, Tensor] = {}

    def inform(self, info: TaskInfo) -> None:
        """Look up the columns.

        Raises:
            ValueError: there is no column of that name, or there are fewer columns; or two rules are for one.
        """
        self.known, self.rules = numbered(self.options, info.places), {}
        if info.shape is not None:
            self.bounds_of_columns(torch.zeros(1, *info.shape).flatten(1))

    @property
    def numbers(self) -> Rules:
        """Return the rules by numbers of inputs.

        Raises:
            ValueError: columns have names, and there was no task to look them up in.
        """
        if self.known is None:
            self.known = numbered(self.options, {})
        return self.known

    def bounds_of_columns(self, x: Tensor) -> dict[str, Tensor]:
        """Return cost, step and largest changes of each column, (D,) each, for rows (N, D).

        Raises:
            ValueError: a column does not exist.
        """
        count = x.shape[1]
        known = self.rules.get("cost")
        if known is not None and len(known) == count and known.device == x.device:
            return self.rules
        named, groups, sums = self.numbers
        most = torch.inf if self.options.others == "any" else 0.0
        rules = {name: torch.full((count,), most) for name in ("up", "down")}
        rules |= {"cost": torch.ones(count), "step": torch.zeros(count)}
        still = [at for group in groups for at in group.columns] + [part.column for part in sums]
        every = [*still, *(at for columns, _ in named for at in columns)]
        last = max([*every, *(at for part in sums for at in part.of)], default=0)
        if last >= count:
            raise ValueError(f"columns: {last} is beyond the last, {count - 1}")
        for at, part in named:
            limit = torch.inf if part.most is None else part.most
            rules["up"][at] = limit if part.change in ("any", "up") else 0.0
            rules["down"][at] = limit if part.change in ("any", "down") else 0.0
            rules["cost"][at], rules["step"][at] = part.cost, part.step or 0.0
        rules["up"][still] = rules["down"][still] = 0.0
        self.rules = {name: value.to(x.device) for name, value in rules.items()}
        return self.rules

    def _rooms(self, origin: Tensor) -> tuple[Tensor, Tensor]:
        """Return by how much each value of rows (N, D) may fall and rise, without the budget."""
        rules, wide = self.bounds_of_columns(origin), origin
        low, high = (
            side.expand(1, side.shape[1]) if side.dim() > 1 else side for side in self._flat_sides(wide)
        )
        down, up = ((origin - low).clamp_min(0), (high - origin).clamp_min(0))
        return down.minimum(rules["down"]), up.minimum(rules["up"])

    def _flat_sides(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.sides(x)
        return (
            (low, high) if low.dim() < 2 or low.shape[1] in (1, x.shape[1]) else self._repeated(x, low, high)
        )

    def _repeated(self, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        times = x.shape[1] // low.shape[1]
        return low.repeat_interleave(times, 1), high.repeat_interleave(times, 1)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return a legal point, in origin's shape and dtype."""
        given = x.flatten(1).to(origin.dtype)
        inside = self.contains(given, origin, radius)
        # Half precision has too few digits for sums and steps; the result is rounded to it.
        rows, start = at_least_single(given), at_least_single(origin.flatten(1))
        moved, left = self._categories(rows, start, radius.to(start.dtype))
        moved = moved + self._changes(rows - start, start, left)
        share = torch.ones_like(radius, dtype=start.dtype)
        result = self._summed(start, moved)
        for _ in range(_HALVINGS if self.numbers.sums else 0):
            share = torch.where(self.contains(result, start, radius), share, share / 2)
            result = self._summed(start, self._stepped(moved, share))
        legal = inside | self.contains(result, start, radius)
        result = torch.where(legal[:, None], result, start).to(origin.dtype)
        return torch.where(inside[:, None], given, result).view_as(origin)

    def _stepped(self, moved: Tensor, share: Tensor) -> Tensor:
        """Return a share of the changes, in whole steps; categories change while more than half is left."""
        step = self.bounds_of_columns(moved)["step"]
        part = moved * share[:, None]
        whole = (part / step.clamp_min(1e-30) + _CLOSE * part.sign()).trunc() * step
        result = torch.where(step > 0, whole, part)
        for group in self.numbers.one_hot:
            at = group.columns
            result[:, at] = torch.where((share > 0.5)[:, None], moved[:, at], 0.0)
        return result

    def _categories(self, rows: Tensor, start: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Return the changes of the one-hot groups, (N, D), and what they leave of the budget, (N,)."""
        moved, left = torch.zeros_like(start), radius.clone()
        gains, news = [], []
        for group in self.numbers.one_hot:
            at = group.columns
            new, old = rows[:, at].argmax(1), start[:, at].argmax(1)
            gain = rows[:, at].amax(1) - rows[:, at].gather(1, old[:, None])[:, 0]
            gains.append(torch.where(new == old, -torch.inf, gain))
            news.append(new)
        if not gains:
            return moved, left
        order = torch.stack(gains, 1).argsort(1, descending=True)
        for place in range(len(gains)):
            for number, group in enumerate(self.numbers.one_hot):
                at = group.columns
                takes = (order[:, place] == number) & (gains[number] > 0) & (left >= group.cost)
                target = torch.zeros_like(start[:, at]).scatter(1, news[number][:, None], 1.0)
                moved[:, at] = torch.where(takes[:, None], target - start[:, at], moved[:, at])
                left = torch.where(takes, left - group.cost, left)
        return moved, left

    def _changes(self, delta: Tensor, start: Tensor, budget: Tensor) -> Tensor:
        """Return the nearest changes within rooms and budget, in whole steps where there are steps."""
        rules = self.bounds_of_columns(start)
        cost, step = rules["cost"], rules["step"]
        down, up = self._rooms(start)
        room = torch.where(delta < 0, down, up)
        stepped = step > 0
        fine = (room / step.clamp_min(1e-30) + _CLOSE).floor() * step
        room = torch.where(stepped, fine, room)
        size = delta.abs().minimum(room)
        rounded = torch.where(stepped, (size / step.clamp_min(1e-30)).round() * step, size)
        fits = (rounded * cost).sum(1) <= budget
        found = nearest(delta.abs() * cost, room * cost, budget, 1) / cost
        kept = torch.where(stepped, (found / step.clamp_min(1e-30) + _CLOSE).floor() * step, found)
        return delta.sign() * torch.where(fits[:, None], rounded.minimum(room), kept)

    def _summed(self, start: Tensor, moved: Tensor) -> Tensor:
        """Return rows with the changes, and the sums that follow; what does not change keeps its bits."""
        moved = moved.clone()
        for part in self.numbers.sums:
            weights = torch.tensor(part.weights, device=start.device, dtype=start.dtype)
            moved[:, part.column] = moved[:, part.of] @ weights
        result, (low, high) = start + moved, self._flat_sides(start)
        # An original and its room may add up to a little more than the range. A sum out of it is refused.
        own = torch.ones(start.shape[1], dtype=torch.bool, device=start.device)
        own[[part.column for part in self.numbers.sums]] = False
        result = torch.where(own, result.clamp(low, high), result)
        return torch.where(moved == 0, start, result)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each row whether it is legal: bool (N,)."""
        rows, start = x.flatten(1), origin.flatten(1)
        low, high = self._flat_sides(rows)
        in_range = (rows >= low) & (rows <= high) | (rows == start)
        rows, start, low, high = (at_least_single(each) for each in (rows, start, low, high))
        rules, delta = self.bounds_of_columns(start), rows - start
        # Of each column: one with a wide range must not widen the others.
        slack = (TOLERANCE * torch.stack([low.abs(), high.abs(), high - low]).amax(0)).expand_as(rows)
        digits = torch.finfo(x.dtype).eps * rows.abs().maximum(start.abs())
        slack = slack + digits if x.dtype != rows.dtype else slack
        own = torch.ones(rows.shape[1], dtype=torch.bool, device=x.device)
        spent, legal = torch.zeros_like(radius, dtype=rows.dtype), rows.isfinite().all(1)
        for group in self.numbers.one_hot:
            at = group.columns
            own[at] = False
            changed = (delta[:, at] != 0).any(1)
            hot = ((rows[:, at] == 0) | (rows[:, at] == 1)).all(1) & (rows[:, at].sum(1) == 1)
            legal &= ~changed | hot
            spent = spent + changed * group.cost
        for part in self.numbers.sums:
            own[part.column] = False
            weights = torch.tensor(part.weights, device=x.device, dtype=rows.dtype)
            of = part.of
            sizes = rows[:, of].abs() @ weights.abs() + rows[:, part.column].abs()
            error = slack[:, of] @ weights.abs() + slack[:, part.column]
            legal &= (delta[:, of] @ weights - delta[:, part.column]).abs() <= 1e-5 * sizes + error
        legal &= in_range.all(1)
        down, up = (rules[name] for name in ("down", "up"))
        fits = (delta <= torch.where(up > 0, up + slack, 0.0)) & (
            -delta <= torch.where(down > 0, down + slack, 0.0)
        )
        step = rules["step"].clamp_min(1e-30)
        steps = delta / step
        fits &= (rules["step"] == 0) | ((steps - steps.round()).abs() <= 1e-3 + digits / step)
        legal &= (fits | ~own).all(1)
        spent = spent + ((delta.abs() - slack).clamp_min(0) * rules["cost"] * own).sum(1)
        return legal & (spent <= radius * (1 + 1e-5))

    def _slopes(self, gradient: Tensor) -> Tensor:
        """Return by how much each column (N, D) raises a linear function at a cost of 1."""
        flat = at_least_single(finite(gradient)).flatten(1).clone()
        rules = self.bounds_of_columns(flat)
        for part in self.numbers.sums:
            weights = torch.tensor(part.weights, device=flat.device, dtype=flat.dtype)
            flat[:, part.of] += flat[:, [part.column]] * weights
        slope = flat / rules["cost"]
        allowed = torch.where(flat > 0, rules["up"], rules["down"]) > 0
        slope = torch.where(allowed, slope, 0.0)
        for group in self.numbers.one_hot:
            at = group.columns
            slope[:, at] = (flat[:, at] - flat[:, at].mean(1, keepdim=True)) / group.cost
        return slope

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return a change of cost 1, of the column that ascends the fastest."""
        slope = self._slopes(gradient)
        return self._priced(slope, largest(slope, torch.zeros(len(slope), device=slope.device)), gradient)

    def sparse(self, gradient: Tensor, share: Tensor) -> Tensor:
        """Return a change of cost 1 along a share (N,) of the columns, those that ascend the fastest."""
        slope = self._slopes(gradient)
        return self._priced(slope, largest(slope, share), gradient)

    def proportional(self, gradient: Tensor) -> Tensor:
        """Return by how much each column ascends for its cost; the largest is a change of cost 1."""
        slope = self._slopes(gradient)
        return self._priced(slope, to_unit(slope), gradient)

    def _priced(self, slope: Tensor, signs: Tensor, like: Tensor) -> Tensor:
        # More columns than were asked for may share the smallest slope.
        return (signs / self.bounds_of_columns(slope)["cost"]).view_as(like)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw changes of a few columns and other categories, and project them."""
        drawn = uniform_like(origin, rng).flatten(1)
        chosen = uniform_like(origin, rng).flatten(1).abs()
        start = at_least_single(origin.flatten(1))
        down, up = self._rooms(start)
        most = radius[:, None].to(start.dtype) / self.bounds_of_columns(start)["cost"]
        size = torch.where(drawn < 0, down, up).minimum(most)
        # The smaller the drawn number, the fewer columns change.
        some = chosen <= chosen.gather(1, chosen.argmin(1, keepdim=True)) + drawn.abs()
        moved = start + drawn * size * some
        for group in self.numbers.one_hot:
            at = group.columns
            moved[:, at] = start[:, at] + 2 * drawn[:, at]
        return self.project(moved.view_as(origin), origin, radius)

    def span(self, info: TaskInfo) -> tuple[float, str]:
        """Return the cost of all changes that the rules allow, at the widths of the ranges."""
        row = torch.zeros(1, *(info.shape or ())).flatten(1)
        rules, wide = self.bounds_of_columns(row), widths(row, info)
        most = (rules["up"].maximum(rules["down"]).minimum(wide) * rules["cost"]).sum()
        cost = float(most) + sum(part.cost for part in self.numbers.one_hot)
        return cost, f"the cost of all changes that the rules allow, {cost:.4g}"

    def described(self) -> str:
        """Return the budget and the rules."""
        return described(self.options, self.eps)
