"""Sparse-RS: random search over few pixels, or over a patch, from logits only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Cost, Refused, margin

from .pixels import L0, Patch

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity, View

    from . import SparseRsOptions

# Numbers of queries, of 10,000, after which the share of changed pixels is divided by the number below.
L0_LOOKS, L0_SHARES = (0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000), (2, 4, 5, 6, 8, 10, 12, 15, 20)
PATCH_LOOKS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# A patch is moved every so many queries, within this share of the image, which shrinks to 0.
MOVES, FAR = 5, 0.75


def l0_share(alpha: float, query: int, queries: int) -> float:
    """Return the share of the changed pixels to exchange: the authors' schedule, rescaled to the queries."""
    at = query * 10_000 // queries
    passed = [share for look, share in zip(L0_LOOKS, L0_SHARES, strict=True) if at > look]
    return alpha / passed[-1] if passed else alpha


def patch_share(alpha: float, query: int, queries: int) -> float:
    """Return the share of the patch's pixels to recolour: halved at nine numbers of queries, rescaled."""
    at = query * 10_000 // queries
    return alpha / float(2 ** sum(at > look for look in PATCH_LOOKS))


def _searched(step: Step, fooled: Tensor) -> Tensor:
    """Return the rows to go on with: in an evaluation, those that are not fooled yet."""
    if step.evaluating:
        return (~fooled).nonzero()[:, 0]
    return torch.arange(len(fooled), device=fooled.device)


