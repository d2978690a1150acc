"""Square Attack: black-box random search over squares that needs only the model's logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...api import Cost, Refused, margin
from ..vicinities import at_least_single, norms, per_sample
from .pgd import Best

if TYPE_CHECKING:
    from ...api import Step, Vicinity, View
    from . import SquareOptions

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def share(start: float, query: int) -> float:
    """Return the fraction of pixels to change at a query, counted from 0.

    It is halved at nine fixed numbers of queries, not rescaled to the query budget. Andriushchenko et al.
    2020 (arXiv:1912.00049 §3.2 and Appendix B).
    """
    return start / float(2 ** sum(query > number for number in HALVINGS))


def random_signs(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Draw −1 and 1 with equal probability."""
    return torch.randint(2, shape, generator=rng, device=rng.device).float() * 2 - 1


def corners(count: int, room: int, rng: torch.Generator) -> Tensor:
    """Draw the first row or column of a window for each sample, int64 (N,), from 0 to `room`."""
    return torch.randint(room + 1, (count,), generator=rng, device=rng.device)


def bump(height: int, width: int, device: torch.device, order: float = 2.0) -> Tensor:
    """Return the bump of §3.4, (height, width): nested squares of decreasing weight, with norm 1.

    For L1, weights fall with the fourth power instead of the second, as in AutoAttack's code.
    """
    power = 2 if order == 2 else 4
    heap = torch.zeros(height, width, device=device)
    middle, centre = height // 2, width // 2
    for k in range(max(middle, centre) + 1 if height else 0):
        heap[max(middle - k, 0) : middle + k + 1, max(centre - k, 0) : centre + k + 1] += 1 / (k + 1) ** power
    return _of_norm_one(heap, order)


def twin_bumps(side: int, device: torch.device, order: float = 2.0) -> Tensor:
    """Return a bump above its negative, (side, side), with norm 1."""
    half = side // 2
    pair = torch.cat([bump(half, side, device, order), -bump(side - half, side, device, order)])
    return _of_norm_one(pair, order)


def heaps(lying: Tensor, side: int, order: float = 2.0) -> Tensor:
    """Return twin bumps (N, 1, side, side), upright or transposed in each sample."""
    pair = twin_bumps(side, lying.device, order)
    return torch.where(lying, pair.T, pair)


def window(top: Tensor, left: Tensor, side: int) -> tuple[Tensor, slice, Tensor, Tensor]:
    """Return an index of one window for each sample; it selects (N, side, side, C)."""
    reach = torch.arange(side, device=top.device)
    rows, columns = top[:, None] + reach, left[:, None] + reach
    samples = torch.arange(len(top), device=top.device)
    return samples[:, None, None], slice(None), rows[:, :, None], columns[:, None, :]


def _of_norm_one(heap: Tensor, order: float) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(heap, ord=order)
    return heap / length.clamp_min(1e-12)


class LinfSearch:
    """The proposals in the L∞ ball: every pixel is at one end of its interval."""

    def __init__(self, vicinity: Vicinity, rng: torch.Generator) -> None:
        self.vicinity, self.rng = vicinity, rng

    def start(self, origin: Tensor, radius: Tensor) -> Tensor:
        """Return vertical stripes of ±radius."""
        count, channels, _, width = origin.shape
        stripes = random_signs((count, channels, 1, width), self.rng)
        return self.vicinity.project(origin + per_sample(radius, origin) * stripes, origin, radius)

    def side(self, portion: float, height: int, width: int) -> int:
        """Return the side of a square with this share of the pixels."""
        return min(max(round(math.sqrt(portion * height * width)), 1), height, width)

    def draw(self, shape: tuple[int, ...], side: int) -> tuple[Tensor, ...]:
        """Draw the place of a square in each sample of a batch (N, C, H, W), and a sign for each channel."""
        count, channels, height, width = shape
        top, left = (corners(count, room - side, self.rng).view(-1, 1, 1, 1) for room in (height, width))
        return top, left, random_signs((count, channels, 1, 1), self.rng)

    def propose(
        self, x: Tensor, origin: Tensor, radius: Tensor, side: int, drawn: tuple[Tensor, ...]
    ) -> Tensor:
        """Return x with one square changed, by one sign per channel, at its own place in each sample."""
        (top, left, signs), (_, _, height, width) = drawn, x.shape
        rows = torch.arange(height, device=x.device).view(1, 1, -1, 1)
        columns = torch.arange(width, device=x.device).view(1, 1, 1, -1)
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        return self.vicinity.project(x + 2 * per_sample(radius, x) * signs * inside, origin, radius)


