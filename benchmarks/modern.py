"""Write the studies that compare the methods of recipes/studies/modern*.toml at one cost in passes.

    python benchmarks/modern.py                 # print the epochs and passes of every method
    python benchmarks/modern.py --write         # write the files

A method gets the number of epochs that is closest to the budget, and what its recipe spreads over epochs is
spread over these. Then `benchmarks/methods.py --study FILE` runs a study and stores its numbers. The row
`trades-extra` reads the file that its task names, which `benchmarks/generated.py` makes.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

sys.path.insert(0, str(Path(__file__).resolve().parent))

from methods import method_of, paced

import robustplug
from robustplug.api import TaskInfo

STUDIES = Path(__file__).resolve().parents[1] / "recipes" / "studies"
# Row of the table: the recipe that its method is taken from, and changes of the method and of training.
ROWS: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "erm": ("erm", {}, {}),
    "trades": ("trades", {}, {}),
    "pgd-at": ("pgd-at", {}, {}),
    "awp": ("awp", {}, {}),
    "mart": ("mart", {}, {}),
    "hat": ("hat", {"helper": {"use": "MODEL", "from": "cell:recipe=erm"}}, {}),
    "rslad": ("rslad", {"teacher": {"use": "MODEL", "from": "cell:recipe=trades"}}, {}),
    "dkl": ("dkl", {}, {}),
    "gradalign": ("gradalign", {}, {}),
    "fast-at": ("fast-at", {}, {}),
    "n-fgsm": ("n-fgsm", {}, {}),
    "swa": ("swa", {}, {}),
    "gairat": ("gairat", {}, {}),
    "fat": ("fat", {}, {}),
    "trades-ema": ("trades", {}, {"ema_decay": 0.995}),
    "trades-extra": ("trades", {}, {}),
    "awp-pgd-at": ("awp", {"inner": "pgd-at"}, {}),
    "ard": ("rslad", {"teacher": {"use": "MODEL", "from": "cell:recipe=trades"}, "variant": "ard"}, {}),
    "adaad": ("rslad", {"teacher": {"use": "MODEL", "from": "cell:recipe=trades"}, "variant": "adaad"}, {}),
    "backward-smoothing": ("backward-smoothing", {}, {}),
    "fast-trades": ("fast-trades", {}, {}),
    "free-at": ("free-at", {}, {}),
    "cat": ("cat", {}, {}),
    "iaat": ("iaat", {}, {}),
    "sprout": ("sprout", {}, {}),
}
# Passes of an epoch, where they depend on what the model withstands: as measured on the digits.
MEASURED: Mapping[str, float] = {"iaat": 46.4, "gairat": 22, "fat": 18.6}
# Share of extra samples in each batch of a row: its epochs have n / (1 − share) rows.
EXTRA = {"trades-extra": 0.5}


@dataclass(frozen=True)
class Plan:
    """A study to write.

    Attributes:
        head: the comment at the top of the file.
        task, model: their tables.
        eps: radius of L∞.
        seeds: seeds of every cell.
        budget: passes of a training sample, or None for `epochs` of every method.
        epochs: epochs of every method; None for a budget.
        test: number of test samples; None for all.
        lr: learning rate.
        optimizer: more options of SGD.
        augment: random changes of all training inputs in rows with extra samples, in the place of the task's.
        measured: passes of an epoch of some rows, in the place of those of MEASURED.
    """

    head: str
    task: Mapping[str, Any]
    model: Mapping[str, Any]
    eps: float | str
    seeds: tuple[int, ...]
    budget: int | None = None
    epochs: int | None = None
    test: int | None = 200
    validate: int = 250
    lr: float = 0.03
    optimizer: Mapping[str, Any] | None = None
    augment: Sequence[Mapping[str, Any]] = ()
    measured: Mapping[str, float] = field(default_factory=dict)


def relative(table: Any) -> Any:
    """Return tables of a recipe for the digits, at ε = 0.1, with step sizes relative to the radius."""
    if not isinstance(table, Mapping):
        return table
    found = {key: relative(value) for key, value in table.items()}
    if found.get("use") == "early-stopped":
        # Its default is the recipe's step size, relative to the radius.
        del found["step_size"]
    elif "step_size" in found:
        found["step_ratio"] = round(found.pop("step_size") / 0.1, 6)
    return found


def method_for(row: str, plan: Plan) -> tuple[dict[str, Any], int]:
    """Return the table of a row's method under a plan, and the epochs that its recipe was made for."""
    recipe, changes, _ = ROWS[row]
    method, made_for = method_of(recipe, plan.eps)
    method = relative(copy.deepcopy(method))
    for key, value in changes.items():
        if key == "inner":
            method["inner"] = relative(method_of(value, plan.eps)[0])
        elif isinstance(value, Mapping):
            method[key] = {**plan.model, "from": value["from"]}
        else:
            method[key] = value
    if "variant" in method:
        # The attack of the variant, with its step size relative to the radius.
        loss = {"loss": {"use": "ce"}, "start": "uniform"} if method["variant"] == "ard" else {}
        method["perturbation"] = {**method["perturbation"], **loss}
    return method, made_for


