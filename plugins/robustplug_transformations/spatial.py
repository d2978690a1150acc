"""Rotations, shifts and zooms."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import SpatialOptions
from .sets import Transformed


class Spatial(Transformed):
    """Images that are zoomed, rotated about their centre and then shifted, with bilinear interpolation.

    What comes from outside is the lowest value of the range: black. Gradients lead to the parameters.

    Args:
        options: see SpatialOptions.
    """

    def __init__(self, options: SpatialOptions) -> None:
        parts = {
            "rotation (degrees)": options.degrees,
            "shift right (sides)": options.shift,
            "shift down (sides)": options.shift,
            "zoom (log)": math.log1p(options.zoom),
        }
        used = {name: size for name, size in parts.items() if size > 0}
        super().__init__(options.eps, list(used), list(used.values()), one_sided=False)
        self.places = [list(parts).index(name) for name in used]

    def transformed(self, origin: Tensor, theta: Tensor) -> Tensor:
        """Return the moved images (N, C, H, W)."""
        whole = torch.zeros(len(theta), 4, device=theta.device, dtype=theta.dtype)
        sizes = torch.tensor(self.ranges, device=theta.device, dtype=theta.dtype)
        at = torch.tensor(self.places, device=theta.device).expand(len(theta), -1)
        angle, right, down, zoom = whole.scatter(1, at, theta * sizes).unbind(1)
        angle, shrink = torch.deg2rad(angle), torch.exp(-zoom)
        height, width = origin.shape[2:]
        cos, sin = shrink * angle.cos(), shrink * angle.sin()
        # From a place in the result to its source, with sides from -1 to 1: first back by the shift.
        right, down = 2 * right, 2 * down
        across, along = sin * height / width, sin * width / height
        rows = torch.stack(
            [
                torch.stack([cos, -across, -cos * right + across * down], 1),
                torch.stack([along, cos, -along * right - cos * down], 1),
            ],
            1,
        )
        grid = F.affine_grid(rows, list(origin.shape), align_corners=False)
        low, _ = self.sides(origin)
        moved = F.grid_sample(origin - low, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return moved + low
