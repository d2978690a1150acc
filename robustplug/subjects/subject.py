"""Open the model to evaluate: a run folder, a model file, a module or a function."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.reporting import Warns
from ..core.task import notes_of
from ..errors import RunError
from ..files.reading import is_file, is_folder
from ..plugin.component import Component, Use
from ..plugin.host import registered, registry
from ..plugin.registry import GIVEN
from ..recipe.convert import resolve
from ..recipe.layers import default_attacks, fitting_task
from ..recipe.load import recipe_from_mapping
from ..recipe.write import recipe_to_mapping
from .formats.contents import stated_model
from .given import given_data, model_component, task_component
from .named import component_in, folder_in
from .opening import Opening, Reference

if TYPE_CHECKING:
    from torch import nn

    from ..core.reporting import Reporter
    from ..devices.processes import Processes
    from .assemble import Parts
    from .target import Model

# The default attacks on a model that has no recipe.
STRONG = [
    {"use": "pgd", "steps": 50, "restarts": 5},
    {"use": "pgd", "steps": 50, "loss": {"use": "margin"}},
]


@dataclass(frozen=True)
class Subject:
    """Hold an opened model and everything that its evaluation needs.

    Attributes:
        parts: task, method and recipe; only `task`, `vicinity` and `evaluate` matter here.
        exported: the plain module to evaluate.
        processes: the processes that share the batches.
        reporter: receives progress.
        folder: the run folder; None for other models.
        description: facts about a model other than a run.
        data: settings of the task that differ from those of the run, by key.
    """

    parts: Parts
    exported: nn.Module
    processes: Processes
    reporter: Reporter
    folder: Path | None = None
    description: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Compute in a block with as many threads as pay, and the same bits each time where torch can."""
        from ..devices.determinism import deterministic
        from ..devices.precision import fitting_threads

        same_bits = self.parts.recipe.train.deterministic is not False
        with fitting_threads(self.parts.typical_input), deterministic(same_bits, strict=False):
            yield


@dataclass(frozen=True)
class Source:
    """Describe a surrogate model, on which adversarial examples are created.

    Attributes:
        name: name in the table.
        module: plain module, in eval mode, on the device of the evaluation.
        folder: the run folder; the examples are stored in it and reused.
        identity: SHA-256 of the weights.
    """

    name: str
    module: nn.Module
    folder: Path
    identity: str


def as_table(reference: Reference) -> dict[str, Any]:
    """Return a reference as a table of a recipe."""
    return {"use": reference} if isinstance(reference, str) else dict(reference)


def open_subject(
    model: Model,
    opening: Opening,
    attacks: Sequence[Reference] | None = None,
) -> Subject:
    """Open a model for evaluation.

    Args:
        model: a run folder, or any model that `load_target` accepts.
        opening: how the model and its data are opened.
        attacks: replacement for the attacks of the recipe; None to keep those.

    Raises:
        RecipeError: an attack, the vicinity or the task is invalid.
        RunError: the model cannot be read, or the device is not available.
        TypeError: the task is missing.
    """
    from ..devices.processes import start
    from ..runs.choose import only_evaluate_changed, stored_recipe
    from ..runs.folder import is_finished
    from .trained import load_run

    opening = opening.copy()
    reporter, threat = opening.get("reporter") or Warns(), threat_in(opening)
    if opening.get("architecture") is None and isinstance(model, str | Path):
        stated = stated_model(Path(model))
        if stated is not None:
            opening["architecture"], model = stated
    named = folder_in(model)
    if named is not None:
        if opening.get("architecture") is not None:
            raise RunError(f"{model} names its model component: leave out --model")
        opening["architecture"], model = {"use": named[0]}, named[1]
    folder, overrides = _run_folder(model, opening), opening.get("overrides") or ()
    given: Component | None = None
    use: Mapping[str, Any] = {}
    if opening.get("data") is not None:
        if opening.get("task") is not None:
            raise TypeError("give either a task or data")
        task = given_data(opening, opening.get("split") or "test", None if folder else model)
        given, use = task_component(task)
    network: Component | None = None
    architecture = opening.get("architecture")
    if architecture is not None and not isinstance(architecture, str | Mapping):
        network, opening["architecture"] = model_component(architecture)
    if folder is not None:
        table = recipe_to_mapping(stored_recipe(folder))
        data = only_evaluate_changed(table["name"], overrides)
    else:
        with registered("task", given):
            table = _table(model, opening, use)
    wrapper = opening.get("wrapper")
    changes: dict[str, Any] = {
        "wrapper": None if wrapper is None else as_table(wrapper),
        "attack": None if attacks is None else [as_table(attack) for attack in attacks],
        "vicinity": None if threat is None else as_table(threat),
        "split": opening.get("split"),
        "samples": opening.get("samples"),
        "batch_size": opening.get("batch_size"),
    }
    table["evaluate"] |= {key: value for key, value in changes.items() if value is not None}
    seed = opening.get("seed")
    table["seed"] = table.get("seed", 0) if seed is None else seed
    with registered("task", given), registered("model", network):
        recipe = recipe_from_mapping(table, overrides, starts=False)
        processes = start(opening.get("device") or "auto", "float32")
        if folder is None:
            return _loaded(model, opening, recipe, processes, reporter)
        found = load_run(folder, recipe, processes)
        parts = found.parts if given is None else _on_other_data(found.parts, use)
    for problem in (*found.problems, *notes_of(parts.task)):
        reporter.warn(problem)
    if not is_finished(folder):
        reporter.warn(
            f"{folder} is not finished: its checkpoint after {found.epochs} of {recipe.train.epochs} epochs "
            f"is used; continue the training with robustplug train --resume {folder}"
        )
    return Subject(parts, found.exported, processes, reporter, folder, data=data)