class L2Search:
    """The proposals in the L2 ball: mass moves from one window to another."""

    order = 2.0

    def __init__(self, vicinity: Vicinity, rng: torch.Generator) -> None:
        self.vicinity, self.rng = vicinity, rng

    def start(self, origin: Tensor, radius: Tensor) -> Tensor:
        """Return a grid of five by five bump pairs with random signs."""
        count, channels, height, width = origin.shape
        side = max(min(height, width) // 5, 1)
        delta = torch.zeros_like(at_least_single(origin))
        for top in range((height % side) // 2, height - side + 1, side):
            for left in range((width % side) // 2, width - side + 1, side):
                signs = random_signs((count, channels, 1, 1), self.rng)
                delta[:, :, top : top + side, left : left + side] = (
                    heaps(self._lying(count), side, self.order) * signs
                )
        return self._scaled(origin, delta, radius)

    def side(self, portion: float, height: int, width: int) -> int:
        """Return the side of a window with this share of the pixels: odd, and at least 3."""
        side = max(round(math.sqrt(portion * height * width)), 3)
        return min(side + (side % 2 == 0), height, width)

    def draw(self, shape: tuple[int, ...], side: int) -> tuple[Tensor, ...]:
        """Draw the places of two windows in each sample of a batch (N, C, H, W), and signs."""
        count, channels, *size = shape
        places = [corners(count, room - side, self.rng) for room in (*size, *size)]
        signs = random_signs((count, channels, 1, 1), self.rng)
        return *places, signs, self._lying(count)

    def propose(
        self, x: Tensor, origin: Tensor, radius: Tensor, side: int, drawn: tuple[Tensor, ...]
    ) -> Tensor:
        """Return x with one window emptied; its mass and the unused budget move to another window."""
        delta = at_least_single(x) - origin
        top, left, other_top, other_left, signs, lying = drawn
        first, second = window(top, left, side), window(other_top, other_left, side)
        both = torch.zeros_like(delta)
        # Tensors, as an assigned number would be copied to the device.
        zero, one = delta.new_zeros(()), delta.new_ones(())
        both[first], both[second] = one, one
        # Indexing with a window puts the channels last.
        old, heap = delta[first].permute(0, 3, 1, 2), heaps(lying, side, self.order) * signs
        new = self._refilled(delta, old, both, radius, heap)
        delta[second] = zero
        delta[first] = new.permute(0, 2, 3, 1)
        return self._scaled(origin, delta, radius)

    def _refilled(self, delta: Tensor, old: Tensor, both: Tensor, radius: Tensor, heap: Tensor) -> Tensor:
        """Return the new values of the first window (N, C, side, side).

        Args:
            delta: perturbation (N, C, H, W).
            old: its values in the first window.
            both: 1 in both windows, 0 elsewhere.
            radius: (N,).
            heap: bumps (N, C, side, side) to add.
        """
        mass = (delta * both).square().sum((2, 3), keepdim=True)
        unused = (per_sample(radius, delta).square() - per_sample(norms(delta), delta).square()).clamp_min(0)
        old_norm = old.square().sum((2, 3), keepdim=True).sqrt()
        new = heap + old / (old_norm + 1e-12)
        new_norm = new.square().sum((2, 3), keepdim=True).sqrt()
        return new / (new_norm + 1e-12) * (unused / old.shape[1] + mass).sqrt()

    def _lying(self, count: int) -> Tensor:
        """Draw the samples whose bumps are transposed, bool (N, 1, 1, 1)."""
        return torch.rand(count, 1, 1, 1, generator=self.rng, device=self.rng.device) > 0.5

    def _scaled(self, origin: Tensor, delta: Tensor, radius: Tensor) -> Tensor:
        scale = radius / norms(delta).clamp_min(1e-12)
        return self.vicinity.project(origin + delta * per_sample(scale, delta), origin, radius)


class L1Search(L2Search):
    """The proposals in the L1 ball: those of the L2 ball with sums of absolute values, as in AutoAttack."""

    order = 1.0

    def _refilled(self, delta: Tensor, old: Tensor, both: Tensor, radius: Tensor, heap: Tensor) -> Tensor:
        mass = (delta * both).abs().sum((2, 3), keepdim=True)
        size = per_sample(delta.abs().flatten(1).sum(1), delta)
        unused = (per_sample(radius, delta) - size).clamp_min(0)
        new = heap + old / (old.abs().sum((2, 3), keepdim=True) + 1e-12)
        channels = old.shape[1]
        # Times the number of channels: the projection spreads what is too much.
        budget = (unused / channels + mass) * channels
        return new / (new.abs().sum((2, 3), keepdim=True) + 1e-12) * budget

    def _scaled(self, origin: Tensor, delta: Tensor, radius: Tensor) -> Tensor:
        return self.vicinity.project(origin + delta, origin, radius)


SEARCHES: Mapping[float, type[LinfSearch | L2Search]] = {
    math.inf: LinfSearch,
    2.0: L2Search,
    1.0: L1Search,
}


class Square:
    """Random search that keeps a proposal if it lowers the margin of the true class.

    Andriushchenko et al. 2020 (arXiv:1912.00049), Algorithms 1 to 3. AutoAttack's code draws one window
    position for the whole batch and never reaches the last row and column. Here each sample has its own
    windows, which can be anywhere.

    Args:
        options: see SquareOptions.
    """

    def __init__(self, options: SquareOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the best proposal of each sample; during evaluation, the first that fools the model.

        Raises:
            Refused: the inputs are not images, or the threat model is not an L∞, L2 or L1 ball.
        """
        if vicinity.norm not in SEARCHES or vicinity.norm is None:
            raise Refused("square needs an L∞, L2 or L1 threat model")
        if view.origin.dim() != 4:
            raise Refused("square needs images (N, C, H, W)")
        search = SEARCHES[vicinity.norm](vicinity, step.rng)
        radius, best, side = step.radii(view, vicinity), Best.at(view), 0

        def look(part: View, x: Tensor) -> tuple[Tensor, ...]:
            output = step.output(part.replace(x=x))
            return x, margin(output, part.y), ~step.score(part, output)

        def move(part: View, x: Tensor, near: Tensor, drawn: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return look(part, search.propose(x, part.origin, near, side, drawn))

        with step.attack_mode(), torch.no_grad():
            part, near, rows = view, radius, best.undecided(False)
            for query in range(self.options.queries):
                if query == 0:
                    x, found, fooled = step.iterate(look, part, search.start(part.origin, near))
                else:
                    side = search.side(share(self.options.p_init, query - 1), *part.origin.shape[2:])
                    drawn = search.draw(part.origin.shape, side)
                    x, found, fooled = step.iterate(move, part, best.x[rows], near, drawn)
                best.update(rows, x, found, fooled)
                left = (~fooled).nonzero()[:, 0] if step.evaluating else rows
                if len(left) < len(rows):
                    part, near, rows = part.rows(left), near[left], rows[left]
                    if not len(rows):
                        break
        return view.replace(x=best.x)

    def cost(self, target: Cost) -> Cost:
        """Count one forward for each query."""
        return Cost(self.options.queries, 0)
