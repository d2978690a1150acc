"""Make the tables of Seq2Sick, AdvAgent and texts: train models with several seeds, and attack them.

    ROBUSTPLUG_DATA=data python benchmarks/thesis.py negotiation --out studies/negotiation --write
    ROBUSTPLUG_DATA=data python benchmarks/thesis.py translation --out studies/translation --seeds 0 1 2
    python benchmarks/thesis.py --check

thesis.toml lists what is trained, with its sizes, and the rows of each table. Every seed trains all models
anew. After an interruption, the same command resumes; finished runs and tables are not made again. A row is
refused where the attack was not at work: it asked the model no more than a row without an attack, or changed
no word. A seed whose row was skipped or invalid has failed; failures are counted, and leave the means.
--write stores the numbers of all seeds in thesis.json, and writes the tables of the card from them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import re
import shlex
import statistics
import sys
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import robustplug
from robustplug.recipe.toml.files import bundled_recipes, bundled_suites

HERE = Path(__file__).resolve().parent
PLAN, NUMBERS, PLUGINS = HERE / "thesis.toml", HERE / "thesis.json", HERE.parent / "plugins"
FEWEST, WIDTH = 3, 128
# A card shows everything that one command made.
SHOWN = re.compile(r"(<!-- thesis: (\S+) -->\n).*?(<!-- end of thesis -->)", re.S)


def located(text: str, folder: Path) -> dict[str, Any]:
    """Return the tables of a recipe or suite whose runs are in a folder instead of in runs/."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(each) for key, each in value.items()}
        if isinstance(value, list):
            return [moved(each) for each in value]
        inside = isinstance(value, str) and value.startswith("runs/")
        return str(folder / value.removeprefix("runs/")) if inside else value

    tables: dict[str, Any] = moved(tomllib.loads(text))
    return tables


def train(plan: Mapping[str, Any], seed: int, folder: Path) -> None:
    """Train the models of a plan with a seed, each unless it is finished, in the order of the plan.

    Raises:
        SystemExit: a method was not at work.
    """
    for each in plan["train"]:
        name, out = each["recipe"], folder / each["recipe"]
        if not (out / "result.json").exists():
            recipe = located(bundled_recipes()[name].read_text(encoding="utf-8"), folder)
            if (out / "manifest.json").exists():
                robustplug.train(resume=out)
            else:
                robustplug.train(recipe, seed=seed, overrides=each.get("set", ()), out=out)
            print(f"seed {seed}: trained {name}", flush=True)
        training = json.loads((out / "result.json").read_text(encoding="utf-8"))["meta"]["training"]
        for quantity, value in training["mechanism"].items():
            if not value > 0:
                raise SystemExit(f"seed {seed}: {name} was not at work: {quantity} did not move")