def threat_in(opening: Opening) -> Reference | None:
    """Return the threat model under either of its names.

    Raises:
        TypeError: both are given.
    """
    threat, vicinity = opening.get("threat"), opening.get("vicinity")
    if threat is not None and vicinity is not None:
        raise TypeError("threat and vicinity are two names of one argument: give one of them")
    return vicinity if threat is None else threat


def _on_other_data(parts: Parts, use: Mapping[str, Any]) -> Parts:
    """Return the parts of a run with given data in the place of its own.

    Raises:
        RunError: the inputs or the classes are others.
    """
    from .assemble import build_part

    reference = resolve(Use(GIVEN, {key: value for key, value in use.items() if key != "use"}), "task")
    task = build_part(reference, "task", "task")
    own, other = parts.task.info, task.info
    if own.shape != other.shape or (own.classes or 0) < (other.classes or 0) or own.bounds != other.bounds:
        raise RunError(
            f"the data do not fit the run: inputs {other.shape}, {other.classes} classes, bounds "
            f"{other.bounds}; it was trained on {own.shape}, {own.classes} classes, bounds {own.bounds}"
        )
    evaluate = parts.recipe.evaluate
    if evaluate.split not in other.sizes:
        evaluate = dataclasses.replace(evaluate, split=next(iter(other.sizes)))
    recipe = dataclasses.replace(parts.recipe, task=reference, evaluate=evaluate)
    return dataclasses.replace(parts, recipe=recipe, task=task)


def _run_folder(model: Any, opening: Opening) -> Path | None:
    """Return the run folder, or None for any other model."""
    if not isinstance(model, str | Path) or component_in(model) is not None:
        return None
    path = Path(model)
    if is_folder(path) and opening.get("architecture") is not None:
        return None  # a folder that a model component reads
    return None if is_file(path) or (opening.get("task") is not None and not is_folder(path)) else path


def _table(model: Any, opening: Opening, given: Mapping[str, Any]) -> dict[str, Any]:
    task, architecture = given or opening.get("task"), opening.get("architecture")
    if task is None and isinstance(model, str | Path):
        raise RunError(
            f"{model} is not a run folder; name the task to evaluate it on: --task digits, or from Python "
            "data=(x, y)"
        )
    if task is None:
        raise TypeError(
            "a module or function needs data to be evaluated on: data=(x, y), or a task, for example "
            'task="digits"'
        )
    name = str(model) if isinstance(model, str | Path) else _type_name(model)
    table: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_]+", "-", Path(name).stem).strip("-") or "model",
        "task": as_table(task),
        "method": {"use": "erm"},
        "evaluate": {
            "attack": STRONG if (own := default_attacks(as_table(task), registry())) is None else own
        },
    }
    if component_in(model) not in (None, "torchvision") and architecture is None:
        table["model"] = {"use": model}
    if architecture is not None:
        table["model"] = as_table(architecture)
        if isinstance(model, str | Path) and is_folder(model):
            table["model"].setdefault("folder", str(model))
            table["task"] = fitting_task(table["task"], table["model"], registry())
    return table


def _type_name(model: Any) -> str:
    return str(getattr(model, "__name__", type(model).__name__))


def _loaded(model: Any, opening: Opening, recipe: Any, processes: Processes, reporter: Reporter) -> Subject:
    from .assemble import Parts, bounded, build_method, build_part
    from .hints import inputs_hint
    from .loading import load_target

    task = build_part(recipe.task, "task", "task")
    method = build_method(recipe, task.info)
    bounded(method.vicinity, "method.vicinity", task.info)
    target = load_target(
        model,
        task.info,
        model=recipe.model,
        weights=opening.get("weights"),
        mean=opening.get("mean"),
        std=opening.get("std"),
        device=processes.device,
    )
    hint = inputs_hint(target.module, task, recipe.evaluate.split, processes.device)
    notes = [*target.description.get("notes", []), *([] if hint is None else [hint])]
    for note in (*notes_of(task), *notes):
        reporter.warn(note)
    parts = Parts(recipe, task, method, target.module)
    description = {**target.description, "notes": notes}
    return Subject(parts, target.module, processes, reporter, description=description)


def open_sources(folders: Sequence[str | Path], subject: Subject) -> list[Source]:
    """Open the runs whose models are the surrogate models of transfer rows.

    Raises:
        RunError: a folder contains no run, or its model does not fit the task.
    """
    from ..runs.choose import stored_recipe
    from .assemble import check_outputs
    from .formats.weights import weights_digest
    from .trained import load_run

    sources = []
    for folder in map(Path, folders):
        recipe = stored_recipe(folder)
        parts, exported, problems, *_ = load_run(folder, recipe, subject.processes)
        for problem in problems:
            subject.reporter.warn(problem)
        check_outputs(
            dataclasses.replace(parts, task=subject.parts.task, model=exported), subject.processes.device
        )
        sources.append(Source(folder.name, exported, folder, weights_digest(exported)))
    return sources
