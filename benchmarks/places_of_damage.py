"""The folders that benchmarks/faults.py damages, how they are made, and the commands that read them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from left_behind import left_behind, timeless

import robustplug
from robustplug.api import EpochReport
from robustplug.core.reporting import Reporter, Silent
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.write import write_recipe
from robustplug.studies.study import SilentStudy

EPOCHS, SAMPLES = 5, 32
# The files that a command of the campaign writes its numbers to.
OUT = "out"

METHODS: dict[str, dict[str, Any]] = {
    "erm": {"method": {"use": "erm", "vicinity": {"use": "linf", "eps": 0.1}}},
    "cat": {
        "method": {"use": "cat", "eta": 0.015, "vicinity": {"use": "linf", "eps": 0.1}},
        "optimizer": {"use": "sgd", "lr": 0.1},
    },
    "sprout": {"method": {"use": "sprout", "vicinity": {"use": "linf", "eps": 0.1}}},
    "trades": {
        "method": {"use": "trades", "vicinity": {"use": "linf", "eps": 0.1}},
        "optimizer": {"use": "adamw", "lr": 0.01},
        "train": {"ema_decay": 0.9},
    },
    "free-at": {"method": {"use": "free-at", "replays": 2, "vicinity": {"use": "linf", "eps": 0.1}}},
}

SUITE = """schema = 1
name = "quick-look"

[[row]]
chain = "worst"
attack = { use = "pgd", steps = 3 }

[[row]]
chain = "worst"
attack = { use = "pgd", steps = 3, loss = { use = "margin" } }

[[row]]
attack = { use = "pgd", steps = 3 }
transfer = true

