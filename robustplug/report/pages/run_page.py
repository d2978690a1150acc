"""The page of a run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ...core.measures import wilson_interval
from ...core.reporting import headlines
from ...core.types import AttackResult, Result
from ...errors import RunError
from ...runs.folder import EVALUATIONS, REPORT, is_finished, writing
from ..figures.batchnorm import batchnorm_figure
from ..figures.certified import draw_certified
from ..figures.classes import draw_classes
from ..figures.drawn import draw_sweeps, draw_training, title_of
from ..material import Material, flat, read_extra, read_material
from ..tables.bounds import both_sides_lines, contradiction_lines, doubt_lines
from ..tables.classes import calibration_lines, class_samples, class_table
from ..tables.markup import escape, pairs_html, table_html, text_html
from ..tables.measures import measure_table, measured
from ..tables.results import (
    audit_table,
    corruption_table,
    result_table,
    skipped_lines,
    worst_case_lines,
)
from ..tables.threats import threat_text, unit_images
from .computed import MEASURED, Commands, Computing, LeftOut
from .page import Picture, Section, figures_html, page, read_picture, refuse_other_page

if TYPE_CHECKING:
    from ...core.opened_run import OpenedRun
    from ...core.reporting import Reporter

FIGURES, PAGE = "figures", "index.html"
# A table of more classes is collapsed.
_CLASSES = 20
BESIDE = "The folder figures beside this page contains the figures as PNG and SVG."


def run_report(
    folder: Path,
    out: Path,
    commands: Commands,
    samples: int | None,
    compute: bool,
    device: str,
    reporter: Reporter,
) -> tuple[str, list[LeftOut]]:
    """Return the page of a run, and what it lacks; write its figures beside it.

    Args:
        folder: the run folder.
        out: folder of the report.
        commands: functions of the Python API.
        samples: number of samples for accuracies; None to compute what takes seconds.
        compute: whether to compute what the run folder does not contain.
        device: "auto", "cpu", "cuda" or "mps".
        reporter: reporter that receives progress.

    Raises:
        RunError: the folder is not a run folder, or a file cannot be written.
    """
    material, figures = read_material(folder), out / FIGURES
    refuse_other_page(out / PAGE, None if out == folder / REPORT else figures)
    read_extra(material, MEASURED, out / f"{MEASURED}.json")
    computing = Computing(material, out, commands, samples, device, reporter)
    probes: list[tuple[Path, str]] = []
    inner: list[Picture] = []
    if compute and material.result is not None:
        computing.sweeps()
        probes = list(computing.probes(figures))
        inner = _inner(material, figures, computing)
    elif material.result is not None:
        command = f"robustplug report {folder}"
        computing.left_out.append(LeftOut("figures that have to be computed", "--saved was given", command))
    robustness = _pictures(
        [*draw_sweeps(material, figures), *draw_certified(material, figures), *probes], material
    )
    training = _pictures(draw_training(material, figures), material)
    classes = _pictures(draw_classes(material, figures), material)
    own = {each.name: each for each in inner}
    # A figure of a plugin replaces a built-in figure of the same name.
    robustness = [own.pop(each.name, each) for each in robustness]
    training = [own.pop(each.name, each) for each in training]
    shown = {*own, *(each.name for each in (*robustness, *training, *classes))}
    # With --saved, the figures of an earlier report count as saved, too.
    found = _found(material, shown, () if compute else (figures,))
    if not material.audit and material.result is not None:
        computing.left_out.append(LeftOut("the audit", "it was not run", f"robustplug audit {folder}"))
    if material.result is None:
        command = f"robustplug train --resume {folder}"
        why = "the result cannot be believed" if is_finished(folder) else "the run is not finished"
        computing.left_out.append(LeftOut("the evaluation", why, "" if is_finished(folder) else command))
    # This comes first, because it may add problems.
    results = _results(material)
    sections = [
        Section("Results", results),
        Section("Classes", classes_html(material.result) + figures_html(classes)),
        Section("Audit", audit_html(material.audit)),
        Section("Robustness", figures_html(robustness)),
        Section("Training", figures_html(training)),
        Section("Inside the model", figures_html(list(own.values()))),
        Section("More figures", figures_html(found)),
        Section("Recipe", recipe_html(material.recipe)),
        Section("Environment", environment_html(material.environment)),
        Section("Left out", left_out_html(computing.left_out, material.problems)),
    ]
    return page(title_of(material), _lead(material), sections, BESIDE), computing.left_out


def _results(material: Material) -> str:
    """Return the evaluations; the table of the one measured for the figures is collapsed."""
    parts = []
    for name, result in material.results.items():
        try:
            content = evaluation_html(result, name)
        except (KeyError, TypeError, ValueError) as error:
            material.problems.append(f"the evaluation {name or 'of the run'} cannot be shown: {error!r}")
            continue
        if name == MEASURED:
            title = f"Measured for this page with {result.samples} samples"
            content = f"<details><summary>{title}</summary>\n{content}</details>\n"
        parts.append(content)
    return "".join(parts)


def _inner(material: Material, figures: Path, computing: Computing) -> list[Picture]:
    """Draw the model's BatchNorm statistics, and the figures of plugins."""
    from ...evaluation.opened_run import open_run
    from ...plugin.host import host

    try:
        opened = open_run(material.folder, computing.device)
    except Exception as error:  # a page without a model is better than no page
        material.problems.append(f"the model cannot be opened: {error}")
        return []
    path = figures / "batchnorm.png"
    notes = {}
    if batchnorm_figure(path, f"First BatchNorm layer, {opened.name}", _models(opened)):
        notes[path.stem] = "Running statistics, rescaling γ and shift β of each channel."
    # Plugins draw into a temporary folder first, so that only figures of this run are shown.
    with tempfile.TemporaryDirectory() as drawn:
        more = host().figures(opened, Path(drawn))
        computing.left_out += [LeftOut(what, "", command) for what, command in more]
        names = [path.name for path in sorted(Path(drawn).iterdir()) if path.suffix in (".png", ".svg")]
        with writing(f"the figures in {figures}"):
            figures.mkdir(parents=True, exist_ok=True)
            for name in names:
                # An older SVG would be shown instead of a PNG without an SVG.
                (figures / name).with_suffix(".svg").unlink(missing_ok=True)
            for name in names:
                shutil.copyfile(Path(drawn, name), figures / name)
    paths = {Path(name).stem: figures / name for name in names if name.endswith(".png")}
    own = {path.stem: path} if path.stem in notes else {}
    return _pictures([(each, notes.get(stem, "")) for stem, each in {**own, **paths}.items()], material)


