"""Audit a model: run attacks whose results must agree if its robustness is real."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.functional import margin
from ...core.random import derive, isolated, stream
from ...core.step import Step
from ...core.types import Batch, Feed, Result, TaskInfo, View
from ...errors import Refused
from ...recipe.load import read_suite
from ...recipe.write import use_to_mapping
from ...runs.folder import write_json, writing
from ...runs.result_file import result_to_json
from ...subjects.assemble import Parts, build_vicinity
from ..evaluate import Evaluation
from ..results import Asked, evaluate_and_write, prepare_evaluation
from ..setting import plain_objective
from . import verdicts
from .verdicts import Finding

if TYPE_CHECKING:
    from ...subjects.subject import Subject

NAME = "audit"
# Number of samples whose gradients and outputs are inspected.
LOOKED_AT = 256


def audit_suite(threat: Mapping[str, Any], everything: float) -> dict[str, Any]:
    """Return the rows of an audit, each on all samples that are classified correctly when clean.

    Args:
        threat: the vicinity, as a table.
        everything: eps at which every image is legal.
    """

    def row(label: str, name: str, **options: Any) -> dict[str, Any]:
        return {"label": label, "attack": {"use": name, **options}}

    return {
        "name": NAME,
        "row": [
            row("noise", "noise"),
            row("fgsm", "fgsm"),
            row("pgd-20", "pgd", steps=20),
            row("pgd-100", "pgd", steps=100),
            row("pgd-100, 5 restarts", "pgd", steps=100, restarts=5),
            row("margin", "pgd", steps=100, loss={"use": "margin"}),
            row("targeted", "pgd", steps=100, target="runner-up"),
            row("apgd-ce", "apgd-ce"),
            row("apgd-dlr", "apgd-dlr"),
            row("square", "square", queries=1000),
            row("unbounded", "pgd", steps=100, restarts=2) | {"vicinity": {**threat, "eps": everything}},
            row("transfer", "pgd", steps=50) | {"transfer": True},
        ],
    }


@dataclass(frozen=True)
class Audit:
    """Hold the findings of an audit.

    Attributes:
        grade: "A" (no sign of masked gradients) to "F" (several), or "none".
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


def audit_subject(subject: Subject, asked: Asked, out: Path | None) -> Audit:
    """Audit an exported model in its threat model.

    Args:
        subject: the model, its data and its recipe.
        asked: settings with the surrogate models of the transfer attack.
        out: folder of audit.json; None for none.
    """
    parts, threat = subject.parts, use_to_mapping(subject.parts.threat)
    norm = build_vicinity(parts.threat, "evaluate.vicinity", parts.task.info).norm
    everything = _reach(parts.task.info, norm)
    asked = replace(asked, suite=read_suite(audit_suite(threat, everything), threat))
    started = time.perf_counter()
    evaluation = prepare_evaluation(subject, replace(asked, journal=None))
    with evaluation.prepared():
        looked = [_gradients(evaluation, parts), _stochastic(evaluation, parts)]
    result = evaluate_and_write(subject, asked, out)
    findings = (*looked, *judge_rows(result))
    letter, verdict = verdicts.grade(findings)
    rows = [row.right for row in result.attacks if not row.skipped and row.name != "unbounded"]
    standing = [all(sample) for sample in zip(*rows, strict=True)]
    meta = {**result.meta, "seconds": time.perf_counter() - started}
    found = Audit(letter, verdict, findings, verdicts.accuracy(standing), replace(result, meta=meta))
    if out is not None and subject.processes.main:
        with writing(f"the audit in {out}"):
            write_json(out / f"{NAME}.json", {**result_to_json(found.result), "audit": found.to_json()})
    return found


