"""Random numbers from explicit generators; the global generator stays unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def derive(seed: int, *path: object) -> int:
    """Derive a 63-bit seed from a run's seed and a path such as ("train", rank, update).

    Equal paths produce equal seeds on every machine; different paths produce unrelated ones.
    """
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *path: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator that is seeded for this path."""
    return torch.Generator(device).manual_seed(derive(seed, *path))


@contextlib.contextmanager
def isolated(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global generator for a block and restore it afterwards.

    For code that accepts no generator: weight initialisation and dropout of torch modules.
    """
    device = torch.device(device)
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else [], enabled=True):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield


@contextlib.contextmanager
def other_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of Python and, if loaded, of NumPy, and restore them afterwards."""
    with _others_kept():
        random.setstate(random.Random(seed).getstate())
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.set_state(numpy.random.RandomState(seed).get_state())
        yield


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Restore the global generators of torch, Python and NumPy after a block."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices), _others_kept():
        yield


@contextlib.contextmanager
def _others_kept() -> Iterator[None]:
    python, numpy = random.getstate(), sys.modules.get("numpy")
    state: Any = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(state)


def uniform_like(x: Tensor, rng: torch.Generator) -> Tensor:
    """Draw from U(-1, 1) in the shape of x."""
    return torch.empty_like(x).uniform_(-1, 1, generator=rng)


def normal_like(x: Tensor, rng: torch.Generator) -> Tensor:
    """Draw from N(0, 1) in the shape and the layout of x."""
    drawn = torch.empty_like(x)
    if drawn.is_contiguous() or x.device.type != "cpu":
        return drawn.normal_(generator=rng)
    # On a CPU, torch draws into contiguous memory several times as fast as into any other.
    return drawn.copy_(torch.empty(x.shape, dtype=x.dtype).normal_(generator=rng))


def gamma(concentration: Tensor, rng: torch.Generator) -> Tensor:
    """Draw from Gamma(concentration, 1), differentiable in the concentration.

    torch.distributions accepts no generator; the operator below it does.
    """
    draw: Any = torch._standard_gamma
    result: Tensor = draw(concentration, generator=rng)
    return result


# A draw of a smaller concentration may underflow.
SMALL = 0.1


def log_gamma(concentration: Tensor, rng: torch.Generator, least: float = 0.0) -> Tensor:
    """Draw the logarithm of Gamma(concentration, 1), differentiable in the concentration.

    A draw of small concentration underflows, so it is computed from a larger one: G(c) = G(c + 1) ·
    U^(1/c).

    Args:
        concentration: positive, of any shape.
        rng: a generator on the same device.
        least: a number that no concentration is below, if one is known: without small ones, no U is drawn.
    """
    small = concentration < SMALL
    draws = gamma(concentration + small, rng).clamp_min(torch.finfo(concentration.dtype).tiny).log()
    if least >= SMALL:
        return draws
    uniform = torch.rand(concentration.shape, generator=rng, dtype=draws.dtype, device=draws.device)
    powers = torch.log1p(-uniform) / torch.where(small, concentration, 1.0)
    return torch.where(small, draws + powers, draws)


def dirichlet(concentration: Tensor, rng: torch.Generator, least: float = 0.0) -> Tensor:
    """Draw from Dirichlet(concentration) over the last axis, differentiable in the concentration.

    Args:
        concentration: positive, (..., K).
        rng: a generator on the same device.
        least: see `log_gamma`.
    """
    return log_gamma(concentration, rng, least).softmax(-1)


def beta(a: Tensor, b: Tensor, rng: torch.Generator, least: float = 0.0) -> Tensor:
    """Draw from Beta(a, b) elementwise; `least` is as for `log_gamma`."""
    return dirichlet(torch.stack([a, b], -1), rng, least)[..., 0]
