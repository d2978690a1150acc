"""Load the results of training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import Refused, RunError
from ..recipe.errors import RecipeError
from ..runs import checkpoint
from ..runs.checkpoint import Checkpoint, fixed_shape
from ..runs.choose import stored_recipe
from ..runs.folder import CHECKPOINTS, MODEL
from ..runs.stored import open_stored

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..core.types import TaskInfo
    from ..devices.processes import Processes
    from ..recipe.options import Recipe
    from .assemble import Parts


class Loaded(NamedTuple):
    """Hold the model of a loaded checkpoint, and its parts.

    Attributes:
        parts: the parts of the run.
        exported: the exported module, in eval mode.
        problems: what was missing, damaged or edited in the folder.
        trained: the module before the method's export.
        epochs: number of whole epochs before the checkpoint.
    """

    parts: Parts
    exported: nn.Module
    problems: list[str]
    trained: nn.Module
    epochs: int


def load_run(folder: Path, recipe: Recipe, processes: Processes, last: bool = False) -> Loaded:
    """Load the selected checkpoint of a run and export its model.

    Args:
        folder: the run folder.
        recipe: the resolved recipe of the run; only `evaluate` may have changed.
        processes: the processes that determine the model's device.
        last: load the newest checkpoint instead of the selected one.

    Raises:
        RunError: no checkpoint is usable.
    """
    from .assemble import assemble

    parts = assemble(recipe, processes.device)
    parts.set_up(processes.device)
    stored = open_stored(folder)
    newest, problems = checkpoint.load_newest(folder / CHECKPOINTS, stored.manifest)
    problems = [*stored.notes, *(f"{problem}; {newest.name} is used" for problem in problems)]
    selected = newest
    if not last:
        selected, _, notes = checkpoint.load_selected(folder / CHECKPOINTS, newest, stored.manifest)
        problems += notes
    model = trained_weights(selected, parts.model, parts.method.state)
    return Loaded(parts, parts.method.export(model).eval(), problems, model, int(selected.meta["epoch"]))


def load_part(checkpoint: Checkpoint, part: str, module: nn.Module) -> None:
    """Copy one part of a checkpoint into a module.

    Args:
        checkpoint: the checkpoint to copy from.
        part: "model", "ema" or "state".
        module: the module to copy into, with the same names and shapes.

    Raises:
        RunError: names or shapes differ.
    """
    own = module.state_dict()
    prefix = f"{part}/"
    saved = {k.removeprefix(prefix): v for k, v in checkpoint.tensors.items() if k.startswith(prefix)}
    if {k: fixed_shape(k, v) for k, v in own.items()} != {k: fixed_shape(k, v) for k, v in saved.items()}:
        raise RunError(f"checkpoint {checkpoint.name} does not fit this {part}")
    try:
        module.load_state_dict(saved)
    except RuntimeError as error:
        raise RunError(f"checkpoint {checkpoint.name} does not fit this {part}: {error}") from error


def trained_weights(checkpoint: Checkpoint, model: nn.Module, state: nn.Module) -> nn.Module:
    """Load a checkpoint for evaluation and return the model, with averaged weights if there are any.

    Raises:
        RunError: the checkpoint does not belong to this model and method.
    """
    load_part(checkpoint, "state", state)
    if bool(checkpoint.tensors.get("ema/n_averaged", False)):
        from torch.optim.swa_utils import AveragedModel

        averaged = AveragedModel(model)
        load_part(checkpoint, "ema", averaged)
        return averaged.module
    load_part(checkpoint, "model", model)
    return model


def open_model(folder: str | Path, info: TaskInfo, device: torch.device | str = "cpu") -> nn.Module:
    """Build the model of a finished run and load its exported weights, without opening its data.

    Args:
        folder: the run folder.
        info: the task that the model is built for, which may differ from the task of the run.
        device: device of the model.

    Raises:
        Refused: the folder contains no finished run, or the weights do not fit this task.
    """
    from ..core.random import isolated
    from .assemble import build_part
    from .formats.weights import fit, read_state

    path = Path(folder)
    try:
        recipe = stored_recipe(path)
        if recipe.model is None or not (path / MODEL).is_file():
            raise RunError(f"{path} contains no finished run: {MODEL} is missing")
        with isolated(0):
            model: nn.Module = build_part(recipe.model, "model", "model", info=info)
        state, _ = read_state(path / MODEL)
        fit(model, state, path / MODEL, f'model "{recipe.model.name}"', "it was trained on another task")
    except (RunError, RecipeError) as error:
        raise Refused(str(error)) from error
    return model.to(device).eval()
