"""Turn measured accuracies into findings: is the robustness real, or are gradients masked?

The signs are those of Athalye et al. 2018 (arXiv:1802.00420 §3.1), Carlini et al. 2019
(arXiv:1902.06705 §4) and Croce & Hein 2020 (arXiv:2003.01690).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["pass", "warning", "failure", "not run"]
Right = Sequence[bool]

# Shares of the samples; differences below the first are noise between two working attacks.
DOUBT, FAIL = 0.02, 0.05


@dataclass(frozen=True)
class Finding:
    """Report one check of an audit.

    Attributes:
        check: name of the check.
        verdict: "pass", "warning", "failure", or "not run".
        measured: numbers behind the verdict.
        meaning: their interpretation, in one sentence.
        advice: the recommended action, in one sentence.
    """

    check: str
    verdict: Verdict
    measured: Mapping[str, float] = field(default_factory=dict)
    meaning: str = ""
    advice: str = ""


def accuracy(right: Right) -> float:
    """Return the share of correctly classified samples."""
    return sum(right) / len(right)


def broken_only_by(stronger: Right, weaker: Right) -> float:
    """Return the share of samples that `stronger` breaks and `weaker` does not."""
    return sum(b and not a for a, b in zip(stronger, weaker, strict=True)) / len(weaker)


def both(one: Right, other: Right) -> list[bool]:
    """Return which samples are still correct after both attacks."""
    return [a and b for a, b in zip(one, other, strict=True)]


def graded(value: float, doubt: float, fail: float) -> Verdict:
    """Return the verdict on a number that should be small."""
    return "failure" if value > fail else "warning" if value > doubt else "pass"


def surprise(
    check: str,
    unexpected: Right,
    expected: Right,
    names: tuple[str, str],
    meaning: tuple[str, str],
    advice: str,
) -> Finding:
    """Judge an attack that should break no sample that a stronger attack does not break.

    Args:
        check: name of the check.
        unexpected, expected: which samples are still correct after the weaker and after the stronger attack.
        names: names of both attacks, for the numbers.
        meaning: interpretations of a check that passes, and of one that does not.
        advice: recommended action if the check does not pass.
    """
    share = broken_only_by(unexpected, expected)
    verdict = graded(share, DOUBT, FAIL)
    measured = {
        names[0]: accuracy(unexpected),
        names[1]: accuracy(expected),
        f"broken only by {names[0]}": share,
    }
    fine = verdict == "pass"
    return Finding(check, verdict, measured, meaning[0] if fine else meaning[1], "" if fine else advice)


def more_effort(weak: Right, strong: Right, restarts: Right) -> Finding:
    """Judge whether more steps, and then more restarts, keep lowering the robust accuracy."""
    by_steps, by_restarts = broken_only_by(strong, weak), broken_only_by(restarts, strong)
    verdict = graded(max(by_steps / 2, by_restarts), DOUBT, FAIL)
    measured = {"20 steps": accuracy(weak), "100 steps": accuracy(strong), "5 restarts": accuracy(restarts)}
    if verdict == "pass":
        return Finding(
            "more-effort", verdict, measured, "More steps and restarts change little: PGD has converged."
        )
    return Finding(
        "more-effort",
        verdict,
        measured,
        "More steps or restarts keep lowering the robust accuracy, so short attacks overestimate it.",
        "Report only the robust accuracy under at least 100 steps with 5 restarts, or under AutoAttack.",
    )


def unbounded(right: Right, start: Right) -> Finding:
    """Judge whether an attack with an unbounded perturbation budget breaks every sample."""
    share = accuracy(right)
    verdict: Verdict = "failure" if share > 0.01 * accuracy(start) and sum(right) > 1 else "pass"
    measured = {"accuracy when any image is legal": share}
    if verdict == "pass":
        return Finding("unbounded", verdict, measured, "PGD with an unbounded budget breaks every sample.")
    return Finding(
        "unbounded",
        verdict,
        measured,
        "PGD does not break every sample, although any image is legal: gradients are masked.",
        "Look for layers without a useful gradient (rounding, thresholds, saturation) and attack through "
        "a differentiable approximation of them (BPDA).",
    )


def black_box(square: Right, white_box: Right) -> Finding:
    """Judge whether Square, which uses no gradients, breaks samples that white-box attacks do not."""
    return surprise(
        "black-box",
        square,
        white_box,
        ("Square", "white-box"),
        (
            "White-box attacks break what the black-box attack breaks.",
            "The black-box attack breaks samples that white-box attacks do not: gradients are masked.",
        ),
        "Trust only black-box and adaptive attacks on this model, and report the robust accuracy under them.",
    )


def transfer(transferred: Sequence[Right], white_box: Right) -> Finding:
    """Judge whether transfer attacks break samples that white-box attacks do not."""
    if not transferred:
        meaning = "No surrogate model was given for a transfer attack."
        return Finding("transfer", "not run", {}, meaning, "Give a plainly trained run: --source RUN.")
    together = list(transferred[0])
    for right in transferred[1:]:
        together = both(together, right)
    return surprise(
        "transfer",
        together,
        white_box,
        ("transfer", "white-box"),
        (
            "The transfer attack is not stronger than the white-box attacks, as expected.",
            "The transfer attack breaks samples that white-box attacks on the model itself do not: gradients "
            "are masked.",
        ),
        "Run transfer attacks from surrogate models, too, and report the worst case.",
    )


def other_losses(others: Mapping[str, Right], cross_entropy: Right) -> Finding:
    """Judge whether DLR, margin or targeted losses are clearly stronger attacks than cross entropy."""
    gains = {name: broken_only_by(right, cross_entropy) for name, right in others.items()}
    verdict = graded(max(gains.values()), 1.5 * DOUBT, FAIL)
    measured = {"cross entropy": accuracy(cross_entropy)}
    measured |= {name: accuracy(right) for name, right in others.items()}
    if verdict == "pass":
        return Finding(
            "other-losses",
            verdict,
            measured,
            "No other loss makes a much stronger attack than cross entropy.",
        )
    best = max(gains, key=lambda name: gains[name])
    return Finding(
        "other-losses",
        verdict,
        measured,
        f"The {best} loss, but not cross entropy, breaks {gains[best]:.1%} of the samples: the logits are "
        "scaled or squeezed so that cross entropy has poor gradients.",
        "Do not report robust accuracy under cross-entropy PGD alone: use margin and DLR losses, or "
        "AutoAttack.",
    )


def gradients(zero: float, flat: float) -> Finding:
    """Judge input gradients that vanish, and losses that do not rise along them.

    Args:
        zero: share of the samples whose input gradient is exactly 0.
        flat: share of the samples whose loss does not rise at a quarter of the radius.
    """
    verdicts = (graded(zero, 0.01, 0.1), graded(flat, 0.1, 0.3))
    verdict: Verdict = next((v for v in ("failure", "warning") if v in verdicts), "pass")
    measured = {"gradient is 0": zero, "loss does not rise": flat}
    if verdict == "pass":
        return Finding(
            "gradients", verdict, measured, "Input gradients do not vanish, and the loss rises along them."
        )
    what = "vanish" if verdicts[0] != "pass" else "do not point in a direction of rising loss"
    return Finding(
        "gradients",
        verdict,
        measured,
        f"The input gradients of many samples {what}, so gradient-based attacks fail on them.",
        "Look for saturated logits and for layers that round, threshold or sample; attack with the margin "
        "loss and with gradient-free attacks.",
    )


def single_step(fgsm: Right, pgd: Right) -> Finding:
    """Judge whether one step breaks samples that many steps do not."""
    return surprise(
        "single-step",
        fgsm,
        pgd,
        ("FGSM", "PGD"),
        (
            "PGD breaks what FGSM breaks.",
            "FGSM breaks samples that PGD does not: the loss surface is rugged near the data.",
        ),
        "Use more restarts and other step sizes, and check for catastrophic overfitting.",
    )


def noise(random: Right, clean: Right, pgd: Right) -> Finding:
    """Judge whether random noise of the radius is enough to break samples."""
    lost, alone = broken_only_by(random, clean), broken_only_by(random, pgd)
    verdicts = (graded(lost, 0.05, 0.2), graded(alone, DOUBT, FAIL))
    verdict: Verdict = next((v for v in ("failure", "warning") if v in verdicts), "pass")
    measured = {"clean": accuracy(clean), "random noise": accuracy(random), "broken only by noise": alone}
    if verdict == "pass":
        return Finding(
            "random-noise", verdict, measured, "Random noise within the budget breaks hardly any sample."
        )
    return Finding(
        "random-noise",
        verdict,
        measured,
        "Random noise within the perturbation budget fools the model, without any optimisation.",
        "Do not call the model robust at this radius; train with noise or adversarial examples of this size.",
    )


def stochastic(varies: float, depends: float) -> Finding:
    """Judge whether outputs vary between calls, or with the other samples of the batch.

    Args:
        varies: largest difference of the logits between two calls on the same batch.
        depends: largest difference of the logits of a sample alone and within its batch. Both are in
            units of the largest logit, so that rounding does not count.
    """
    verdict: Verdict = "failure" if varies > 1e-4 else "warning" if depends > 1e-2 else "pass"
    measured = {"between two calls": varies, "alone and in a batch": depends}
    if verdict == "pass":
        return Finding("stochastic", verdict, measured, "Outputs depend only on the input.")
    if verdict == "failure":
        return Finding(
            "stochastic",
            verdict,
            measured,
            "The same input yields different outputs: dropout or noise is active during evaluation.",
            "Switch it off (model.eval(), no functional dropout), or attack the expectation over it (EOT).",
        )
    return Finding(
        "stochastic",
        verdict,
        measured,
        "The output of a sample depends on the rest of its batch: BatchNorm uses batch statistics.",
        "Evaluate with running statistics: model.eval().",
    )


def grade(findings: Sequence[Finding]) -> tuple[str, str]:
    """Return a grade from A to F and its meaning; "none" if too few checks could be run for a grade."""
    failures = sum(finding.verdict == "failure" for finding in findings)
    warnings = sum(finding.verdict == "warning" for finding in findings)
    if failures > 1:
        return "F", "the robustness is not real: several signs of masked gradients"
    if failures:
        return "D", "the robustness is in serious doubt: one sign of masked gradients"
    done = sum(finding.verdict != "not run" for finding in findings)
    if done < len(findings) / 2:
        return "none", (
            f"only {done} of {len(findings)} checks could be run; evaluate a model without gradients with "
            "decision-based attacks: sign-opt, rays"
        )
    if warnings > 2:
        return "C", "several warnings: read the findings before you trust the robust accuracy"
    if warnings:
        return "B", "no clear sign of masked gradients, but a warning"
    return "A", "no sign of masked gradients"