def task_for(row: str, plan: Plan) -> Mapping[str, Any]:
    """Return the table of a row's task under a plan."""
    if row not in EXTRA:
        return plan.task
    name = Path(plan.task.get("path", plan.task["use"])).stem
    return {
        "use": "mix",
        "share": EXTRA[row],
        "teacher": "cell:recipe=erm",
        "base": {**plan.task, **({"augment": False} if plan.augment else {})},
        "extra": {"use": "arrays", "path": f"generated-{name}.npz", "validation": 0, "test": 0},
    }


def passes_of_epoch(row: str, method: Mapping[str, Any], plan: Plan) -> float:
    """Return the forwards plus backwards of an epoch for each sample that is not an extra one."""
    known = {**MEASURED, **plan.measured}
    return known[row] if row in known else _counted(method) / (1 - EXTRA.get(row, 0.0))


def _counted(method: Mapping[str, Any]) -> float:
    def without_weights(table: Any) -> Any:
        if not isinstance(table, Mapping):
            return table
        return {key: without_weights(value) for key, value in table.items() if key != "from"}

    options = without_weights({key: value for key, value in method.items() if key != "use"})
    info = TaskInfo({"train": 128, "validation": 128, "test": 128}, (3, 32, 32), 10)
    cost = robustplug.build("method", method["use"], info=info, **options).cost()
    return float(cost.forwards + cost.backwards)


def case_of(row: str, plan: Plan) -> dict[str, Any]:
    """Return the case of a row."""
    method, made_for = method_for(row, plan)
    each = passes_of_epoch(row, method, plan)
    epochs = _epochs(row, plan, each)
    print(f"{row:20} {epochs:4} epochs, {epochs * each:6.0f} passes", flush=True)
    augment = {"augment": [dict(each) for each in plan.augment]} if row in EXTRA and plan.augment else {}
    settings = {
        "task": task_for(row, plan),
        "method": paced(method, made_for, epochs),
        "train": {"epochs": epochs, **ROWS[row][2], **augment},
        "validate": {"every": epochs},
    }
    return {"label": row, "set": settings}


def _epochs(row: str, plan: Plan, each: float) -> int:
    if plan.epochs is not None:
        return round(plan.epochs * (1 - EXTRA.get(row, 0.0)))
    return max(1, round((plan.budget or 0) / each))


# Milliseconds of a forward or a backward of 128 samples by ResNet-18: a step of PGD-AT(10) takes 22 of them.
# docs/performance.md has the time of a step, captured and compiled, and not captured, on an H200.
PER_PASS = {"captured": 16.95 / 22, "not captured": 75 / 22}
UPDATES = 45_000 / 128
# Forwards and backwards of a test sample that withstands AutoAttack: APGD-CE, APGD-T for 9 classes and FAB-T
# for 9 classes, with 100 iterations each, and 5000 queries of Square.
ATTACK = 100 * 2 + 9 * 100 * 2 + 9 * 100 * 2 + 5000


def hours(plan: Plan) -> dict[str, float]:
    """Return the hours of a study's training on a GPU, by how an update is run, and of its attacks."""
    each = {row: passes_of_epoch(row, method_for(row, plan)[0], plan) for row in ROWS}
    passes = sum(_epochs(row, plan, each[row]) * each[row] for row in ROWS)
    runs = len(plan.seeds)
    found = {way: runs * passes * UPDATES * each / 3.6e6 for way, each in PER_PASS.items()}
    batches = (plan.test or 10_000) / 128
    # As if half of the samples withstood; an audit takes about twice the passes of AutoAttack.
    found["attacks"] = 3 * runs * len(ROWS) * 0.5 * ATTACK * batches * PER_PASS["not captured"] / 3.6e6
    return found


