"""Start, resume and load runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.types import Feed
from ..errors import Refused, RunError
from ..recipe.errors import Problem, RecipeError
from ..recipe.load import read_recipe, recipe_from_mapping
from ..recipe.write import recipe_to_mapping
from . import checkpoint
from .folder import CHECKPOINTS, MODEL, RECIPE, holds_run, is_finished, latest_folder, new_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..core.method import Method
    from ..core.task import Task
    from ..core.types import Result, TaskInfo
    from ..devices.processes import Processes
    from ..recipe.options import Recipe
    from .assemble import Parts

RUNS = Path("runs")


def as_recipe(
    recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), starts: bool = True
) -> Recipe:
    """Read a recipe from a file, a bundled name, or a mapping; see `read_recipe`."""
    if isinstance(recipe, Mapping):
        return recipe_from_mapping(recipe, overrides, starts=starts)
    return read_recipe(recipe, overrides, starts=starts)


def differences(asked: Recipe, stored: Recipe) -> list[str]:
    """List the keys in which a recipe differs from that of a run, "key: 1 → 2" each.

    What was chosen when the run started ("auto", an absent model) does not count.
    """

    def flat(table: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(table, Mapping):
            items = table.items()
        elif isinstance(table, list):
            items = {str(number): value for number, value in enumerate(table)}.items()
        else:
            return {prefix: table}
        return {
            k: v for key, value in items for k, v in flat(value, f"{prefix}.{key}" if prefix else key).items()
        }

    train = stored.train
    if asked.train.precision == "auto":
        asked = dataclasses.replace(asked, train=dataclasses.replace(asked.train, precision=train.precision))
    if asked.train.channels_last == "auto":
        kept = dataclasses.replace(asked.train, channels_last=train.channels_last)
        asked = dataclasses.replace(asked, train=kept)
    if asked.model is None:
        asked = dataclasses.replace(asked, model=stored.model)
    new, old = flat(recipe_to_mapping(asked)), flat(recipe_to_mapping(stored))
    keys = sorted(key for key in new.keys() | old.keys() if new.get(key) != old.get(key))
    return [f"{key}: the run has {old.get(key)}, the recipe {new.get(key)}" for key in keys]


def choose_run(
    recipe: str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool | str | Path = False,
) -> tuple[Recipe, Path]:
    """Return the recipe to train and the folder to train it in.

    Args:
        recipe: file, bundled name or mapping; may be left out when a folder is resumed.
        overrides: "key=value" each.
        out: folder of the run; None for the first free one of runs/NAME, runs/NAME-2, ….
        resume: False, a folder, or True for the recipe's newest run.

    Raises:
        RecipeError: the recipe has problems.
        RunError: there is nothing to resume, or the recipe is not the run's.
    """
    asked = None if recipe is None else as_recipe(recipe, overrides, starts=resume is False)
    if resume is False:
        if asked is None:
            raise RunError("name a recipe: robustplug train --recipe cat")
        return asked, Path(out) if out is not None else new_folder(RUNS, asked.name)
    if isinstance(resume, bool):
        if out is None and asked is None:
            raise RunError("say what to resume: robustplug train --resume runs/NAME")
        folder = Path(out) if out is not None else latest_folder(RUNS, asked.name if asked else "")
    else:
        folder = Path(resume)
    stored = stored_recipe(folder)
    if is_finished(folder):
        raise RunError(f"{folder} is finished; look at it with: robustplug evaluate {folder}")
    if asked is None and overrides:
        raise RunError("a run is resumed with the recipe it was started with: leave out --set")
    changed = [] if asked is None else differences(asked, stored)
    if changed:
        raise RunError(
            f"the recipe is not the one that {folder} was started with; leave out --recipe and --set to "
            "go on with that one, or start anew with --out:\n  " + "\n  ".join(changed)
        )
    return stored, folder


def stored_recipe(folder: Path) -> Recipe:
    """Read the resolved recipe of a run folder.

    Raises:
        RunError: the folder holds no run.
    """
    if not holds_run(folder):
        if not folder.exists():
            raise RunError(f"{folder} holds no run: it is not there")
        raise RunError(f"{folder} holds no run: there is no {RECIPE} in it")
    return read_recipe(folder / RECIPE, starts=False)


class Loaded(NamedTuple):
    """Hold what a checkpoint gives.

    Attributes:
        parts: of the run.
        exported: module, in eval mode.
        problems: what is wrong with newer checkpoints.
        trained: the module before the method's export.
        epochs: whole epochs that the checkpoint was taken after.
    """

    parts: Parts
    exported: nn.Module
    problems: list[str]
    trained: nn.Module
    epochs: int


def load_run(folder: Path, recipe: Recipe, processes: Processes, last: bool = False) -> Loaded:
    """Load the selected checkpoint of a run and export its model.

    Args:
        folder: of the run.
        recipe: its resolved recipe; only `evaluate` may have been changed.
        processes: say where to put the model.
        last: load the newest checkpoint instead, whatever was selected.

    Raises:
        RunError: no checkpoint can be used.
    """
    from .assemble import assemble
    from .session import trained_weights

    parts = assemble(recipe, processes.device)
    parts.set_up(processes.device)
    newest, problems = checkpoint.load_newest(folder / CHECKPOINTS)
    best = newest.meta["best"]
    selected = newest
    if best is not None and best[0] != newest.name and not last:
        try:
            selected = checkpoint.load(folder / CHECKPOINTS, best[0])
        except (ValueError, OSError) as error:
            raise RunError(f"the selected checkpoint of {folder} cannot be used: {error}") from error
    model = trained_weights(selected, parts.model, parts.method.state)
    return Loaded(parts, parts.method.export(model).eval(), problems, model, int(selected.meta["epoch"]))


@dataclass(frozen=True)
class OpenedRun:
    """Hold a run to look at.

    Attributes:
        model: exported, in eval mode.
        trained: as in the checkpoint, before the method's export.
        parts: its recipe, task and method, with the method's memory and parameters as trained.
        processes: says where the models are.
        epochs: whole epochs that it has been trained for.
        folder: of the run.
        problems: what is wrong with newer checkpoints.
    """

    model: nn.Module
    trained: nn.Module
    parts: Parts
    processes: Processes
    epochs: int
    folder: Path
    problems: Sequence[str] = ()

    @property
    def recipe(self) -> Recipe:
        """Return the recipe as it was resolved when the run started."""
        return self.parts.recipe

    @property
    def name(self) -> str:
        """Return the recipe's name."""
        return self.parts.recipe.name

    @property
    def task(self) -> Task:
        """Return the data."""
        return self.parts.task

    @property
    def method(self) -> Method[Any]:
        """Return the method."""
        return self.parts.method

    @property
    def device(self) -> str:
        """Return where the models are."""
        return str(self.processes.device)

    def evaluate(self, model: nn.Module, samples: int | None = None) -> Result:
        """Evaluate a module as the run's recipe says.

        Args:
            model: of the same task, in eval mode.
            samples: use only the first so many; None for what the recipe says.
        """
        from ..core.reporting import Silent
        from ..devices.precision import fitting_threads
        from .results import Asked, evaluate_parts

        parts = self.parts
        if samples is not None:
            options = dataclasses.replace(parts.recipe.evaluate, samples=samples)
            parts = dataclasses.replace(parts, recipe=dataclasses.replace(parts.recipe, evaluate=options))
        feed = Feed(batch_size=parts.recipe.train.batch_size)
        with fitting_threads(next(iter(parts.task.batches("train", feed))).x):
            return evaluate_parts(parts, model, self.processes, Silent(), Asked())


