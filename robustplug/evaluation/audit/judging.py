"""Turn the rows of an audit into findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.types import Result
from ..setting import REJECTED
from . import verdicts
from .preparation import Prepared
from .rows import (
    AS_LOGITS,
    BORROWED,
    BRIDGED,
    CROSS_ENTROPY,
    HARD_LABEL,
    NOISE,
    RATIO,
    SINGLE,
    SQUARE,
    SUBSTITUTE,
    TRANSFER,
    UNBOUNDED,
    WHITE,
)
from .verdicts import Finding, left_over, more_than


def judge_rows(result: Result, prepared: Prepared) -> list[Finding]:
    """Return the findings that are based on the rows of an audit."""
    rows = {row.name: row.right for row in result.attacks if not row.skipped}
    chain = [row.name for row in result.attacks if row.chain == WHITE and not row.skipped]
    clean, count = rows["clean"], sum(rows["clean"])
    white = rows[chain[-1]] if chain else clean
    adaptive = "Report the lowest number of: robustplug evaluate MODEL --suite adaptive."
    findings: list[Finding] = []
    entropy, ratio = _last(rows, CROSS_ENTROPY), _last(rows, RATIO)
    if entropy is None or ratio is None:
        why = "No attack on cross entropy and on the difference of logits ratio could be run."
        findings += [Finding(name, "not run", {}, why) for name in ("cross-entropy", "other-losses")]
    else:
        lost = sum(a and not b for a, b in zip(entropy, white, strict=True))
        text = "Other losses break few samples that cross entropy does not break"
        share = verdicts.LEFT_BY_CROSS_ENTROPY
        if prepared.found.squeezed:
            text, share = f"{text}, although the softmax hardly tells the classes apart", verdicts.LEFT
        findings.append(
            more_than(
                "cross-entropy",
                "scaled logits",
                lost,
                count,
                share,
                "broken only by others",
                text,
                "Do not report the robust accuracy under cross-entropy PGD: use margin and DLR losses.",
            )
        )
        findings.append(
            left_over("other-losses", "losses", ratio, white, count, adaptive, "Another loss than CE and DLR")
        )
    said = {
        SINGLE: ("single-step", "One gradient step"),
        NOISE: ("random-noise", "Random noise"),
        SQUARE: ("black-box", "Square, which uses no gradients,"),
        HARD_LABEL: ("decision-based", "RayS, which uses only decisions,"),
        BRIDGED: (
            "straight-through",
            "An attack that leads gradients past parts without any (BPDA)",
        ),
        BORROWED: ("substitute-gradients", "An attack along the gradients of a substitute"),
        SUBSTITUTE: ("transfer", "A transfer attack from a substitute trained on the model's own answers"),
    }
    present = {row.name for row in result.attacks}
    # Without a white-box attack that could be expected to work, there is nothing to win against.
    comparable = bool(chain) or prepared.found.parameters > 0
    for name, (check, what) in said.items():
        if name in present:
            if not comparable:
                measured = {"withstood": verdicts.accuracy(rows[name])} if name in rows else {}
                why = "There is no white-box attack to compare with."
                findings.append(Finding(check, "not run", measured, why))
                continue
            after = rows.get(name)
            kind = "random search wins" if name in (NOISE, SQUARE, HARD_LABEL) else "not differentiable"
            kind = {SINGLE: "rugged loss", SUBSTITUTE: "transfer wins"}.get(name, kind)
            findings.append(left_over(check, kind, white, after, count, adaptive, what))
    for name in present:
        if name.startswith(f"{TRANSFER} from ") and name != SUBSTITUTE:
            what = f"A {name}"
            findings.append(left_over(name, "transfer wins", white, rows.get(name), count, adaptive, what))
    findings.append(_unbounded(rows, count, prepared))
    if AS_LOGITS in rows:
        fooled = sum(a and not b for a, b in zip(rows[AS_LOGITS], white, strict=True))
        text = "Attacks that take the outputs, which are probabilities, for logits miss few samples"
        advice = "Return logits: attacks of other programs are fooled by this model."
        share = verdicts.LEFT_BY_CROSS_ENTROPY
        findings.append(
            more_than("probabilities", "probabilities", fooled, count, share, "missed", text, advice)
        )
    findings.append(_rejected(result))
    return findings


def _unbounded(rows: Mapping[str, Sequence[bool]], count: int, prepared: Prepared) -> Finding:
    if prepared.found.predicted < 2:
        why = "The model predicts the same class for all samples, so no attack can be expected to change it."
        return Finding("unbounded", "not run", {}, why)
    if prepared.everything is None:
        why = "No radius of this threat model makes every input legal."
        return Finding("unbounded", "not run", {}, why)
    if UNBOUNDED not in rows:
        return Finding("unbounded", "not run", {}, "The attack with an unbounded radius could not be run.")
    text = "An attack that may reach every input breaks all but few samples"
    advice = "Look for layers without a useful gradient: rounding, thresholds, saturation."
    survivors = sum(rows[UNBOUNDED])
    return more_than(
        "unbounded", "unreachable", survivors, count, verdicts.LEFT, "still correct", text, advice
    )


def _rejected(result: Result) -> Finding:
    shares = {row.name: row.rejected / row.attempted for row in result.attacks if row.attempted}
    worst = max(shares, key=lambda name: shares[name], default="")
    share = shares.get(worst, 0.0)
    measured = {"rejected at most": share}
    if share <= REJECTED:
        return Finding("rejected", "pass", measured, "Results of attacks lie in the threat model.")
    text = f"Of {worst}, {share:.0%} of the results lie outside the threat model: its row states nothing."
    return Finding("rejected", "warning", measured, text, "Use attacks that keep to this threat model.")


def together(rows: Mapping[str, Sequence[bool]], *labels: str) -> list[bool]:
    """Return which samples are still correct after all given rows."""
    return [all(sample) for sample in zip(*(rows[label] for label in labels), strict=True)]


def _last(rows: Mapping[str, Sequence[bool]], names: Sequence[str]) -> Sequence[bool] | None:
    """Return the last of some rows of a chain that was run; None if none was."""
    return next((rows[name] for name in reversed(names) if name in rows), None)
