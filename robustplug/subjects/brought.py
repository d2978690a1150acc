"""A recipe with the model and the data that a script brings in the place of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import RunError
from ..files.given import held
from ..plugin.component import Component
from ..plugin.host import registry
from ..recipe.toml.files import copy_tables, find_recipe, open_tables
from .data.brought import of_texts
from .data.splits import training_task
from .given import is_task, model_component, task_component
from .opening import Reference
from .subject import as_table

if TYPE_CHECKING:
    from .data.arrays import Bounds

OPTIMISTIC = (
    "no test data are given, so the final evaluation is on the validation samples, on which the checkpoint "
    "is selected: its numbers are optimistic; give test=0.1, or a set"
)


@dataclass(frozen=True)
class Brought:
    """Hold what a script brings, as components that a recipe can name.

    Attributes:
        task, model: components named "given"; None where the recipe's own are used.
        tables: the tables of a recipe that name them. Without `task`, that of the task has options of one
            that reads a data set of texts itself.
        notes: notes for the reader.
    """

    task: Component | None = None
    model: Component | None = None
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        model: nn.Module | Callable[..., nn.Module] | None,
        data: Any,
        validation: Any,
        test: Any,
        columns: Sequence[str] | None,
        bounds: Bounds | None,
        classes: int | None,
    ) -> Brought:
        """Make components of a model and of training data; None for either.

        Raises:
            RunError: the data cannot be used, or the model is neither a module nor a function.
        """
        tables: dict[str, Mapping[str, Any]] = {}
        notes: list[str] = []
        task_part = model_part = None
        if data is not None:
            task = None
            if is_task(data):
                task = data
            elif of_texts(data, columns):
                tables["task"] = _options_of_texts(data, validation, test, columns)
            else:
                try:
                    task, notes = training_task(
                        data, validation, test, columns=columns, bounds=bounds, classes=classes
                    )
                except (TypeError, ValueError) as error:
                    raise RunError(f"the data cannot be used: {error}") from error
            if task is not None:
                task_part, tables["task"] = task_component(task)
                if "test" not in task.info.sizes:
                    notes.append(OPTIMISTIC)
                    tables["evaluate"] = {"split": "validation"}
        if model is not None:
            model_part, tables["model"] = model_component(model)
        return cls(task_part, model_part, tables, notes)

    def into(
        self, recipe: str | Path | Mapping[str, Any], threat: Reference | None
    ) -> str | Path | Mapping[str, Any]:
        """Return a recipe with what is brought in the place of its own.

        Args:
            recipe: file, bundled name or tables.
            threat: threat model that replaces the method's vicinity; None to keep it.

        Raises:
            RecipeError: the recipe cannot be read.
            RunError: no task reads what is brought.
        """
        if not self.tables and threat is None:
            return recipe
        if isinstance(recipe, Mapping):
            tables: dict[str, Any] = copy_tables(recipe)
        else:
            tables = copy_tables(open_tables(find_recipe(recipe))[0])
        for name, table in self.tables.items():
            if name == "task" and self.task is None:
                table = {**_reader_of_texts(tables.get(name, {})), **table}
            tables[name] = {**tables.get(name, {}), **table} if name == "evaluate" else dict(table)
        if threat is not None:
            tables["method"] = {**tables.get("method", {}), "vicinity": as_table(threat)}
        if "task" in self.tables:
            tables["name"] = f"{tables.get('method', {}).get('use', 'run')}-given"
        return tables


def _options_of_texts(data: Any, validation: Any, test: Any, columns: Sequence[str] | None) -> dict[str, Any]:
    """Return the options by which a task of texts reads data sets and shares; see `run.train`."""
    splits = dict(data) if isinstance(data, Mapping) else {"train": data}
    options: dict[str, Any] = {}
    for split, given in (("validation", validation), ("test", test)):
        if of_texts(given, columns):
            splits[split] = given
        elif given is not None and not isinstance(data, Mapping):
            options[split] = given
    names = zip(("text", "label"), columns or (), strict=False)
    return {**options, **dict(names), "data": held(splits)}


def _reader_of_texts(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the table of the recipe's task if it reads data sets of texts, else one of a task that does."""

    def reads(component: Component) -> bool:
        return component.modality == "text" and "data" in getattr(
            component.options, "__dataclass_fields__", {}
        )

    able = {each.name: each for each in registry().by_kind()["task"] if reads(each)}
    if not able:
        raise RunError('the data are texts, which no task reads: pip install "robustplug[text]"')
    return table if table.get("use") in able else {"use": next(iter(able))}
