"""Train every method within one budget of passes per training sample, with several seeds, and attack it.

    python benchmarks/methods.py --out studies/methods-digits --write
    python benchmarks/methods.py --out studies/bundled --bundled --methods cat gbdt-digits --write
    ROBUSTPLUG_DATA=data python benchmarks/methods.py --task cifar10 --model resnet18 --eps 8/255 …
    python benchmarks/methods.py --study recipes/studies/modern.toml --out studies/modern --write

A pass is a forward or a backward of one sample. The passes of a method's epochs are counted on a few hundred
samples, or on all of them if they depend on what the model withstands, as in IAAT. The method is then
trained for as many epochs as the budget allows, with the same optimizer, schedule and batch size for all
methods; what its recipe spreads over epochs, such as a warm-up, is spread over these. A row is refused where
the quantities that show the method's mechanism at work did not move. With --bundled, the recipes are trained
as they are. With --study, the study of a file is run, whose axis is the recipe, and its finished cells are
compared with its row `trades`; with --methods, only these rows and those that they start from, beside rows
that were stored before, on any machine. After an interruption, the same command resumes. --write stores the
numbers in results.json and writes docs/results.md and the tables of the cards from them.
"""

from __future__ import annotations

import argparse
import bisect
import datetime
import functools
import json
import platform
import re
import shlex
import sys
import tomllib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from results import Row, Section, Seed, read, store, table, write

import robustplug
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.study import Study, read_study
from robustplug.recipe.toml.files import bundled_recipes
from robustplug.runs.choose import differences
from robustplug.studies.outcome import Run, look, runs_of
from robustplug.studies.study import study_to_json

METHODS = [
    "erm",
    "label-smoothing",
    "ls-ga",
    "mixup",
    "gaussian",
    "stability",
    "sprout",
    "sprout-official",
    "advprop",
    "fast-at",
    "n-fgsm",
    "fast-trades",
    "backward-smoothing",
    "free-at",
    "bilateral",
    "interpolated",
    "cat",
    "robmask",
    "pgd-at",
    "trades",
    "awp",
    "mart",
    "dkl",
    "gradalign",
    "iaat",
]
ATTACKS = [{"use": "pgd", "steps": 50, "restarts": 5}, {"use": "apgd-t"}]
# Options that a recipe chooses for its number of epochs: a length grows with it, a speed shrinks.
LENGTHS = {"iaat": "warmup", "swa": "warmup", "gairat": "warmup"}
SPEEDS = {"cat": "eta", "iaat": "beta"}
# Options of a recipe that are steps of a radius.
STEPS = {"cat": "eta", "iaat": "gamma"}


def method_of(recipe: str, eps: float | str) -> tuple[dict[str, Any], int]:
    """Return the method of a bundled recipe with another radius, and the epochs that it was made for."""
    tables = tomllib.loads(bundled_recipes()[recipe].read_text(encoding="utf-8"))
    method: dict[str, Any] = tables["method"]
    inner = method
    while "vicinity" not in inner:
        inner = inner["inner"]
    vicinity = inner["vicinity"]
    while "inner" in vicinity:
        vicinity = vicinity["inner"]
    ratio = float(Fraction(str(eps))) / float(Fraction(str(vicinity["eps"])))
    vicinity["eps"] = eps
    if method["use"] in STEPS:
        method[STEPS[method["use"]]] = round(method[STEPS[method["use"]]] * ratio, 6)
    if method["use"] == "cat":
        # c · eps, a probability, stays.
        method["label_map"]["c"] = round(method["label_map"]["c"] / ratio, 6)
    return method, int(tables["train"]["epochs"])


def paced(method: Mapping[str, Any], made_for: int, epochs: int) -> dict[str, Any]:
    """Return a method whose own schedule takes the same share of other epochs.

    Args:
        method: the method of a recipe.
        made_for: epochs of that recipe.
        epochs: epochs to train.
    """
    changed, length, speed = dict(method), LENGTHS.get(method["use"]), SPEEDS.get(method["use"])
    if length is not None:
        changed[length] = round(method[length] * epochs / made_for)
    if speed is not None:
        # A radius of CAT takes at least two visits to its largest value, and a weight is at most 1.
        most = float(Fraction(str(method["vicinity"]["eps"]))) / 2 if method["use"] == "cat" else 1.0
        changed[speed] = min(most, method[speed] * made_for / epochs)
    attack = method.get("perturbation", {})
    if "milestones" in attack:
        stretched = [round(each * epochs / made_for) for each in attack["milestones"]]
        changed["perturbation"] = {**attack, "milestones": stretched}
    return changed