def _models(opened: OpenedRun) -> dict[str, Any]:
    """Return the run's model, and the model that it was fine-tuned from, if available."""
    from ...errors import Refused
    from ...subjects.trained import open_model

    models = {"trained": opened.model}
    start = opened.recipe.model.start if opened.recipe.model is not None else None
    if start is not None:
        try:
            models["before fine-tuning"] = open_model(start, opened.task.info, opened.device)
        except Refused:
            return models
    return models


def _found(material: Material, shown: set[str], more: Iterable[Path]) -> list[Picture]:
    """Read the figures that commands have written to the run folder, and those in more folders."""
    folders = [material.folder / FIGURES, material.folder / EVALUATIONS / FIGURES, *more]
    paths = [path for folder in folders for path in sorted(folder.glob("*.png")) if path.stem not in shown]
    return _pictures([(path, "") for path in paths], material)


def _pictures(drawn: Iterable[tuple[Path, str]], material: Material) -> list[Picture]:
    """Read figures; one that cannot be read becomes a problem."""
    found = []
    for path, note in drawn:
        try:
            found.append(read_picture(path, note))
        except RunError as error:
            material.problems.append(f"the figure {error}")
    return found


def _lead(material: Material) -> str:
    """Return the most important facts of a run: its setting and its accuracies."""
    result = material.result
    if result is None:
        why = "The run is not finished: there is no result yet."
        if is_finished(material.folder):
            why = "The result cannot be believed: the end of this page says why."
        return f'<p class="subtitle">{why}</p>\n'
    meta = result.meta
    said = f"{meta.get('method')} on {meta.get('task')}, {meta.get('model') or 'no model of its own'}"
    said += f" · {result.split} split, {result.samples} samples · threat model "
    said += threat_text(result.threat, unit_images(result))
    if legal := result.meta.get("threat_described"):
        said += f" · legal: {legal}"
    facts = [*(_measured if headlines(result) else _accuracies)(result)]
    if material.audit:
        facts.append(("audit", f"grade {material.audit['grade']}", str(material.audit["verdict"])))
    else:
        facts.append(("audit", "–", "not audited"))
    training = meta.get("training") or {}
    if training:
        facts.append(
            (
                "training",
                f"{training['seconds']:.0f} s",
                f"{training['epochs']} epoch{'s' * (training['epochs'] != 1)}",
            )
        )
    return f'<p class="subtitle">{escape(said)}</p>\n{facts_html(facts)}'


