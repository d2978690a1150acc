"""Carlini & Wagner's L2 attack: the smallest perturbation, by Adam and a binary search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...api import Cost, margin
from ..vicinities import at_least_single

if TYPE_CHECKING:
    from ...api import Step, Vicinity, View
    from . import CarliniWagnerOptions

# Values at the ends of their range have no finite preimage under tanh.
EDGE = 1 - 1e-6
# While no constant has succeeded, the search multiplies it by ten.
TENFOLD = 10.0
# Adam stops unless the lowest loss falls to this fraction of its value within a tenth of the steps. The
# authors' code compares the current loss, summed over the batch; that of one sample fluctuates too much.
PROGRESS = 0.9999


@dataclass(frozen=True)
class Box:
    """The valid range of inputs, and the space of w with x = low + (high − low) · (tanh w + 1) / 2.

    Attributes:
        low: lowest value, in a shape that broadcasts over inputs.
        span: high − low, likewise.
    """

    low: Tensor
    span: Tensor

    @classmethod
    def of(cls, bounds: tuple[Any, Any], x: Tensor) -> Box:
        """Return the box of a task's bounds, numbers or one for each channel, for inputs like x (N, C, …)."""
        shape = (1, -1, *(1,) * (x.dim() - 2))
        low, high = (torch.as_tensor(side, dtype=x.dtype, device=x.device) for side in bounds)
        low, high = (side.view(shape) if side.dim() else side for side in (low, high))
        return cls(low, high - low)

    def enter(self, x: Tensor) -> Tensor:
        """Return w, finite at the edges as well."""
        return torch.atanh((2 * (x - self.low) / self.span - 1).clamp(-EDGE, EDGE))

    def leave(self, w: Tensor) -> Tensor:
        """Return x, always in the range."""
        return self.low + self.span * (w.tanh() + 1) / 2

    def slope(self, w: Tensor) -> Tensor:
        """Return dx/dw."""
        return self.span * (1 - w.tanh().square()) / 2


class Adam:
    """Adam's update for one tensor, independent for each row; torch's would write into `.grad`.

    Args:
        w: tensor to update.
        lr: learning rate.
    """

    def __init__(self, w: Tensor, lr: float) -> None:
        self.lr, self.count = lr, 0
        self.mean, self.square = torch.zeros_like(w), torch.zeros_like(w)

    def step(self, w: Tensor, gradient: Tensor) -> Tensor:
        """Return w after one update (Kingma & Ba 2015, with the usual 0.9, 0.999 and 1e-8)."""
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient.square()
        mean, square = self.mean / (1 - 0.9**self.count), self.square / (1 - 0.999**self.count)
        return w - self.lr * mean / (square.sqrt() + 1e-8)

    def rows(self, keep: Tensor) -> None:
        """Discard the state of all other rows."""
        self.mean, self.square = self.mean[keep], self.square[keep]


class Search:
    """The binary search over c, separately for each sample; all fields are (N,)."""

    def __init__(self, count: int, c: float, device: torch.device) -> None:
        self.c = torch.full((count,), c, device=device)
        self.lower = torch.zeros(count, device=device)
        self.upper = torch.full((count,), torch.inf, device=device)

    def update(self, succeeded: Tensor) -> None:
        """Lower c where the attack succeeded, raise it elsewhere."""
        self.upper = torch.where(succeeded, self.upper.minimum(self.c), self.upper)
        self.lower = torch.where(succeeded, self.lower, self.lower.maximum(self.c))
        between = (self.lower + self.upper) / 2
        self.c = torch.where(self.upper.isfinite(), between, self.c * TENFOLD)


@dataclass
class Nearest:
    """Keep the nearest adversarial example of each sample: x (N, …) and its squared distance (N,)."""

    x: Tensor
    distance: Tensor

    def update(self, rows: Tensor, x: Tensor, distance: Tensor, fooled: Tensor) -> None:
        """Update the nearest examples of some rows (int64 positions) with new iterates."""
        nearer = fooled & (distance < self.distance[rows])
        chosen = rows[nearer]
        self.x[chosen], self.distance[chosen] = x[nearer].to(self.x.dtype), distance[nearer]


