"""What an exported file contains: a module, and what there is to say about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..plugin.registry import GIVEN
from ..recipe.write import use_to_mapping
from ..subjects.data.arrays import extremes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..core.types import TaskInfo
    from ..recipe.options import Recipe


@dataclass(frozen=True)
class Content:
    """Hold what is exported.

    Attributes:
        module: the exported module of the run, in eval mode on the CPU, with its normalisation inside.
        example: inputs of two samples (2, …), float32.
        recipe: the resolved recipe of the run.
        info: the task of the run.
        shape, classes: shape of one input, and number of logits.
    """

    module: nn.Module
    example: Tensor
    recipe: Recipe
    info: TaskInfo
    shape: tuple[int, ...]
    classes: int

    def model_table(self) -> dict[str, Any]:
        """Return the table of the model component, by which a state dict is loaded again.

        Raises:
            RunError: the model is a Python object, which no recipe names.
        """
        assert self.recipe.model is not None
        if self.recipe.model.name == GIVEN:
            raise RunError(
                "the model was given from Python, so a file of weights cannot name it: export it with "
                "--to onnx or torch-export; model.safetensors in the run folder contains the weights"
            )
        # Without what matters only for training: the weights that it starts from, and what is frozen.
        return use_to_mapping(replace(self.recipe.model, start=None, more=None))

    def statement(self) -> dict[str, Any]:
        """Return what a file states about its model, as JSON values."""
        return {
            "version": version("robustplug"),
            "model": self.model_table(),
            "method": self.recipe.method.name,
            "task": self.recipe.task.name,
            "shape": list(self.shape),
            "bounds": extremes(self.info.bounds),
            "classes": self.classes,
            **({"class_names": list(self.info.class_names)} if self.info.class_names else {}),
        }
