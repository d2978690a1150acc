"""Start, resume and load runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.types import Feed
from ..errors import Refused, RunError
from ..recipe.errors import RecipeError
from ..runs import checkpoint
from ..runs.folder import CHECKPOINTS, MODEL

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..core.method import Method
    from ..core.task import Task
    from ..core.types import Result, TaskInfo
    from ..devices.processes import Processes
    from ..recipe.options import Recipe
    from .assemble import Parts

from ..runs.choose import stored_recipe


class Loaded(NamedTuple):
    """Hold what a checkpoint gives.

    Attributes:
        parts: of the run.
        exported: module, in eval mode.
        problems: what is wrong with newer checkpoints.
        trained: the module before the method's export.
        epochs: whole epochs that the checkpoint was taken after.
    """

    parts: Parts
    exported: nn.Module
    problems: list[str]
    trained: nn.Module
    epochs: int


def load_run(folder: Path, recipe: Recipe, processes: Processes, last: bool = False) -> Loaded:
    """Load the selected checkpoint of a run and export its model.

    Args:
        folder: of the run.
        recipe: its resolved recipe; only `evaluate` may have been changed.
        processes: say where to put the model.
        last: load the newest checkpoint instead, whatever was selected.

    Raises:
        RunError: no checkpoint can be used.
    """
    from .assemble import assemble
    from .session import trained_weights

    parts = assemble(recipe, processes.device)
    parts.set_up(processes.device)
    newest, problems = checkpoint.load_newest(folder / CHECKPOINTS)
    best = newest.meta["best"]
    selected = newest
    if best is not None and best[0] != newest.name and not last:
        try:
            selected = checkpoint.load(folder / CHECKPOINTS, best[0])
        except (ValueError, OSError) as error:
            raise RunError(f"the selected checkpoint of {folder} cannot be used: {error}") from error
    model = trained_weights(selected, parts.model, parts.method.state)
    return Loaded(parts, parts.method.export(model).eval(), problems, model, int(selected.meta["epoch"]))


@dataclass(frozen=True)
class OpenedRun:
    """Hold a run to look at.

    Attributes:
        model: exported, in eval mode.
        trained: as in the checkpoint, before the method's export.
        parts: its recipe, task and method, with the method's memory and parameters as trained.
        processes: says where the models are.
        epochs: whole epochs that it has been trained for.
        folder: of the run.
        problems: what is wrong with newer checkpoints.
    """

    model: nn.Module
    trained: nn.Module
    parts: Parts
    processes: Processes
    epochs: int
    folder: Path
    problems: Sequence[str] = ()

    @property
    def recipe(self) -> Recipe:
        """Return the recipe as it was resolved when the run started."""
        return self.parts.recipe

    @property
    def name(self) -> str:
        """Return the recipe's name."""
        return self.parts.recipe.name

    @property
    def task(self) -> Task:
        """Return the data."""
        return self.parts.task

    @property
    def method(self) -> Method[Any]:
        """Return the method."""
        return self.parts.method

    @property
    def device(self) -> str:
        """Return where the models are."""
        return str(self.processes.device)

    def evaluate(self, model: nn.Module, samples: int | None = None) -> Result:
        """Evaluate a module as the run's recipe says.

        Args:
            model: of the same task, in eval mode.
            samples: use only the first so many; None for what the recipe says.
        """
        from ..core.reporting import Silent
        from ..devices.precision import fitting_threads
        from .results import Asked, evaluate_parts

        parts = self.parts
        if samples is not None:
            options = dataclasses.replace(parts.recipe.evaluate, samples=samples)
            parts = dataclasses.replace(parts, recipe=dataclasses.replace(parts.recipe, evaluate=options))
        feed = Feed(batch_size=parts.recipe.train.batch_size)
        with fitting_threads(next(iter(parts.task.batches("train", feed))).x):
            return evaluate_parts(parts, model, self.processes, Silent(), Asked())


def open_run(folder: str | Path, device: str = "auto", last: bool = False) -> OpenedRun:
    """Open a run folder to look at what was trained.

    Args:
        folder: of the run.
        device: "auto", "cpu", "cuda" or "mps".
        last: open the newest checkpoint instead of the selected one.

    Raises:
        RunError: the folder holds no run, or no checkpoint of it can be used.
    """
    from ..devices.processes import start

    recipe = stored_recipe(Path(folder))
    processes = start(device, "float32")
    found = load_run(Path(folder), recipe, processes, last)
    return OpenedRun(
        found.exported,
        found.trained,
        found.parts,
        processes,
        found.epochs,
        Path(folder),
        tuple(found.problems),
    )


def open_model(folder: str | Path, info: TaskInfo, device: torch.device | str = "cpu") -> nn.Module:
    """Build the model of a finished run and load its exported weights; its data is not opened.

    Args:
        folder: of the run.
        info: of the task that it is built for, which need not be that of the run.
        device: where to put it.

    Raises:
        Refused: the folder holds no finished run, or the weights do not fit this task.
    """
    from ..core.random import isolated
    from ..targets.weights import fit, read_state
    from .assemble import build_part

    path = Path(folder)
    try:
        recipe = stored_recipe(path)
        if recipe.model is None or not (path / MODEL).is_file():
            raise RunError(f"{path} holds no finished run: there is no {MODEL} in it")
        with isolated(0):
            model: nn.Module = build_part(recipe.model, "model", "model", info=info)
        state, _ = read_state(path / MODEL)
        fit(model, state, path / MODEL, f'model "{recipe.model.name}"', "it was trained on another task")
    except (RunError, RecipeError) as error:
        raise Refused(str(error)) from error
    return model.to(device).eval()


def load_start(recipe: Recipe, model: nn.Module) -> str:
    """Load the weights that a recipe's model starts from, and return their digest.

    Args:
        recipe: whose model has a `from`: a run folder, or a file with a state dict.
        model: as built, before any method's setup.

    Raises:
        RunError: they are not there, or do not fit.
    """
    from ..targets.weights import fit, read_state
    from .transfer import weights_digest

    assert recipe.model is not None
    assert recipe.model.start is not None
    path = Path(recipe.model.start)
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        missing = "is not there" if not path.exists() else f"holds no finished run: there is no {MODEL} in it"
        raise RunError(f"the model cannot start from {path}: it {missing}")
    state, _ = read_state(file)
    fit(model, state, file, f'model "{recipe.model.name}"', "give the model the options of that run")
    return weights_digest(model)