class CarliniWagnerL2:
    """Minimise ‖x′ − x‖₂² + c · max(z_y − max_{j≠y} z_j, −κ), with x′ = (tanh w + 1) / 2 in its range.

    Carlini & Wagner 2017 (arXiv:1608.04644 §V.A, §VI.A). The nearest adversarial example is returned. It is
    legal only if it lies within the radius, in the norm of the vicinity; otherwise it is projected. The
    search continues even if an example already lies within an L2 radius, because the purpose of the attack
    is the distance. Samples of radius 0, and samples that need no change, cost next to nothing.

    Args:
        options: see CarliniWagnerOptions.
    """

    # A sample leaves the batch when its loss stops falling.
    needs_sync = True

    def __init__(self, options: CarliniWagnerOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the nearest adversarial examples found.

        Raises:
            Refused: the model provides no gradients.
        """
        radius, found = step.radii(view, vicinity), view.origin.detach().clone()
        with step.attack_mode():
            rows = (radius > 0).nonzero()[:, 0]
            if len(rows):
                found[rows] = self._search(step, view.rows(rows))
        return view.replace(x=vicinity.project(found, view.origin, radius).detach())

    def _search(self, step: Step, view: View) -> Tensor:
        """Return the nearest examples over all c, or the origin where none was found."""
        device, x = view.origin.device, view.origin.detach().clone()
        wide = at_least_single(x).dtype
        nearest = Nearest(x, torch.full((len(view),), torch.inf, device=device, dtype=wide))
        search = Search(len(view), self.options.initial_c, device)
        for _ in range(self.options.search_steps):
            search.update(self._descend(step, view, search.c, nearest))
        return nearest.x

    def _descend(self, step: Step, view: View, c: Tensor, nearest: Nearest) -> Tensor:
        """Run Adam with one c per sample, update `nearest`, and return which samples succeeded, (N,)."""
        o = self.options
        succeeded = torch.zeros(len(view), dtype=torch.bool, device=c.device)
        rows, part, weight = torch.arange(len(view), device=c.device), view, c
        origin = at_least_single(view.origin.detach())
        box = Box.of(step.task.info.bounds, origin)
        w = box.enter(origin)
        adam, patience = Adam(w, o.lr), max(o.steps // 10, 1)
        lowest, last = torch.full_like(c, torch.inf), torch.full_like(c, torch.inf)
        for number in range(o.steps):
            x = box.leave(w).to(view.origin.dtype).requires_grad_()
            output = step.output(part.replace(x=x))
            pull = weight * (-margin(output, part.y)).clamp_min(-o.kappa)
            # The chain rule by hand: only the model has a graph, so a model without gradients is refused.
            slope = step.gradient(pull.sum(), x)
            x, output = x.detach(), output.detach()
            moved = at_least_single(x) - part.origin
            length = moved.flatten(1).square().sum(1)
            fooled = self._fooled(step, part, output)
            nearest.update(rows, x, length, fooled)
            succeeded[rows] |= fooled
            w = adam.step(w, (slope + 2 * moved) * box.slope(w))
            lowest = lowest.minimum(length + pull.detach())
            if number % patience == 0:
                # The first iterate is the origin.
                going = lowest <= last * PROGRESS if number else ~fooled
                rows, part, weight, w = rows[going], part.rows(going), weight[going], w[going]
                lowest = last = lowest[going]
                adam.rows(going)
                if not len(rows):
                    break
        return succeeded

    def _fooled(self, step: Step, view: View, output: Tensor) -> Tensor:
        return ~step.score(view, output) & (margin(output, view.y) >= self.options.kappa)

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on the data."""
        return Cost.unknown()
