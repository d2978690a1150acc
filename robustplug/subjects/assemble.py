"""From a recipe to the objects that compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.method import prepare
from ..core.modules import evaluating
from ..core.random import derive, isolated
from ..core.types import Feed
from ..errors import Refused
from ..plugin.build import build
from ..plugin.component import Use, innermost
from ..recipe.convert import resolve
from ..recipe.errors import Problem, RecipeError

if TYPE_CHECKING:
    from ..core.method import Method
    from ..core.task import Task
    from ..core.types import ParamGroup
    from ..recipe.options import Recipe


def with_model(recipe: Recipe, task: Task) -> Recipe:
    """Return the recipe with the task's default model where it names none."""
    if recipe.model is not None:
        return recipe
    return replace(recipe, model=resolve(Use(task.default_model), "model"))


def build_part(reference: Use, kind: Any, key: str, **context: Any) -> Any:
    """Build a component of a recipe.

    Raises:
        RecipeError: its factory refuses its options, or cannot be imported.
    """
    try:
        return build(reference, kind, **context)
    except (ValueError, ImportError, AttributeError, OSError) as error:
        message = str(error) or type(error).__name__
        raise RecipeError(
            [Problem(key, message, None, None)], f'{kind.replace("_", " ")} "{reference.name}"'
        ) from error


def threat_of(recipe: Recipe) -> Use:
    """Return the threat model of an evaluation: the recipe's, or else that of the method's vicinity."""
    asked, own = recipe.evaluate.vicinity, recipe.method.options.vicinity
    return innermost(own if asked is None else asked, "vicinity")


@dataclass
class Parts:
    """The objects of a run.

    Attributes:
        recipe: with its model filled in.
        task, method: built from it.
        model: initialised from the recipe's seed, on its device; the method's setup is not done.
    """

    recipe: Recipe
    task: Task
    method: Method[Any]
    model: nn.Module

    @property
    def threat(self) -> Use:
        """Return the threat model of an evaluation."""
        return threat_of(self.recipe)

    @property
    def typical_input(self) -> Any:
        """Return the inputs of a training batch, to choose the number of threads by."""
        feed = Feed(batch_size=self.recipe.train.batch_size)
        return next(iter(self.task.batches("train", feed))).x

    def set_up(self, device: torch.device) -> Sequence[ParamGroup]:
        """Let the method prepare its state and the model, and return what to train."""
        self.model.train()  # before setup, which may put some modules in eval mode for good
        frozen = besides_batchnorm(self.model) if self.recipe.train.only == "batchnorm" else []
        try:
            with isolated(derive(self.recipe.seed, "setup"), device):
                groups = prepare(self.method, self.model, self.task)
        except Refused as reason:
            problem = Problem("method", str(reason), None, None)
            raise RecipeError([problem], f'method "{self.recipe.method.name}"') from reason
        if frozen:
            groups = without(frozen, groups)
        self.model.to(device)
        self.method.state.to(device)
        return groups


def besides_batchnorm(model: nn.Module) -> list[nn.Parameter]:
    """List the parameters of a model that are not those of its BatchNorm layers.

    Raises:
        RecipeError: there is no BatchNorm with parameters.
    """
    kept = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters()
    }
    if not kept:
        problem = Problem("train.only", 'is "batchnorm", and the model has none with parameters', None, None)
        raise RecipeError([problem], "recipe")
    return [parameter for parameter in model.parameters() if id(parameter) not in kept]


def without(frozen: Sequence[nn.Parameter], groups: Sequence[ParamGroup]) -> Sequence[ParamGroup]:
    """Freeze parameters and take them out of the groups; what a method has put in their place stays."""
    out = {id(parameter) for parameter in frozen}
    for parameter in frozen:
        parameter.requires_grad_(False)
    left = [replace(group, params=tuple(p for p in group.params if id(p) not in out)) for group in groups]
    return [group for group in left if group.params]


def assemble(recipe: Recipe, device: torch.device) -> Parts:
    """Build task, model and method of a recipe, and check that they fit.

    Raises:
        RecipeError: a component refuses its options, or the model does not fit the task.
    """
    method = build_part(recipe.method, "method", "method")
    task = build_part(recipe.task, "task", "task")
    recipe = with_model(recipe, task)
    assert recipe.model is not None
    with isolated(derive(recipe.seed, "model")):
        model = build_part(recipe.model, "model", "model", info=task.info)
    model = model.to(device)
    parts = Parts(recipe, task, method, model)
    check_outputs(parts, device)
    return parts


def check_outputs(parts: Parts, device: torch.device) -> None:
    """Run the model on two samples and compare its outputs with the task's classes.

    Raises:
        RecipeError: the model cannot take the task's inputs, or gives outputs of another shape.
    """
    info, name = parts.task.info, parts.recipe.model.name if parts.recipe.model else "model"
    if info.classes is None:
        return
    feed = Feed(batch_size=2, samples=2, device=str(device))
    batch = next(iter(parts.task.batches("train", feed)), None)
    if batch is None:
        raise RecipeError([Problem("task", "the training split is empty", None, None)], "task")
    try:
        with evaluating(parts.model), torch.no_grad(), isolated(0, device):
            output = parts.model(batch.x)
    except (RuntimeError, ValueError) as error:
        why = f"{name} cannot take inputs of shape {tuple(batch.x.shape[1:])}: {str(error).splitlines()[0]}"
        raise RecipeError([Problem("model", why, None, None)], f'model "{name}"') from error
    expected = (len(batch), info.classes)
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        why = (
            f"{name} gives outputs of shape {shape} for {len(batch)} samples; the task has {info.classes} "
            f"classes, so it must be {expected}"
        )
        raise RecipeError([Problem("model", why, None, None)], f'model "{name}"')