def is_known(method: Mapping[str, Any]) -> bool:
    """Return whether the passes of a method are the same for every model and sample."""
    options = {key: value for key, value in method.items() if key != "use"}
    built: bool = robustplug.build("method", method["use"], **options).cost().known
    return built


def base_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the part of the recipe that all methods share."""
    return {
        "task": {"use": options.task, **({"train_samples": options.samples} if options.samples else {})},
        "model": {"use": options.model, **({"width": options.width} if options.width else {})},
        "optimizer": {"use": "sgd", "lr": options.lr},
        "schedule": {"use": "cosine"},
        # The last checkpoint is evaluated, so that the model has used the whole budget.
        "train": {"batch_size": 128, "device": options.device, "select": "last"},
        "validate": {"samples": 250},
        "evaluate": {**({"samples": options.test} if options.test else {}), "attack": ATTACKS},
    }


def passes_of(method: Mapping[str, Any], base: Mapping[str, Any], epochs: int) -> float:
    """Return the forwards plus backwards of a sample in this many epochs, counted by training."""
    # One epoch is enough, and a few samples are, where neither model nor sample changes the number.
    known = is_known(method)
    few = {"test": 1400} if base["task"]["use"] == "digits" else {"train_samples": 256}
    trained = 1 if known else epochs
    recipe = {
        **base,
        "method": method,
        "task": {**base["task"], **(few if known else {})},
        "train": {**base["train"], "epochs": trained},
        "validate": {"samples": 8, "attack": {"use": "none"}, "every": trained},
        "evaluate": {"samples": 8, "attack": []},
    }
    with TemporaryDirectory() as folder:
        training = robustplug.train(recipe, out=Path(folder) / "run").result.meta["training"]
    return epochs * float(training["forwards_per_sample"] + training["backwards_per_sample"])


def epochs_of(
    method: Mapping[str, Any], made_for: int, base: Mapping[str, Any], budget: float
) -> tuple[int, float]:
    """Return the number of epochs closest to the budget, and the passes that they take."""

    @functools.cache
    def passes(epochs: int) -> float:
        return passes_of(paced(method, made_for, epochs), base, epochs)

    most = max(1, round(budget / passes(1)))
    # Epochs may cost more after a warm-up.
    enough = most if passes(most) <= budget else 1 + bisect.bisect_left(range(1, most), budget, key=passes)
    epochs = min(enough, max(1, enough - 1), key=lambda epochs: abs(passes(epochs) - budget))
    return epochs, passes(epochs)


def cases(options: argparse.Namespace, base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the methods as cases of a study, each with its epochs."""
    found = []
    for name in options.methods:
        method, made_for = method_of(name, options.eps)
        epochs, passes = epochs_of(method, made_for, base, options.budget)
        print(f"{name:20} {epochs} epochs, {passes:.1f} passes per sample", flush=True)
        settings = {
            "method": paced(method, made_for, epochs),
            "train": {"epochs": epochs},
            "validate": {"every": epochs},
        }
        found.append({"label": name, "set": settings})
    return found


def bundled(options: argparse.Namespace) -> list[Row]:
    """Train recipes as they are with each seed, unless an earlier command has, and return the rows."""
    rows = []
    for name in options.methods:
        folders = {seed: options.out / f"{name}-{seed}" for seed in options.seeds}
        for seed, folder in folders.items():
            if not (folder / "result.json").exists():
                robustplug.train(name, seed=seed, out=folder)
        rows.append(row_of(name, folders))
    return rows


def row_of(name: str, folders: Mapping[int, Path]) -> Row:
    """Return the row of a recipe from its finished runs by seed."""
    seeds, recipe, epochs = {}, "", 0
    for seed, folder in folders.items():
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        training = result["meta"]["training"]
        epochs = training["epochs"]
        recipe = recipe or (folder / "recipe.toml").read_text(encoding="utf-8")
        shares = [100 * row["accuracy"] for row in result["attacks"]]
        rows = epochs / (1 - extra_share(recipe))
        passes = (rows * training["forwards_per_sample"], rows * training["backwards_per_sample"])
        grade = result.get("audit", {}).get("grade", "")
        seeds[seed] = Seed((shares[0], shares[1], shares[-1]), training["mechanism"], passes, grade)
    return Row(name, recipe, epochs, seeds)


