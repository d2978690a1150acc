from __future__ import annotations

from collections.abc import Callable

import pytest

from robustplug.evaluation.audit import verdicts
from robustplug.evaluation.audit.verdicts import Finding, Verdict

N = 100


def right(count: int) -> list[bool]:
    """Return that the first `count` of 100 samples are right."""
    return [sample < count for sample in range(N)]


# Each: how many samples (of those that the stronger attack left) only the weaker one broke.
SURPRISES: list[tuple[str, Callable[[list[bool], list[bool]], Finding]]] = [
    ("black-box", verdicts.black_box),
    ("single-step", verdicts.single_step),
    ("transfer", lambda weak, strong: verdicts.transfer([weak], strong)),
    ("other-losses", lambda weak, strong: verdicts.other_losses({"margin": weak}, strong)),
]


@pytest.mark.parametrize(("name", "judge"), SURPRISES, ids=[name for name, _ in SURPRISES])
def test_a_weaker_attack_must_not_break_more(
    name: str, judge: Callable[[list[bool], list[bool]], Finding]
) -> None:
    stronger = right(50)
    assert judge(right(80), stronger).verdict == "pass"
    assert judge(right(50), stronger).verdict == "pass"
    assert judge(right(46), stronger).verdict == "warning"
    found = judge(right(40), stronger)
    assert (found.check, found.verdict) == (name, "failure")
    assert found.meaning.endswith(".")
    assert found.advice.endswith(".")


def test_it_is_the_samples_that_count_not_the_accuracy() -> None:
    odd, even = [n % 2 == 1 for n in range(N)], [n % 2 == 0 for n in range(N)]
    assert verdicts.black_box(odd, even).verdict == "failure"


def test_transfer_takes_all_sources_together() -> None:
    one, two = [n >= 30 for n in range(N)], [n < 70 for n in range(N)]
    found = verdicts.transfer([one, two], right(100))
    assert found.measured["broken only by transfer"] == pytest.approx(0.6)
    assert verdicts.transfer([], right(50)).verdict == "not run"


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [((60, 60, 60), "pass"), ((60, 58, 57), "pass"), ((60, 52, 52), "warning"), ((60, 60, 50), "failure")],
)
def test_more_effort(counts: tuple[int, int, int], verdict: Verdict) -> None:
    assert verdicts.more_effort(*(right(count) for count in counts)).verdict == verdict


@pytest.mark.parametrize(("left", "verdict"), [(0, "pass"), (1, "pass"), (2, "failure"), (40, "failure")])
def test_nothing_survives_without_a_bound(left: int, verdict: Verdict) -> None:
    assert verdicts.unbounded(right(left), right(95)).verdict == verdict


@pytest.mark.parametrize(
    ("zero", "flat", "verdict"),
    [
        (0.0, 0.05, "pass"),
        (0.05, 0.0, "warning"),
        (0.2, 0.0, "failure"),
        (0.0, 0.2, "warning"),
        (0.0, 0.5, "failure"),
    ],
)
def test_gradients(zero: float, flat: float, verdict: Verdict) -> None:
    assert verdicts.gradients(zero, flat).verdict == verdict


def test_noise() -> None:
    clean, pgd = right(95), right(50)
    assert verdicts.noise(right(94), clean, pgd).verdict == "pass"
    assert verdicts.noise(right(85), clean, pgd).verdict == "warning"
    assert verdicts.noise(right(60), clean, pgd).verdict == "failure"
    assert verdicts.noise(right(90), clean, right(95)).verdict == "warning"


def test_stochastic() -> None:
    assert verdicts.stochastic(0.0, 1e-6).verdict == "pass"
    assert "dropout" in verdicts.stochastic(0.5, 0.5).meaning
    assert "BatchNorm" in verdicts.stochastic(0.0, 0.5).meaning


@pytest.mark.parametrize(
    ("found", "letter"),
    [
        ([], "A"),
        (["warning"], "B"),
        (["warning"] * 3, "C"),
        (["failure", "warning"], "D"),
        (["failure", "failure"], "F"),
    ],
)
def test_grades(found: list[Verdict], letter: str) -> None:
    findings = [Finding("x", "pass"), Finding("y", "not run"), *(Finding("z", verdict) for verdict in found)]
    assert verdicts.grade(findings)[0] == letter


def test_an_audit_that_could_hardly_look_gives_no_grade() -> None:
    ran = [Finding(f"check {n}", "pass", {}, "", "") for n in range(4)]
    lost = [Finding(f"lost {n}", "not run", {}, "", "") for n in range(5)]
    letter, verdict = verdicts.grade([*ran, *lost])
    assert letter == "none"
    assert "4 of 9 checks could be run" in verdict
    assert verdicts.grade([*ran, *lost[:4]])[0] == "A"
    assert verdicts.grade([Finding("x", "failure", {}, "", ""), *lost])[0] == "D"
