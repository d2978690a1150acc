"""Make the session of a run: choose what is "auto", set up the method, and build the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..core.calling.operations import forward_operations
from ..core.method import needs_sync
from ..core.protocols import SelfTrained
from ..core.random import derive, isolated
from ..core.types import Progress
from ..devices.precision import HALVES, HalfPrecision, choose_channels_last, choose_precision
from ..devices.processes import start
from ..errors import Refused, RunError
from ..recipe.errors import Problem, RecipeError
from ..subjects.assemble import build_part
from ..subjects.tuning import grouped
from .fast import Fast, choose_fast, compiling_pays, runner_for
from .fitting import Fitting, refuse_what_has_no_effect
from .loop import Loop
from .optim import Optimizers, progress_at
from .running.average import Average, averaging_of
from .running.layers import recompute, synchronise
from .running.micro import first_part, refuse_whole_batch
from .session import Session
from .watch import untouched

if TYPE_CHECKING:
    from torch import nn

    from ..devices.processes import Processes
    from ..subjects.assemble import Parts
    from .data import TrainingData
    from .store import Store


def make_session(
    parts: Parts, data: TrainingData, processes: Processes, store: Store, tell: Callable[[str], None]
) -> Session:
    """Return the session of a run at its start; the recipe of its parts gets what was chosen for "auto".

    Args:
        parts: the parts of the run.
        data: serves its batches.
        processes: those that were started for the assembly; the session has others, of the chosen precision.
        store: the run's folder, which knows the recipes that the run had before.
        tell: called with a sentence on what cannot be done.

    Raises:
        RecipeError: a setting does not fit the model, the method or the optimizer.
        RunError: there are fewer samples than processes, or there is nothing to train.
    """
    x = data.first().x
    train = parts.recipe.train
    channels_last = choose_channels_last(train.channels_last, x)
    if channels_last:
        parts.model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    part = first_part(x, train.micro_batch)
    asked = train.precision
    if asked == "auto" and train.attack_precision in HALVES:
        asked = "float32"  # attacks alone are in half precision
    with isolated(derive(parts.recipe.seed, "precision"), processes.device):
        model = parts.model
        chosen_type = choose_precision(asked, model, part, lambda: forward_operations(model, part))
        half = chosen_type == "bfloat16"
    precision: Literal["float32", "bfloat16"] = "bfloat16" if processes.from_main(half) else "float32"
    fast = _fast(parts, data, processes, x)
    chosen = dataclasses.replace(train, precision=precision, channels_last=channels_last, fast=fast)
    parts.recipe = dataclasses.replace(parts.recipe, train=chosen)
    with untouched(parts.method):
        groups = parts.set_up(processes.device)
    by_itself = isinstance(parts.model, SelfTrained)
    if not by_itself and not any(each.requires_grad for group in groups for each in group.params):
        raise RunError("no parameter of the model requires a gradient, so that there is nothing to train")
    if by_itself:
        refuse_what_has_no_effect(parts, groups, processes.world)
        groups = []
    elif train.micro_batch is not None:
        refuse_whole_batch(parts.method)
    schedule = build_part(parts.recipe.schedule, "schedule", "schedule")
    own = [] if by_itself else grouped(parts.model, parts.recipe.optimizer.more)
    optimizers = Optimizers(groups, parts.recipe.optimizer, schedule, train.clip_grad_norm, own)
    rule = averaging_of(parts.method, train.ema_decay)
    processes = start(train.device, precision)
    inside = {id(parameter) for parameter in parts.model.parameters()}
    wrapped = processes.wrap(parts.model, "capture" in fast)
    if train.sync_batch_norm and processes.world > 1:
        synchronise(parts.model)
    if train.checkpoint_activations:
        recompute(parts.model)
    loop = (Fitting if by_itself else Loop)(
        parts.model,
        wrapped,
        parts.method,
        parts.task,
        optimizers,
        processes,
        parts.recipe.seed,
        train.epochs,
        data.count,
        channels_last,
        None if rule is None else Average(rule, parts.model),
        [parameter for parameter in optimizers.parameters() if id(parameter) not in inside],
        class_weights=data.class_weights,
        micro_batch=train.micro_batch,
        attacked=_attacked(parts, train.attack_precision, precision),
    )
    if not loop.batches:
        raise RunError("the training split has fewer samples than there are processes")
    if not by_itself:
        _check_schedule(loop)
        if processes.device.type == "cuda":
            optimizers.rates_on(processes.device, torch.float32)
        loop.runner = runner_for(loop, fast, part, tell)
        loop.ready = data.ready if "capture" in fast else None
    earlier = frozenset[str]() if store.manifest is None else store.manifest.recipes
    digest = store.digest_for(parts.recipe)
    return Session(loop, digest, earlier=earlier, batches_with=data.count_with)


def _attacked(parts: Parts, option: str | None, precision: str) -> Callable[[nn.Module], nn.Module] | None:
    """Return what gives attacks the model, or a stand-in of it, in half precision.

    Raises:
        RecipeError: the model computes in half precision itself, or the method attacks nothing.
    """
    if option is None or option not in HALVES:
        return None
    if precision == "bfloat16":
        why = f'= "{option}" has no effect with train.precision = "bfloat16", in which attacks are, too'
        raise RecipeError([Problem("train.attack_precision", f"{why}: leave one of them out")], "recipe")
    cost, loss = parts.method.cost(), parts.method.loss_cost()
    passes = len(parts.method.passes(Progress()))
    if tuple(cost) == (passes * loss.forwards, passes * loss.backwards):
        why = f'has no effect: the method "{parts.recipe.method.name}" attacks nothing; leave it out'
        raise RecipeError([Problem("train.attack_precision", why)], "recipe")
    return HalfPrecision(parts.model, HALVES[option]).around


def _check_schedule(loop: Loop) -> None:
    """Refuse a schedule that does not fit the optimizer, before anything is trained.

    Raises:
        RecipeError: it does not fit.
    """
    try:
        loop.optimizers.set_rates(progress_at(0, loop.epochs, loop.batches))
    except Refused as reason:
        raise RecipeError([Problem("schedule", str(reason), None, None)], "recipe") from reason


def _fast(parts: Parts, data: TrainingData, processes: Processes, x: Any) -> Fast:
    """Choose how updates run."""
    train = parts.recipe.train
    if isinstance(parts.model, SelfTrained):
        return "off" if train.fast is None or train.fast == "auto" else train.fast

    def pays() -> bool:
        batches = train.epochs * data.count
        return compiling_pays(parts.model, x, parts.method, batches, parts.recipe.seed)

    return choose_fast(train.fast, processes.device, processes.world, needs_sync(parts.method), pays)
