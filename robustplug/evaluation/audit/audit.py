"""Audit a model: is its robustness real, or are the gradients masked that attacks follow?"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.types import Cost, Result
from ...runs.result_file import AUDIT, read_evaluations, result_from_json, result_to_json, write_result
from ..results import Asked, evaluate_and_write
from ..setting import Attack
from . import verdicts
from .judging import judge_rows, together
from .preparation import prepare
from .rows import UNBOUNDED, WHITE
from .verdicts import Finding

if TYPE_CHECKING:
    from ...subjects.subject import Subject


@dataclass(frozen=True)
class Audit:
    """Hold the findings of an audit.

    Attributes:
        grade: "A" (no sign of masked gradients, all checks ran), "B" (none, but not all checks could run),
            "U" (undecided: too little could run) or "F" (masked).
        verdict: meaning of the grade.
        findings: one finding for each check.
        accuracy: share of the samples that are still classified correctly after all attacks of the audit.
        result: results of the attacks.
    """

    grade: str
    verdict: str
    findings: tuple[Finding, ...]
    accuracy: float
    result: Result

    def to_json(self) -> dict[str, Any]:
        """Return the audit as JSON values, without the results of the attacks."""
        return {
            "grade": self.grade,
            "verdict": self.verdict,
            "accuracy": self.accuracy,
            "findings": [asdict(finding) for finding in self.findings],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Audit:
        """Return the audit of the content of an audit.json."""
        said = {**body[AUDIT], "findings": tuple(Finding(**each) for each in body[AUDIT]["findings"])}
        return cls(**said, result=result_from_json(body))


def audit_subject(subject: Subject, asked: Asked, out: Path | None) -> Audit:
    """Audit an exported model in its threat model.

    Args:
        subject: the model, its data and its recipe.
        asked: settings with the surrogate models of the transfer attack, and the deadline.
        out: folder of audit.json; None for none.
    """
    started = time.perf_counter()
    prepared = prepare(subject)
    attacks = prepared.attacks(asked.sources)
    subject.reporter.warn(cost_of(attacks, _samples(subject), prepared.pace))
    result = evaluate_and_write(prepared.subject, replace(asked, attacks=attacks, name=AUDIT), out)
    rows = {row.name: row.right for row in result.attacks if not row.skipped}
    standing = together(rows, *(name for name in rows if name != UNBOUNDED))
    others = _elsewhere(subject.folder, result)
    findings = [
        *verdicts.outputs(prepared.found),
        *verdicts.gradients(prepared.found),
        verdicts.power(prepared.power),
        *judge_rows(result, prepared),
        *([] if others is None else [_beyond(standing, others)]),
    ]
    decided = verdicts.decided(findings)
    ran = {"white-box": bool(_ran(result, "chain")), "black-box": bool(_ran(result, "after"))}
    letter, verdict = verdicts.grade(decided, ran)
    meta = {**result.meta, "seconds": time.perf_counter() - started, "inspection": asdict(prepared.found)}
    if others is not None:
        standing = [a and b for a, b in zip(standing, others, strict=True)]
    accuracy = verdicts.accuracy(standing)
    found = Audit(letter, verdict, decided, accuracy, replace(result, meta=meta))
    if out is not None and subject.processes.main:
        body = {**result_to_json(found.result), AUDIT: found.to_json()}
        write_result(out / f"{result.meta['file']}.json", body, subject.folder)
    return found


def _elsewhere(folder: Path | None, result: Result) -> list[bool] | None:
    """Return which samples withstood other evaluations of the same run on the same samples; None for none."""
    if folder is None:
        return None
    key = result.meta.get("samples_digest")
    found = [
        row.right
        for name, stored in read_evaluations(folder, []).items()
        if name != AUDIT
        and (each := stored.result).meta.get("samples_digest") == key
        and each.threat == result.threat
        and each.meta.get("wrapper") == result.meta.get("wrapper")
        for row in each.attacks
        if row.bound == "upper"
        and not row.skipped
        and not row.shift
        and (row.threat or result.threat) == result.threat
    ]
    return [all(sample) for sample in zip(*found, strict=True)] if found else None


def _beyond(standing: Sequence[bool], others: Sequence[bool]) -> Finding:
    """Compare the audit with other evaluations of the run, for example under AutoAttack."""
    count = sum(a and not b for a, b in zip(standing, others, strict=True))
    measured = {"audit": verdicts.accuracy(standing), "broken only elsewhere": count / len(standing)}
    if count <= verdicts.LEFT * len(standing):
        text = "Other evaluations of this run break next to nothing that the audit does not break."
        return Finding("other-evaluations", "pass", measured, text)
    text = "Other evaluations of this run break samples that withstand the audit; they count as broken here."
    return Finding("other-evaluations", "warning", measured, text, "Report the lowest robustness.")


def _samples(subject: Subject) -> int:
    options = subject.parts.recipe.evaluate
    size = subject.parts.task.info.sizes[options.split]
    return min(size, options.samples or size)


def cost_of(attacks: Sequence[Attack], samples: int, pace: float) -> str:
    """Return a sentence with the largest cost of attacks.

    Args:
        attacks: the attacks.
        samples: number of samples.
        pace: seconds of a forward and backward pass of a sample.
    """
    costs = [attack.perturbation.cost(Cost(0, 0)) for attack in attacks if attack.perturbation is not None]
    # A decision-based attack cannot state its cost in advance.
    forwards, backwards = (
        int(sum(number for number in numbers if math.isfinite(number)))
        for numbers in ([cost.forwards for cost in costs], [cost.backwards for cost in costs])
    )
    # A backward pass costs about two forward passes.
    minutes = samples * pace * (backwards + (forwards - backwards) / 3) / 60
    return (
        f"the audit takes at most {forwards:,} forward and {backwards:,} backward passes for each of "
        f"{samples} samples, some {max(minutes, 0.1):.1f} minutes here if all withstand it; "
        "--budget bounds it"
    )


def _ran(result: Result, how: str) -> list[str]:
    """Return the rows that ran, of the white-box chain, or of the others."""
    rows = [row for row in result.attacks[1:] if not row.skipped]
    return [row.name for row in rows if (row.chain == WHITE) == (how == "chain")]