def estimate(plan: Plan) -> str:
    """Return what a study costs on a GPU, as lines of a comment."""
    found = hours(plan)
    return (
        f"About {found['captured']:.0f} hours of training on an H200 if updates are captured and compiled, "
        f"{found['not captured']:.0f} if they are not:\n"
        "passes of a sample times batches, at the time of a step of PGD-AT(10), which has 22 passes, in\n"
        f"docs/performance.md. AutoAttack and audit of {plan.test:,} images: "
        f"up to {found['attacks']:.0f} hours more, at the same speed,\nnot captured.\n"
    )


def study_of(name: str, plan: Plan) -> str:
    """Return the text of a study."""
    audited = {"audit": True}
    tables = {
        "schema": 1,
        "name": name,
        "base": "erm",
        "seeds": list(plan.seeds),
        **audited,
        "set": {
            "model": plan.model,
            "optimizer": {"use": "sgd", "lr": plan.lr, **(plan.optimizer or {})},
            "schedule": {"use": "cosine"},
            # The last checkpoint is evaluated, so that the model has used the whole budget.
            "train": {"batch_size": 128, "select": "last"},
            "validate": {"samples": plan.validate},
            "evaluate": {
                **({"samples": plan.test} if plan.test else {}),
                "attack": [{"use": "pgd", "steps": 20}, {"use": "autoattack"}],
            },
        },
        "axis": [{"name": "recipe", "case": [case_of(row, plan) for row in ROWS]}],
    }
    head = f"{plan.head}\n{estimate(plan) if plan.epochs else ''}"
    return "".join(f"# {line}\n" for line in head.splitlines()) + tomli_w.dumps(tables)


WRITTEN = "Written by benchmarks/modern.py, which says how the epochs follow from "
PLANS: dict[str, Plan] = {
    "modern": Plan(
        "The methods of today at one cost, on scikit-learn's digits: some two hours of one core.\n"
        f"{WRITTEN}about 330 passes per sample.\n"
        "Before: python benchmarks/generated.py --task digits --out generated-digits.npz",
        {"use": "digits"},
        {"use": "small-cnn", "width": 16},
        0.1,
        (0, 1, 2),
        budget=330,
    ),
    "modern-mnist": Plan(
        "The methods of today at one cost, on 4,000 images of MNIST: some three hours of one core.\n"
        f"{WRITTEN}about 330 passes per sample.\n"
        "Before: python benchmarks/generated.py --task mnist --train-samples 4000 --out generated-mnist.npz",
        {"use": "mnist", "train_samples": 4000},
        # On a CPU, AutoAttack and audit of a small CNN take ten minutes a run.
        {"use": "mlp", "hidden": [200, 200]},
        0.1,
        (0, 1, 2),
        budget=330,
        lr=0.1,
    ),
    "modern-cifar10-subset": Plan(
        "The methods of today at one cost, on 2,000 images of CIFAR-10: an evening on two cores.\n"
        f"{WRITTEN}about 330 passes per sample.\n"
        "Before: python benchmarks/cifar_subset.py FOLDER --train 2000 --test 1000 --out cifar10-subset.npz\n"
        "    python benchmarks/generated.py --task arrays --path cifar10-subset.npz \\\n"
        "    --out generated-cifar10-subset.npz",
        {"use": "arrays", "path": "cifar10-subset.npz"},
        {"use": "small-cnn", "width": 8},
        "8/255",
        (0, 1, 2),
        budget=330,
        # Its attack stops earlier here than on the digits.
        measured={"fat": 10.3},
    ),
    "modern-cifar10": Plan(
        "The methods of today on CIFAR-10, for one GPU: ResNet-18, 30 epochs of each.\n"
        "Written by benchmarks/modern.py. The row trades-extra needs a file of generated images, see\n"
        "recipes/trades-extra-cifar10.toml, as generated-cifar10.npz; half of each batch is from there.",
        {"use": "cifar10"},
        {"use": "resnet18"},
        "8/255",
        (0, 1, 2),
        epochs=30,
        test=1000,
        validate=1000,
        lr=0.1,
        optimizer={"momentum": 0.9, "weight_decay": 5e-4},
        augment=(
            {"use": "torchvision:RandomCrop", "size": 32, "padding": 4},
            {"use": "torchvision:RandomHorizontalFlip"},
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the files")
    options = parser.parse_args()
    for name, plan in PLANS.items():
        print(f"{name}:")
        text = study_of(name, plan)
        if options.write:
            (STUDIES / f"{name}.toml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
