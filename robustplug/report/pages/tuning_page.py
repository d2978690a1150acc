"""The page of a tuning: the front, what mattered, and every trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ...runs.folder import REPORT
from ...studies.tuning.stored import read_tuning_body
from ..figures.charts import bar_figure
from ..figures.plots import Point, trade_off_figure
from ..tables.markup import escape, table_html
from .page import Section, figures_html, page, read_picture, refuse_other_page
from .run_page import BESIDE, FIGURES, PAGE, facts_html


def tuning_report(folder: Path, out: Path) -> str:
    """Return the page of a tuning; write its figures beside it.

    Args:
        folder: folder of the tuning.
        out: folder of the report.

    Raises:
        RunError: the folder contains no tuning, a figure cannot be written, or there is another page.
    """
    body, problems = read_tuning_body(folder)
    refuse_other_page(out / PAGE, None if out == folder / REPORT else out / FIGURES)
    title = f"Tuning {body['name']}"
    front = out / FIGURES / "front.png"
    points = [
        Point(str(t["number"]), 100 * t["clean"], 100 * t["robust"], t["number"] in body["front"])
        for t in body["trials"]
        if t["clean"] is not None
    ]
    trade_off_figure(front, f"{title}: the front", points, "clean accuracy (%)", "robust accuracy (%)")
    pictures = [
        read_picture(front, "Validation split, the attack of the recipe. Numbers are those of the trials.")
    ]
    mattered = []
    if body["importances"]:
        path = out / FIGURES / "importances.png"
        keys = list(body["ranges"])
        series = {
            f"for {name} accuracy": ([100 * shares.get(key, 0.0) for key in keys], [float("nan")] * len(keys))
            for name, shares in body["importances"].items()
        }
        bar_figure(path, f"{title}: what mattered", keys, series, "importance (%)", (0.0, 100.0))
        mattered = [read_picture(path, "PED-ANOVA over the finished trials.")]
    few = "<p>Too few trials finished, or they differ too little, to say what mattered.</p>\n"
    sections = [
        Section("Finalists", table_html(finalists_table(body))),
        Section("The front", figures_html(pictures)),
        Section("What mattered", figures_html(mattered) or few),
        Section("Trials", table_html(trials_table(body))),
        Section("Could not be read", "".join(f'<p class="doubt">{escape(each)}</p>\n' for each in problems)),
    ]
    return page(title, _lead(body), sections, BESIDE)


def finalists_table(body: Mapping[str, Any]) -> Table:
    """Return the finalists, with their accuracies on the test split and their options."""
    table = Table(title=Text("On the test split"), title_justify="left")
    keys = list(body["ranges"])
    for head in ("trial", "clean", "AutoAttack", *keys):
        table.add_column(Text(head), justify="right")
    for each in body["finalists"]:
        trial = body["trials"][each["number"]]
        name = f"{each['number']}{' (base recipe)' if trial['base'] else ''}"
        style = "bold" if each["number"] == body["best"] else ""
        found = [math.nan if each[key] is None else each[key] for key in ("clean", "autoattack")]
        cells = [name, *("–" if math.isnan(share) else f"{100 * share:.1f} %" for share in found)]
        table.add_row(*map(Text, [*cells, *(_value(trial["values"][key]) for key in keys)]), style=style)
    return table


def trials_table(body: Mapping[str, Any]) -> Table:
    """Return all trials, with their accuracies on the validation split and their options."""
    table = Table(title=Text("On the validation split"), title_justify="left")
    keys = list(body["ranges"])
    for head in ("trial", "clean", "robust", "epochs", "state", *keys):
        table.add_column(Text(head), justify="right")
    for trial in body["trials"]:
        shares = ["–" if trial[key] is None else f"{100 * trial[key]:.1f} %" for key in ("clean", "robust")]
        state = "on the front" if trial["number"] in body["front"] else trial["status"]
        cells = [str(trial["number"]), *shares, str(trial["epochs"]), state]
        table.add_row(*map(Text, [*cells, *(_value(trial["values"][key]) for key in keys)]))
    return table


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lead(body: Mapping[str, Any]) -> str:
    budget, states = body["budget"], [trial["status"] for trial in body["trials"]]
    facts = [
        ("trials", str(len(states)), f"{states.count('stopped early')} stopped early"),
        ("budget", f"{budget['spent']:.4g} of {budget['given']:g}", budget["unit"]),
        ("epochs", str(body["epochs"]), "of a whole trial"),
        ("best", "–" if body["best"] is None else str(body["best"]), "of the finalists, under AutoAttack"),
    ]
    ranges = "; ".join(f"{key}: {text}" for key, text in body["ranges"].items())
    said = f"Base recipe {body['base']} · seed {body['seed']} · {ranges}"
    return f'<p class="subtitle">{escape(said)}</p>\n{facts_html(facts)}'
