"""Each finding is a test of one statement; grades follow from evidence alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from robustplug.evaluation.audit import verdicts
from robustplug.evaluation.audit.binarisation import Power
from robustplug.evaluation.audit.chance import FALSE_ALARMS
from robustplug.evaluation.audit.inspection import Inspection
from robustplug.evaluation.audit.verdicts import Finding, decided, grade, left_over, more_than

BOTH = {"white-box": True, "black-box": True}
CLEAN = Inspection(200, parameters=100, compared=200, uneven=0)


def found(count: int, total: int = 200, share: float = 0.02) -> Finding:
    return more_than("check", "kind", count, total, share, "events", "The statement", "Do this.")


def verdict(finding: Finding, others: int = 9) -> str:
    tests = [replace(found(0), check=str(number)) for number in range(others)]
    return decided([finding, *tests])[0].verdict


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "pass"), (4, "pass"), (8, "pass"), (14, "failure"), (50, "failure")]
)
def test_a_share_fails_where_chance_does_not_explain_it(count: int, expected: str) -> None:
    assert verdict(found(count)) == expected


def test_more_checks_need_stronger_evidence_each() -> None:
    between = next(n for n in range(200) if verdict(found(n), 0) == "failure")
    assert verdict(found(between), 200) == "pass"


def test_a_failed_check_says_what_does_not_hold_and_what_to_do() -> None:
    (failed, *_) = decided([found(50)])
    assert failed.meaning == "Does not hold: The statement (at most 2%)."
    assert (failed.advice, failed.kind) == ("Do this.", "kind")
    (passed, *_) = decided([found(0)])
    assert (passed.meaning, passed.advice, passed.kind) == ("The statement (at most 2%).", "", "")
    assert passed.measured["upper limit"] < 0.02


def test_the_false_alarm_rate_is_at_most_the_stated_one() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        findings = [found(int(count)) for count in rng.binomial(200, 0.02, size=10)]
        alarms += any(finding.verdict == "failure" for finding in decided(findings))
    # 400 audits at the very limit of every statement: 4 alarms are expected at most, 11 have p < 0.003.
    assert alarms <= 11
    assert FALSE_ALARMS == 0.01


def test_nothing_left_to_attack_is_no_evidence() -> None:
    finding = left_over("c", "k", [False] * 50, [False] * 50, 50, "", "It")
    assert verdict(finding) == "pass"
    assert left_over("c", "k", [True], None, 1, "", "It").verdict == "not run"


def test_what_only_a_blind_attack_breaks_counts() -> None:
    before, after = [True] * 60 + [False] * 40, [True] * 40 + [False] * 60
    finding = left_over("c", "k", before, after, 100, "", "It")
    assert finding.measured["broken only by it"] == 0.2
    assert verdict(finding) == "failure"


GRADIENTS: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "honest": ({}, ["pass", "pass", "pass"], ""),
    "absent with layers": ({"absent": "none"}, ["failure", "not run", "not run"], "no gradients"),
    "absent without layers": ({"absent": "none", "parameters": 0}, ["not run", "not run", "not run"], ""),
    "zero": ({"zero_margin": 150, "zero": 150}, ["failure", "pass", "pass"], "zero gradients"),
    "saturated": ({"zero": 150}, ["failure", "pass", "pass"], "saturated"),
    "not finite": ({"broken": 150}, ["failure", "pass", "pass"], "not finite"),
    "a few at 0": ({"zero": 8}, ["pass", "pass", "pass"], ""),
    "wrong": ({"wrong": 120}, ["pass", "failure", "pass"], "wrong gradients"),
    "curved": ({"wrong": 20}, ["pass", "pass", "pass"], ""),
    "unsteady": ({"unsteady": True}, ["pass", "failure", "pass"], "wrong gradients"),
    "random": ({"varies": 0.1, "compared": 0, "uneven": -1}, ["pass", "not run", "not run"], ""),
    "jumps": ({"uneven": 60}, ["pass", "pass", "failure"], "shattered gradients"),
    "kinks": ({"uneven": 20}, ["pass", "pass", "pass"], ""),
    "in a batch": ({"depends": 0.5, "uneven": -1}, ["pass", "pass", "not run"], ""),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_judged(name: str) -> None:
    changes, expected, kind = GRADIENTS[name]
    judged = decided(verdicts.gradients(replace(CLEAN, **changes)))
    assert [finding.verdict for finding in judged] == expected
    assert [finding.kind for finding in judged if finding.verdict == "failure"] == [kind] * bool(kind)


def test_random_outputs_are_masked_and_batch_statistics_only_warned_of() -> None:
    (random,) = verdicts.outputs(replace(CLEAN, varies=0.1, draws=8))
    assert (random.verdict, random.kind) == ("failure", "random")
    assert "8 draws" in random.meaning
    (batch,) = verdicts.outputs(replace(CLEAN, depends=0.5))
    assert batch.verdict == "warning"
    (plain,) = verdicts.outputs(replace(CLEAN, varies=1e-6, depends=1e-6))
    assert plain.verdict == "pass"


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (Power(64, 60), "pass"),
        (Power(64, 52), "pass"),
        (Power(64, 30), "failure"),
        (Power(64, 0), "failure"),
        (Power(absent="why"), "not run"),
    ],
)
def test_attack_power_is_judged(power: Power, expected: str) -> None:
    assert verdict(verdicts.power(power)) == expected


def test_grades_follow_from_evidence_alone() -> None:
    passed = [Finding(str(number), "pass") for number in range(6)]
    lacking = Finding("lacking", "not run")
    assert grade(passed, BOTH)[0] == "A"
    assert grade([*passed, lacking], BOTH) == (
        "B",
        "no sign of masked gradients; weaker than an audit could be: lacking",
    )
    assert grade([*passed, Finding("odd", "warning")], BOTH)[0] == "B"
    assert grade([passed[0], lacking, replace(lacking, check="other")], BOTH)[0] == "U"
    assert grade(passed, {**BOTH, "white-box": False})[0] == "U"
    masked = Finding("c", "failure", kind="saturated")
    letter, text = grade([*passed, masked, replace(masked, kind="random")], {**BOTH, "white-box": False})
    assert letter == "F"
    assert "saturated, random" in text
