"""TorchScript and torch.export programs."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ...errors import RunError
from .adapter import Opened, Sizes, manageable
from .archive import check_archive, check_script
from .contents import first_line


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress torch's warnings about deprecation and versions."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def open_script(path: Path, device: torch.device) -> Opened:
    """Load a TorchScript file, in eval mode.

    Raises:
        RunError: the file cannot be loaded.
    """
    check_script(path)
    try:
        with _quiet():
            module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
            module.eval()
    except Exception as error:  # whatever a damaged file makes torch raise
        raise RunError(
            f"{path} is a TorchScript file that cannot be loaded: {first_line(error)}; script or trace the "
            "model again with the installed torch version"
        ) from error
    return Opened(manageable(module), "torchscript", str(path))


def open_export(path: Path, shape: tuple[int, ...], device: torch.device) -> Opened:
    """Load a file written by torch.export.save.

    Raises:
        RunError: the file cannot be loaded or could run code, or its inputs are of another kind.
    """
    check_archive(path)
    try:
        # A file object, since torch warns about names that do not end in .pt2.
        with _quiet(), path.open("rb") as file:
            program = torch.export.load(file)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise RunError(
            f"{path} is a torch.export file that cannot be loaded: {first_line(error)}; export the model "
            "again with the installed torch version"
        ) from error
    for parameter in program.parameters():
        parameter.requires_grad_(False)  # attacks cannot reach them later
    return open_program(program, str(path), shape, device)


def open_program(program: ExportedProgram, name: str, shape: tuple[int, ...], device: torch.device) -> Opened:
    """Turn an exported program into a function.

    Raises:
        RunError: its inputs are of another kind, or it cannot be moved to the device.
    """
    from torch.export.passes import move_to_device_pass

    sizes, dtype = _input(program, name, shape)
    try:
        with _quiet():
            program = move_to_device_pass(program, str(device))
            # Guards would repeat these checks in Python code at every call.
            known = inspect.signature(program.module).parameters
            module = program.module(check_guards=False) if "check_guards" in known else program.module()
    except Exception as error:
        raise RunError(f"{name} cannot be moved to {device}: {first_line(error)}") from error
    function: Callable[[Tensor], Any] = module.__call__

    def call(x: Tensor) -> Any:
        return function(x.to(dtype))

    return Opened(call, "export", name, sizes=sizes)


def _input(program: ExportedProgram, name: str, shape: tuple[int, ...]) -> tuple[Sizes, torch.dtype]:
    """Return the batch sizes and the dtype that a program accepts.

    Raises:
        RunError: the program does not accept images of this shape.
    """
    wanted = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in wanted]
    if len(values) != 1 or not isinstance(values[0], Tensor):
        raise RunError(f"{name} takes {len(values)} inputs, but it must take only the images")
    (images,) = values
    fixed = [size if isinstance(size, int) else None for size in images.shape]
    check_shape(name, fixed, shape)
    if not images.is_floating_point():
        raise RunError(f"{name} takes {images.dtype} images, but they must be floating-point, in [0, 1]")
    if fixed[0] is not None:
        return Sizes(fixed[0], fixed[0]), images.dtype
    symbol = images.shape[0].node.expr
    bounds = program.range_constraints.get(symbol) if symbol.is_Symbol else None
    if bounds is None:
        raise RunError(
            f"{name} accepts only batches of {symbol} images; export it with a dynamic batch size: "
            'torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))'
        )
    least = int(bounds.lower) if bounds.lower.is_Integer else 1
    return Sizes(max(least, 1), int(bounds.upper) if bounds.upper.is_Integer else None), images.dtype


def fits(sizes: list[int | None], shape: tuple[int, ...]) -> bool:
    """Return whether a program's input (N, …), with None for any size, takes inputs of a shape."""
    here = sizes[1:]
    return len(here) == len(shape) and all(a in (b, None) for a, b in zip(here, shape, strict=True))


def check_shape(name: str, sizes: list[int | None], shape: tuple[int, ...]) -> None:
    """Compare the fixed sizes of a program's input (N, …) with the shape of a task's images.

    Raises:
        RunError: they differ.
    """
    if not fits(sizes, shape):
        text = ", ".join("any" if size is None else str(size) for size in sizes[1:])
        raise RunError(
            f"{name} takes images of shape ({text}), but those of the task are {shape}, as (C, H, W): export "
            "the model for images of this shape, or choose the task that it was trained on"
        )
