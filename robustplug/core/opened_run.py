"""The interface of an opened run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn

    from .method import Method
    from .task import Task
    from .types import Result


@runtime_checkable
class OpenedRun(Protocol):
    """A run folder whose model, data and method are loaded; `open_run` returns one."""

    @property
    def model(self) -> nn.Module:
        """Return the exported model, in eval mode."""
        ...

    @property
    def trained(self) -> nn.Module:
        """Return the model of the checkpoint, before the method's export."""
        ...

    @property
    def epochs(self) -> int:
        """Return the number of whole epochs that the model was trained for."""
        ...

    @property
    def folder(self) -> Path:
        """Return the run folder."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """Return the problems of newer checkpoints, which could not be used."""
        ...

    @property
    def recipe(self) -> Any:
        """Return the recipe as it was resolved when the run started."""
        ...

    @property
    def name(self) -> str:
        """Return the recipe's name."""
        ...

    @property
    def task(self) -> Task:
        """Return the task, which provides the data."""
        ...

    @property
    def method(self) -> Method[Any]:
        """Return the method, with its memory and parameters as trained."""
        ...

    @property
    def device(self) -> str:
        """Return the device of the models."""
        ...

    def evaluate(self, model: nn.Module, samples: int | None = None) -> Result:
        """Evaluate a module as the run's recipe specifies.

        Args:
            model: a module for the same task, in eval mode.
            samples: number of samples, taken from the start of the split; None for the recipe's number.
        """
        ...
