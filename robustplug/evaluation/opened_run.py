"""Open a run folder to inspect the trained model, and to evaluate it further."""

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
    """Hold an opened run.

    Attributes:
        model: the exported model, in eval mode.
        trained: the model of the checkpoint, before the method's export.
        parts: recipe, task and method of the run, with the method's memory and parameters as trained.
        processes: the processes that determine the device of the models.
        epochs: number of whole epochs of training.
        folder: the run folder.
        problems: what was missing, damaged or edited in the folder.
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
        """Return the device of the models."""
        return str(self.processes.device)

    def evaluate(self, model: nn.Module, samples: int | None = None) -> Result:
        """Evaluate a module with the evaluation settings of the run's recipe.

        Args:
            model: a module for the same task, in eval mode.
            samples: number of samples, taken from the start of the split; None for the recipe's number.
        """
        from ..core.reporting import Silent
        from ..devices.precision import fitting_threads
        from ..subjects.subject import Subject
        from ..subjects.wrapping import under_test
        from .results import Asked, evaluate_subject

        parts = self.parts
        if samples is not None:
            options = dataclasses.replace(parts.recipe.evaluate, samples=samples)
            parts = dataclasses.replace(parts, recipe=dataclasses.replace(parts.recipe, evaluate=options))
        with fitting_threads(parts.typical_input):
            subject = under_test(Subject(parts, model, self.processes, Silent()))
            return evaluate_subject(subject, Asked())


def open_run(folder: str | Path, device: str = "auto", last: bool = False) -> LoadedRun:
    """Open a run folder to inspect the trained model.

    Args:
        folder: the run folder.
        device: "auto", "cpu", "cuda" or "mps".
        last: open the newest checkpoint instead of the selected one.

    Raises:
        RunError: the folder contains no run, or no usable checkpoint.
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
