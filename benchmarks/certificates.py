"""Certify networks that were trained for certificates, with several seeds, and attack them.

    python benchmarks/certificates.py --out studies/certificates --write
    ROBUSTPLUG_DATA=data python benchmarks/certificates.py --data mnist --out studies/mnist --write
    python benchmarks/certificates.py --data cifar10 --out studies/cifar10 --write

On the digits, the bundled recipes of the bounds are trained as they are, for L∞ radius 0.1, and those of
randomised smoothing with one σ, each certified at the end: by interval bounds, CROWN-IBP, CROWN and α-CROWN,
or by votes under noise. On 10,000 images of MNIST, and on 2,000 of CIFAR-10 that benchmarks/cifar_subset.py
has put into the current folder, a small convolutional network is trained for bounds at the radii of the
literature, and for votes: what two cores reach, far from it. After an interruption, the same command resumes.
--write stores the numbers in certificates.json, and writes the tables of the cards from it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import shlex
import statistics
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import robustplug
from robustplug.recipe.toml.files import bundled_recipes
from robustplug.runs.folder import holds_run, is_finished

TOP = Path(__file__).resolve().parents[1]
NUMBERS = TOP / "benchmarks" / "certificates.json"
CARDS = [TOP / "plugins" / name / "README.md" for name in ("robustplug_bounds", "robustplug_smoothing")]
# A card names the table that it shows.
SHOWN = re.compile(r"(<!-- certificates: (\S+) -->\n).*?(<!-- end -->)", re.S)
# Fewer seeds make no table.
FEWEST = 3
SIGMA, DRAWS, VOTED = 0.25, 10_000, 100
PGD = {"use": "pgd", "steps": 50, "restarts": 5}
# The slow one at the threat model's radius alone.
BOUNDS = [*({"use": name} for name in ("ibp", "crown-ibp", "crown")), {"use": "alpha-crown", "search": 0}]
# Rows of a table: a recipe, and changes of its method.
TRAINED_FOR_BOUNDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "pgd-at": ("pgd-at", {}),
    "ibp": ("ibp", {}),
    "ibp, regularised": ("ibp", {"regularisation": 0.5}),
    "crown-ibp": ("crown-ibp", {}),
    "crown-ibp, fused": ("crown-ibp", {"fused": True}),
    "sabr": ("sabr", {}),
    "mtl-ibp": ("mtl-ibp", {}),
}
UNDER_NOISE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gaussian": ("gaussian", {"vicinity": {"use": "gaussian", "sigma": SIGMA, "inner": {"use": "l2"}}}),
    "smooth-adv": ("smooth-adv", {}),
    "macer": ("macer", {}),
    "consistency": ("consistency", {}),
    "smooth-mix": ("smooth-mix", {}),
}
# Radii at which votes under noise are stated, in L2.
RADII: Mapping[str, tuple[float, ...]] = {
    "digits": (0.125, 0.25, 0.5),
    "mnist": (0.25, 0.5, 0.75),
    "cifar10": (0.25, 0.5, 0.75),
}
# Pictures, and the passes over them, for bounds and for votes, beside the radii at which the literature
# certifies them by bounds.
PICTURES: Mapping[str, tuple[Mapping[str, Any], int, int, tuple[float | str, ...]]] = {
    "mnist": ({"use": "mnist", "train_samples": 10_000}, 12, 4, (0.1, 0.3)),
    "cifar10": ({"use": "arrays", "path": "cifar10-subset.npz"}, 24, 24, ("2/255",)),
}
# Small batches, as it is the number of updates that training for bounds lacks here.
SHARED = {
    "model": {"use": "conv-small"},
    "optimizer": {"use": "torch:Adam", "lr": 0.002},
    "schedule": {"use": "cosine"},
}
# As in the code of Shi et al. 2021, and those that follow it; attacks of fewer steps.
FAST, FEWER = {"regularisation": 0.5}, {"use": "pgd", "steps": 4}
ON_PICTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ibp": ("ibp", {}),
    "ibp, regularised": ("ibp", {**FAST, "kappa": 0.0}),
    "crown-ibp, fused": ("crown-ibp", {**FAST, "fused": True}),
    "sabr": ("sabr", {**FAST, "perturbation": FEWER}),
    "mtl-ibp": ("mtl-ibp", {**FAST, "perturbation": FEWER}),
}


def recipes(data: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield for each training its table, its row and its recipe, without a seed."""
    if data in PICTURES:
        _, epochs, _, radii = PICTURES[data]
        for eps in radii:
            for row, (name, changes) in ON_PICTURES.items():
                tables = recipe_of(name, changes) | on_pictures(data, epochs)
                tables["method"]["vicinity"] = {"use": "linf", "eps": eps}
                tables["evaluate"] = {"samples": 500, "attack": [PGD], "measurement": BOUNDS[:2]}
                yield f"bounds-{data}-{eps}".replace("/", "-"), row, tables
    else:
        for row, (name, changes) in TRAINED_FOR_BOUNDS.items():
            tables = recipe_of(name, changes)
            shared = recipe_of("ibp", {})
            tables |= {key: shared[key] for key in ("model", "optimizer", "train")}
            tables.pop("schedule", None)
            tables["method"]["vicinity"] = shared["method"]["vicinity"]
            tables["evaluate"] = {"attack": [PGD], "measurement": BOUNDS}
            yield "bounds-digits", row, tables
    for row, (name, changes) in UNDER_NOISE.items():
        votes = {"use": "randomised-smoothing", "sigma": SIGMA, "n": DRAWS, "n0": VOTED, "radii": RADII[data]}
        threat = {"use": "l2", "eps": SIGMA}
        tables = {**recipe_of(name, changes), "optimizer": {"use": "sgd", "lr": 0.05}}
        if data in PICTURES:
            epochs = PICTURES[data][2]
            tables |= on_pictures(data, epochs)
            if "warmup" in tables["method"]:
                tables["method"]["warmup"] = -(-epochs // 5)  # the same share of the run as on the digits
        tables["evaluate"] = {"samples": 200, "vicinity": threat, "attack": [], "measurement": [votes]}
        yield f"smoothing-{data}", row, tables


def on_pictures(data: str, epochs: int) -> dict[str, Any]:
    """Return the tables that all recipes for pictures share."""
    train = {"epochs": epochs, "batch_size": 32, "select": "last"}
    return {**SHARED, "task": PICTURES[data][0], "train": train, "validate": {"every": epochs}}


def recipe_of(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a bundled recipe, with changes of its method."""
    tables = tomllib.loads(bundled_recipes()[name].read_text(encoding="utf-8"))
    tables["method"] |= changes
    return tables


def trained(tables: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """Train and certify, or go on with it, and return the numbers of the run, in %, radii as they are."""
    if not (holds_run(folder) and is_finished(folder)):
        robustplug.train(tables, out=folder, resume=holds_run(folder))
    body = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    refuse_contradictions(body, folder)
    clean, *rows = body["attacks"]
    found = {"clean": 100 * clean["accuracy"]}
    for row in rows:
        if row["skipped"]:
            sys.exit(f"{folder}: {row['name']} was skipped: {row['skipped']}")
        name = row["options"]["use"]
        found[name] = 100 * row["accuracy"]
        for measure, value in row["measures"].items():
            if measure.startswith("certified") or measure == "smoothed accuracy":
                found[f"{name}: {measure}"] = value["mean"]
    return found


def refuse_contradictions(body: Mapping[str, Any], folder: Path) -> None:
    """Exit if an attack broke what was certified: then no number of the table counts."""
    if body["meta"].get("contradictions"):
        sys.exit(f"{folder}: a certificate and an attack contradict each other")


Rows = Mapping[str, Mapping[str, Mapping[str, float]]]


def columns_of(table: str) -> dict[str, str]:
    """Return the heads of a table, and the number of each."""
    if table.startswith("bounds"):
        heads = {"clean": "clean", "under PGD": "pgd", "certified, IBP": "ibp"}
        heads |= {"certified, CROWN-IBP": "crown-ibp"}
        further = {"certified, CROWN": "crown", "certified, α-CROWN": "alpha-crown"}
        return heads | (further if "digits" in table else {})
    own, stated = "randomised-smoothing", RADII[table.removeprefix("smoothing-")]
    radii = {f"certified at {radius:g}": f"{own}: certified at {radius:g}" for radius in stated}
    return {
        "clean, without noise": "clean",
        "smoothed": f"{own}: smoothed accuracy",
        **radii,
        "mean radius": f"{own}: certified radius",
    }


def laid_out(table: str, rows: Rows) -> str:
    """Return a table in Markdown: means over the seeds, and standard deviations."""
    heads = columns_of(table)
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for row, seeds in rows.items():
        cells = []
        for head, name in heads.items():
            values = [seed[name] for seed in seeds.values()]
            digits = 3 if head == "mean radius" else 1
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def made(body: Mapping[str, Any]) -> dict[Path, str]:
    """Return the text of every card with the tables of the numbers."""

    def shown(match: re.Match[str]) -> str:
        table = body.get(match[2])
        if table is None:
            return match[0]
        count = min(len(seeds) for seeds in table["rows"].values())
        said = f"Mean ± standard deviation over {count} seeds, in %; {table['made']}."
        return f"{match[1]}\n{laid_out(match[2], table['rows'])}\n\n{said}\n\n{match[3]}"

    return {path: SHOWN.sub(shown, path.read_text(encoding="utf-8")) for path in CARDS}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", choices=["digits", *PICTURES], default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", help="only these rows")
    parser.add_argument("--write", action="store_true", help="store the numbers, and write the cards")
    options = parser.parse_args(given)
    if options.write and (options.rows or len(set(options.seeds)) < FEWEST):
        parser.error(f"--write stores whole tables of at least {FEWEST} seeds: leave out --rows")

    tables: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    # All rows of one seed come first: an interruption leaves a whole table of fewer seeds.
    for seed in options.seeds:
        for table, row, recipe in recipes(options.data):
            if options.rows and row not in options.rows:
                continue
            name = f"{table}-{re.sub('[^a-z0-9]+', '-', row)}-{seed}"
            numbers = trained({**recipe, "name": name, "seed": seed}, options.out / name)
            print(name, {key: round(value, 3) for key, value in numbers.items()}, flush=True)
            tables.setdefault(table, {}).setdefault(row, {})[str(seed)] = numbers
    for table, rows in tables.items():
        print(f"\n{laid_out(table, rows)}")
    if options.write:
        words = ["python", "benchmarks/certificates.py", "--out", "…"]
        words += ["--data", options.data] * (options.data != "digits")
        versions = f"Python {platform.python_version()}, {platform.machine()}"
        said = f"`{shlex.join(words)}`, {datetime.date.today().isoformat()}, {versions}".replace("'…'", "…")
        body = json.loads(NUMBERS.read_text(encoding="utf-8")) if NUMBERS.exists() else {}
        body |= {table: {"made": said, "rows": rows} for table, rows in tables.items()}
        NUMBERS.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
        for path, text in made(body).items():
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
