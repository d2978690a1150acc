"""Noise from a generator for each sample, and the votes of a model under it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from robustplug.api import derive

from . import Noise

# Draws of one generator: a sample's noise does not depend on how many draws one call of the model takes.
BLOCK = 100
# Values of the inputs in one call of the model, and the most rows.
_VALUES = {"cpu": 2**22, "cuda": 2**26}
_ROWS = {"cpu": 2048, "cuda": 16384}

Predict = Callable[[Tensor], Tensor]


def draw(shape: Sequence[int], sigma: float, noise: Noise, rng: torch.Generator) -> Tensor:
    """Draw noise with mean 0 and standard deviation sigma, float32, on the generator's device."""
    empty = torch.empty(*shape, device=rng.device)
    if noise == "uniform":
        reach = math.sqrt(3) * sigma
        return empty.uniform_(-reach, reach, generator=rng)
    return empty.normal_(0.0, sigma, generator=rng)


def rows_of_a_call(x: Tensor, batch: int | None) -> int:
    """Return how many draws one call of the model takes, a multiple of BLOCK.

    Args:
        x: an input.
        batch: the number as stated; None to choose it by the device and the size of an input.
    """
    if batch is None:
        kind = "cuda" if x.device.type == "cuda" else "cpu"
        batch = min(_ROWS[kind], _VALUES[kind] // max(1, x.numel()))
    return max(1, batch // BLOCK) * BLOCK


def noisy_rows(
    x: Tensor, index: Sequence[int], seed: int, phase: str, n: int, sigma: float, noise: Noise, rows: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield noisy inputs, and the position of the sample of each.

    Args:
        x: samples (N, …).
        index: index of each, which with seed and phase determines its noise.
        seed: seed of the row.
        phase: name of the draws.
        n: draws of each sample.
        sigma, noise: the noise.
        rows: largest number of rows of a call, a multiple of BLOCK.
    """
    parts: list[Tensor] = []
    owners: list[Tensor] = []
    held = 0
    for at, number in enumerate(index):
        for block in range(math.ceil(n / BLOCK)):
            count = min(BLOCK, n - block * BLOCK)
            rng = torch.Generator(x.device).manual_seed(derive(seed, "smoothing", phase, number, block))
            # A whole block is drawn even for fewer draws: torch fills tensors of other sizes otherwise.
            drawn = draw((BLOCK, *x.shape[1:]), sigma, noise, rng)[:count]
            parts.append(x[at] + drawn)
            owners.append(torch.full((count,), at, device=x.device))
            held += count
            if held > rows - BLOCK:
                yield torch.cat(parts), torch.cat(owners)
                parts, owners, held = [], [], 0
    if held:
        yield torch.cat(parts), torch.cat(owners)


def votes(
    predict: Predict,
    x: Tensor,
    index: Sequence[int],
    seed: int,
    phase: str,
    n: int,
    classes: int,
    sigma: float,
    noise: Noise,
    rows: int,
) -> Tensor:
    """Return how often each class is predicted under noise, int64 (N, K).

    Args:
        predict: function from inputs to classes, int64; K for none.
        x, index, seed, phase, n, sigma, noise, rows: as for `noisy_rows`.
        classes: K.
    """
    found = torch.zeros(len(x) * (classes + 1), dtype=torch.int64, device=x.device)
    for inputs, owner in noisy_rows(x, index, seed, phase, n, sigma, noise, rows):
        place = owner * (classes + 1) + predict(inputs).to(owner)
        found += torch.bincount(place, minlength=len(found))
    return found.view(len(x), classes + 1)[:, :classes]