def _accuracies(result: Result) -> Iterator[tuple[str, str, str]]:
    """Yield the clean accuracy, and the worst case of the first chain."""
    yield "clean accuracy", *_share(result.attacks[0].accuracy, result.samples)
    chains = result.meta.get("worst_cases") or ()
    if chains:
        count = len(chains[0]["attacks"])
        name = "accuracy under attack" if count == 1 else f"worst case of {count} attacks"
        yield name, *_share(chains[0]["accuracy"], result.samples)
    for sides in (result.meta.get("bounds") or ())[:1]:
        yield "certified accuracy", *_share(sides["certified"], result.samples)


def _measured(result: Result) -> Iterator[tuple[str, str, str]]:
    """Yield the headlines of the first and of the last row that has any."""
    names = [quantity.name for quantity in headlines(result)]
    rows = [row for row in result.attacks if any(n in row.measures and row.measures[n].count for n in names)]
    for row in dict.fromkeys((rows[0].name, rows[-1].name)) if rows else ():
        found = next(each for each in rows if each.name == row)
        for name in names:
            value, _, interval = measured(found, name).partition("\n")
            yield f"{name}, {row}", value, f"95 %: {interval}" if interval else ""


def _share(share: float, samples: int) -> tuple[str, str]:
    low, high = wilson_interval(round(share * samples), samples)
    return f"{share:.1%}", f"95 %: {low * 100:.0f}–{high * 100:.0f} %"


def facts_html(facts: Iterable[tuple[str, str, str]]) -> str:
    """Return facts, (name, value, note) each, for the top of a page."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in facts
    )
    return f'<dl class="facts">{cells}</dl>\n'


def evaluation_html(result: Result, name: str) -> str:
    """Return the tables of an evaluation, and the examples of its task; `name` is that of its file."""
    rows = result_table(result)
    if name and not result.meta.get("suite"):
        # Otherwise, it would have the title of the run's own evaluation.
        rows.title = f"{rows.title} · {EVALUATIONS}/{name}.json"
    parts = [table_html(rows)]
    if result.meta.get("corruptions"):
        parts.append(table_html(corruption_table(result)))
    if (others := measure_table(result)) is not None:
        parts.append(table_html(others))
    parts += [f"<p>{text_html(line)}</p>\n" for line in worst_case_lines(result)]
    parts += [f"<p>{text_html(Text(line))}</p>\n" for line in both_sides_lines(result)]
    doubts = [*contradiction_lines(result), *doubt_lines(result), *skipped_lines(result)]
    parts += [f'<p class="doubt">{text_html(line)}</p>\n' for line in doubts]
    parts += [_told(row) for row in result.attacks if row.example]
    return "".join(parts)


def classes_html(result: Result | None) -> str:
    """Return the accuracies by class, collapsed if there are many, and the calibration."""
    if result is None or not class_samples(result):
        return ""
    content = table_html(class_table(result))
    if len(class_samples(result)) > _CLASSES:
        content = f"<details><summary>Accuracy by class</summary>\n{content}</details>\n"
    return content + "".join(f"<p>{text_html(line)}</p>\n" for line in calibration_lines(result))


def _told(row: AttackResult) -> str:
    return f'<h3>{escape(row.name)}: one sample</h3>\n<pre class="talk">{escape(row.example)}</pre>\n'


def audit_html(audit: Mapping[str, Any]) -> str:
    """Return the findings of an audit."""
    return table_html(audit_table(audit)) if audit else ""


def recipe_html(text: str) -> str:
    """Return a recipe as written in its file, in as many columns as fit."""
    # A span keeps a table of the recipe within one column.
    tables = "".join(f"<span>{escape(table)}\n\n</span>" for table in text.strip().split("\n\n"))
    return f'<pre class="recipe"><code>{tables}</code></pre>\n'


def environment_html(environment: Mapping[str, Any]) -> str:
    """Return versions and device."""
    if not environment:
        return ""
    pairs = {
        key.removeprefix("packages."): "–" if value is None else str(value)
        for key, value in flat(environment).items()
        if not key.startswith("plugins.")
    }
    packages: dict[str, list[str]] = {}
    for name, package in flat(environment.get("plugins", {})).items():
        packages.setdefault(str(package), []).append(name)
    if packages:
        pairs["plugins"] = "; ".join(f"{', '.join(names)} ({package})" for package, names in packages.items())
    return pairs_html(pairs, "Training environment")


def left_out_html(left_out: Iterable[LeftOut], problems: Iterable[str]) -> str:
    """Return what the page lacks, and the commands that add it."""
    items = []
    for each in left_out:
        why = f": {escape(each.why)}" if each.why else ""
        command = f" <code>{escape(each.command)}</code>" if each.command else ""
        items.append(f"<li>{escape(each.what)}{why}.{command}</li>\n")
    items += [f'<li class="doubt">{text_html(Text(problem))}</li>\n' for problem in problems]
    return f"<ul>\n{''.join(items)}</ul>\n" if items else ""