def open_run(folder: str | Path, device: str = "auto", last: bool = False) -> OpenedRun:
    """Open a run folder to look at what was trained.

    Args:
        folder: of the run.
        device: "auto", "cpu", "cuda" or "mps".
        last: open the newest checkpoint instead of the selected one.

    Raises:
        RunError: the folder holds no run, or no checkpoint of it can be used.
    """
    from ..devices.processes import start

    recipe = stored_recipe(Path(folder))
    processes = start(device, "float32")
    found = load_run(Path(folder), recipe, processes, last)
    return OpenedRun(
        found.exported,
        found.trained,
        found.parts,
        processes,
        found.epochs,
        Path(folder),
        tuple(found.problems),
    )


def open_model(folder: str | Path, info: TaskInfo, device: torch.device | str = "cpu") -> nn.Module:
    """Build the model of a finished run and load its exported weights; its data is not opened.

    Args:
        folder: of the run.
        info: of the task that it is built for, which need not be that of the run.
        device: where to put it.

    Raises:
        Refused: the folder holds no finished run, or the weights do not fit this task.
    """
    from ..core.random import isolated
    from ..targets.weights import fit, read_state
    from .assemble import build_part

    path = Path(folder)
    try:
        recipe = stored_recipe(path)
        if recipe.model is None or not (path / MODEL).is_file():
            raise RunError(f"{path} holds no finished run: there is no {MODEL} in it")
        with isolated(0):
            model: nn.Module = build_part(recipe.model, "model", "model", info=info)
        state, _ = read_state(path / MODEL)
        fit(model, state, path / MODEL, f'model "{recipe.model.name}"', "it was trained on another task")
    except (RunError, RecipeError) as error:
        raise Refused(str(error)) from error
    return model.to(device).eval()


def load_start(recipe: Recipe, model: nn.Module) -> str:
    """Load the weights that a recipe's model starts from, and return their digest.

    Args:
        recipe: whose model has a `from`: a run folder, or a file with a state dict.
        model: as built, before any method's setup.

    Raises:
        RunError: they are not there, or do not fit.
    """
    from ..targets.weights import fit, read_state
    from .transfer import weights_digest

    assert recipe.model is not None
    assert recipe.model.start is not None
    path = Path(recipe.model.start)
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        missing = "is not there" if not path.exists() else f"holds no finished run: there is no {MODEL} in it"
        raise RunError(f"the model cannot start from {path}: it {missing}")
    state, _ = read_state(file)
    fit(model, state, file, f'model "{recipe.model.name}"', "give the model the options of that run")
    return weights_digest(model)


def only_evaluate_changed(name: str, overrides: Sequence[str]) -> None:
    """Refuse overrides of a finished run that are not about its evaluation.

    Raises:
        RecipeError: naming each.
    """
    wrong = [text for text in overrides if not text.startswith("evaluate.")]
    if wrong:
        problems = [
            Problem(
                text.partition("=")[0], "only evaluate.* can be set for a run that is trained", override=text
            )
            for text in wrong
        ]
        raise RecipeError(problems, name)
