"""Check docs/results.md and the cards: are they those of results.json, and can a sample be made again?

    python -m benchmarks.results --check --sample 3 --seed 0
    python -m benchmarks.results --write

Each run of the sample is trained and attacked again from the stored recipe. On the same machine and versions
it gives the same numbers; elsewhere, a seed is another draw. So each new accuracy must lie in the 99 %
prediction interval of the row, from Student's t over its seeds. Exit code 1 if one does not, or if the page
is not that of the numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import robustplug

TOP = Path(__file__).resolve().parents[1]
NUMBERS, PAGE = TOP / "benchmarks" / "results.json", TOP / "docs" / "results.md"
CLAIMS = TOP / "benchmarks" / "claims.toml"
# A card names the rows that it shows.
SHOWN = re.compile(r"(<!-- results: (.+?) -->\n).*?(<!-- end -->)", re.S)
# The run of a study whose one axis is the recipe.
RUN = re.compile(r"recipe-(.+)_seed-\d+")
# Keys that may name such a run.
STARTS = ("from", "teacher")
# A seed whose last accuracy is so many points below the median of its row has failed.
FAILED = 10.0
CONFIDENCE = 0.99
# Without it, only runs on the digits are made again, whose data need no download.
DATA, DOWNLOADED = "ROBUSTPLUG_DATA", ["digits", "mnist", "cifar10"]


@dataclass(frozen=True)
class Seed:
    """One training.

    Attributes:
        accuracies: clean, under the first attack, and under all attacks, in %.
        mechanism: what shows the method at work, by name.
        passes: forward and backward passes of a training sample over all epochs.
        audit: the verdict of its audit; "" for none.
    """

    accuracies: tuple[float, float, float]
    mechanism: Mapping[str, float]
    passes: tuple[float, float]
    audit: str = ""


@dataclass(frozen=True)
class Row:
    """A recipe, trained with several seeds.

    Attributes:
        name: name of the row.
        recipe: the recipe in TOML.
        epochs: epochs of each training.
        seeds: the trainings by seed.
    """

    name: str
    recipe: str
    epochs: int
    seeds: Mapping[int, Seed]

    def column(self, number: int) -> list[float]:
        """Return an accuracy of every seed."""
        return [seed.accuracies[number] for seed in self.seeds.values()]

    @property
    def failed(self) -> int:
        """Return the number of seeds that failed."""
        last = self.column(-1)
        return sum(value < statistics.median(last) - FAILED for value in last)

    @property
    def idle(self) -> list[str]:
        """Return the quantities that show, for any seed, that the method was not at work."""
        return sorted(
            {name for seed in self.seeds.values() for name, value in seed.mechanism.items() if not value > 0}
        )


@dataclass(frozen=True)
class Section:
    """A table of the page.

    Attributes:
        title, text: what was done.
        made: command, date and versions.
        columns: names of the three accuracies.
        rows: the rows of the table.
        baseline: name of the row that the others are compared with; "" for none.
    """

    title: str
    text: str
    made: str
    columns: tuple[str, str, str]
    rows: Sequence[Row]
    baseline: str = ""


def read(path: Path = NUMBERS) -> list[Section]:
    """Read the stored numbers; no file holds none."""
    if not path.exists():
        return []
    return [_section(each) for each in json.loads(path.read_text(encoding="utf-8"))]


def _section(body: Mapping[str, Any]) -> Section:
    def seed(each: Mapping[str, Any]) -> Seed:
        clean, first, last = each["accuracies"]
        forwards, backwards = each["passes"]
        return Seed((clean, first, last), each["mechanism"], (forwards, backwards), each.get("audit", ""))

    rows = [
        Row(each["name"], each["recipe"], each["epochs"], {int(n): seed(s) for n, s in each["seeds"].items()})
        for each in body["rows"]
    ]
    clean, first, last = body["columns"]
    columns = (clean, first, last)
    return Section(body["title"], body["text"], body["made"], columns, rows, body.get("baseline", ""))


def store(section: Section, path: Path = NUMBERS) -> list[Section]:
    """Store a section in the place of that with the same title, and return all."""
    sections = {each.title: each for each in read(path)} | {section.title: section}
    body = [asdict(each) for each in sections.values()]
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return list(sections.values())


def spread(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation as text."""
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def claims() -> dict[str, dict[str, Any]]:
    """Return what the authors of methods state, by name of the row."""
    return tomllib.loads(CLAIMS.read_text(encoding="utf-8"))


def claim(name: str) -> str:
    """Return what the authors of a row's method state, as the cell of a table; "–" if nothing is known."""
    found = claims().get(name)
    if found is None:
        return "–"
    return f"{found['clean']:.2f} / {found['robust']:.2f} {found['attack']}; {found['model']}"


