"""Train every method within one budget of passes per training sample: accuracies, audit, time.

    ROBUSTPLUG_DATA=data python benchmarks/methods.py --out studies/methods-mnist --write docs/results.md
    ROBUSTPLUG_DATA=data python benchmarks/methods.py --task cifar10 --model resnet18 --eps 8/255 …

A pass is a forward or a backward of one sample. The passes of a method's epochs are counted on 256 samples,
or on all of them if they depend on what the model withstands, as in IAAT. The method is then trained for as
many epochs as the budget allows, with the same optimizer, schedule and batch size for all methods; what its
recipe spreads over epochs, such as a warm-up, is spread over these. A row is refused where the quantities
that show the method's mechanism at work did not move. After an interruption, the same command resumes.
"""

from __future__ import annotations

import argparse
import bisect
import datetime
import functools
import json
import platform
import shlex
import sys
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import robustplug
from robustplug.recipe.toml.files import bundled_recipes

METHODS = [
    "erm",
    "label-smoothing",
    "mixup",
    "gaussian",
    "stability",
    "sprout",
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
    "iaat",
]
SUITE = "methods"
# Options that a recipe chooses for its number of epochs: a length grows with it, a speed shrinks.
LENGTHS = {"iaat": "warmup"}
SPEEDS = {"cat": "eta", "iaat": "beta"}


def method_of(recipe: str, eps: float | str) -> tuple[dict[str, Any], int]:
    """Return the method of a bundled recipe with another radius, and the epochs that it was made for."""
    tables = tomllib.loads(bundled_recipes()[recipe].read_text(encoding="utf-8"))
    method: dict[str, Any] = tables["method"]
    vicinity = method["vicinity"]
    while "inner" in vicinity:
        vicinity = vicinity["inner"]
    vicinity["eps"] = eps
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
    return changed


def is_known(method: Mapping[str, Any]) -> bool:
    """Return whether the passes of a method are the same for every model and sample."""
    options = {key: value for key, value in method.items() if key != "use"}
    built: bool = robustplug.build("method", method["use"], **options).cost().known
    return built


def base_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the part of the recipe that all methods share."""
    return {
        "task": {"use": options.task, "train_samples": options.samples},
        "model": {"use": options.model, **({"width": options.width} if options.width else {})},
        "optimizer": {"use": "sgd", "lr": options.lr},
        "schedule": {"use": "cosine"},
        # The last checkpoint is evaluated, so that the model has used the whole budget.
        "train": {"batch_size": 128, "device": options.device, "select": "last"},
        "validate": {"samples": 250},
        "evaluate": {"samples": options.test, "attack": []},
    }


def passes_of(method: Mapping[str, Any], base: Mapping[str, Any], epochs: int) -> float:
    """Return the forwards plus backwards of a sample in this many epochs, counted by training."""
    recipe = {
        **base,
        "method": method,
        "task": {**base["task"], **({"train_samples": 256} if is_known(method) else {})},
        "train": {**base["train"], "epochs": epochs},
        "validate": {"samples": 8, "attack": {"use": "none"}, "every": epochs},
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


def idle_in(mechanism: Mapping[str, float]) -> list[str]:
    """Return the quantities that show that a method was not at work."""
    return [name for name, value in mechanism.items() if not value > 0]


def table(folder: Path, studied: Mapping[str, Any]) -> list[str]:
    """Return the finished cells as a Markdown table."""
    names = ["clean", "PGD-100×5", "AutoAttack", "Sign-OPT"]
    heads = ["method", *names, "audit", "at work", "epochs", "forwards", "backwards", "minutes"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for cell in studied["cells"]:
        (run,) = cell["runs"]
        method = cell["labels"]["method"]
        if run["status"] != "finished":
            lines.append(f"| `{method}` | {run['status']}: {run['reason']} |" + " |" * (len(heads) - 2))
            continue
        result = json.loads((folder / run["folder"] / "result.json").read_text(encoding="utf-8"))
        training = result["meta"]["training"]
        mechanism = training["mechanism"]
        if idle := idle_in(mechanism):
            lines.append(
                f"| `{method}` | refused: {', '.join(idle)} did not move |" + " |" * (len(heads) - 2)
            )
            continue
        work = ", ".join(f"{name} {value:.2g}" for name, value in mechanism.items()) or "–"
        epochs = training["epochs"]
        # Each of AutoAttack's attacks is a row; the accuracy after the last one counts.
        found = {name.partition(" · ")[0]: accuracy for name, accuracy in run["accuracies"].items()}
        accuracies = [f"{100 * found[name]:.1f}" for name in names]
        counts = [f"{epochs * training[f'{way}s_per_sample']:.0f}" for way in ("forward", "backward")]
        cells = [
            *accuracies,
            run["audit"]["grade"],
            work,
            str(epochs),
            *counts,
            f"{training['seconds'] / 60:.1f}",
        ]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return lines


def section(options: argparse.Namespace, lines: list[str]) -> str:
    """Return a section of the results page: the settings, command, date and table."""
    import torch

    command = shlex.join(["python", *sys.argv])
    return "\n".join(
        [
            f"## {options.task}, {options.model}{f' of width {options.width}' if options.width else ''}",
            "",
            f"{options.samples} training images, L∞ ε = {options.eps}, about {options.budget} passes per "
            f"training sample, seed {options.seed}, the first {options.test} test images (accuracies in %); "
            "Sign-OPT within 2,000 queries at L2 ε = 1.",
            "",
            f"`{command}`, {datetime.date.today().isoformat()}, torch {torch.__version__}, "
            f"{platform.machine()}, {torch.get_num_threads()} threads.",
            "",
            *lines,
            "",
        ]
    )


def put(path: Path, text: str) -> None:
    """Write a section into a page; replace the section with the same heading."""
    heading = text.partition("\n")[0]
    parts = path.read_text(encoding="utf-8").split("\n## ") if path.exists() else ["# Results"]
    kept = [part for part in parts[1:] if f"## {part.partition(chr(10))[0]}" != heading]
    sections = [parts[0].rstrip(), *(f"## {part.rstrip()}" for part in kept), text.rstrip()]
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", default="mnist")
    parser.add_argument("--model", default="small-cnn")
    parser.add_argument("--width", type=int, help="width of the model")
    parser.add_argument("--eps", default="0.1")
    parser.add_argument("--samples", type=int, default=20000, help="number of training images")
    parser.add_argument("--test", type=int, default=500, help="number of test images")
    parser.add_argument("--budget", type=int, default=120, help="passes per training sample")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, help="methods trained at a time (default: one per GPU)")
    parser.add_argument("--methods", nargs="*", default=METHODS, metavar="RECIPE")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--write", type=Path, help="page to write the table to")
    options = parser.parse_args()

    base, plan = base_of(options), options.out.with_suffix(".json")
    if not plan.exists():
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_text(json.dumps(cases(options, base), indent=1), encoding="utf-8")
    study = {
        "name": options.out.name,
        "base": "erm",
        "seeds": [options.seed],
        "suite": SUITE,
        "audit": True,
        "set": base,
        "axis": [{"name": "method", "case": json.loads(plan.read_text(encoding="utf-8"))}],
    }
    studied = robustplug.study(study, out=options.out, processes=options.processes).result
    lines = table(options.out, studied)
    print("\n".join(lines))
    if options.write:
        put(options.write, section(options, lines))


if __name__ == "__main__":
    main()
