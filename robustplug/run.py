"""The Python API: train and evaluate with the same reach as the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .component import Kind, Use
from .component import build as build_resolved
from .recipe import recipe_from_mapping, recipe_to_mapping, resolve

if TYPE_CHECKING:
    from torch import nn

    from .engine.reporting import Reporter
    from .engine.train import Trained
    from .types import Result, Split

Reference = str | Mapping[str, Any]

# What a module is evaluated with unless told otherwise.
STRONG = [
    {"use": "pgd", "steps": 50, "restarts": 5},
    {"use": "pgd", "steps": 50, "loss": {"use": "margin"}},
]


def train(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool | str | Path = False,
    reporter: Reporter | None = None,
) -> Trained:
    """Train a recipe in a run folder and evaluate it.

    Args:
        recipe: TOML file, name of a bundled recipe, or the same tables as a mapping.
        overrides: "key=value" each, as with --set.
        out: run folder; None for runs/NAME, runs/NAME-2, ….
        resume: True, or the folder of the run to go on with.
        reporter: hears of progress; None for silence.

    Raises:
        RecipeError: the recipe has problems; all are listed.
        RunError: the run cannot go on.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
    """
    from .engine.open import choose_run
    from .engine.train import Training

    chosen, folder = choose_run(recipe, overrides, out, resume)
    return Training(chosen, folder, resume is not False, reporter).run()


def build(kind: Kind, name: str, /, **options: Any) -> Any:
    """Build a component by name, with options as a recipe would write them.

    For example `build("perturbation", "pgd", steps=10)`. Models also need `info`, a TaskInfo.

    Raises:
        RecipeError: the name or an option is wrong.
    """
    context = {"info": options.pop("info")} if kind == "model" and "info" in options else {}
    return build_resolved(resolve(Use(name, options), kind), kind, **context)


def _table(reference: Reference) -> dict[str, Any]:
    return {"use": reference} if isinstance(reference, str) else dict(reference)


def evaluate(
    model: nn.Module | str | Path,
    *,
    task: Reference | None = None,
    attacks: Sequence[Reference] | None = None,
    vicinity: Reference | None = None,
    split: Split | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    overrides: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> Result:
    """Evaluate a run folder, or any module, under attacks.

    Args:
        model: a run folder, or a module that takes inputs in [0, 1] and returns logits (N, K).
        task: data to evaluate a module on, for example "digits" or {"use": "mnist", "root": "…"}.
        attacks: in order, each on the samples that are still right, for example
            ["pgd", {"use": "pgd", "steps": 50, "loss": {"use": "margin"}}]; None for those of the
            run's recipe, or PGD-50 with 5 restarts and margin PGD for a module.
        vicinity: threat model; None for that of the run, or L∞ with 8/255 for a module.
        split, samples, batch_size, seed: None for those of the run's recipe, or "test", all, 256, 0.
        device: "auto", "cpu", "cuda" or "mps".
        overrides: "evaluate.key=value" each, for a run folder.
        reporter: hears of progress.

    Raises:
        RecipeError: an attack, the vicinity or the task is wrong.
        RunError: the folder holds no run, or the device is not there.
    """
    from .engine.assemble import Parts, build_part
    from .engine.open import load_run, only_evaluate_changed, stored_recipe
    from .engine.precision import fitting_threads
    from .engine.processes import start
    from .engine.reporting import Silent
    from .engine.results import evaluate_parts
    from .types import Feed

    if isinstance(model, str | Path):
        folder: Path | None = Path(model)
        table = recipe_to_mapping(stored_recipe(Path(model)))
        only_evaluate_changed(table["name"], overrides)
    elif task is None:
        raise TypeError('evaluate(module) needs a task, for example task="digits"')
    else:
        folder, table = None, {"task": _table(task), "method": {"use": "erm"}, "evaluate": {"attack": STRONG}}
        table["name"] = re.sub(r"\W+", "-", type(model).__name__)
    changes = {
        "attack": None if attacks is None else [_table(attack) for attack in attacks],
        "vicinity": None if vicinity is None else _table(vicinity),
        "split": split,
        "samples": samples,
        "batch_size": batch_size,
    }
    table["evaluate"] |= {key: value for key, value in changes.items() if value is not None}
    table["seed"] = table.get("seed", 0) if seed is None else seed
    recipe = recipe_from_mapping(table, overrides)
    reporter = reporter or Silent()
    processes = start(device, "float32")
    if folder is not None:
        parts, exported, problems = load_run(folder, recipe, processes)
        for problem in problems:
            reporter.warn(problem)
    else:
        built = build_part(recipe.task, "task", "task")
        method = build_part(recipe.method, "method", "method")
        exported = cast("nn.Module", model).to(processes.device)
        parts = Parts(recipe, built, method, exported)
    first = next(iter(parts.task.batches("train", Feed(batch_size=recipe.train.batch_size))))
    with fitting_threads(first.x):
        return evaluate_parts(parts, exported, processes, reporter, {})
