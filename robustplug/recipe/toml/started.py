"""What a recipe takes from elsewhere: the weights of its models, and other runs that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...files.reading import is_file, is_folder
from ...plugin.component import Use, run_folders, slots
from ...plugin.registry import Registry
from ..errors import Finding, KeyPath
from ..messages import show
from ..options import ModelKeys, Recipe
from ..shape import shape
from .files import parse, read_text

Note = Callable[[KeyPath, str, str | None], None]


def with_model_of_run(given: Mapping[str, Any], path: KeyPath, note: Note) -> dict[str, Any] | None:
    """Return the table of a model; one that starts from a run and names no model gets that of the run.

    Args:
        given: the table of a recipe; `from` may be anything.
        path: its key path.
        note: receives the finding if there is no such run; then the result is None.
    """
    start, hint = given.get("from"), 'give a run folder, or name the model: use = "…"'
    if "use" in given or not isinstance(start, str):
        return dict(given)
    stored = Path(start) / "recipe.toml"
    if not is_file(stored):
        note((*path, "from"), f"{start} is not a run folder", hint)
        return None
    own = parse(read_text(stored), str(stored)).get("model")
    if not isinstance(own, Mapping):
        note((*path, "from"), f"{stored} names no model", hint)
        return None
    left = {"from", *shape(ModelKeys).names}
    return {**{key: value for key, value in own.items() if key not in left}, **given}


def take_start(table: dict[str, Any], path: KeyPath, note: Note) -> str | None:
    """Take `from` out of the table of a model: the run folder or file with its initial weights."""
    start = table.pop("from", None)
    if start is None or (isinstance(start, str) and start):
        return start
    note((*path, "from"), f"must be a run folder or a .safetensors file, not {show(start)}", None)
    return None


def networks_of(method: Use, path: KeyPath = ("method",)) -> Iterator[tuple[KeyPath, Use]]:
    """Yield the models in the slots of a resolved method, and of methods within it, with their key paths."""
    for slot in slots(type(method.options)).values():
        value = getattr(method.options, slot.name)
        if isinstance(value, Use) and slot.kind == "model":
            yield (*path, slot.name), value
        elif isinstance(value, Use) and slot.kind == "method":
            yield from networks_of(value, (*path, slot.name))


def starts_of(recipe: Recipe) -> Iterator[tuple[KeyPath, str]]:
    """Yield what a resolved recipe takes from elsewhere, with its key path: each `from` and `RunFolder`."""
    if recipe.model is not None:
        yield from _starts(recipe.model, ("model",))
    yield from _starts(recipe.method, ("method",))
    yield from _starts(recipe.task, ("task",))
    if recipe.evaluate.wrapper is not None:
        yield from _starts(recipe.evaluate.wrapper, ("evaluate", "wrapper"))


def _starts(use: Use, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if use.start is not None:
        yield (*path, "from"), use.start
    yield from _folders(use, path)
    for place, inner in _inside(use):
        yield from _starts(inner, (*path, *place))


def _folders(use: Use, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    for name in run_folders(type(use.options)):
        value = getattr(use.options, name)
        if isinstance(value, tuple):
            yield from (((*path, name, number), each) for number, each in enumerate(value))
        elif value is not None:
            yield (*path, name), value


def _inside(use: Use) -> Iterator[tuple[KeyPath, Use]]:
    """Yield the components in the slots of a resolved one, with their places."""
    for slot in slots(type(use.options)).values():
        value = getattr(use.options, slot.name)
        for number, each in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(each, Use):
                yield ((slot.name, number) if slot.many else (slot.name,)), each


def methods_of_runs(use: Use) -> list[Any]:
    """Return the tables of the methods of the runs that the options of a resolved component name.

    Runs that are gone, such as since an evaluation began, are left out.
    """
    stored = [Path(folder) / "recipe.toml" for _, folder in _folders(use, ())]
    return [parse(read_text(path), str(path)).get("method") for path in stored if is_file(path)]


def starting_from(recipe: Recipe, starts: Mapping[str, str]) -> Recipe:
    """Return a resolved recipe that takes from other places what `starts_of` lists.

    Args:
        recipe: a recipe.
        starts: the new place by the old one; other places stay.
    """

    def moved(use: Use) -> Use:
        changed: dict[str, Any] = {}
        for (name, *number), old in _folders(use, ()):
            new = starts.get(old, old)
            changed[str(name)] = (*changed.get(str(name), ()), new) if number else new
        for slot in slots(type(use.options)).values():
            value = getattr(use.options, slot.name)
            if isinstance(value, Use):
                changed[slot.name] = moved(value)
            elif isinstance(value, tuple):
                changed[slot.name] = tuple(map(moved, value))
        options = dataclasses.replace(use.options, **changed) if changed else use.options
        start = use.start if use.start is None else starts.get(use.start, use.start)
        return dataclasses.replace(use, options=options, start=start)

    if not any(old in starts for _, old in starts_of(recipe)):
        return recipe
    model = None if recipe.model is None else moved(recipe.model)
    around = recipe.evaluate.wrapper
    evaluate = dataclasses.replace(recipe.evaluate, wrapper=None if around is None else moved(around))
    parts: dict[str, Any] = {"model": model, "method": moved(recipe.method), "task": moved(recipe.task)}
    return dataclasses.replace(recipe, evaluate=evaluate, **parts)


def missing_weights(
    recipe: Recipe, registry: Registry, later: Callable[[str], bool] = lambda start: False
) -> Iterator[Finding]:
    """Yield a finding for all that a resolved recipe takes from elsewhere and that does not exist.

    Args:
        recipe: a recipe.
        registry: the available components.
        later: whether what a `from` or a run folder states is made before it is needed.
    """
    models = [] if recipe.model is None else [(("model",), recipe.model)]
    for path, model in (*models, *networks_of(recipe.method)):
        if model.start is not None and later(model.start):
            continue
        found = _cannot_start(path, model, registry)
        if found is not None:
            yield found
    known = {(*path, "from") for path, _ in (*models, *networks_of(recipe.method))}
    for path, start in starts_of(recipe):
        if path not in known and not later(start) and not is_file(Path(start) / "model.safetensors"):
            yield Finding(path, f"{start} is not the folder of a finished run", "train it first")


def _cannot_start(place: KeyPath, model: Use, registry: Registry) -> Finding | None:
    offered = registry.get("model", model.name).weights is not None
    if model.start is None:
        if getattr(model.more, "head", None) is None or offered:
            return None
        return Finding(
            (*place, "head"),
            'is "new", but the model starts from no weights',
            'add from = "…", a run or a file',
        )
    path = Path(model.start)
    if is_file(path) or is_file(path / "model.safetensors"):
        return None
    text = f"{path} is neither a file of weights nor the folder of a finished run"
    if not offered:
        return Finding((*place, "from"), text)
    if is_folder(path) or path.parent != Path() or path.suffix:
        return Finding((*place, "from"), text, 'for the weights of the library, write from = "DEFAULT"')
    return None