def attacked(table: Mapping[str, Any], seed: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Return what each row of a table measured on a seed's model; evaluate it unless that is done.

    Args:
        table: a table of the plan.
        seed: the seed.
        folder: folder of the seed's runs.
    """
    out = folder / f"evaluated-{table['name']}"
    kept = out / f"{table['suite']}.json"
    if not kept.exists():
        suite = located(bundled_suites()[table["suite"]].read_text(encoding="utf-8"), folder)
        robustplug.evaluate(
            folder / table["model"],
            suite=suite | {"row": rows_of(table, suite)},
            samples=table["samples"],
            batch_size=table["batch"],
            seed=seed,
            out=out,
        )
        print(f"seed {seed}: attacked for {table['name']}", flush=True)
    rows = {row["name"]: row for row in json.loads(kept.read_text(encoding="utf-8"))["attacks"]}
    found = {label: row_of(rows[label]) for label in table["rows"]}
    if "accuracy %" in table.get("columns", ()):
        for label, each in found.items():
            share = rows[label]["accuracy"]
            each["measures"]["accuracy %"] = None if share is None else 100 * share
    return found


def rows_of(table: Mapping[str, Any], suite: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a suite that a table shows, with the plan's changes of the options that they set."""
    changes: Mapping[str, Any] = table.get("attack", {})
    found = []
    for row in suite["row"]:
        if row["label"] in table["rows"]:
            new = {name: value for name, value in changes.items() if name in row["attack"]}
            found.append(row | {"attack": row["attack"] | new})
    return found


def row_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of a row; a mean over no sample is None."""
    measures = {name: each["mean"] if each["count"] else None for name, each in row["measures"].items()}
    asked = {name: row[name] for name in ("forwards", "backwards", "prepared")}
    return {"failed": row["skipped"], **asked, "measures": measures}


def idle(rows: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]) -> str:
    """Say why a row's attack was not at work for some seed; "" if it was.

    Args:
        rows: the row by seed.
        plain: the row without an attack by seed; empty for a table without one.
    """
    for number, row in enumerate(rows):
        least = plain[number]["forwards"] if plain else 1.0
        if not row["failed"] and row["forwards"] <= least:
            return "it asked the model no more than without an attack"
        measures = row["measures"]
        changed = measures.get("words changed", measures.get("words changed %"))
        if changed is not None and not changed > 0:
            return "it changed no word"
    return ""


def spread(values: Sequence[float], decimals: int) -> str:
    """Return mean and sample standard deviation as text; "–" for fewer than two values."""
    if len(values) < 2:
        return "–"
    mean = f"{statistics.fmean(values):,.{decimals}f}".replace("-", "−")
    return f"{mean} ± {statistics.stdev(values):,.{decimals}f}"


def lines_of(table: Mapping[str, Any], seeds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table as Markdown: mean ± deviation over seeds, what the thesis has, and failures.

    Args:
        table: a table of the plan.
        seeds: for each seed, the rows that `attacked` returned.
    """
    columns: Mapping[str, int] = table["columns"]
    thesis, plain = table.get("thesis", {}), table.get("plain")
    heads = ["", *columns, "queries", *([table["of_thesis"]] if thesis else []), "failed"]
    found = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for label in table["rows"]:
        rows = [rows[label] for rows in seeds.values()]
        reason = (
            "" if label == plain else idle(rows, [each[plain] for each in seeds.values()] if plain else [])
        )
        good = [row for row in rows if not row["failed"]]
        cells = [
            spread([row["measures"][name] for row in good if row["measures"].get(name) is not None], decimals)
            for name, decimals in columns.items()
        ]
        cells.append(spread([row["forwards"] for row in good], 0))
        if reason:
            cells = [f"refused: {reason}", *[""] * len(columns)]
        said = [thesis.get(label, "–")] if thesis else []
        found.append(f"| {' | '.join([label, *cells, *said, f'{len(rows) - len(good)} of {len(rows)}'])} |")
    return found


def text_of(plan: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    """Return what a card shows: how the numbers were made, and the tables."""
    parts = [textwrap.fill(f"{plan['text']} {numbers['made']}", WIDTH, break_on_hyphens=False)]
    for table in plan["table"]:
        seeds = numbers["tables"][table["name"]]
        parts.append(f"{table['title']}; {len(seeds)} seeds, {table['samples']} {table['of']}.")
        parts.append("\n".join(lines_of(table, seeds)))
    return "\n\n".join(parts)


def cards() -> dict[Path, str]:
    """Return what the cards must be, by path."""
    plans, stored = read_plans(), read_numbers()

    def shown(match: re.Match[str]) -> str:
        numbers = stored.get(match[2])
        text = "Not measured yet." if numbers is None else text_of(plans[match[2]], numbers)
        return f"{match[1]}\n{text}\n\n{match[3]}"

    texts = {path: path.read_text(encoding="utf-8") for path in sorted(PLUGINS.glob("*/README.md"))}
    return {path: SHOWN.sub(shown, text) for path, text in texts.items()}


def read_plans() -> dict[str, Any]:
    """Read the plans of all commands."""
    return tomllib.loads(PLAN.read_text(encoding="utf-8"))


def read_numbers() -> dict[str, Any]:
    """Read the stored numbers; no file holds none."""
    stored: dict[str, Any] = json.loads(NUMBERS.read_text(encoding="utf-8")) if NUMBERS.exists() else {}
    return stored


def check() -> int:
    """Return 1, and say which, if a card does not show the stored numbers."""
    wrong = [path for path, text in cards().items() if path.read_text(encoding="utf-8") != text]
    for path in wrong:
        print(f"{path.parent.name}/{path.name} does not show the numbers of {NUMBERS.name}")
    return 1 if wrong else 0


def write(name: str, numbers: Mapping[str, Any]) -> None:
    """Store the numbers of a command, and write the cards."""
    NUMBERS.write_text(json.dumps(read_numbers() | {name: numbers}, indent=1) + "\n", encoding="utf-8")
    for path, text in cards().items():
        path.write_text(text, encoding="utf-8")


def rounded(value: Any) -> Any:
    """Return measured values with six digits, which keeps the file small."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) and math.isfinite(value) else value


def main() -> int:
    plans = read_plans()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="?", choices=sorted(plans))
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--write", action="store_true", help="store the numbers, and write the card")
    parser.add_argument("--check", action="store_true", help="compare the cards with the stored numbers")
    options = parser.parse_args()
    if options.check:
        return check()
    if options.name is None or options.out is None:
        parser.error("give the name of a plan, and --out")
    plan, out = plans[options.name], options.out.resolve()
    tables: dict[str, dict[str, Any]] = {table["name"]: {} for table in plan["table"]}
    for seed in options.seeds:
        train(plan, seed, out / str(seed))
        for table in plan["table"]:
            tables[table["name"]][str(seed)] = rounded(attacked(table, seed, out / str(seed)))
    import torch

    made = (
        f"`python benchmarks/thesis.py {shlex.join(sys.argv[1:])}`, {datetime.date.today().isoformat()}, "
        f"robustplug {robustplug.__version__}, torch {torch.__version__}, {platform.machine()}."
    )
    numbers = {"made": made, "tables": tables}
    print(text_of(plan, numbers))
    if options.write and len(options.seeds) < FEWEST:
        print(f"not written: numbers need at least {FEWEST} seeds", file=sys.stderr)
        return 1
    if options.write:
        write(options.name, numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
