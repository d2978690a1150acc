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
import random
import re
import statistics
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import robustplug

TOP = Path(__file__).resolve().parents[1]
NUMBERS, PAGE = TOP / "benchmarks" / "results.json", TOP / "docs" / "results.md"
# A card names the rows that it shows.
SHOWN = re.compile(r"(<!-- results: (.+?) -->\n).*?(<!-- end -->)", re.S)
# A seed whose last accuracy is so many points below the median of its row has failed.
FAILED = 10.0
CONFIDENCE = 0.99


@dataclass(frozen=True)
class Seed:
    """One training.

    Attributes:
        accuracies: clean, under the first attack, and under all attacks, in %.
        mechanism: what shows the method at work, by name.
        passes: forward and backward passes of a training sample over all epochs.
    """

    accuracies: tuple[float, float, float]
    mechanism: Mapping[str, float]
    passes: tuple[float, float]


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
    """

    title: str
    text: str
    made: str
    columns: tuple[str, str, str]
    rows: Sequence[Row]


def read(path: Path = NUMBERS) -> list[Section]:
    """Read the stored numbers; no file holds none."""
    if not path.exists():
        return []
    return [_section(each) for each in json.loads(path.read_text(encoding="utf-8"))]


def _section(body: Mapping[str, Any]) -> Section:
    def seed(each: Mapping[str, Any]) -> Seed:
        clean, first, last = each["accuracies"]
        forwards, backwards = each["passes"]
        return Seed((clean, first, last), each["mechanism"], (forwards, backwards))

    rows = [
        Row(each["name"], each["recipe"], each["epochs"], {int(n): seed(s) for n, s in each["seeds"].items()})
        for each in body["rows"]
    ]
    clean, first, last = body["columns"]
    return Section(body["title"], body["text"], body["made"], (clean, first, last), rows)


def store(section: Section, path: Path = NUMBERS) -> list[Section]:
    """Store a section in the place of that with the same title, and return all."""
    sections = {each.title: each for each in read(path)} | {section.title: section}
    body = [asdict(each) for each in sections.values()]
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return list(sections.values())


def spread(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation as text."""
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def table(section: Section) -> list[str]:
    """Return the rows as a Markdown table; a row whose method was not at work is refused."""
    heads = ["recipe", *section.columns, "worst seed", "failed", "at work", "epochs", "forwards", "backwards"]
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
            ]
        lines.append(f"| `{row.name}` | {' | '.join(cells)} |")
    return lines


def page(sections: Sequence[Section]) -> str:
    """Return the page of all sections: what stands above the first table stays as it is written."""
    head = PAGE.read_text(encoding="utf-8").partition("\n## ")[0].rstrip()
    parts = [
        "\n\n".join([f"## {each.title}", each.text, each.made, "\n".join(table(each))]) for each in sections
    ]
    return "\n\n".join([head, *parts]) + "\n"


def card(text: str, sections: Sequence[Section]) -> str:
    """Return a card with the rows that it names, from the first table that has all of them.

    Raises:
        StopIteration: no table has them.
    """

    def shown(match: re.Match[str]) -> str:
        names = match[2].split()
        tables = [({row.name: row for row in section.rows}, section.columns) for section in sections]
        rows, columns = next(each for each in tables if each[0].keys() >= set(names))
        lines = [f"| recipe | {' | '.join(columns)} | worst seed |", "|---|---:|---:|---:|---:|"]
        for name in names:
            row = rows[name]
            cells = [*(spread(row.column(number)) for number in range(3)), f"{min(row.column(-1)):.1f}"]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
        return f"{match[1]}\n{chr(10).join(lines)}\n\n{match[3]}"

    return SHOWN.sub(shown, text)


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


def again(row: Row, number: int) -> bool:
    """Train a row again with one of its seeds, say what came out, and return whether it agrees."""
    with TemporaryDirectory() as folder:
        result = robustplug.train(tomllib.loads(row.recipe), seed=number, out=Path(folder) / "run").result
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
    runs = [(row, number) for section in sections for row in section.rows for number in row.seeds]
    chosen = random.Random(options.seed).sample(runs, min(options.sample, len(runs)))
    return 0 if all([not wrong, *(again(row, number) for row, number in chosen)]) else 1


if __name__ == "__main__":
    sys.exit(main())
