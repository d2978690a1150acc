"""Open a run folder to see what was trained, and to evaluate more of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runs.choose import stored_recipe
from ..subjects.trained import load_run

if TYPE_CHECKING:
    from torch import nn

    from ..core.method import Method
    from ..core.task import Task
    from ..core.types import Result
    from ..devices.processes import Processes
    from ..recipe.options import Recipe
    from ..subjects.assemble import Parts


@dataclass(frozen=True)
class LoadedRun:
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
        from ..subjects.subject import Subject
        from .results import Asked, evaluate_subject

        parts = self.parts
        if samples is not None:
            options = dataclasses.replace(parts.recipe.evaluate, samples=samples)
            parts = dataclasses.replace(parts, recipe=dataclasses.replace(parts.recipe, evaluate=options))
        with fitting_threads(parts.typical_input):
            return evaluate_subject(Subject(parts, model, self.processes, Silent()), Asked())


def open_run(folder: str | Path, device: str = "auto", last: bool = False) -> LoadedRun:
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
    return LoadedRun(
        found.exported,
        found.trained,
        found.parts,
        processes,
        found.epochs,
        Path(folder),
        tuple(found.problems),
    )