class SparseRs:
    """Random search over which pixels change, or over a patch and its place; values are at their ends.

    Croce et al. 2022 (arXiv:2006.12834), as in the authors' code, whose batch shares the positions of an
    exchange and of a recoloured square; here each sample has its own. A proposal with a larger
    margin is kept. In the second half after its squares have shrunk to a pixel, a patch changes one channel
    of a pixel at a time.

    Args:
        options: see SparseRsOptions.
    """

    # Numbers of pixels to exchange differ where samples have radii of their own, and samples leave.
    needs_sync = True

    def __init__(self, options: SparseRsOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the best proposals.

        Raises:
            Refused: the threat model is neither `l0` nor `patch`.
        """
        if not isinstance(vicinity, L0 | Patch):
            raise Refused("sparse-rs needs the threat model l0 or patch")
        radius, x = step.radii(view, vicinity), view.origin.detach().clone()
        with step.attack_mode(), torch.no_grad():
            for side in sorted({int(r + 1e-4) for r in radius.tolist()} - {0}):
                rows = ((radius + 1e-4).long() == side).nonzero()[:, 0]
                part = view.rows(rows)
                if isinstance(vicinity, L0):
                    x[rows] = self._l0(step, part, vicinity, side)
                else:
                    x[rows] = self._patch(step, part, vicinity, side)
        return view.replace(x=x)

    def _look(self, step: Step, view: View, x: Tensor) -> tuple[Tensor, Tensor]:
        output = step.output(view.replace(x=x))
        return margin(output, view.y), ~step.score(view, output)

    def _l0(self, step: Step, view: View, vicinity: L0, count: int) -> Tensor:
        """Return the best points with `count` changed pixels."""
        origin, rng, queries = view.origin.detach(), step.rng, self.options.queries
        low, high = (side.expand_as(origin) for side in vicinity.sides(origin))
        places = math.prod(origin.shape[2:]) if origin.dim() > 2 else origin.shape[1]
        count = min(count, places)
        order = _shuffled(len(view), places, rng)
        colours = _ends(origin, low, high, rng)
        best_x = _recoloured(origin, colours, order[:, :count])
        best, fooled = self._look(step, view, best_x)
        for query in range(1, queries):
            rows = _searched(step, fooled)
            if not len(rows):
                break
            part, own, other = view.rows(rows), order[rows, :count], order[rows, count:]
            number = max(int(l0_share(self.options.alpha, query, queries) * count), 1)
            number = min(number, max(other.shape[1], 1))
            own = own.gather(1, _shuffled(len(rows), count, rng))
            other = other.gather(1, _shuffled(len(rows), other.shape[1], rng))
            fresh = _ends(part.origin, low[rows], high[rows], rng)
            # A pixel that would stay as it is takes the opposite values.
            same = (fresh == best_x[rows]).flatten(2).all(1) if fresh.dim() > 2 else fresh == best_x[rows]
            same = same.view(len(rows), *((1, *fresh.shape[2:]) if fresh.dim() > 2 else (-1,)))
            fresh = torch.where(same, torch.where(fresh == low[rows], high[rows], low[rows]), fresh)
            # With every pixel changed already, pixels get other values instead.
            new = other[:, :number] if other.shape[1] else own[:, :number]
            x = _recoloured(best_x[rows], part.origin, own[:, :number])
            x = _recoloured(x, fresh, new)
            loss, wrong = self._look(step, part, x)
            better = (loss > best[rows]) | (wrong & ~fooled[rows])
            swapped = torch.cat([new, own[:, number:], own[:, :number], other[:, number:]], 1)
            swapped = swapped if other.shape[1] else order[rows]
            order[rows] = torch.where(better[:, None], swapped, order[rows])
            best_x[rows] = torch.where(better.view(-1, *(1,) * (x.dim() - 1)), x, best_x[rows])
            best[rows] = torch.where(better, loss, best[rows])
            fooled[rows] = torch.where(better, wrong, fooled[rows])
        return best_x

    def _patch(self, step: Step, view: View, vicinity: Patch, side: int) -> Tensor:
        """Return the best points with a patch."""
        origin, rng, queries = view.origin.detach(), step.rng, self.options.queries
        _, channels, height, width = origin.shape
        side = min(side, height, width)
        bounds = [each.expand_as(origin)[:, :, :1, :1] for each in vicinity.sides(origin)]
        stripes = (len(view), channels, 1, side)
        ends = torch.where(_coins(stripes, rng) > 0, bounds[1], bounds[0])
        patch = ends.expand(-1, -1, side, -1).clone()
        place = torch.stack([_places(len(view), room - side, rng) for room in (height, width)], 1)
        best_x = _pasted(origin, patch, place)
        best, fooled = self._look(step, view, best_x)
        shrunk = next(
            (q for q in range(queries) if patch_share(self.options.alpha, q, queries) ** 0.5 * side < 2),
            queries,
        )
        single = shrunk + (queries - shrunk) // 2
        for query in range(1, queries):
            rows = _searched(step, fooled)
            if not len(rows):
                break
            part, new, at = view.rows(rows), patch[rows].clone(), place[rows]
            far = int(FAR * (queries - query) / queries * height)
            if query % MOVES == 0 and far > 0:
                away = torch.stack([_places(len(rows), 2 * far, rng) - far for _ in range(2)], 1)
                most = torch.tensor([height - side, width - side], device=at.device)
                at = (at + away).clamp_min(0).minimum(most)
            else:
                size = max(int(patch_share(self.options.alpha, query, queries) ** 0.5 * side), 1)
                corner = torch.stack([_places(len(rows), side - size, rng) for _ in range(2)], 1)
                inside = _window(corner, size, side)
                if query >= single:
                    one = _places(len(rows), channels - 1, rng)
                    inside = (
                        inside
                        & (torch.arange(channels, device=at.device)[None, :] == one[:, None])[
                            :, :, None, None
                        ]
                    )
                    fresh = torch.where(new == bounds[0][rows], bounds[1][rows], bounds[0][rows])
                else:
                    colour = _coins((len(rows), channels, 1, 1), rng)
                    fresh = torch.where(colour > 0, bounds[1][rows], bounds[0][rows])
                new = torch.where(inside, fresh.expand_as(new), new)
            x = _pasted(part.origin, new, at)
            loss, wrong = self._look(step, part, x)
            better = (loss > best[rows]) | (wrong & ~fooled[rows])
            chosen = better[:, None, None, None]
            patch[rows] = torch.where(chosen, new, patch[rows])
            place[rows] = torch.where(better[:, None], at, place[rows])
            best_x[rows] = torch.where(chosen, x, best_x[rows])
            best[rows] = torch.where(better, loss, best[rows])
            fooled[rows] = torch.where(better, wrong, fooled[rows])
        return best_x

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: samples of radius 0 cost nothing."""
        return Cost.unknown()


def _shuffled(count: int, places: int, rng: torch.Generator) -> Tensor:
    """Draw an order of the places for each sample, int64 (N, places)."""
    return torch.rand(count, places, generator=rng, device=rng.device).argsort(1)


def _coins(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Draw 0 and 1 with equal probability."""
    return torch.randint(2, shape, generator=rng, device=rng.device).float()


def _places(count: int, last: int, rng: torch.Generator) -> Tensor:
    """Draw whole numbers from 0 to `last`, int64 (N,)."""
    return torch.randint(last + 1, (count,), generator=rng, device=rng.device)


def _ends(x: Tensor, low: Tensor, high: Tensor, rng: torch.Generator) -> Tensor:
    """Draw the lowest or the highest value for each value."""
    return torch.where(_coins(tuple(x.shape), rng) > 0, high, low)


def _recoloured(x: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Return x with the values of other inputs at some pixels, int64 (N, K)."""
    if x.dim() == 2:
        return x.scatter(1, at, values.gather(1, at))
    where = at[:, None].expand(-1, x.shape[1], -1)
    flat = x.flatten(2)
    return flat.scatter(2, where, values.flatten(2).gather(2, where)).view_as(x)


def _window(corner: Tensor, size: int, side: int) -> Tensor:
    """Return a square in each patch, bool (N, 1, side, side)."""
    reach = torch.arange(side, device=corner.device)
    rows, columns = (
        (reach >= corner[:, axis, None]) & (reach < corner[:, axis, None] + size) for axis in (0, 1)
    )
    return rows[:, None, :, None] & columns[:, None, None, :]


def _pasted(origin: Tensor, patch: Tensor, place: Tensor) -> Tensor:
    """Return images with a patch (N, C, side, side) at its place, int64 (N, 2)."""
    side, result = patch.shape[2], origin.clone()
    reach = torch.arange(side, device=origin.device)
    rows, columns = place[:, :1] + reach, place[:, 1:] + reach
    samples = torch.arange(len(origin), device=origin.device)[:, None, None]
    result[samples, :, rows[:, :, None], columns[:, None, :]] = patch.permute(0, 2, 3, 1).to(origin.dtype)
    return result
