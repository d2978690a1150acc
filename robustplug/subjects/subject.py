"""Open what is to be evaluated: a run folder, a model file, a module or a function."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.reporting import Silent
from ..errors import RunError
from ..recipe.load import recipe_from_mapping
from ..recipe.write import recipe_to_mapping
from .opening import Opening, Reference

if TYPE_CHECKING:
    from torch import nn

    from ..core.reporting import Reporter
    from ..devices.processes import Processes
    from .assemble import Parts
    from .target import Model

# What a model is evaluated with unless told otherwise.
STRONG = [
    {"use": "pgd", "steps": 50, "restarts": 5},
    {"use": "pgd", "steps": 50, "loss": {"use": "margin"}},
]


@dataclass(frozen=True)
class Subject:
    """Hold an opened model and all that its evaluation needs.

    Attributes:
        parts: task, method and recipe; only `task`, `vicinity` and `evaluate` matter here.
        exported: plain module.
        processes: share the batches.
        reporter: hears of progress.
        folder: the run folder; None for other models.
        description: what is known of a model that is no run.
    """

    parts: Parts
    exported: nn.Module
    processes: Processes
    reporter: Reporter
    folder: Path | None = None
    description: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Name a model that adversarial examples are made on.

    Attributes:
        name: for the table.
        module: plain module, in eval mode, on the device of the evaluation.
        folder: examples are kept below it and used again.
        identity: the SHA-256 of its weights.
    """

    name: str
    module: nn.Module
    folder: Path
    identity: str


def as_table(reference: Reference) -> dict[str, Any]:
    """Return a reference as a recipe would write it."""
    return {"use": reference} if isinstance(reference, str) else dict(reference)


def open_subject(
    model: Model,
    opening: Opening,
    attacks: Sequence[Reference] | None = None,
) -> Subject:
    """Open a model for evaluation.

    Args:
        model: a run folder; what `load_target` takes besides.
        opening: how model and data are opened.
        attacks: instead of those of the recipe; None for these.

    Raises:
        RecipeError: an attack, the vicinity or the task is wrong.
        RunError: the model cannot be read, or the device is not there.
        TypeError: the task is missing.
    """
    from ..devices.processes import start
    from ..runs.choose import only_evaluate_changed, stored_recipe
    from ..runs.folder import is_finished
    from .trained import load_run

    reporter, vicinity = opening.get("reporter") or Silent(), opening.get("vicinity")
    folder, overrides = _run_folder(model, opening), opening.get("overrides") or ()
    if folder is not None:
        table = recipe_to_mapping(stored_recipe(folder))
        only_evaluate_changed(table["name"], overrides)
    else:
        table = _table(model, opening)
    changes: dict[str, Any] = {
        "attack": None if attacks is None else [as_table(attack) for attack in attacks],
        "vicinity": None if vicinity is None else as_table(vicinity),
        "split": opening.get("split"),
        "samples": opening.get("samples"),
        "batch_size": opening.get("batch_size"),
    }
    table["evaluate"] |= {key: value for key, value in changes.items() if value is not None}
    seed = opening.get("seed")
    table["seed"] = table.get("seed", 0) if seed is None else seed
    recipe = recipe_from_mapping(table, overrides, starts=False)
    processes = start(opening.get("device") or "auto", "float32")
    if folder is None:
        return _loaded(model, opening, recipe, processes, reporter)
    found = load_run(folder, recipe, processes)
    for problem in found.problems:
        reporter.warn(problem)
    if not is_finished(folder):
        reporter.warn(
            f"{folder} is not finished: its checkpoint after {found.epochs} of {recipe.train.epochs} epochs "
            f"is used; go on with robustplug train --resume {folder}"
        )
    return Subject(found.parts, found.exported, processes, reporter, folder)


def _run_folder(model: Any, opening: Opening) -> Path | None:
    """Return the run folder, or None where the model is something else."""
    if not isinstance(model, str | Path) or str(model).startswith("torchvision:"):
        return None
    path = Path(model)
    if path.is_dir() and opening.get("architecture") is not None:
        return None  # a folder that a model component reads
    return None if path.is_file() or (opening.get("task") is not None and not path.is_dir()) else path


def _table(model: Any, opening: Opening) -> dict[str, Any]:
    task, architecture = opening.get("task"), opening.get("architecture")
    if task is None and isinstance(model, str | Path):
        raise RunError(f"{model} is no run folder, so say what to evaluate it on: --task digits")
    if task is None:
        raise TypeError('a module or function needs a task to be evaluated on, for example task="digits"')
    name = str(model) if isinstance(model, str | Path) else _type_name(model)
    table: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_]+", "-", Path(name).stem).strip("-") or "model",
        "task": as_table(task),
        "method": {"use": "erm"},
        "evaluate": {"attack": STRONG},
    }
    if architecture is not None:
        table["model"] = as_table(architecture)
        if isinstance(model, str | Path) and Path(model).is_dir():
            table["model"].setdefault("folder", str(model))
    return table


def _type_name(model: Any) -> str:
    return str(getattr(model, "__name__", type(model).__name__))


def _loaded(model: Any, opening: Opening, recipe: Any, processes: Processes, reporter: Reporter) -> Subject:
    from .assemble import Parts, build_part
    from .loading import load_target

    task = build_part(recipe.task, "task", "task")
    method = build_part(recipe.method, "method", "method")
    target = load_target(
        model,
        task.info,
        model=recipe.model,
        weights=opening.get("weights"),
        mean=opening.get("mean"),
        std=opening.get("std"),
        device=processes.device,
    )
    for note in target.description.get("notes", []):
        reporter.warn(note)
    parts = Parts(recipe, task, method, target.module)
    return Subject(parts, target.module, processes, reporter, description=target.description)


def open_sources(folders: Sequence[str | Path], subject: Subject) -> list[Source]:
    """Open the runs that transfer rows make their examples on.

    Raises:
        RunError: a folder holds no run, or its model does not fit the task.
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
