"""Sets of images that parameters lead to."""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from robustplug.api import Batch, Refused, Step

# Images whose parameters are remembered; points of the coarse search for others, and refinements of the best.
_KNOWN, _COARSE, _FINE = 2**16, 125, 15
# Largest difference of a value between an image and that of its parameters, in widths of the valid range.
_SAME = 1e-4


class Transformed(ABC):
    """All images `render(x, θ)` with parameters θ of at most `radius` times their ranges.

    θ is in multiples of the ranges, (N, P), and θ = 0 leads to the image itself. Points of the set are made
    by `of`, which remembers their parameters. `contains` computes the image of those again and compares; for
    an image from elsewhere it searches them, and refuses it where it finds none.

    Args:
        eps: radius.
        names: names of the parameters, with their units.
        ranges: largest value of each parameter, in those units.
        one_sided: whether parameters are at least 0.
    """

    # Images are looked up on the host.
    needs_sync = True
    norm: float | None = None
    # Whether images change smoothly with their parameters.
    smooth = True

    def __init__(self, eps: float, names: Sequence[str], ranges: Sequence[float], one_sided: bool) -> None:
        self.eps, self.names, self.one_sided = float(eps), tuple(names), one_sided
        self.ranges = tuple(float(value) for value in ranges)
        self.low, self.high = torch.zeros(()), torch.ones(())
        self.known: OrderedDict[bytes, Tensor] = OrderedDict()

    def within(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        """Keep inputs in [low, high] instead of [0, 1]; numbers, or one for each channel."""
        self.low, self.high = (torch.as_tensor(side, dtype=torch.float32) for side in (low, high))

    def sides(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both bounds in a shape that broadcasts over images (N, C, H, W)."""
        low, high = (side.to(x.device, x.dtype).view(-1, 1, 1) for side in (self.low, self.high))
        return low, high

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself."""
        return batch

    @abstractmethod
    def transformed(self, origin: Tensor, theta: Tensor) -> Tensor:
        """Return the images of parameters other than 0."""

    def render(self, origin: Tensor, theta: Tensor) -> Tensor:
        """Return the images of parameters (N, P); those of 0 are the very images, with the same gradients.

        Raises:
            Refused: the inputs are no images.
        """
        if origin.dim() != 4:
            raise Refused(f"the inputs are no images (N, C, H, W): their shape is {tuple(origin.shape)}")
        low, high = self.sides(origin)
        found = self.transformed(origin, theta.to(origin.dtype)).clamp(low, high)
        still = (theta == 0).all(1).view(-1, 1, 1, 1)
        return torch.where(still, origin.detach() + (found - found.detach()), found)

    def ends(self, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and highest parameters, (N, P) each."""
        high = radius.float()[:, None].expand(-1, len(self.names))
        return (torch.zeros_like(high) if self.one_sided else -high), high

    def of(self, origin: Tensor, theta: Tensor) -> Tensor:
        """Return the images of parameters, and remember these."""
        with torch.no_grad():
            x = self.render(origin, theta).to(origin.dtype)
        for key, row in zip(_keys(x), theta.detach().cpu(), strict=True):
            self.known[key] = row
            self.known.move_to_end(key)
        while len(self.known) > _KNOWN:
            self.known.popitem(last=False)
        return x

    def draw(self, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw parameters uniformly from their ranges, (N, P)."""
        low, high = self.ends(radius)
        share = torch.rand(high.shape, generator=rng, device=high.device)
        return low + (high - low) * share

    def grid(self, radius: Tensor, points: int) -> Iterator[Tensor]:
        """Yield all combinations of evenly spaced values of each parameter, (N, P) each."""
        low, high = self.ends(radius)
        shares = torch.linspace(0, 1, points).tolist() if points > 1 else [1.0]
        for chosen in itertools.product(shares, repeat=len(self.names)):
            yield low + (high - low) * torch.tensor(chosen, device=high.device)

    def nearest(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Search the parameters (N, P) of the image nearest to x: a coarse grid, then damped Gauss-Newton."""
        low, high = self.ends(radius)
        best = torch.zeros_like(high)
        error = self._error(x, origin, best)
        for theta in self.grid(radius, self._coarse()):
            tried = self._error(x, origin, theta)
            best = torch.where((tried < error)[:, None], theta, best)
            error = error.minimum(tried)
        if not self.smooth:
            return best
        damping = torch.full_like(error, 1e-3)
        for _ in range(_FINE):
            slopes, rest = self._slopes(x, origin, best, high)
            square = slopes.transpose(1, 2) @ slopes
            size = square.diagonal(dim1=1, dim2=2).mean(1)
            eye = torch.eye(len(self.names), device=x.device)
            damped = square + ((damping * size + 1e-12)[:, None, None] * eye)
            move = torch.linalg.solve(damped, (slopes.transpose(1, 2) @ rest[:, :, None]))[:, :, 0]
            theta = (best + move).clamp(low, high)
            tried = self._error(x, origin, theta)
            better = tried < error
            best = torch.where(better[:, None], theta, best)
            error, damping = error.minimum(tried), torch.where(better, damping / 10, damping * 10)
        return best

    def _coarse(self) -> int:
        """Return the number of values of each parameter in a coarse search."""
        return max(int(_COARSE ** (1 / len(self.names)) + 1e-9), 3)

    def _error(self, x: Tensor, origin: Tensor, theta: Tensor) -> Tensor:
        with torch.no_grad():
            return (self.render(origin, theta).float() - x).flatten(1).square().sum(1)

    def _slopes(self, x: Tensor, origin: Tensor, theta: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slopes of the values over the parameters (N, D, P), and what is missing to x (N, D)."""
        with torch.no_grad():
            here = self.render(origin, theta).float()
            width = 1e-3 * high.clamp_min(1e-6)
            found = []
            for number in range(len(self.names)):
                moved = torch.zeros_like(theta)
                moved[:, number] = width[:, number]
                sides = [self.render(origin, theta + sign * moved).float() for sign in (1, -1)]
                found.append((sides[0] - sides[1]).flatten(1) / (2 * width[:, number : number + 1]))
            return torch.stack(found, 2), (x - here).flatten(1).float()

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return an image of the set near x, in origin's dtype; images of the set stay.

        The search for the nearest may end in another one.
        """
        inside = self.contains(x, origin, radius)
        found = self.of(origin, self.nearest(x, origin, radius))
        return torch.where(inside.view(-1, 1, 1, 1), x.to(origin.dtype), found)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether it is the image of legal parameters: bool (N,)."""
        legal = (x == origin).flatten(1).all(1)
        rows = (~legal & x.isfinite().flatten(1).all(1)).nonzero()[:, 0]
        if not len(rows):
            return legal
        known = [self.known.get(key) for key in _keys(x[rows])]
        told = torch.tensor([row is not None for row in known], device=x.device)
        blank = torch.zeros(len(self.names))
        theta = torch.stack([blank if row is None else row for row in known]).to(x.device)
        low, high = self.ends(radius[rows])
        slack = 1e-5 * high
        told &= ((theta >= low - slack) & (theta <= high + slack)).all(1)
        right = told & self._same(x[rows], origin[rows], theta)
        left = (~right).nonzero()[:, 0]
        if len(left):
            at = rows[left]
            searched = self.nearest(x[at], origin[at], radius[at])
            right[left] = self._same(x[at], origin[at], searched)
        legal[rows] = right
        return legal

    def _same(self, x: Tensor, origin: Tensor, theta: Tensor) -> Tensor:
        with torch.no_grad():
            away = (self.render(origin, theta) - x).abs()
        width = (self.high - self.low).max().to(x.device)
        return away.flatten(1).amax(1) <= max(_SAME, 2 * torch.finfo(x.dtype).eps) * width

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return no direction: a way from one image of the set to another leads out of it."""
        return torch.zeros_like(gradient)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw parameters uniformly from their ranges, and return their images."""
        return self.of(origin, self.draw(radius, rng))

    def described(self) -> str:
        """Return the ranges of the parameters."""
        sign = "0 to " if self.one_sided else "±"
        return ", ".join(
            f"{name} {sign}{self.eps * size:.4g}" for name, size in zip(self.names, self.ranges, strict=True)
        )


def _keys(x: Tensor) -> list[bytes]:
    """Return a digest of each image."""
    rows = x.detach().cpu().contiguous().flatten(1)
    return [hashlib.blake2b(row.view(torch.uint8).numpy(), digest_size=16).digest() for row in rows]
