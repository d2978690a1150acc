"""Data and models that come as Python objects, under a name that recipes can hold: their digest."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ..core.modules import evaluating
from ..core.random import isolated
from ..core.types import Split
from ..errors import RunError
from ..plugin.component import Component
from ..plugin.culprit import relatives
from ..plugin.registry import GIVEN
from .data.arrays import UNIT
from .data.brought import read_arrays
from .data.task import ArrayTask
from .formats.weights import weights_digest

if TYPE_CHECKING:
    from ..core.task import Task
    from ..core.types import TaskInfo
    from .opening import Opening


@dataclass(frozen=True)
class GivenOptions:
    """Options of a component that is a Python object.

    Attributes:
        digest: SHA-256 of its content, by which a later process recognises it.
        kind: class of the object.
    """

    digest: str
    kind: str = ""


def is_task(value: Any) -> bool:
    """Return whether an object is a Task itself, such as an ArrayTask."""
    return all(hasattr(value, name) for name in ("batches", "info", "score"))


def given_data(opening: Opening, split: Split, model: Any) -> Task:
    """Return the task of `data`, all of whose samples are one split.

    Args:
        opening: `data`, `columns`, `bounds` and `classes` count.
        split: the split that the samples belong to.
        model: the model to evaluate; its outputs tell how many classes there are, where the labels show
            fewer.

    Raises:
        RunError: the data cannot be used; the message names the remedy.
    """
    data: Any = opening.get("data")
    if is_task(data):
        return cast("Task", data)
    try:
        found = read_arrays(data, opening.get("columns"))
        classes = opening.get("classes") or outputs_of(model, found.x, opening) or None
        labels = int(found.y.max()) + 1
        if classes is not None and labels > classes:
            raise ValueError(f"the labels go up to {labels - 1}, but the model has {classes} outputs")
        names = found.class_names if classes in (None, len(found.class_names)) else ()
        bounds = opening.get("bounds") or UNIT
        return ArrayTask({split: (found.x, found.y)}, classes=classes, class_names=names, bounds=bounds)
    except (TypeError, ValueError) as error:
        raise RunError(f"data cannot be used: {error}") from error


def outputs_of(model: Any, x: torch.Tensor, opening: Opening) -> int | None:
    """Return how many logits a module or a function returns for each input; None where that is not known."""
    if not callable(model) or isinstance(model, type):
        return None
    bounds = opening.get("bounds") or UNIT
    inputs = x[:2].float() / 255 if x.dtype == torch.uint8 and tuple(bounds) == UNIT else x[:2].float()
    try:
        with isolated(0), torch.no_grad():
            if isinstance(model, nn.Module):
                first = next(model.parameters(), None)
                inputs = inputs if first is None else inputs.to(first.device)
                with evaluating(model):
                    output = model(inputs.clone())
            else:
                output = model(inputs.clone())
    except Exception:  # what is wrong with the model is reported where it is loaded
        return None
    output = getattr(output, "logits", output)
    shape = tuple(getattr(output, "shape", ()))
    return shape[1] if len(shape) == 2 and shape[0] == len(inputs) else None


def as_component(value: Any, factory: Callable[..., Any], digest: str, **more: Any) -> Component:
    """Return a component named "given" for an object, with more of what a component states."""
    kind = getattr(value, "__qualname__", type(value).__qualname__)

    def make(options: GivenOptions, **context: Any) -> Any:
        if options.digest != digest:
            raise ValueError(
                f"what is given now is not what the run was started with (a {options.kind}, digest "
                f"{options.digest[:12]}…; now a {kind}, digest {digest[:12]}…)"
            )
        return factory(**context)

    return Component(GIVEN, make, GivenOptions, f"a {kind} given from Python", **more)


def use_of(component: Component, digest: str) -> Mapping[str, Any]:
    """Return the table of a recipe that refers to an object."""
    return {"use": component.name, "digest": digest, "kind": component.summary.split()[1]}


def task_component(task: Task) -> tuple[Component, Mapping[str, Any]]:
    """Return the component of a task object, and the table that refers to it.

    Samples, labels and threat model are of the kind that the tasks have which it may be: those that
    `relatives` finds, or the one among them whose name the object states, as `like`.
    """
    made = getattr(task, "digest", None)
    digest = str(made()) if callable(made) else f"{type(task).__module__}.{type(task).__qualname__}"
    kin = relatives(task, "task")
    kin = [each for each in kin if each.name == getattr(task, "like", None)] or kin
    kinds = {each.modality for each in kin}
    same = len(kinds) == 1 and all(each.evaluate == kin[0].evaluate for each in kin)
    more: dict[str, Any] = {"modality": kin[0].modality, "evaluate": kin[0].evaluate} if same else {}
    more |= {"labels": kin[0].labels} if same and all(each.labels == kin[0].labels for each in kin) else {}
    more["tasks"] = tuple(each.name for each in kin) if same else ()
    component = as_component(task, lambda: task, digest, **more)
    return component, use_of(component, digest)


def model_component(model: Any) -> tuple[Component, Mapping[str, Any]]:
    """Return the component of a module, or of a function that makes one, and the table that refers to it.

    The module itself is never trained: each build is a copy.

    Raises:
        RunError: it is neither.
    """
    if isinstance(model, nn.Module):
        digest = weights_digest(model)
        component = as_component(model, lambda info: copy.deepcopy(model), digest)
        return component, use_of(component, digest)
    if not callable(model):
        raise RunError(f"model is a {type(model).__name__}: give an nn.Module, or a function that makes one")
    takes_info = "info" in inspect.signature(model).parameters

    def make(info: TaskInfo) -> nn.Module:
        made = model(info=info) if takes_info else model()
        if not isinstance(made, nn.Module):
            raise ValueError(
                f"the function that makes the model returns a {type(made).__name__}, not an nn.Module"
            )
        return made

    # What it makes depends on the seed of the run and the task; the function is known by its name.
    digest = f"{getattr(model, '__module__', '')}.{getattr(model, '__qualname__', type(model).__qualname__)}"
    component = as_component(model, make, digest)
    return component, use_of(component, digest)
