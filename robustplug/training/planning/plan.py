"""Plan a run on many devices: passes, hours, memory, checkpoints and cost, and how all that was estimated."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...core.types import Cost
from ...errors import RunError
from ...plugin.host import registered
from ...recipe.load import read_recipe, recipe_from_mapping
from ...recipe.options import Recipe
from ...subjects.assemble import build_part
from ...subjects.brought import Brought
from .measure import Measured, measure
from .scaling import Links, Prediction, UpdateCost, breaks, exchange_seconds, fitted, predict, whole_nodes

# A backward pass computes about twice what a forward pass does.
_BACKWARD = 2
# Samples of data that stand in: a prime number, so that what has as many entries is of the samples.
_STAND_INS = 1009
# Numbers of devices in the table of the model.
DEVICES = (1, 8, 64, 512)


@dataclass(frozen=True)
class Asked:
    """Hold what a plan is made for.

    Attributes:
        nodes, gpus: number of nodes, and of devices in each.
        links: the links between them, as they are assumed.
        faster: how many times faster a device computes than the measured one.
        efficiency: share of the predicted speed that is reached, with stragglers and reading of data.
        price: price of a device for an hour; None for none.
        seconds: seconds of the measurement, about.
        stand_in: shape, classes and samples of random data in the place of the task's; None for its own.
    """

    nodes: int = 1
    gpus: int = 1
    links: Links = field(default_factory=Links)
    faster: float = 1.0
    efficiency: float = 0.9
    price: float | None = None
    seconds: float = 60.0
    stand_in: tuple[tuple[int, ...], int, int] | None = None


def plan(source: str | Path | Mapping[str, Any], overrides: Sequence[str], asked: Asked) -> dict[str, Any]:
    """Measure a few updates of a recipe here, and return what the run takes on other devices, as JSON.

    Args:
        source: file, bundled name or tables of the recipe.
        overrides: "key=value", as with --set.
        asked: the devices.

    Raises:
        RecipeError: the recipe is not valid.
        RunError: there are more devices than rows of a batch, or nothing can be measured here.
    """
    brought = Brought()
    if asked.stand_in is not None:
        shape, classes, _ = asked.stand_in
        rng = torch.Generator().manual_seed(0)
        x = torch.rand((_STAND_INS, *shape), generator=rng).mul(255).to(torch.uint8)
        y = torch.arange(_STAND_INS) % classes
        brought = Brought.of(None, (x, y), (x[:2], y[:2]), None, None, None, classes)
    with registered("task", brought.task):
        chosen = brought.into(source, None)
        if isinstance(chosen, Mapping):
            recipe = recipe_from_mapping(chosen, overrides)
        else:
            recipe = read_recipe(chosen, overrides)
        devices, batch = asked.nodes * asked.gpus, recipe.train.batch_size
        if batch < devices:
            raise RunError(
                f"a batch of {batch} rows is less than one for each of {devices} devices: raise "
                "train.batch_size, and the learning rate with it, or take fewer devices"
            )
        found = measure(recipe, math.ceil(batch / devices), asked.seconds)
        validating = _validation(recipe)
    if asked.stand_in is not None:
        found = dataclasses.replace(found, samples=asked.stand_in[2], validation=None)
    name = recipe.name if isinstance(source, Mapping) else Path(source).stem
    return _planned(name, recipe, asked, found, validating)


def _validation(recipe: Recipe) -> Cost:
    """Return the passes of a sample of a validation, at most."""
    attack = build_part(recipe.validate.attack, "perturbation", "validate.attack")
    cost: Cost = attack.cost(Cost(0, 0))
    return cost + (2, 0)


def cost_of(found: Measured, faster: float = 1.0) -> UpdateCost:
    """Return what a measured update costs, as the model of many devices takes it."""
    fixed, row = fitted(dict(found.seconds))
    # A number of each row, and its index.
    memory = 12.0 if found.memories else 0.0
    return UpdateCost(fixed / faster, row / faster, found.parameters, memory)


def _planned(name: str, recipe: Recipe, asked: Asked, found: Measured, validating: Cost) -> dict[str, Any]:
    train, last = recipe.train, recipe.train.epochs - 1
    batches = math.ceil(found.samples / train.batch_size)
    cost, passes = cost_of(found, asked.faster), _by_epoch(found.passes, train.epochs)
    at = predict(cost, train.batch_size, asked.nodes, asked.gpus, asked.links)
    most = _units(passes[last])
    # What an update of the last epoch costs, in proportion to its passes.
    shares = [_units(each) / most for each in passes]
    training = batches * sum(at.computing * share + at.exchange for share in shares) / asked.efficiency
    samples, checks = _validated(recipe, found), math.ceil(train.epochs / recipe.validate.every)
    validation = (
        checks * samples * _units(validating) / most * cost.row / at.devices / asked.efficiency
        if validating.known and samples is not None
        else None
    )
    hours = {"training": training / 3600, "validation": None if validation is None else validation / 3600}
    total = sum(value for value in hours.values() if value is not None)
    mean = [sum(each[side] for each in passes) / len(passes) for side in (0, 1)]
    memories, at_once = found.memories * found.samples, min(at.rows, train.micro_batch or at.rows)
    limit, why = breaks(cost, train.batch_size, asked.gpus, asked.links)
    return {
        "recipe": name,
        "nodes": asked.nodes,
        "gpus": asked.gpus,
        "rows": int(at.rows),
        "batch_size": train.batch_size,
        "epochs": train.epochs,
        "updates": batches * train.epochs,
        "passes": {
            "forwards_per_sample": mean[0],
            "backwards_per_sample": mean[1],
            "total": sum(mean) * found.samples * train.epochs,
        },
        "update": {"seconds": at.seconds, "computing": at.computing, "exchange": at.exchange},
        "efficiency": at.efficiency * asked.efficiency,
        "hours": {**hours, "total": total},
        "device_hours": total * at.devices,
        "cost": None if asked.price is None else total * at.devices * asked.price,
        "memory": {
            "bytes": found.state + memories + found.row * at_once if found.row else None,
            "state": found.state + memories,
            "row": found.row or None,
        },
        "checkpoint_bytes": found.checkpoint + memories,
        "scaling": {"breaks_at": limit, "why": why, "table": table(cost, train.batch_size, asked)},
        "measured": {
            "device": found.device,
            "seconds": {str(rows): took for rows, took in found.seconds.items()},
            "passes": {str(epoch): list(each) for epoch, each in sorted(found.passes.items())},
            "fixed": cost.fixed * asked.faster,
            "row": cost.row * asked.faster,
            "gradient_bytes": found.parameters,
        },
        "assumed": {**dataclasses.asdict(asked.links), "faster": asked.faster, "reached": asked.efficiency},
        "how": list(_words(recipe, asked, found, at)),
    }


def table(cost: UpdateCost, rows: int, asked: Asked) -> list[dict[str, Any]]:
    """Return the model's updates on 1, 8, 64 and 512 devices, or on the whole nodes that are nearest.

    Each is given for the batch of the recipe, and for as many rows on each device as asked for.

    Args:
        cost: what an update costs.
        rows: rows of the global batch.
        asked: links, and the devices of a node.
    """
    own = math.ceil(rows / (asked.nodes * asked.gpus))
    found = []
    for each in DEVICES:
        nodes, gpus = whole_nodes(each, asked.gpus)
        devices = nodes * gpus
        strong = predict(cost, rows, nodes, gpus, asked.links) if devices <= rows else None
        weak = predict(cost, own * devices, nodes, gpus, asked.links)
        found.append(
            {
                "devices": devices,
                "strong": None if strong is None else dataclasses.asdict(strong),
                "weak": dataclasses.asdict(weak),
            }
        )
    return found


def _validated(recipe: Recipe, found: Measured) -> int | None:
    """Return the number of samples of a validation; None if all are taken of a split that is not known."""
    asked = recipe.validate.samples
    if asked is None or found.validation is None:
        return found.validation if asked is None else asked
    return min(asked, found.validation)


def _units(passes: Sequence[float]) -> float:
    return passes[0] + _BACKWARD * passes[1]


def _by_epoch(tried: Mapping[int, tuple[float, float]], epochs: int) -> list[tuple[float, float]]:
    """Return the passes of each epoch: between two that were tried, the greater."""
    found = [tried[min(tried)]] * epochs
    for low, high in itertools.pairwise(sorted(tried)):
        most = max(tried[low], tried[high], key=_units)
        found[low + 1 : high] = [most] * (high - low - 1)
        found[low], found[high] = tried[low], tried[high]
    return found


def _words(recipe: Recipe, asked: Asked, found: Measured, at: Prediction) -> list[str]:
    """Return how the estimate was made, in sentences."""
    rows, epochs = sorted(found.seconds), sorted(found.passes)
    links = asked.links
    unmeasured = exchange_seconds(found.parameters, asked.nodes, asked.gpus, links)
    words = [
        f"Measured here, on a {found.device}: updates of the recipe with "
        f"{', '.join(map(str, rows))} rows, of {at.rows:.0f} on a device; a line through the smallest and "
        "the largest gives the time of other numbers.",
        f"Measured here: the passes of a sample in epoch {', '.join(str(epoch + 1) for epoch in epochs)}; "
        "where they differ between two of these, the greater number counts for all between them.",
        "Measured here: the sizes of weights, optimizer and memories, exactly; and "
        + ("what an update needs for each row." if found.row else "not what an update needs for each row."),
        f"Assumed: a device computes {asked.faster:g} times as fast as that one, and "
        f"{asked.efficiency:.0%} of the speed is reached, for stragglers and the reading of data.",
    ]
    if found.relabelled:
        words.append(
            "Assumed: the model is right about every clean sample. The passes of the method depend on that, "
            "and those of a trained model will be fewer."
        )
    batch = recipe.train.batch_size
    known = {at.devices, *(math.prod(whole_nodes(each, asked.gpus)) for each in DEVICES)}
    if uneven := [f"{each}" for each in sorted(known) if each <= batch and batch % each]:
        words.append(
            f"On {' and '.join(uneven)} devices, {batch} rows cannot be divided equally: some devices have a "
            "row less than others, and wait for them. The time is that of those with more."
        )
    if at.devices > 1:
        words.append(
            f"Assumed: {links.within / 1e9:g} GB/s between the devices of a node, {links.between / 1e9:g} "
            f"GB/s between nodes, {links.latency * 1e6:g} µs for a message. An update exchanges its "
            f"gradients once, {found.parameters / 1e6:.1f} MB in {unmeasured:.2g} s, and does not compute "
            "meanwhile; attacks exchange nothing."
        )
        if recipe.train.sync_batch_norm:
            words.append("Not in it: what BatchNorm exchanges in every pass, in attacks with it, too.")
    if asked.stand_in is not None:
        words.append(
            "The data are random numbers that stand in for those of the task: reading is not seen, and the "
            "validation split is assumed to have as many samples as are asked for."
        )
    words.append("Not in it: the queue of the cluster, its failures, and the final evaluation.")
    return words