def extra_share(recipe: str) -> float:
    """Return the share of extra samples in the batches of a recipe: an epoch has n / (1 − share) rows."""
    task = tomllib.loads(recipe)["task"]
    return float(task.get("share", 0.5)) if task["use"] == "mix" else 0.0


def rows_of(folder: Path, studied: Mapping[str, Any], partial: bool = False) -> list[Row]:
    """Return the rows of a study whose runs are all finished.

    Args:
        folder: the study folder.
        studied: its result.
        partial: whether to leave out the cells that have unfinished runs.

    Raises:
        SystemExit: a run is not finished, or none is.
    """
    rows = []
    for cell in studied["cells"]:
        name = cell["labels"]["recipe"]
        if partial and any(run["status"] != "finished" for run in cell["runs"]):
            print(f"{name} is left out: it has unfinished runs", flush=True)
            continue
        for run in cell["runs"]:
            if run["status"] != "finished":
                raise SystemExit(f"{name}, seed {run['seed']}: {run['status']}: {run['reason']}")
        rows.append(row_of(name, {run["seed"]: folder / run["folder"] for run in cell["runs"]}))
    if not rows:
        raise SystemExit("no cell has finished with all its seeds")
    return rows


def chosen(study: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a study whose one axis has these cases, and those whose networks they start from.

    Raises:
        SystemExit: it has no such case.
    """
    (axis,) = study["axis"]
    cases = {case["label"]: case for case in axis["case"]}
    missing = [name for name in names if name not in cases]
    if missing:
        raise SystemExit(f"the study has no {', '.join(missing)}; it has {', '.join(cases)}")
    found, left = set(), list(names)
    while left:
        found.add(name := left.pop())
        left += set(re.findall(r"'cell:recipe=([^']+)'", str(cases[name]))) - found
    return {**study, "axis": [{**axis, "case": [cases[name] for name in cases if name in found]}]}


def with_stored(rows: Sequence[Row], stored: Sequence[Row], study: Study, folder: Path) -> list[Row]:
    """Return the rows of a study in its order, with stored ones that it would make again.

    Args:
        rows: rows that are made now.
        stored: rows of the same title.
        study: the study; a stored row whose recipe is not that of its cell any more is left out.
        folder: the study folder.
    """
    runs = {run.cell.labels[0]: run for run in reversed(runs_of(study, folder))}
    held = {row.name: row for row in stored if row.name in runs and not _changed(row, runs[row.name])}
    held |= {row.name: row for row in rows}
    return [held[name] for cell in study.cells if (name := cell.labels[0]) in held]


def _changed(row: Row, run: Run) -> list[str]:
    return differences(run.recipe, recipe_from_mapping(tomllib.loads(row.recipe), starts=False))


def section(options: argparse.Namespace, rows: Sequence[Row]) -> Section:
    """Return the section of the page: what was done, and the numbers."""
    import torch

    seeds = f"seeds {options.seeds[0]} to {options.seeds[-1]}" if len(options.seeds) > 1 else "one seed"
    width = f" of width {options.width}" if options.width else ""
    baseline = ""
    if options.study:
        title = described(options, rows)[0]
        stored = [row for each in read() if each.title == title for row in each.rows]
        rows = with_stored(rows, stored, read_study(options.study), options.out)
        text, baseline = described(options, rows)[1], "trades"
    elif options.bundled:
        title, text = (
            "Recipes as they are bundled",
            f"{seeds}; each table's numbers as `robustplug train` prints them.",
        )
    else:
        samples = f"{options.samples} training images, " if options.samples else ""
        test = f"the first {options.test} test images" if options.test else "all test images"
        title = f"{options.task}, {options.model}{width}, one budget"
        text = (
            f"{samples}L∞ ε = {options.eps}, about {options.budget} passes per training sample, "
            f"{seeds}, the last checkpoint, {test}."
        )
    command = shlex.join(sys.argv[1:])
    if options.study:
        # The command that makes all rows, however many of them were made now.
        said = {"study": options.study, "title": options.title, "note": options.note, "out": options.out}
        given = [part for name, each in said.items() if each for part in (f"--{name}", str(each))]
        command = shlex.join([*given, "--write"])
    made = (
        f"`python benchmarks/methods.py {command}`, {datetime.date.today().isoformat()}, "
        f"robustplug {robustplug.__version__}, torch {torch.__version__}, {platform.machine()}."
    )
    attacks = ("first attack", "all attacks") if options.bundled else ("PGD-50×5", "APGD-T")
    if options.study:
        attacks = ("PGD-20", "AutoAttack")
    return Section(title, text, made, ("clean", *attacks), rows, baseline)


def described(options: argparse.Namespace, rows: Sequence[Row]) -> tuple[str, str]:
    """Return title and text of the section of a study, from the recipes and passes of its rows."""
    recipe = tomllib.loads(rows[0].recipe)
    task, model, method = recipe["task"], recipe["model"], recipe["method"]
    passes = [sum(seed.passes) for row in rows for seed in row.seeds.values()]
    seeds = sorted({number for row in rows for number in row.seeds})
    width = f" of width {model['width']}" if "width" in model else ""
    samples = f"{task['train_samples']} training images, " if task.get("train_samples") else ""
    tested = recipe["evaluate"].get("samples")
    test = f"the first {tested} test images" if tested else "all test images"
    title = f"{options.title or task['use']}, {model['use']}{width}: {options.study.stem}"
    text = (
        f"{samples}{options.note + ', ' if options.note else ''}L∞ ε = {method['vicinity']['eps']:.3g}, "
        f"{min(passes):.0f} to {max(passes):.0f} passes per training sample, "
        f"seeds {seeds[0]} to {seeds[-1]}, the last checkpoint, {test}. "
    )
    epochs = [row.epochs for row in rows]
    text += (
        f"So few passes are {min(epochs)} to {max(epochs)} epochs: a cheap step is trained far longer here, "
        "and what wins may not win after a long training. "
    )
    starts = [(row.name, re.search(r'(?:from|teacher) = ".*recipe-(.+)_seed-', row.recipe)) for row in rows]
    taught = "; ".join(f"`{name}` from `{match[1]}`" for name, match in starts if match)
    text += f"Passes of a second network's own training are not counted: {taught}. " if taught else ""
    if any(seed.audit for row in rows for seed in row.seeds.values()):
        text += "Audit: number of seeds and their [grade](evaluation.md#the-audit). "
    text += "The last column is what the authors state, clean and robust, for CIFAR-10 at ε of about 8/255, "
    return title, text + "by a network and an attack of their own; the cards of the plugins say where."


def studied(options: argparse.Namespace) -> list[Row]:
    """Train the methods within the budget, or the study of a file, and return the rows."""
    if options.study:
        if options.finished:
            # Not as its result.json says, which lags behind where the study was interrupted.
            known = read_study(options.study)
            found = [look(known, run) for run in runs_of(known, options.out)]
            return rows_of(options.out, study_to_json(known, options.out, found), partial=True)
        asked: Path | dict[str, Any] = options.study
        if options.methods is not METHODS:
            asked = chosen(tomllib.loads(options.study.read_text(encoding="utf-8")), options.methods)
        result = robustplug.study(asked, out=options.out, processes=options.processes).result
        return rows_of(options.out, result, partial=True)
    base, plan = base_of(options), options.out.with_suffix(".json")
    if not plan.exists():
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_text(json.dumps(cases(options, base), indent=1), encoding="utf-8")
    study = {
        "name": options.out.name,
        "base": "erm",
        "seeds": options.seeds,
        "set": base,
        "axis": [{"name": "recipe", "case": json.loads(plan.read_text(encoding="utf-8"))}],
    }
    result = robustplug.study(study, out=options.out, processes=options.processes).result
    return rows_of(options.out, result)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", default="digits")
    parser.add_argument("--model", default="small-cnn")
    parser.add_argument("--width", type=int, help="width of the model")
    parser.add_argument("--eps", default="0.1")
    parser.add_argument("--samples", type=int, help="number of training images (default: all)")
    parser.add_argument("--test", type=int, help="number of test images (default: all)")
    parser.add_argument("--budget", type=int, default=330, help="passes per training sample")
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, help="runs at a time (default: one per GPU)")
    parser.add_argument("--methods", nargs="*", default=METHODS, metavar="RECIPE")
    parser.add_argument("--bundled", action="store_true", help="the recipes as they are, without a budget")
    parser.add_argument(
        "--study", type=Path, help="run the study of this file instead; its axis is the recipe"
    )
    parser.add_argument(
        "--finished", action="store_true", help="with --study: take finished cells, run nothing"
    )
    parser.add_argument("--title", help="with --study: name of the data in the title")
    parser.add_argument("--note", help="with --study: what the page says of the data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--write", action="store_true", help="store the numbers, and write the pages")
    options = parser.parse_args()

    found = section(options, bundled(options) if options.bundled else studied(options))
    print("\n".join(table(found)))
    if options.write:
        write(store(found))


if __name__ == "__main__":
    main()
