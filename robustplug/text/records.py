"""Records of attacked texts, in the columns that TextAttack writes, as CSV, JSON and HTML."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from .changes import mark_changes, mark_changes_html, words_changed

Outcome = Literal["Successful", "Failed", "Skipped", "Maximized"]


class TextRecord(NamedTuple):
    """Hold what an attack did to a text; the fields are TextAttack's columns.

    Attributes:
        original_text, perturbed_text: the text before and after the attack.
        original_score, perturbed_score: what the attack wants to raise, before and after it.
        original_output, perturbed_output: what the model answers.
        ground_truth_output: what the data say.
        num_queries: number of times that the attack asked the model about this text; None if not counted.
        result_type: "Successful", "Failed", "Skipped" (wrong without an attack, or nothing to attack), or
            "Maximized" for a search without a goal to reach.
    """

    original_text: str
    perturbed_text: str
    original_score: float
    perturbed_score: float
    original_output: str
    perturbed_output: str
    ground_truth_output: str
    num_queries: int | None
    result_type: Outcome


COLUMNS = TextRecord._fields


def records_csv(records: Sequence[TextRecord]) -> str:
    """Return the records as CSV; changed words stand between [[ and ]], as TextAttack writes them."""
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        before, after = mark_changes(record.original_text, record.perturbed_text)
        writer.writerow(record._replace(original_text=before, perturbed_text=after))
    return file.getvalue()


def records_json(records: Sequence[TextRecord]) -> str:
    """Return the records as a JSON list of objects; the texts are unmarked, and NaN is null."""
    rows = [{name: _finite(value) for name, value in record._asdict().items()} for record in records]
    return json.dumps(rows, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and value - value != 0 else value


_STYLE = """\
body { font: 16px/1.5 sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222;
  background: #fff }
section { border-top: 1px solid #ccc; padding: .8rem 0 }
h2 { font-size: 1rem; margin: 0 }
dl { display: grid; grid-template-columns: 9rem 1fr; gap: .2rem 1rem; margin: .5rem 0 0 }
dt { color: #666 } dd { margin: 0 }
del { background: #fdd; text-decoration: line-through } ins { background: #dfd; text-decoration: none }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } dt { color: #999 } section { border-color: #444 }
  del { background: #622 } ins { background: #263 }
}"""


def records_html(records: Sequence[TextRecord], title: str) -> str:
    """Return a page without scripts: each text and answer before and after, with the changes marked."""
    shown = "\n".join(_section(number, record) for number, record in enumerate(records, 1))
    heading = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{heading}</title>\n'
        f"<style>\n{_STYLE}\n</style></head>\n<body>\n<h1>{heading}</h1>\n{shown}\n</body>\n</html>\n"
    )


def _section(number: int, record: TextRecord) -> str:
    texts = mark_changes_html(record.original_text, record.perturbed_text)
    answers = mark_changes_html(record.original_output, record.perturbed_output)
    count = words_changed(record.original_text, record.perturbed_text)
    asked = record.num_queries
    queries = "" if asked is None else f", {asked} {'query' if asked == 1 else 'queries'}"
    lines = [
        ("text", texts[0]),
        ("attacked text", texts[1]),
        ("output", answers[0]),
        ("attacked output", answers[1]),
        ("data", html.escape(record.ground_truth_output)),
    ]
    shown = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in lines)
    words = "1 word" if count == 1 else f"{count} words"
    said = f"{number}. {record.result_type}, {words} changed{queries}"
    return f"<section><h2>{said}</h2><dl>{shown}</dl></section>"
