"""Free adversarial training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...api import Batch, Cost, Method, Pass, Progress, View
from . import FreeOptions

if TYPE_CHECKING:
    from ...api import Step


class Free(Method[FreeOptions]):
    """Replay each batch m times; each backward updates both the weights and the perturbation.

    Shafahi et al. 2019 (arXiv:1904.12843), Algorithm 1: δ is kept across batches. Each process has
    its own δ. A batch shorter than δ uses the first rows of δ. What is kept is δ after the cut to the valid
    range; the authors' code keeps it as before the cut.
    """

    def passes(self, progress: Progress) -> Sequence[Pass]:
        """Return m passes that also compute the gradient of the inputs."""
        return (Pass("replay", input_grad=True),) * self.options.replays

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the batch with the stored perturbation."""
        view = View.of(point, "adv")
        delta = self.state.get_local("delta")
        if delta is None:
            return [view.replace(x=point.x.detach().clone())]
        x = torch.zeros_like(point.x)
        own = delta[step.first_row : step.first_row + len(x)]
        x[: len(own)] = own
        x = self.vicinity.project(point.x + x, point.x, step.radii(view, self.vicinity))
        return [view.replace(x=x)]

    def after_backward(self, step: Step, views: Sequence[View]) -> None:
        """Move δ by `step_ratio` radii along the steepest direction, within the ball."""
        (view,) = views
        radius = step.radii(view, self.vicinity)
        size = (self.options.step_ratio * radius).view(-1, *(1,) * (view.x.dim() - 1))
        x = view.x.detach()
        x = self.vicinity.project(x + size * self.vicinity.steepest(view.x.grad), view.origin, radius)
        kept, end = self.state.get_local("delta"), step.first_row + len(x)
        if kept is None or len(kept) < end:
            wider = torch.zeros((end, *x.shape[1:]), dtype=x.dtype, device=x.device)
            kept = wider if kept is None or not step.first_row else torch.cat([kept, wider[len(kept) :]])
            self.state.set_local("delta", kept)
        kept[step.first_row : end] = (
            x - view.origin
        )  # in place: a captured update reads the same tensor again

    def cost(self) -> Cost:
        """Count m forwards and backwards: the attack is free."""
        return Cost(self.options.replays, self.options.replays)