def table(section: Section) -> list[str]:
    """Return the rows as a Markdown table; a row whose method was not at work is refused.

    A table with a baseline also has what the authors state.
    """
    audited = any(seed.audit for row in section.rows for seed in row.seeds.values())
    heads = ["recipe", *section.columns, "worst seed", "failed", "at work", "epochs", "forwards", "backwards"]
    heads += ["audit"] * audited + ["the authors, CIFAR-10"] * bool(section.baseline)
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in section.rows:
        if row.idle:
            cells = [f"refused: {', '.join(row.idle)} did not move", *[""] * (len(heads) - 2)]
        else:
            seeds = list(row.seeds.values())
            work = {
                name: statistics.fmean(seed.mechanism[name] for seed in seeds) for name in seeds[0].mechanism
            }
            passes = [statistics.fmean(seed.passes[way] for seed in seeds) for way in range(2)]
            cells = [
                *(spread(row.column(number)) for number in range(3)),
                f"{min(row.column(-1)):.1f}",
                f"{row.failed} of {len(seeds)}",
                ", ".join(f"{name} {value:.2g}" for name, value in work.items()) or "–",
                str(row.epochs),
                *(f"{each:.0f}" for each in passes),
                *([verdicts(seeds)] * audited),
                *([claim(row.name)] * bool(section.baseline)),
            ]
        lines.append(f"| `{row.name}` | {' | '.join(cells)} |")
    return lines


def verdicts(seeds: Sequence[Seed]) -> str:
    """Return the verdicts of the audits, with the number of seeds that each of them has."""
    counts = Counter(seed.audit for seed in seeds if seed.audit)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or "–"


def difference(row: Row, other: Row) -> tuple[float, float, float]:
    """Return by how many points a row's last accuracy exceeds another's, and the 95 % interval of that.

    Student's t over the differences of equal seeds, which have the same first weights and the same batches.
    """
    from scipy.stats import t

    shared = [number for number in row.seeds if number in other.seeds]
    last = [row.seeds[each].accuracies[-1] - other.seeds[each].accuracies[-1] for each in shared]
    mean, n = statistics.fmean(last), len(last)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(last) / n**0.5
    return mean, mean - half, mean + half


def compared(section: Section) -> list[str]:
    """Return sentences that say which rows the baseline of a section exceeds, and which exceed it."""
    rows = {row.name: row for row in section.rows if not row.idle}
    base = rows.pop(section.baseline, None)
    if base is None:
        return []
    kinds: dict[str, list[str]] = {"beats": [], "is not told apart from": [], "falls below": []}
    found = {name: difference(row, base) for name, row in rows.items()}
    for name, (mean, low, high) in sorted(found.items(), key=lambda item: -item[1][0]):
        kind = "beats" if low > 0 else "falls below" if high < 0 else "is not told apart from"
        numbers = f"{mean:+.1f}; {low:+.1f} to {high:+.1f}".replace("-", "−")
        kinds[kind].append(f"`{name}` ({numbers})")
    lines = [
        f"At this cost, under {section.columns[-1]}, with the difference in points and its 95 % interval "
        "over the seeds; what other images would change is not in it:",
        "",
    ]
    for kind, names in kinds.items():
        lines.append(f"- {kind} `{section.baseline}`: {', '.join(names) or 'none'}")
    return lines


def page(sections: Sequence[Section]) -> str:
    """Return the page of all sections: what stands above the first table stays as it is written."""
    head = PAGE.read_text(encoding="utf-8").partition("\n## ")[0].rstrip()
    parts = []
    for each in sections:
        blocks = [f"## {each.title}", each.text, each.made, "\n".join(table(each)), "\n".join(compared(each))]
        parts.append("\n\n".join(filter(None, blocks)))
    return "\n\n".join([head, *parts]) + "\n"


def card(text: str, sections: Sequence[Section]) -> str:
    """Return a card with the rows that it names.

    Of the tables without a baseline, the first that has all of them; those with one follow if they have the
    first row, each with a sentence on how that compares with the baseline.
    """

    def shown(match: re.Match[str]) -> str:
        names = match[2].split()
        plain = [each for each in sections if not each.baseline and {r.name for r in each.rows} >= set(names)]
        blocks = ["\n".join(_rows(names, each)) for each in plain[:1]]
        for each in (each for each in sections if each.baseline):
            rows = {row.name: row for row in each.rows}
            if names[0] not in rows:
                continue
            seeds = len(rows[names[0]].seeds)
            blocks.append(f"At one cost ({each.title}), mean and standard deviation of {seeds} seeds:")
            blocks.append("\n".join(_rows([name for name in names if name in rows], each)))
            if names[0] != each.baseline and each.baseline in rows:
                blocks.append(_judged(rows[names[0]], rows[each.baseline], each))
        inside = "\n\n".join(blocks) or "Not measured yet."
        return f"{match[1]}\n{inside}\n\n{match[3]}"

    return SHOWN.sub(shown, text)


