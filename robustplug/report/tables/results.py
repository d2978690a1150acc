"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ...core.measures import wilson_interval
from ...core.reporting import headlines
from ...core.types import AttackResult, Result
from .bounds import both_sides_lines, contradiction_lines, doubt_lines
from .classes import class_lines
from .measures import measure_table, measured
from .sheets import parted
from .threats import LISTED, threat_text, unit_images

# Tables have no vertical lines in terminals with fewer columns than _NARROW; row names have at least _ATTACK
# characters.
_NARROW, _ATTACK = 76, 10


def accuracy_text(accuracy: float, samples: int) -> Text:
    """Return "82.5% (78–86)"."""
    low, high = wilson_interval(round(accuracy * samples), samples)
    return Text.assemble((f"{accuracy:.1%}", "bold"), f" ({low * 100:.0f}–{high * 100:.0f})")


def result_tables(result: Result, width: int) -> list[Table | Text]:
    """Lay out an evaluation: its rows, a matrix of corruptions, and summary lines.

    Args:
        result: result of the evaluation.
        width: terminal width; columns that do not fit go into further tables.
    """
    rows = result_table(result)
    if width < _NARROW:
        rows.box, rows.padding, rows.show_edge = box.SIMPLE_HEAD, (0, 0), False
    parts: list[Table | Text] = [*parted(rows, width)]
    if result.meta.get("corruptions"):
        parts += parted(corruption_table(result), width)
    if (others := measure_table(result)) is not None:
        parts += parted(others, width)
    parts += [Text(line) for line in worst_case_lines(result)]
    parts += [Text(line) for line in both_sides_lines(result)]
    parts += [Text(line, style="bold red") for line in contradiction_lines(result)]
    parts += [Text(line) for line in class_lines(result)]
    parts += [Text(text) for text in examples(result)]
    doubts = [*doubt_lines(result), *skipped_lines(result)]
    return [*parts, *(Text(line, style="yellow") for line in doubts)]


def skipped_lines(result: Result) -> list[str]:
    """Return lines on the skipped and the invalid rows, grouped by reason."""
    rows: dict[str, list[AttackResult]] = {}
    for row in result.attacks:
        if row.skipped:
            rows.setdefault(row.skipped, []).append(row)
    return [
        f"{'invalid' if same[0].invalid else 'skipped'}: {same[0].name}"
        f"{f' and {len(same) - 1} more' if len(same) > 1 else ''}: {reason}"
        for reason, same in rows.items()
    ]