def judge_rows(result: Result) -> list[Finding]:
    """Return the findings that are based on the rows of an audit."""
    rows = {row.name: row.right for row in result.attacks if not row.skipped}
    refused = {row.name: row.skipped for row in result.attacks if row.skipped}

    def check(name: str, judge: Any, *needed: str) -> Finding:
        lacking = [label for label in needed if label not in rows]
        if lacking:
            why = f"The row {lacking[0]} was not run: {refused.get(lacking[0], 'it is missing')}."
            return Finding(name, "not run", {}, why)
        found: Finding = judge(*(rows[label] for label in needed))
        return found

    cross_entropy = _together(rows, "pgd-100, 5 restarts", "apgd-ce")
    white_box = _together(rows, "pgd-100, 5 restarts", "apgd-ce", "margin", "apgd-dlr")
    others: dict[str, Sequence[bool]] = {
        label: rows[label] for label in ("margin", "targeted", "apgd-dlr") if label in rows
    }
    transferred = [right for label, right in rows.items() if label.startswith("transfer from")]
    findings = [
        check("more-effort", verdicts.more_effort, "pgd-20", "pgd-100", "pgd-100, 5 restarts"),
        check("unbounded", verdicts.unbounded, "unbounded", "clean"),
    ]
    for name, judge, needed in (
        ("black-box", lambda square: verdicts.black_box(square, white_box), ("square",)),
        ("transfer", lambda: verdicts.transfer(transferred, white_box), ()),
        ("other-losses", lambda: verdicts.other_losses(others, cross_entropy), ()),
    ):
        if white_box:
            findings.append(check(name, judge, *needed))
        else:
            findings.append(Finding(name, "not run", {}, "No white-box attack could be run for comparison."))
    findings.append(check("single-step", verdicts.single_step, "fgsm", "pgd-100"))
    findings.append(check("random-noise", verdicts.noise, "noise", "clean", "pgd-100"))
    return findings


def _together(rows: Mapping[str, Sequence[bool]], *labels: str) -> list[bool]:
    """Return which samples are still correct after all given rows, or [] if none of these was run."""
    found = [rows[label] for label in labels if label in rows]
    return [all(sample) for sample in zip(*found, strict=True)]


def _reach(info: TaskInfo, norm: float | None) -> float:
    """Return a radius at which every input can be reached from every other, in the L∞ or else the L2 norm."""
    low, high = (torch.as_tensor(side, dtype=torch.float64).view(-1) for side in info.bounds)
    widths = high - low
    if norm == math.inf:
        return float(widths.max())
    if not info.shape:
        return 1e6
    each = math.prod(info.shape) / len(widths)
    return math.sqrt(float((widths.square() * each).sum()))


def _first_batch(parts: Parts, evaluation: Evaluation) -> Batch:
    options = parts.recipe.evaluate
    size = min(LOOKED_AT, options.batch_size, options.samples or LOOKED_AT)
    feed = Feed(batch_size=size, samples=size, device=str(evaluation.processes.device))
    return next(iter(evaluation.task.batches(options.split, feed)))


def _gradients(evaluation: Evaluation, parts: Parts) -> Finding:
    """Check the input gradients of the first samples, and the loss along them."""
    batch = _first_batch(parts, evaluation)
    rng = stream(evaluation.seed, NAME, device=evaluation.processes.device)
    step = Step(
        evaluation.model, plain_objective(evaluation.loss), evaluation.task, batch, rng, evaluating=True
    )
    view, vicinity = View.of(batch, "adv"), evaluation.vicinity
    radius = step.radii(view, vicinity)
    try:
        with step.attack_mode():
            x = batch.x.detach().clone().requires_grad_()
            losses = step.objective(view.replace(x=x))
            gradient = step.gradient(losses.sum(), x)
            move = 0.25 * radius.view(-1, *(1,) * (x.dim() - 1)) * vicinity.steepest(gradient)
            moved = vicinity.project(x.detach() + move, view.origin, radius)
            with torch.no_grad():
                before, after = (margin(step.forward(at), batch.y) for at in (x.detach(), moved))
    except Refused as refusal:
        return Finding("gradients", "not run", {}, f"{refusal}.")
    zero = gradient.flatten(1).abs().amax(1) == 0
    return verdicts.gradients(_share(zero), _share(after <= before))


def _share(flags: Tensor) -> float:
    return float(flags.float().mean())


def _stochastic(evaluation: Evaluation, parts: Parts) -> Finding:
    """Compare outputs between two calls, and between a sample alone and in a batch."""
    batch = _first_batch(parts, evaluation)
    x = batch.x[:16]
    device = evaluation.processes.device
    with torch.no_grad(), isolated(derive(evaluation.seed, NAME), device):
        one, two = evaluation.model(x), evaluation.model(x)
        alone = torch.cat([evaluation.model(row[None]) for row in x])
    scale = max(1.0, float(one.abs().max()))
    varies, depends = (one - two).abs().max() / scale, (one - alone).abs().max() / scale
    return verdicts.stochastic(float(varies), float(depends))