def _rows(names: Sequence[str], section: Section) -> list[str]:
    rows = {row.name: row for row in section.rows}
    lines = [f"| recipe | {' | '.join(section.columns)} | worst seed |", "|---|---:|---:|---:|---:|"]
    for name in names:
        row = rows[name]
        cells = [*(spread(row.column(number)) for number in range(3)), f"{min(row.column(-1)):.1f}"]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def _judged(row: Row, base: Row, section: Section) -> str:
    """Say how a row compares with the baseline at the same cost."""
    if row.idle:
        return f"`{row.name}` was not at work: {', '.join(row.idle)} did not move."
    mean, low, high = difference(row, base)
    found = {"beats": low > 0, "falls below": high < 0, "is not told apart from": True}
    kind = next(kind for kind, holds in found.items() if holds)
    numbers = f"{mean:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}".replace("-", "−")
    return f"Under {section.columns[-1]}, `{row.name}` {kind} `{base.name}`: {numbers}."


def made(sections: Sequence[Section]) -> dict[Path, str]:
    """Return what the page and the cards must be, by path."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((TOP / "plugins").glob("*/README.md"))}
    return {PAGE: page(sections), **{path: card(text, sections) for path, text in texts.items()}}


def write(sections: Sequence[Section]) -> None:
    """Write the page and the tables of the cards."""
    for path, text in made(sections).items():
        path.write_text(text, encoding="utf-8")


def interval(values: Sequence[float], samples: int) -> tuple[float, float]:
    """Return the prediction interval for the accuracy of another seed, in %; at least a sample wide."""
    from scipy.stats import t

    n = len(values)
    half = t.ppf((1 + CONFIDENCE) / 2, n - 1) * statistics.stdev(values) * (1 + 1 / n) ** 0.5
    half = max(float(half), 100 / samples)
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def measured(result: robustplug.api.EvaluationResult) -> tuple[float, float, float]:
    """Return the accuracies of an evaluation: clean, under the first attack, and under all attacks, in %."""
    shares = [100 * row.accuracy for row in result.attacks]
    return shares[0], shares[1], shares[-1]


def made_again(row: Row, number: int, folder: Path, rows: Sequence[Row]) -> robustplug.api.EvaluationResult:
    """Train a row again with a seed, after the rows that its networks start from."""
    recipe = tomllib.loads(row.recipe)

    def begin(table: dict[str, Any]) -> None:
        for key, value in table.items():
            named = RUN.fullmatch(Path(value).name) if key in STARTS and isinstance(value, str) else None
            if isinstance(value, dict):
                begin(value)
            elif named is not None:
                (other,) = [each for each in rows if each.name == named[1]]
                if not (folder / other.name).exists():
                    made_again(other, number, folder, rows)
                table[key] = str(folder / other.name)

    begin(recipe)
    return robustplug.train(recipe, seed=number, out=folder / row.name).result


def again(row: Row, number: int, rows: Sequence[Row] = ()) -> bool:
    """Train a row again with one of its seeds, say what came out, and return whether it agrees.

    Args:
        row: the row.
        number: the seed.
        rows: the rows of its table, which its networks may start from.
    """
    with TemporaryDirectory() as folder:
        result = made_again(row, number, Path(folder), rows)
    agrees, found = True, measured(result)
    for column, value in enumerate(found):
        low, high = interval(row.column(column), result.samples)
        agrees &= low <= value <= high
    stored = row.seeds[number].accuracies
    word = "the same" if found == stored else "agrees" if agrees else "DIFFERS"
    print(f"{row.name}, seed {number}: {found}, stored {stored}: {word}", flush=True)
    return agrees


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="compare the pages, and make a sample again")
    what.add_argument("--write", action="store_true", help="write the page and the tables of the cards")
    parser.add_argument("--sample", type=int, default=3, help="number of runs to make again")
    parser.add_argument("--seed", type=int, default=0, help="which runs these are")
    options = parser.parse_args()
    sections = read()
    if options.write:
        write(sections)
        return 0
    wrong = [path for path, text in made(sections).items() if path.read_text(encoding="utf-8") != text]
    for path in wrong:
        print(f"{path.relative_to(TOP)} does not show the numbers of {NUMBERS.name}: give --write")
    runs = [
        (row, number, section.rows)
        for section in sections
        for row in section.rows
        for number in row.seeds
        if tomllib.loads(row.recipe)["task"]["use"] in (DOWNLOADED if DATA in os.environ else ["digits"])
    ]
    chosen = random.Random(options.seed).sample(runs, min(options.sample, len(runs)))
    return 0 if all([not wrong, *(again(*each) for each in chosen)]) else 1


if __name__ == "__main__":
    sys.exit(main())
