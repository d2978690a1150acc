"""Checks of optimizers, schedules and augmentations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..core.protocols import Rate, rate_at
from ..core.random import stream
from ..core.types import ParamGroup, Progress, TaskInfo
from ..plugin.build import build
from ..plugin.component import Use
from ..recipe.convert import resolve
from ..recipe.options import Recipe
from ..runs.checkpoint import pack, unpack
from ..training.optim import Optimizers
from .bench import Subject, require
from .checks_views import global_rng_states

# --- optimizers


def _quadratic(optim_of: Callable[[list[nn.Parameter]], torch.optim.Optimizer], steps: int) -> list[float]:
    """Return ‖p‖² before and after some steps."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optim, values = optim_of([parameter]), []
    for _ in range(steps):
        optim.zero_grad()
        loss = parameter.square().sum()
        values.append(float(loss.detach()))
        loss.backward()  # type: ignore[no-untyped-call]
        optim.step()
    return [*values, float(parameter.detach().square().sum())]


def optimizer_descends_and_ascends(subject: Subject) -> None:
    """Decrease a quadratic, and increase it with maximize=True."""
    before, after = _quadratic(lambda params: subject.build(params=params), 1)
    require(after < before, f"one step changes ‖p‖² from {before:g} to {after:g}")
    before, after = _quadratic(lambda params: subject.build(params=params, maximize=True), 1)
    require(after > before, f"with maximize=True one step changes ‖p‖² from {before:g} to {after:g}")


def optimizer_takes_a_learning_rate(subject: Subject) -> None:
    """Accept a learning rate for each parameter group, and follow the schedule's."""
    parameter = nn.Parameter(torch.ones(3))
    optim = subject.build(params=[parameter], lr=0.125)
    require(optim.param_groups[0]["lr"] == 0.125, "lr=0.125 is ignored")
    optim.param_groups[0]["lr"] = 0.0
    parameter.square().sum().backward()  # type: ignore[no-untyped-call]
    optim.step()
    require(
        torch.equal(parameter.detach(), torch.ones(3)),
        "the parameters change although the learning rate is 0",
    )


def optimizer_state_round_trips(subject: Subject) -> None:
    """Continue bit for bit after its state was saved as tensors and JSON."""
    reference = resolve(Use(subject.name, dict(subject.table)), "optimizer")
    schedule = build(resolve(Recipe(task=Use("toy"), method=Use("toy")).schedule, "schedule"), "schedule")

    def start(values: Tensor) -> tuple[nn.Parameter, Optimizers]:
        parameter = nn.Parameter(values.clone())
        return parameter, Optimizers([ParamGroup("model", [parameter])], reference, schedule)

    def move(parameter: nn.Parameter, optimizers: Optimizers) -> None:
        optimizers.zero_grad()
        parameter.pow(4).sum().backward()  # type: ignore[no-untyped-call]
        optimizers.step({"model"})

    parameter, optimizers = start(torch.tensor([0.5, -0.25, 1.0]))
    move(parameter, optimizers)
    move(parameter, optimizers)
    tensors: dict[str, Tensor] = {}
    saved = pack(optimizers.state(), "optimizer", tensors)
    other, resumed = start(parameter.detach())
    resumed.load_state(unpack(saved, tensors))
    move(parameter, optimizers)
    move(other, resumed)
    require(torch.equal(parameter, other), "after saving and loading its state, the next step differs")


OPTIMIZER_CHECKS = (
    optimizer_descends_and_ascends,
    optimizer_takes_a_learning_rate,
    optimizer_state_round_trips,
)


# --- schedules

SETTINGS = {"lr": 0.1, "momentum": 0.9}
"""Settings of the optimizer that a schedule is tried with."""

_BATCHES = 6


def _rates(subject: Subject, epochs: int, backwards: bool = False) -> Sequence[Rate]:
    """Return the rates of all updates of a run, asked for from the first to the last or the other way."""
    schedule, updates = subject.build(), epochs * _BATCHES
    order = range(updates - 1, -1, -1) if backwards else range(updates)
    found = [
        rate_at(schedule, Progress(n // _BATCHES, epochs, n % _BATCHES, _BATCHES, n, updates), SETTINGS)
        for n in order
    ]
    return found[::-1] if backwards else found


def schedule_is_a_factor(subject: Subject) -> None:
    """Return a finite factor of at least 0 for every update of a run, and above 0 for some."""
    for epochs in (1, 2, 30):
        rates = _rates(subject, epochs)
        factors = [rate.factor for rate in rates]
        fine = all(isinstance(factor, float | int) and math.isfinite(factor) for factor in factors)
        require(fine, f"the factors of a run of {epochs} epochs are not finite numbers: {factors}")
        require(
            min(factors) >= 0 and max(factors) > 0,
            f"the factors of a run of {epochs} epochs are negative or all 0: {factors}",
        )
        momenta = {rate.momentum for rate in rates} - {None}
        fine = all(isinstance(each, float | int) and 0 <= each < 1 for each in momenta)
        require(fine, f"the momenta of a run of {epochs} epochs are not in [0, 1): {momenta}")


def schedule_remembers_nothing(subject: Subject) -> None:
    """Return the same rate for the same update, in any order of calls."""
    same = _rates(subject, 3) == _rates(subject, 3, backwards=True)
    require(same, "the rate depends on earlier calls: a resumed run would differ")


SCHEDULE_CHECKS = (schedule_is_a_factor, schedule_remembers_nothing)

# --- augmentations

_INFO = TaskInfo(sizes={"train": 8, "validation": 8, "test": 8}, shape=(3, 16, 16), classes=4)


def _augmented(subject: Subject, rows: Sequence[int], first_seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return some of eight images before and after the augmentation, each with a seed of its own."""
    augmentation = subject.build(info=_INFO)
    x = torch.rand(8, *_INFO.shape or (), generator=stream(0, "augmented"))[list(rows)]
    before = x.clone()
    result = augmentation(x, [first_seed + row for row in rows])
    require(torch.equal(x, before), "the augmentation changes its inputs in place")
    return before, result


def augmentation_keeps_the_form(subject: Subject) -> None:
    """Return inputs of the same shape, type and range, and change some of them."""
    before, after = _augmented(subject, range(8))
    same = isinstance(after, Tensor) and after.shape == before.shape and after.dtype == before.dtype
    require(same, "the augmentation changes the shape or the type of its inputs")
    require(bool(((after >= 0) & (after <= 1)).all()), "the augmentation leaves the range [0, 1]")
    others = [_augmented(subject, range(8), 100 * number)[1] for number in range(4)]
    require(any(not torch.equal(before, each) for each in others), "the augmentation changes nothing")


def augmentation_depends_on_the_seeds_alone(subject: Subject) -> None:
    """Change a sample by its own seed, in any batch and without the global generators."""
    states = global_rng_states()
    _, whole = _augmented(subject, range(8))
    moved = [name for name, state in global_rng_states().items() if state != states[name]]
    require(not moved, f"the augmentation uses the global generator of {', '.join(moved)}")
    require(torch.equal(_augmented(subject, range(8))[1], whole), "the same seeds give other results")
    rows = [5, 2, 7]
    same = torch.allclose(_augmented(subject, rows)[1], whole[rows], atol=1e-6)
    require(same, "the change of a sample depends on its batch")


AUGMENTATION_CHECKS = (augmentation_keeps_the_form, augmentation_depends_on_the_seeds_alone)
