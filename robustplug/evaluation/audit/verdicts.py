"""From measured accuracies to findings: is this robustness real, or are gradients masked?

The signs are those of Athalye et al. 2018 (arXiv:1802.00420 §3.1), Carlini et al. 2019
(arXiv:1902.06705 §4) and Croce & Hein 2020 (arXiv:2003.01690).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["pass", "warning", "failure", "not run"]
Right = Sequence[bool]

# Shares of the samples; differences below the first are noise of attacks that both work.
DOUBT, FAIL = 0.02, 0.05


@dataclass(frozen=True)
class Finding:
    """Report one check of an audit.

    Attributes:
        check: its name.
        verdict: "pass", "warning", "failure", or "not run".
        measured: the numbers that it rests on.
        meaning: in one sentence, what they say.
        advice: in one sentence, what to do.
    """

    check: str
    verdict: Verdict
    measured: Mapping[str, float] = field(default_factory=dict)
    meaning: str = ""
    advice: str = ""


def accuracy(right: Right) -> float:
    """Return the share of samples that are right."""
    return sum(right) / len(right)


def broken_only_by(stronger: Right, weaker: Right) -> float:
    """Return the share of samples that `stronger` leaves wrong and `weaker` leaves right."""
    return sum(b and not a for a, b in zip(stronger, weaker, strict=True)) / len(weaker)


def both(one: Right, other: Right) -> list[bool]:
    """Return which samples are right after two attacks."""
    return [a and b for a, b in zip(one, other, strict=True)]


def graded(value: float, doubt: float, fail: float) -> Verdict:
    """Return the verdict of a number that should be small."""
    return "failure" if value > fail else "warning" if value > doubt else "pass"


def surprise(
    check: str,
    unexpected: Right,
    expected: Right,
    names: tuple[str, str],
    meaning: tuple[str, str],
    advice: str,
) -> Finding:
    """Judge an attack that should break nothing which a stronger one left right.

    Args:
        check: name.
        unexpected, expected: which samples are right after the weaker attack and after the stronger.
        names: of both, for the numbers.
        meaning: when it passes, and when it does not.
        advice: when it does not pass.
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
    """Judge whether more steps, and then more restarts, keep lowering accuracy."""
    by_steps, by_restarts = broken_only_by(strong, weak), broken_only_by(restarts, strong)
    verdict = graded(max(by_steps / 2, by_restarts), DOUBT, FAIL)
    measured = {"20 steps": accuracy(weak), "100 steps": accuracy(strong), "5 restarts": accuracy(restarts)}
    if verdict == "pass":
        return Finding(
            "more-effort", verdict, measured, "More steps and restarts change little: PGD converged."
        )
    return Finding(
        "more-effort",
        verdict,
        measured,
        "More steps or restarts keep lowering accuracy, so numbers of short attacks are too high.",
        "Report the accuracy under at least 100 steps with 5 restarts, or AutoAttack, and nothing shorter.",
    )


def unbounded(right: Right, start: Right) -> Finding:
    """Judge whether an attack without a bound breaks everything."""
    share = accuracy(right)
    verdict: Verdict = "failure" if share > 0.01 * accuracy(start) and sum(right) > 1 else "pass"
    measured = {"accuracy when any image is legal": share}
    if verdict == "pass":
        return Finding("unbounded", verdict, measured, "An attack without a bound breaks every sample.")
    return Finding(
        "unbounded",
        verdict,
        measured,
        "Samples survive although any image is legal, so the attack, not the model, stops: gradients are "
        "masked.",
        "Look for layers without a useful gradient (rounding, thresholds, saturation) and attack through "
        "a smooth replacement of them (BPDA).",
    )


def black_box(square: Right, white_box: Right) -> Finding:
    """Judge whether Square, which sees no gradient, breaks what white-box attacks left."""
    return surprise(
        "black-box",
        square,
        white_box,
        ("Square", "white-box"),
        (
            "White-box attacks break what a black-box attack breaks.",
            "A black-box attack breaks samples that gradients do not: gradients are masked.",
        ),
        "Trust only black-box and adaptive attacks on this model, and report their accuracy.",
    )


