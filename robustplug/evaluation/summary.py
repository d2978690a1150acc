"""Summaries over the rows of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.types import AttackResult, Result
from ..errors import RunError
from ..runs.result_file import read_evaluations
from .corruptions import ALEXNET, SEVERITIES, mean_corruption_error, relative_mean_corruption_error


def worst_cases(rows: Sequence[AttackResult]) -> list[dict[str, Any]]:
    """Return the accuracy under all attacks of each chain together.

    Skipped rows of a chain are listed: without them its accuracy may be too high.
    """
    chains: dict[str, list[AttackResult]] = {}
    for row in rows[1:]:
        if row.chain and not row.shift:
            chains.setdefault(row.chain, []).append(row)
    result = []
    for chain, members in chains.items():
        done = [row for row in members if not row.skipped]
        if not done:
            continue
        result.append(
            {
                "chain": chain,
                "threat": dict(done[-1].threat),
                "attacks": [row.name for row in done],
                "skipped": [row.name for row in members if row.skipped],
                "accuracy": done[-1].accuracy,
            }
        )
    return result


def corruption_errors(rows: Sequence[AttackResult]) -> dict[str, dict[int, float]]:
    """Return the error rate under each kind of corruption and severity."""
    errors: dict[str, dict[int, float]] = {}
    for row in rows:
        if {"kind", "severity"} <= row.shift.keys() and not row.options and not row.skipped:
            errors.setdefault(row.shift["kind"], {})[row.shift["severity"]] = 1 - row.accuracy
    return errors


@dataclass(frozen=True)
class ReferenceErrors:
    """Hold the errors of the reference model that divide the corruption errors.

    Attributes:
        name: name of the model.
        errors: errors by kind: those of the severities 1 to 5, or their mean.
        clean: error on clean samples; None if it is unknown.
    """

    name: str
    errors: Mapping[str, float | Sequence[float]]
    clean: float | None


def read_reference(reference: str | Path) -> ReferenceErrors:
    """Return the reference errors that divide the corruption errors.

    Args:
        reference: "alexnet", or a run folder that was evaluated under corruptions.

    Raises:
        RunError: the run does not exist, an evaluation of it is damaged, or none was made under corruptions.
    """
    if str(reference) == "alexnet":
        return ReferenceErrors("alexnet on ImageNet-C", ALEXNET, None)
    problems: list[str] = []
    evaluations = read_evaluations(Path(reference), problems)
    if problems:
        raise RunError(f"the reference errors cannot be read: {problems[0]}")
    stored = [_stored_errors(Path(reference).name, each.result) for each in evaluations.values()]
    found = max((each for each in stored if each), key=lambda each: len(each.errors), default=None)
    if found is None:
        raise RunError(
            f"{reference} contains no errors under corruptions at all five severities: first run robustplug "
            f'evaluate {reference} with the same suite, or give "alexnet" for ImageNet-C'
        )
    return found


def _stored_errors(name: str, result: Result) -> ReferenceErrors | None:
    errors = (result.meta.get("corruptions") or {}).get("errors", {})
    clean = None if not result.attacks or result.attacks[0].skipped else 1 - result.attacks[0].accuracy
    complete = _at_all_severities(errors)
    return ReferenceErrors(name, complete, clean) if complete else None


def _at_all_severities(errors: Mapping[str, Mapping[Any, float]]) -> dict[str, list[float]]:
    by_number = {kind: {int(s): error for s, error in row.items()} for kind, row in errors.items()}
    severities = range(1, SEVERITIES + 1)
    return {
        kind: [row[severity] for severity in severities]
        for kind, row in by_number.items()
        if row.keys() == set(severities)
    }


def corruption_summary(rows: Sequence[AttackResult], reference: ReferenceErrors | None) -> dict[str, Any]:
    """Return the errors under corruptions, their mean, and mCE against a reference.

    mCE covers the kinds that the model was evaluated on; if it cannot be computed, a note gives the reason.
    Without corruptions the summary is empty.
    """
    errors = corruption_errors(rows)
    if not errors:
        return {}
    summary: dict[str, Any] = {
        # JSON keys must be strings.
        "errors": {kind: {str(s): error for s, error in row.items()} for kind, row in errors.items()},
        "mean_error": sum(sum(row.values()) / len(row) for row in errors.values()) / len(errors),
    }
    if reference is None:
        return summary
    mine = _at_all_severities(errors)
    known = {kind: rates for kind, rates in reference.errors.items() if kind in mine}
    if mine.keys() != errors.keys() or mine.keys() != known.keys():
        lacking = sorted((errors.keys() - mine.keys()) | (mine.keys() - known.keys()))
        note = f"No mCE: both models need errors at five severities of {', '.join(lacking)}."
        return {**summary, "note": note}
    try:
        summary |= {"reference": reference.name, "mce": mean_corruption_error(mine, known)}
        if reference.clean is not None:
            clean = 1 - rows[0].accuracy
            relative = relative_mean_corruption_error(mine, known, clean, reference.clean)
            summary["relative_mce"] = relative
    except ValueError as error:
        summary["note"] = f"No relative mCE: {error}." if "mce" in summary else f"No mCE: {error}."
    return summary