def result_table(result: Result) -> Table:
    """Lay out the rows of an evaluation, except those of the corruption matrix."""
    meta = result.meta
    suite = f" · suite {meta['suite']}" if meta.get("suite") else ""
    title = f"{meta['name']} · {meta['task']} {result.split} split, {result.samples} samples{suite}"
    table = Table(title=title, caption=caption(result), title_justify="left", caption_justify="left")
    table.add_column("attack", overflow="fold", min_width=_ATTACK)
    columns = [quantity.name for quantity in headlines(result)]
    matrix = bool(meta.get("corruptions"))
    for name in (*(columns or ("accuracy (95 %)",)), "broken", "forwards", "backwards", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    chain = ""
    for row in result.attacks:
        if matrix and in_matrix(row):
            continue
        if row.chain != chain and table.row_count > 1:
            table.add_section()
        chain = row.chain
        if row.skipped:
            table.add_row(row.name, "invalid" if row.invalid else "skipped", style="yellow")
            continue
        cells: list[Text | str] = [measured(row, name) for name in columns]
        # Without an attack, what is judged by measures is neither broken nor whole.
        broken = "" if columns and row is result.attacks[0] else f"{row.broken}/{row.attempted}"
        if row.bound != "upper":
            broken = ""
        table.add_row(
            row.name,
            *(cells or [_bounded_text(row, result.samples)]),
            broken,
            f"{row.forwards:,.1f}",
            f"{row.backwards:,.1f}",
            f"{row.seconds:.1f} s",
        )
    return table


def _bounded_text(row: AttackResult, samples: int) -> Text:
    """Return the accuracy of a row, "≥" in front of a lower bound; "–" for a row that only measures."""
    if row.bound == "none":
        return Text("–")
    found = accuracy_text(row.accuracy, samples)
    return found if row.bound == "upper" else Text.assemble("≥ ", found)


def examples(result: Result) -> list[str]:
    """Return the outcome of one sample of each row, with the row's name."""
    return [f"\n{row.name}\n{row.example}" for row in result.attacks if row.example]


def in_matrix(row: AttackResult) -> bool:
    """Return whether a row is a kind and severity of corruption without an attack."""
    return {"kind", "severity"} <= row.shift.keys() and not row.options and not row.skipped


def corruption_table(result: Result) -> Table:
    """Lay out the accuracy under each kind of corruption and severity."""
    said: Mapping[str, Any] = result.meta["corruptions"]
    table = Table(title="corruptions: accuracy by severity", title_justify="left", caption_justify="left")
    table.add_column("kind")
    errors: Mapping[str, Mapping[Any, float]] = said["errors"]
    severities = sorted({int(severity) for row in errors.values() for severity in row})
    for name in (*map(str, severities), "mean"):
        table.add_column(name, justify="right")
    for kind, found in errors.items():
        by_severity = {int(severity): 1 - error for severity, error in found.items()}
        cells = [f"{by_severity[s]:.1%}" if s in by_severity else "" for s in severities]
        table.add_row(kind, *cells, f"{sum(by_severity.values()) / len(by_severity):.1%}")
    table.caption = corruption_caption(said)
    return table


def corruption_caption(said: Mapping[str, Any]) -> str:
    """Return the mean error, and the errors relative to the reference if there is one."""
    line = f"Mean corruption error, not normalised: {said['mean_error']:.1%}."
    if said.get("mce") is not None:
        line += f" mCE against {said['reference']}: {said['mce']:.1%}"
        line += f", relative mCE {said['relative_mce']:.1%}." if said.get("relative_mce") is not None else "."
    elif said.get("note"):
        line += f" {said['note']}"
    return line


def worst_case_lines(result: Result) -> list[str]:
    """Return a line with the worst case of each chain of attacks."""
    lines: list[str] = []
    # Results of earlier versions have worst cases of every task.
    chains: Sequence[Mapping[str, Any]] = () if headlines(result) else result.meta.get("worst_cases", ())
    for chain in chains:
        if len(chain["attacks"]) + len(chain["skipped"]) < 2:
            continue
        note = f"; {len(chain['skipped'])} skipped, so it may be too high" if chain["skipped"] else ""
        lines.append(
            f"Worst case of {len(chain['attacks'])} attacks at "
            f"{threat_text(chain['threat'], unit_images(result))}: "
            f"{accuracy_text(chain['accuracy'], result.samples).plain}{note}"
        )
    return lines


def caption(result: Result) -> str:
    """Return how to read the table, the cost of training, and the number of discarded results."""
    known = result.meta.get("input_range", [0.0, 1.0])
    inputs = (
        "" if known is None else f", inputs in [{known[0]:g}, {known[1]:g}]; {normalisation_text(result)}"
    )
    said = result.meta.get("threat_described")
    lines = [f"Threat model: {threat_text(result.threat, unit_images(result))}{inputs}."]
    lines += [f"Legal: {said}."] if said else []
    if any(row.chain for row in result.attacks):
        lines.append(
            "The rows of a section run in order, each on the samples that are still classified correctly."
        )
    alone = [row for row in result.attacks[1:] if not row.chain and row.bound == "upper"]
    if alone and not headlines(result):
        right = result.samples - result.attacks[0].broken
        more = any(row.attempted > right for row in alone)
        others = ", or on all samples if they are shifted or the attack has its own goal" if more else ""
        lines.append(
            f"A standalone row runs on all samples that are classified correctly when clean{others}."
        )
    if headlines(result):
        lines.append("Measures are over the samples that the row was run on, with 95 % intervals.")
    else:
        lines.append("Accuracy is over all samples.")
    if any(row.bound == "lower" for row in result.attacks):
        lines.append("≥: the share of samples that a certificate holds for at the radius, a lower bound.")
    if result.meta.get("wrapper"):
        lines.append(f"Model under test: within {threat_text(result.meta['wrapper'], False)}.")
    lines.append("Forwards and backwards are per sample of the split.")
    training = result.meta.get("training") or {}
    if training:
        lines.append(
            f"Training: {training['epochs']} epoch{'s' * (training['epochs'] != 1)} in "
            f"{training['seconds']:.0f} s, {training['forwards_per_sample']:.1f} forwards and "
            f"{training['backwards_per_sample']:.1f} backwards per sample and epoch."
        )
    lines.append(f"Evaluation: {result.meta['seconds']:.1f} s.")
    lines += [
        f"{row.name}: {row.prepared:,} forwards in all before its first sample, included."
        for row in result.attacks
        if row.prepared
    ]
    rejected = sum(row.rejected for row in result.attacks)
    if rejected:
        lines.append(f"{rejected} results left the threat model and were discarded.")
    for name, kept in (result.meta.get("examples") or {}).items():
        survive = f", of which {kept['8-bit']} survive rounding to 8 bits" if "8-bit" in kept else ""
        lines.append(f"{name}: {kept['examples']} examples kept{survive}.")
    return " ".join(lines)


def normalisation_text(result: Result) -> str:
    """Return where inputs are normalised."""
    loaded = result.meta.get("loaded", {}).get("normalisation", {})
    where = loaded.get("where", "inside the model")
    mean = loaded.get("mean") if loaded else result.meta.get("normalisation", {}).get("mean")
    if where == "none stated" or not mean:
        return "no normalisation stated"
    if len(mean) > LISTED:
        return f"normalisation {where} ({len(mean)} means)"
    numbers = ", ".join(f"{value:.3g}" for value in mean)
    return f"normalisation {where} (mean {numbers})"


_GRADES = {"A": "green", "B": "green", "C": "yellow", "D": "bold red", "U": "yellow", "F": "bold red"}
_MARKS = {"pass": ("pass", "green"), "warning": ("warning", "yellow"), "failure": ("FAIL", "bold red")}


def audit_table(audit: Mapping[str, Any]) -> Table:
    """Lay out an audit, as returned by `Audit.to_json`: a row for each check."""
    grade = str(audit["grade"])
    title = Text.assemble("audit: grade ", (grade, _GRADES.get(grade, "")), f", {audit['verdict']}")
    caption = f"{audit['accuracy']:.1%} of the samples withstood every attack of the audit."
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in ("check", "verdict", "measured", "what it means, and what to do"):
        table.add_column(name, overflow="fold")
    for finding in audit["findings"]:
        word, style = _MARKS.get(finding["verdict"], (finding["verdict"], "dim"))
        measured = "\n".join(_measured(finding))
        said = " ".join(part for part in (finding["meaning"], finding["advice"]) if part)
        table.add_row(finding["check"], Text(word, style=style), measured, said)
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if 0 <= value <= 1 else f"{value:.3g}"


def _measured(finding: Mapping[str, Any]) -> Iterator[str]:
    """Yield the numbers of a finding, its interval and its p-value, a line each."""
    numbers = dict(finding["measured"])
    low, high = numbers.pop("lower limit", None), numbers.pop("upper limit", None)
    for name, value in numbers.items():
        yield f"{name}: {_number(value)}"
    if low is not None and high is not None:
        yield f"95 % interval: {low:.1%} to {high:.1%}"
    if finding.get("p_value") is not None:
        yield f"p = {finding['p_value']:.2g}"