def transfer(transferred: Sequence[Right], white_box: Right) -> Finding:
    """Judge whether examples of other models break what white-box attacks left."""
    if not transferred:
        meaning = "No other model was given to make examples on."
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
            "Examples of other models are weaker than white-box attacks, as they should be.",
            "Examples made on other models break samples that the model's own gradients do not: gradients "
            "are masked.",
        ),
        "Attack with surrogate models too, and report the worst case.",
    )


def other_losses(others: Mapping[str, Right], cross_entropy: Right) -> Finding:
    """Judge whether DLR, margin or targeted losses beat cross entropy by more than a margin."""
    gains = {name: broken_only_by(right, cross_entropy) for name, right in others.items()}
    verdict = graded(max(gains.values()), 1.5 * DOUBT, FAIL)
    measured = {"cross entropy": accuracy(cross_entropy)}
    measured |= {name: accuracy(right) for name, right in others.items()}
    if verdict == "pass":
        return Finding("other-losses", verdict, measured, "No other loss is a much stronger attack.")
    best = max(gains, key=lambda name: gains[name])
    return Finding(
        "other-losses",
        verdict,
        measured,
        f"The {best} loss breaks {gains[best]:.1%} of the samples that cross entropy leaves: the logits are "
        "scaled or squeezed so that cross entropy gives poor gradients.",
        "Do not report accuracy under cross-entropy PGD alone: use margin and DLR losses or AutoAttack.",
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
        return Finding("gradients", verdict, measured, "Gradients are there, and the loss rises along them.")
    what = "vanish" if verdicts[0] != "pass" else "do not point to where the loss rises"
    return Finding(
        "gradients",
        verdict,
        measured,
        f"The input gradients of many samples {what}, so gradient attacks are blind there.",
        "Look for saturated logits and for layers that round, threshold or sample; attack with the margin "
        "loss and without gradients.",
    )


def single_step(fgsm: Right, pgd: Right) -> Finding:
    """Judge whether one step breaks what many steps left."""
    return surprise(
        "single-step",
        fgsm,
        pgd,
        ("FGSM", "PGD"),
        (
            "Many steps break all that one step breaks.",
            "One step breaks samples that many steps do not: the loss surface is rugged near the data.",
        ),
        "Use more restarts and other step sizes, and look for catastrophic overfitting.",
    )


def noise(random: Right, clean: Right, pgd: Right) -> Finding:
    """Judge whether random noise of the radius is enough to break samples."""
    lost, alone = broken_only_by(random, clean), broken_only_by(random, pgd)
    verdicts = (graded(lost, 0.05, 0.2), graded(alone, DOUBT, FAIL))
    verdict: Verdict = next((v for v in ("failure", "warning") if v in verdicts), "pass")
    measured = {"clean": accuracy(clean), "random noise": accuracy(random), "broken only by noise": alone}
    if verdict == "pass":
        return Finding("random-noise", verdict, measured, "Random noise of this size breaks next to nothing.")
    return Finding(
        "random-noise",
        verdict,
        measured,
        "Random points of the ball already fool the model, without any search.",
        "Do not call this robust at this radius; train with noise or adversarial samples of this size.",
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
        return Finding("stochastic", verdict, measured, "Outputs depend on the input alone.")
    if verdict == "failure":
        return Finding(
            "stochastic",
            verdict,
            measured,
            "The same input gives different outputs: dropout or noise is active in evaluation.",
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
    """Return a grade from A to F, and what it says; "none" where too little could be looked at for one."""
    failures = sum(finding.verdict == "failure" for finding in findings)
    warnings = sum(finding.verdict == "warning" for finding in findings)
    if failures > 1:
        return "F", "the robustness is not real: several signs of masked gradients"
    if failures:
        return "D", "the robustness is in serious doubt: a sign of masked gradients"
    done = sum(finding.verdict != "not run" for finding in findings)
    if done < len(findings) / 2:
        return "none", (
            f"{done} of {len(findings)} checks could be run; on a model without gradients attacks that see "
            "decisions only can tell more: sign-opt, rays"
        )
    if warnings > 2:
        return "C", "several doubts: read the findings before you trust the numbers"
    if warnings:
        return "B", "no sign of masked gradients, with a doubt"
    return "A", "no sign of masked gradients"
