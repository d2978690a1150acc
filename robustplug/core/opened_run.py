"""What there is to see of a run that is opened."""

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
        """Return the model as in the checkpoint, before the method's export."""
        ...

    @property
    def epochs(self) -> int:
        """Return the whole epochs that it has been trained for."""
        ...

    @property
    def folder(self) -> Path:
        """Return the folder of the run."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """Tell what is wrong with newer checkpoints."""
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
        """Return the data."""
        ...

    @property
    def method(self) -> Method[Any]:
        """Return the method, with its memory and parameters as trained."""
        ...

    @property
    def device(self) -> str:
        """Return where the models are."""
        ...

    def evaluate(self, model: nn.Module, samples: int | None = None) -> Result:
        """Evaluate a module as the run's recipe says.

        Args:
            model: of the same task, in eval mode.
            samples: use only the first so many; None for what the recipe says.
        """
        ...
