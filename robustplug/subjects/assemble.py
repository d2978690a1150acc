"""Build the task, model and method of a recipe."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.calling.inputs import call
from ..core.method import prepare
from ..core.modules import evaluating
from ..core.protocols import BoundedVicinity, InformedVicinity, SpannedVicinity
from ..core.random import derive, isolated
from ..core.types import Feed, Split
from ..errors import Refused, RunError, ends_program, out_of_memory
from ..plugin.build import build
from ..plugin.component import Use, slot_of
from ..plugin.culprit import described, failed
from ..plugin.host import registry
from ..recipe.clashes import threat_in
from ..recipe.convert import resolve
from ..recipe.errors import Problem, RecipeError
from .tuning import freeze

if TYPE_CHECKING:
    from ..core.method import Method
    from ..core.protocols import Vicinity
    from ..core.task import Task
    from ..core.types import Cost, ParamGroup, TaskInfo
    from ..recipe.options import Recipe

# What a factory raises where its options or the machine are at fault; torch raises RuntimeError for sizes.
_REFUSALS = (ValueError, ImportError, AttributeError, OSError, OverflowError, RuntimeError)

# Passes of single samples that nobody waits for: one GPU makes some 5,000 in a second with a ResNet-50.
_ENDLESS = 1e11


def endless(cost: Callable[[], Cost], samples: int) -> str:
    """Return why work would not end; "" if it may, or if its cost is unknown.

    Args:
        cost: returns the passes of each sample.
        samples: number of samples, over all epochs.
    """
    passes = math.nan
    with contextlib.suppress(Exception):  # a cost that cannot be stated must not stop the work itself
        passes = sum(cost()) * samples
    if not passes > _ENDLESS:
        return ""
    return f"means {passes:.1e} passes of samples through the model, and more than {_ENDLESS:.0e} are refused"


def with_model(recipe: Recipe, task: Task) -> Recipe:
    """Return the recipe, with the task's default model if it names none."""
    if recipe.model is not None:
        return recipe
    return replace(recipe, model=resolve(Use(task.default_model), "model"))


def build_part(reference: Use, kind: Any, key: str, **context: Any) -> Any:
    """Build a component of a recipe.

    Raises:
        RecipeError: the factory refuses the options, or cannot be imported.
        Failed: the factory raises another exception.
    """
    try:
        return build(reference, kind, **context)
    except (RecipeError, RunError):
        raise
    except BaseException as error:
        if ends_program(error):
            raise
        if out_of_memory(error):
            message = "needs more memory than there is: lower its sizes"
        elif isinstance(error, _REFUSALS):
            # torch appends the frames of its C++ code to a RuntimeError.
            message = str(error).partition("\nException raised from")[0] or type(error).__name__
        else:
            raise failed(error, "its construction", otherwise=described(kind, reference.name)) from error
        raise RecipeError(
            [Problem(key, message, None, None)], f'{kind.replace("_", " ")} "{reference.name}"'
        ) from error


def build_method(recipe: Recipe, info: TaskInfo) -> Any:
    """Build the method of a recipe; networks of its own are initialised from the recipe's seed.

    Raises:
        RecipeError: its factory refuses its options.
    """
    with isolated(derive(recipe.seed, "method")):
        return build_part(recipe.method, "method", "method", info=info)


def build_vicinity(reference: Use, key: str, info: TaskInfo) -> Any:
    """Build a vicinity of a recipe for the range of a task's inputs.

    Raises:
        RecipeError: its factory refuses its options, or it supports only inputs in [0, 1].
    """
    return bounded(build_part(reference, "vicinity", key), key, info)


def bounded(vicinity: Any, key: str, info: TaskInfo) -> Any:
    """Tell a vicinity the range of a task's inputs, and what else it must know of them, and return it.

    Raises:
        RecipeError: it supports only inputs in [0, 1], and the task's have another range, or it does not fit
            the inputs.
    """
    if isinstance(vicinity, InformedVicinity):
        try:
            vicinity.inform(info)
        except (Refused, ValueError) as error:
            raise RecipeError([Problem(key, str(error), None, None)], "recipe") from error
    if tuple(info.bounds) == (0.0, 1.0):
        return vicinity
    if not isinstance(vicinity, BoundedVicinity):
        name = type(vicinity).__name__
        why = f"{name} supports only inputs in [0, 1], and the task's are in {info.bounds}"
        raise RecipeError([Problem(key, why, None, None)], "recipe")
    vicinity.within(*info.bounds)
    return vicinity