[[row]]
shift = { use = "brightness", factor = 1.5 }
"""


class StopsAt(Silent):
    """Stop a command after a number of epochs, or of reports of attacks."""

    def __init__(self, epochs: int = -1, attacks: int = -1) -> None:
        self.epochs, self.attacks = epochs, attacks

    def epoch(self, report: EpochReport, epochs: int) -> None:
        self.epochs -= 1
        if self.epochs == 0:
            raise KeyboardInterrupt

    def attack(self, name: str, done: int, total: int) -> None:
        self.attacks -= 1
        if self.attacks == 0:
            raise KeyboardInterrupt


class StopsStudy(SilentStudy):
    """Stop a study in one of its runs."""

    def __init__(self, at: int) -> None:
        self.at = at

    def start(self, number: int, name: str) -> Reporter:
        return StopsAt(epochs=2) if number == self.at else Silent()


def until_stopped(command: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    try:
        command(*arguments, **options)
    except (KeyboardInterrupt, robustplug.errors.Interrupted):
        return
    raise AssertionError("the command ended before it was stopped")


def recipe(method: str, seed: int, name: str = "run") -> dict[str, Any]:
    """Return the tables of a tiny recipe."""
    tables: dict[str, Any] = {
        "name": name,
        "seed": seed,
        "task": {"use": "digits", "validation": 64, "test": 1500},
        "model": {"use": "small-cnn", "width": 4, "hidden": 16},
        "optimizer": {"use": "sgd", "lr": 0.05},
        "schedule": {"use": "constant"},
        "validate": {"samples": 24, "attack": {"use": "fgsm"}},
        "evaluate": {"samples": SAMPLES, "batch_size": 8, "attack": [{"use": "pgd", "steps": 3}]},
    }
    tables |= METHODS[method]
    train = {"epochs": EPOCHS, "batch_size": 64, "checkpoint_batches": 2, "device": "cpu", "select": "clean"}
    return {**tables, "train": {**train, **tables.get("train", {})}}


Build = Callable[[str, int, Callable[[], None]], None]


@dataclass(frozen=True)
class Reading:
    """Describe a command that reads files.

    Attributes:
        arguments: its arguments, in the folder of the case.
        numbers: what it says or leaves, without times.
    """

    arguments: Sequence[str]
    numbers: Callable[[Path, str], Any]


@dataclass(frozen=True)
class Place:
    """Describe what is damaged.

    Attributes:
        methods: methods that the folder is made for.
        build: makes it in the working directory, and calls its last argument at an earlier time.
        reads: for each pattern of files, the commands that read them.
        authored: whether the files are the user's own, whose content nothing can check.
    """

    methods: Sequence[str]
    build: Build
    reads: Mapping[str, Sequence[Reading]]
    authored: bool = False


# Numbers.


def measured(folder: Path, said: str) -> Any:
    body = timeless(json.loads((folder / OUT).with_suffix(".json").read_bytes()))
    return {key: body[key] for key in ("attacks", "samples", "split", "threat")}


def trained(folder: Path, said: str) -> Any:
    found = left_behind(folder / "run")
    wanted = re.compile(r"model\.safetensors|result\.json\.(attacks|samples|threat|history)")
    return {key: value for key, value in found.items() if wanted.match(key)}


def studied(folder: Path, said: str) -> Any:
    return {
        key: value for key, value in left_behind(folder / "study").items() if key.startswith("result.json")
    }


def table(folder: Path, said: str) -> Any:
    return dict.fromkeys((folder / OUT).with_suffix(".csv").read_text().splitlines())


def page(folder: Path, said: str) -> Any:
    (found,) = folder.glob("*/report/index.html")
    rows = re.findall(r"<tr.*?</tr>", found.read_text(), flags=re.DOTALL)
    # Times differ between equal runs.
    return dict.fromkeys(re.sub(r"[0-9.]+ (s|ms|min)\b|<[^>]*>", " ", row) for row in rows)


def exported(folder: Path, said: str) -> Any:
    return left_behind(folder / OUT)


def printed(folder: Path, said: str) -> Any:
    return said


def reading(numbers: Callable[[Path, str], Any], *arguments: str) -> Reading:
    return Reading(arguments, numbers)


EVALUATE = reading(measured, "evaluate", "run", "--json", f"{OUT}.json")
EXTEND = reading(trained, "train", "--resume", "run", "--epochs", str(EPOCHS + 1))
RESUME = reading(trained, "train", "--resume", "run")
COMPARE = reading(table, "compare", "run", "rival", "--csv", f"{OUT}.csv")
COMPARE_SUITE = reading(table, "compare", "run", "rival", "--suite", "quick-look", "--csv", f"{OUT}.csv")
REPORT = reading(page, "report", "run", "--saved")
EXPORT = reading(exported, "export", "run", "--to", "safetensors", "--out", f"{OUT}/net.safetensors")
ASSESS = reading(
    measured, "evaluate", "run", "--suite", "suite.toml", "--source", "src", "--json", f"{OUT}.json"
)
STUDY = reading(studied, "study", "study.toml", "--out", "study")
SETTINGS = (
    "--set",
    f"evaluate.samples={SAMPLES}",
    "--set",
    "task.test=1500",
    "--set",
    "evaluate.attack.0.use=pgd",
)
WEIGHTS = reading(
    measured,
    *(
        "evaluate",
        "run/model.safetensors",
        "--task",
        "digits",
        "--model",
        "small-cnn",
        "--json",
        f"{OUT}.json",
    ),
    *("--set", "model.width=4", "--set", "model.hidden=16", *SETTINGS),
)
NET = reading(measured, "evaluate", "net.safetensors", "--task", "digits", "--json", f"{OUT}.json", *SETTINGS)


# Folders.


def finished(method: str, seed: int, earlier: Callable[[], None]) -> None:
    until_stopped(robustplug.train, recipe(method, seed), out="run", reporter=StopsAt(epochs=3))
    earlier()
    robustplug.train(resume="run")
    robustplug.train(recipe(method, seed + 50), out="rival")
    for folder in ("run", "rival"):
        robustplug.evaluate(folder, suite=SUITE_TABLES, sources=["rival"], out=f"{folder}/evaluations")


def unfinished(method: str, seed: int, earlier: Callable[[], None]) -> None:
    until_stopped(robustplug.train, recipe(method, seed), out="run", reporter=StopsAt(epochs=2))
    earlier()
    until_stopped(robustplug.train, resume="run", reporter=StopsAt(epochs=2))


def evaluation(method: str, seed: int, earlier: Callable[[], None]) -> None:
    robustplug.train(recipe(method, seed), out="run")
    robustplug.train(recipe("erm", seed + 50), out="src")
    Path("suite.toml").write_text(SUITE)
    options: dict[str, Any] = {"suite": "suite.toml", "sources": ["src"]}
    counted = StopsAt()
    robustplug.evaluate("run", reporter=counted, **options)
    for share in (0.4, 0.9):
        shutil.rmtree("src/examples", ignore_errors=True)
        shutil.rmtree("run/evaluations", ignore_errors=True)
        stops = StopsAt(attacks=round(share * -(counted.attacks + 1)))
        until_stopped(robustplug.evaluate, "run", reporter=stops, out="run/evaluations", **options)
        if share < 0.5:
            earlier()


def study(method: str, seed: int, earlier: Callable[[], None]) -> None:
    write_study(method, seed)
    until_stopped(robustplug.study, "study.toml", out="study", reporter=StopsStudy(2))
    earlier()
    until_stopped(robustplug.study, "study.toml", out="study", reporter=StopsStudy(2))


def write_study(method: str, seed: int) -> None:
    Path("suite.toml").write_text(SUITE.replace("transfer = true", ""))
    Path("base.toml").write_text(write_recipe(recipe_from_mapping(recipe(method, seed, "base"))))
    text = 'schema = 1\nname = "cells"\nbase = "base.toml"\nsuite = "suite.toml"\n'
    text += f"seeds = [{seed}]\n\n[[axis]]\n"
    text += 'key = "optimizer.lr"\nvalues = [0.05, 0.02]\n'
    Path("study.toml").write_text(text)


def authored(method: str, seed: int, earlier: Callable[[], None]) -> None:
    write_study(method, seed)
    earlier()


def net(method: str, seed: int, earlier: Callable[[], None]) -> None:
    robustplug.train(recipe(method, seed), out="run")
    robustplug.export("run", "safetensors", "net.safetensors")
    shutil.rmtree("run")
    earlier()


SUITE_TABLES: dict[str, Any] = {}


def places() -> dict[str, Place]:
    """List every place by name."""
    import tomllib

    SUITE_TABLES.update(tomllib.loads(SUITE))
    every = list(METHODS)
    checkpoints = [EVALUATE, EXTEND, EXPORT]
    return {
        "finished run": Place(
            every,
            finished,
            {
                "run/manifest.json": [EVALUATE, EXTEND, EXPORT, COMPARE, REPORT, WEIGHTS],
                "run/recipe.toml": [EVALUATE, EXTEND, EXPORT, COMPARE, REPORT],
                "run/environment.json": [EXTEND, REPORT, EVALUATE],
                "run/metrics.jsonl": [EXTEND, REPORT],
                "run/model.safetensors": [WEIGHTS, EVALUATE, EXPORT],
                "run/checkpoints/*": checkpoints,
                "run/result.json": [COMPARE, REPORT, EXTEND],
                "run/evaluations/*.json": [COMPARE_SUITE, REPORT],
            },
        ),
        "unfinished run": Place(every, unfinished, {"run/*": [RESUME], "run/checkpoints/*": [RESUME]}),
        "unfinished evaluation": Place(
            every[:2],
            evaluation,
            {
                "run/evaluations/*.journal": [ASSESS],
                "src/examples/*/*": [ASSESS],
                "src/model.safetensors": [ASSESS],
                "src/manifest.json": [ASSESS],
                "src/checkpoints/*": [ASSESS],
                "src/recipe.toml": [ASSESS],
            },
        ),
        "unfinished study": Place(
            every[:1],
            study,
            {
                "study/*": [STUDY],
                "study/runs/*/*": [STUDY],
                "study/runs/*/checkpoints/*": [STUDY],
                "study/runs/*/evaluations/*": [STUDY],
            },
        ),
        "recipe, suite, study": Place(
            every[:1],
            authored,
            {
                "base.toml": [reading(printed, "validate", "base.toml", "--resolved")],
                "suite.toml": [reading(printed, "validate", "suite.toml", "--suite")],
                "study.toml": [reading(printed, "study", "study.toml", "--list")],
            },
            authored=True,
        ),
        "model file": Place(every[:1], net, {"net.safetensors": [NET]}, authored=True),
    }
