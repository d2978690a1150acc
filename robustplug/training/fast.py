"""Choose how the updates of a run are run, and build what runs them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..core.calling.operations import forward_operations
from ..core.method import needs_sync, nested
from ..core.random import derive, isolated
from ..core.types import Cost
from ..devices.graphs import graphs_on, short, uncapturable_exchange
from ..errors import ends_program
from ..recipe.errors import Problem, RecipeError
from .running.captured import Captured, Whole
from .running.compiled import Compiled, compiled_call

if TYPE_CHECKING:
    from torch import nn

    from ..core.method import Method
    from .loop import Loop
    from .running.update import Runner

Fast = Literal["off", "capture", "compile", "compile+capture"]

# Floating-point operations of a whole training, for each layer of the model, from which compiling pays.
# PGD-AT(10) on a ResNet-18, which has 41 layers, makes 4.7e12 operations in an update of 128 pictures, of
# which compiling saves 11 ms on an H200. If it takes a minute, it pays from 5,300 updates on: 2.5e16
# operations.
WORTHWHILE = 6e14


def choose_fast(
    option: Fast | Literal["auto"] | None,
    device: torch.device,
    world: int,
    waits: bool,
    pays: Callable[[], bool],
) -> Fast:
    """Return how updates run.

    "auto" follows from the hardware, the model and the length of the run, so that every start chooses the
    same: capture on CUDA in a single process, unless the method waits for the device, and compile there if
    the training is long.

    Args:
        option: value of `train.fast`.
        device: device of the run.
        world: number of processes.
        waits: whether the method declares that it waits for the device.
        pays: returns whether compiling pays, see `compiling_pays`; only called if it can be compiled.

    Raises:
        RecipeError: a graph is requested on a device that has none.
    """
    cuda = device.type == "cuda"
    if option is None or option == "auto":
        if not cuda or world > 1:
            return "off"
        if can_compile(device) and pays():
            return "compile" if waits else "compile+capture"
        return "off" if waits else "capture"
    if "capture" in option and not cuda:
        why = f'= "{option}" needs a CUDA device, and this run is on {device.type}: set it to "auto"'
        raise RecipeError([Problem("train.fast", why)], "recipe")
    return option


def can_compile(device: torch.device) -> bool:
    """Return whether torch compiles for a CUDA device: with Triton, which needs compute capability 7.0."""
    there = importlib.util.find_spec("triton") is not None
    return there and torch.cuda.get_device_capability(device) >= (7, 0)


def compiling_pays(model: nn.Module, x: object, method: Method[Any], batches: int, seed: int) -> bool:
    """Return whether a training makes so many operations that compiling the model pays.

    The operations of a pass backwards count as two passes forwards.

    Args:
        model: model on its device; not changed.
        x: a training batch.
        method: the method, whose cost counts; where that depends on the data, one pass in each direction.
        batches: number of batches of the whole training.
        seed: seed of the global generator meanwhile.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return False
    cost = method.cost()
    forwards, backwards = cost if cost.known else Cost(1, 1)
    with isolated(derive(seed, "operations"), x.device):
        operations = forward_operations(model, x)
    layers = sum(1 for part in model.modules() if next(part.parameters(recurse=False), None) is not None)
    return batches * operations * (forwards + 2 * backwards) >= WORTHWHILE * max(1, layers)


def runner_for(loop: Loop, fast: Fast, x: object, tell: Callable[[str], None]) -> Runner:
    """Return what runs the updates of a loop.

    Args:
        loop: the loop, with its optimizers.
        fast: as `choose_fast` returns it.
        x: a training batch.
        tell: called with a sentence on what cannot be done, and on what compiling took.
    """
    runner, device = loop.runner, loop.processes.device
    if "capture" in fast and (graphs := graphs_on(device, [loop.generator])) is not None:
        processes, several = loop.processes, loop.processes.world > 1
        whole = Whole(
            loop.compute,
            {"method": loop.method, "model": loop.model},
            loop.optimizers,
            list(loop.method.state.memories()),
            loop.meter,
            device,
            (lambda own: not processes.any(not own)) if several else None,
        )
        never = uncapturable_exchange(device) if several else None
        if several and loop.task.info.shape is None:
            never = "processes must replay together, and their batches may differ in shape"
        if needs_sync(loop.method):
            never = "the method, or a component of it, declares that it waits for the device (needs_sync)"
        runner = Captured(whole, graphs, tell, never)
    if "compile" in fast:
        try:
            if not isinstance(x, Tensor) or not x.is_floating_point():
                raise ValueError("its inputs are no floating-point tensors")
            if any(each.second_order for each in nested(loop.method)):
                raise ValueError("the method needs second derivatives")
            call, seconds = compiled_call(loop.model, x, derive(loop.seed, "compile"))
        except Exception as error:
            if ends_program(error):
                raise
            tell(f"the model is not compiled, so updates are slower: {short(error)}")
        else:
            tell(f"compiled the model in {seconds:.0f} s, less where torch has kept it from an earlier run")
            runner = Compiled(runner, loop.model, call)
    return runner