def note_on_radius(vicinity: Vicinity, info: TaskInfo) -> str:
    """Return a note if a radius is so large that it is probably in other units; "" otherwise.

    An L∞, L2 or L1 radius above a quarter of the largest distance between inputs; of other sets, one that
    bounds nothing.
    """
    for each in _reached(vicinity, (), info):
        if each.ball and each.share > 1 / 4:
            return (
                f"eps = {each.eps:g} is more than a quarter of {each.most}; this is no small "
                f"perturbation{each.meant}"
            )
        if each.share > _WHOLE:
            return each.said
    return ""


def refuse_radii(parts: Parts) -> None:
    """Refuse to train in, or for, a threat model in which every input is legal.

    Raises:
        RecipeError: an L∞, L2 or L1 radius is above the largest distance between inputs, or one of another
            set bounds nothing.
    """
    info, asked = parts.task.info, parts.recipe.evaluate.vicinity
    threats = {"method.vicinity": parts.method.vicinity}
    if asked is not None:
        threats["evaluate.vicinity"] = build_vicinity(asked, "evaluate.vicinity", info)
    found = [each for key, vicinity in threats.items() for each in _reached(vicinity, (key,), info)]
    problems = [
        Problem(".".join((*each.path, "eps")), each.said, None, None) for each in found if each.share > _WHOLE
    ]
    if problems:
        raise RecipeError(problems, "recipe")


# Share of the largest radius from which on one is too large; a number may be rounded.
_WHOLE = 1 + 1e-6


class _Reached(NamedTuple):
    """A radius, as a share of the largest that makes a difference, and words about it."""

    path: tuple[str, ...]
    eps: float
    share: float
    most: str
    meant: str
    ball: bool

    @property
    def said(self) -> str:
        """Return what is wrong with a radius that is too large."""
        then = "every input is legal" if self.ball else "it bounds nothing"
        return f"eps = {self.eps:g} is more than {self.most}: {then}{self.meant}"


def _reached(vicinity: Any, path: tuple[str, ...], info: TaskInfo) -> Iterator[_Reached]:
    """Yield how far radii reach; none for those that are not in the inputs' units."""
    inner = getattr(vicinity, "inner", None)
    if inner is not None and vicinity.norm is None:
        yield from _reached(inner, (*path, "inner"), info)
    for number, part in enumerate(getattr(vicinity, "parts", ()) if vicinity.norm is None else ()):
        yield from _reached(part, (*path, "parts", str(number)), info)
    ball = vicinity.norm in (1.0, 2.0, math.inf)
    if info.shape is None or not (ball or isinstance(vicinity, SpannedVicinity)):
        return
    eps = float(vicinity.eps)
    if not ball:
        most, what = vicinity.span(info)
        yield _Reached(path, eps, eps / most, what, "", ball)
        return
    low, high = (torch.as_tensor(side, dtype=torch.float64) for side in info.bounds)
    width = float((high - low).max())
    reach = width if vicinity.norm == math.inf else width * math.prod(info.shape) ** (1 / vicinity.norm)
    unit = tuple(info.bounds) == (0.0, 1.0)
    meant = f'; {eps:g}/255 may be meant: eps = "{eps:g}/255"' if unit and eps >= 1 else ""
    sides = f"which range from {float(low.min()):g} to {float(high.max()):g}"
    far = f"the largest distance between inputs, {sides}"
    yield _Reached(path, eps, eps / reach if reach else math.inf, far, meant, ball)


def threat_of(recipe: Recipe) -> Use:
    """Return the threat model of an evaluation: what the recipe asks for, or else what the method trains in.

    Where the method's vicinity only draws samples around another one, that one is the threat model.
    """
    asked = recipe.evaluate.vicinity
    return threat_in(slot_of(recipe.method, "vicinity"), registry()) if asked is None else asked


