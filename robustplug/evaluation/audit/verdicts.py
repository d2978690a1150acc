"""Turn what was measured into findings, each a statistical test of one statement, and findings into a grade.

The checks are those of Athalye et al. 2018 (arXiv:1802.00420 §3.1), Carlini et al. 2019 (arXiv:1902.06705
§4), Pintor et al. 2022 (arXiv:2106.09947) and Zimmermann et al. 2022 (arXiv:2206.13991); docs/evaluation.md
says which of their points each covers. A statement that holds on an honest model names the share of the
samples that attacks leave to chance; a p-value says how probable the measured number is if it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from .binarisation import Power
from .chance import FALSE_ALARMS, interval, p_fewer, p_more
from .inspection import DEPENDS, Inspection

Verdict = Literal["pass", "warning", "failure", "not run"]
Right = Sequence[bool]

# Shares that a statement grants to chance: what two working attacks leave to each other, what cross entropy
# leaves to other losses, samples without a gradient, slopes that curvature hides, paths that it bends, and
# the power of a working attack. benchmarks/audit_zoo measures what follows from them.
LEFT, LEFT_BY_CROSS_ENTROPY, FLAT, CURVED, JUMPS, POWER = 0.02, 0.2, 0.05, 0.15, 0.1, 0.85


@dataclass(frozen=True)
class Finding:
    """Report one check of an audit.

    Attributes:
        check: name of the check.
        verdict: "pass", "warning", "failure", or "not run".
        measured: numbers behind the verdict.
        meaning: the statement that was tested, or why it was not, in one sentence.
        advice: the recommended action, in one sentence.
        p_value: probability of such numbers if the statement holds; None for a certainty or no test.
        kind: what is masked, if the check fails.
    """

    check: str
    verdict: Verdict
    measured: Mapping[str, float] = field(default_factory=dict)
    meaning: str = ""
    advice: str = ""
    p_value: float | None = None
    kind: str = ""


def accuracy(right: Right) -> float:
    """Return the share of correctly classified samples."""
    return sum(right) / len(right)


def more_than(
    check: str, kind: str, count: int, total: int, share: float, measured: str, meaning: str, advice: str
) -> Finding:
    """Test the statement that an event has at most a share of the samples.

    Args:
        check, kind: name of the check, and what is masked if it fails.
        count, total: number of the events, and of the samples.
        share: the share that is granted.
        measured: what the events are, for the numbers.
        meaning: the statement.
        advice: the recommended action if it does not hold.
    """
    p = p_more(count, total, share)
    low, high = interval(count, total)
    numbers = {measured: count / total if total else 0.0, "lower limit": low, "upper limit": high}
    return Finding(check, "pass", numbers, f"{meaning} (at most {share:.0%}).", advice, p, kind)


def left_over(
    check: str, kind: str, before: Right, after: Right | None, of: int, advice: str, what: str
) -> Finding:
    """Test the statement that an attack breaks next to nothing of what withstood the white-box attacks.

    Args:
        check, kind, advice: as for `more_than`.
        before: the samples that withstood the white-box attacks.
        after: the samples that withstood this attack, too; None if it was not run.
        of: number of the samples that were attacked.
        what: the attack, as the subject of a sentence.
    """
    if after is None:
        return Finding(check, "not run", {}, f"{what} could not be run.")
    count = sum(b and not a for b, a in zip(before, after, strict=True))
    meaning = f"{what} breaks next to nothing that white-box attacks do not break"
    return more_than(check, kind, count, of, LEFT, "broken only by it", meaning, advice)


def gradients(found: Inspection) -> list[Finding]:
    """Test the statements about the input gradients."""
    bpda = "Attack through a differentiable stand-in (BPDA): robustplug evaluate MODEL --suite adaptive."
    if found.absent:
        if not found.parameters:
            why = f"The model has no gradients: {found.absent}. Trees and remote models never have any."
            return [Finding(name, "not run", {}, why) for name in ("gradients", "slopes", "paths")]
        text = f"The model is made of layers with parameters, but {found.absent}: they are cut off."
        return [
            Finding("gradients", "failure", {"gradient is absent": 1.0}, text, bpda, None, "no gradients"),
            *(
                Finding(name, "not run", {}, "There is no gradient to compare.")
                for name in ("slopes", "paths")
            ),
        ]
    none = max(found.zero_margin, found.broken)
    kind = (
        "saturated"
        if found.zero > none
        else "not finite"
        if found.broken > found.zero_margin
        else "zero gradients"
    )
    count = max(found.zero, none)
    meaning = "The cross entropy has an input gradient that is not 0 and finite, but for few samples"
    finding = more_than("gradients", kind, count, found.samples, FLAT, "no gradient", meaning, bpda)
    if found.random:
        slopes = Finding("slopes", "not run", {}, "Outputs are random, so slopes cannot be measured.")
    elif found.unsteady:
        slopes = Finding(
            "slopes",
            "failure",
            {"compared": found.compared},
            "Two gradients at the same inputs differ, although the outputs do not: gradients are random.",
            bpda,
            None,
            "wrong gradients",
        )
    else:
        meaning = "Finite differences confirm the gradient of the margin, but for few samples"
        slopes = more_than(
            "slopes", "wrong gradients", found.wrong, found.compared, CURVED, "not confirmed", meaning, bpda
        )
    return [finding, slopes, paths(found)]


def paths(found: Inspection) -> Finding:
    """Test the statement that gradients explain what happens between a sample and another point."""
    if found.uneven < 0:
        why = "The outputs are random, or depend on the rest of the batch, so paths cannot be measured."
        return Finding("paths", "not run", {}, why)
    return more_than(
        "paths",
        "shattered gradients",
        found.uneven,
        found.samples,
        JUMPS,
        "not explained",
        "Along a path in the ball the gradients of the margin add up to its change, but for few samples",
        "Attack with many restarts and random search; look for layers that jump: winners, sorting, codes.",
    )


def outputs(found: Inspection) -> list[Finding]:
    """Test whether the outputs depend on the input alone, and are logits."""
    measured = {"between two calls": found.varies, "alone and in a batch": found.depends}
    if found.random:
        meaning = (
            "The same input yields different outputs: dropout or noise is active during evaluation. Every "
            f"row averages over {found.draws} draws (EOT), and counts the decision of the mean output."
        )
        advice = "Switch it off (model.eval(), no functional dropout), and report the accuracy without it."
        first = Finding("deterministic", "failure", measured, meaning, advice, None, "random")
    elif found.depends > DEPENDS:
        meaning = "The output of a sample depends on the rest of its batch: BatchNorm uses batch statistics."
        advice = "Evaluate with running statistics: model.eval()."
        first = Finding("deterministic", "warning", measured, meaning, advice)
    else:
        first = Finding("deterministic", "pass", measured, "Outputs depend only on the input.")
    return [first]


def power(found: Power) -> Finding:
    """Test the statement that attacks find most of the adversarial examples that are known to exist."""
    if not found.tested:
        return Finding("attack-power", "not run", {}, f"The binarisation test was not run: {found.absent}.")
    low, high = interval(found.found, found.tested)
    measured = {"found": found.found / found.tested, "lower limit": low, "upper limit": high}
    return Finding(
        "attack-power",
        "pass",
        measured,
        f"PGD finds adversarial examples on this model's features where they are known to exist (at least "
        f"{POWER:.0%}; binarisation test, {found.tested} samples).",
        "Do not believe gradient-based attacks on this model: run --suite adaptive.",
        p_fewer(found.found, found.tested, POWER),
        "weak attacks",
    )


def decided(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Turn p-values into verdicts; all tests together raise a false alarm in `FALSE_ALARMS` of the audits."""
    tests = max(1, sum(finding.p_value is not None for finding in findings))
    limit = FALSE_ALARMS / tests
    return tuple(
        finding
        if finding.p_value is None
        else replace(finding, verdict="failure", meaning=f"Does not hold: {finding.meaning}")
        if finding.p_value < limit
        else replace(finding, advice="", kind="")
        for finding in findings
    )


def grade(findings: Sequence[Finding], ran: Mapping[str, bool]) -> tuple[str, str]:
    """Return a grade, and its meaning.

    Args:
        findings: decided findings.
        ran: for each group of attacks, "white-box" and "black-box", whether one of it ran.
    """
    kinds = list(dict.fromkeys(finding.kind for finding in findings if finding.verdict == "failure"))
    if kinds:
        return "F", f"masked: {', '.join(kinds)}. Gradient-based attacks overestimate the robustness"
    if not ran["white-box"]:
        why = "no gradient-based attack could be run" + ("" if ran["black-box"] else ", and no other either")
        return "U", f"undecided: {why}, so the measured robustness is only an upper limit"
    left_out = [finding.check for finding in findings if finding.verdict == "not run"]
    if len(left_out) > len(findings) / 2:
        return "U", f"undecided: too few checks could be run (not run: {', '.join(left_out)})"
    warned = [finding.check for finding in findings if finding.verdict == "warning"]
    if left_out or warned:
        named = ", ".join([*warned, *left_out])
        return "B", f"no sign of masked gradients; weaker than an audit could be: {named}"
    return "A", "no sign of masked gradients in any check"