@dataclass
class Parts:
    """The objects of a run.

    Attributes:
        recipe: the recipe, with a model filled in.
        task, method: the task and the method of the recipe.
        model: the model on its device, initialised from the recipe's seed, before the method's setup.
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
        """Return the inputs of a training batch; they determine the number of threads."""
        sizes: Mapping[Split, int] = self.task.info.sizes
        split: Split = "train" if "train" in sizes else next(iter(sizes))
        return next(iter(self.task.batches(split, Feed(batch_size=self.recipe.train.batch_size)))).x

    def set_up(self, device: torch.device) -> Sequence[ParamGroup]:
        """Prepare the method's state and the model, and return the parameter groups to train."""
        self.model.train()  # before setup, which may put some modules in eval mode for good
        frozen = besides_batchnorm(self.model) if self.recipe.train.only == "batchnorm" else []
        keys = self.recipe.model.more if self.recipe.model is not None else None
        if keys is not None and keys.freeze is not None:
            frozen += freeze(self.model, keys.freeze)
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
    """List the parameters of a model outside its BatchNorm layers.

    Raises:
        RecipeError: the model has no BatchNorm layer with parameters.
    """
    kept = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters()
    }
    if not kept:
        problem = Problem("train.only", 'is "batchnorm", but no such layer has parameters', None, None)
        raise RecipeError([problem], "recipe")
    return [parameter for parameter in model.parameters() if id(parameter) not in kept]


def without(frozen: Sequence[nn.Parameter], groups: Sequence[ParamGroup]) -> Sequence[ParamGroup]:
    """Freeze parameters and remove them from the groups; replacements added by a method remain."""
    out = {id(parameter) for parameter in frozen}
    for parameter in frozen:
        parameter.requires_grad_(False)
    left = [replace(group, params=tuple(p for p in group.params if id(p) not in out)) for group in groups]
    return [group for group in left if group.params]


def assemble(recipe: Recipe, device: torch.device) -> Parts:
    """Build the task, model and method of a recipe, and check that they fit together.

    Raises:
        RecipeError: a component refuses its options, the split to evaluate on is empty, or the model does not
            fit the task.
    """
    task = build_part(recipe.task, "task", "task")
    split = recipe.evaluate.split
    if task.info.sizes.get(split) == 0:
        why = f'is "{split}", and this split of the task is empty: give it samples, or evaluate on another'
        raise RecipeError([Problem("evaluate.split", why, None, None)], "recipe")
    method = build_method(recipe, task.info)
    bounded(method.vicinity, "method.vicinity", task.info)
    if recipe.evaluate.vicinity is not None:
        # What does not fit the samples is not found after hours of training.
        build_vicinity(recipe.evaluate.vicinity, "evaluate.vicinity", task.info)
    recipe = with_model(recipe, task)
    assert recipe.model is not None
    with isolated(derive(recipe.seed, "model")):
        model = build_part(recipe.model, "model", "model", info=task.info)
    model = model.to(device)
    parts = Parts(recipe, task, method, model)
    check_outputs(parts, device)
    return parts


def check_outputs(parts: Parts, device: torch.device) -> None:
    """Run the model on two samples and compare its outputs with the classes, or the outputs, of the task.

    Raises:
        RecipeError: the model does not accept the task's inputs, or its outputs have the wrong shape.
    """
    info, name = parts.task.info, parts.recipe.model.name if parts.recipe.model else "model"
    if info.outputs is None:
        return
    feed = Feed(batch_size=2, samples=2, device=str(device))
    batch = next(iter(parts.task.batches("train", feed)), None)
    if batch is None:
        raise RecipeError([Problem("task", "the training split is empty", None, None)], "task")
    try:
        with evaluating(parts.model), torch.no_grad(), isolated(0, device):
            output = call(parts.model, batch.x)
    except (RuntimeError, ValueError) as error:
        why = f"{name} cannot take inputs of shape {tuple(batch.x.shape[1:])}: {str(error).splitlines()[0]}"
        raise RecipeError([Problem("model", why, None, None)], f'model "{name}"') from error
    expected = (len(batch), info.outputs)
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        what = "outputs" if info.classes is None else "classes"
        why = (
            f"{name} returns outputs of shape {shape} for {len(batch)} samples; the task has {info.outputs} "
            f"{what}, so the shape must be {expected}"
        )
        raise RecipeError([Problem("model", why, None, None)], f'model "{name}"')
