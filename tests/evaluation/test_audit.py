"""The audit flags models built to mask gradients, names what they mask, and passes honest ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.errors import Refused
from robustplug.evaluation.audit import binarisation, preparation, rows, substitute
from robustplug.evaluation.audit.audit import Audit

from ..training.runs import tiny
from .masks import MASKS, Function, digits, trained

X, Y = (part[1400:1464] for part in digits())
THREAT = {"use": "linf", "eps": 0.15}


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an audit take a second: fewer steps, queries and samples of each test."""
    monkeypatch.setattr(rows, "STEPS", 20)
    monkeypatch.setattr(rows, "QUERIES", 100)
    monkeypatch.setattr(substitute, "EPOCHS", 10)
    monkeypatch.setattr(binarisation, "INNER", 60)
    monkeypatch.setattr(preparation, "TESTED", 32)


def audit(model: Any, **options: Any) -> Audit:
    asked: dict[str, Any] = {"data": (X, Y), "vicinity": THREAT, "device": "cpu", **options}
    return robustplug.audit(model, **asked)


def verdicts(found: Audit) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in found.findings}


@pytest.mark.usefixtures("cheap")
def test_a_fragile_honest_model_gets_an_a(plain_net: nn.Module) -> None:
    found = audit(plain_net)
    assert found.grade == "A", found.findings
    assert found.accuracy < 0.3
    assert set(verdicts(found).values()) == {"pass"}
    tested = [finding for finding in found.findings if finding.p_value is not None]
    assert len(tested) >= 8
    assert all(finding.meaning and not finding.advice and not finding.kind for finding in tested)


@pytest.mark.usefixtures("cheap")
def test_a_model_that_always_says_the_same_is_not_masked(plain_net: nn.Module) -> None:
    sure = 1000.0 * torch.eye(10)[3]
    found = audit(Function(plain_net, lambda net, x: net(x) + sure), samples=48)
    assert found.grade != "F", found.findings
    assert verdicts(found)["unbounded"] == "not run"
    assert found.accuracy > 0


@pytest.mark.table(3)
@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("name", ["detached", "quantised", "saturated", "noise"])
def test_a_mask_is_flagged_with_what_it_masks(name: str, plain_net: nn.Module) -> None:
    kind, function = MASKS[name]
    found = audit(Function(plain_net, function), samples=48)
    assert found.grade == "F"
    assert kind in found.verdict
    assert all(finding.advice for finding in found.findings if finding.verdict == "failure")


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKS)
def test_each_mask_is_flagged_and_seen_through(name: str, plain_net: nn.Module) -> None:
    """The accuracy is that of the network behind the mask, within the error of 64 samples."""
    kind, function = MASKS[name]
    found = audit(Function(plain_net, function))
    assert found.grade == "F"
    assert kind in found.verdict
    assert found.accuracy <= audit(plain_net).accuracy + 0.15


@pytest.mark.slow
@pytest.mark.parametrize("eps", [0.05, 0.1, 0.2])
def test_adversarially_trained_models_get_an_a(eps: float) -> None:
    found = audit(trained(eps=0.1), vicinity={"use": "linf", "eps": eps})
    assert found.grade == "A", found.findings


@pytest.mark.usefixtures("cheap")
def test_a_model_without_gradients_and_layers_is_undecided(plain_net: nn.Module) -> None:
    def opaque(x: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = plain_net(x)
        return result

    found = audit(opaque, samples=24)
    assert found.grade == "U"
    assert "undecided" in found.verdict
    assert verdicts(found)["gradients"] == verdicts(found)["black-box"] == "not run"
    assert next(row for row in found.result.attacks if row.name == "square").skipped == ""
    assert found.accuracy < 1


@pytest.mark.usefixtures("cheap")
def test_a_spent_budget_leaves_checks_out_and_decides_nothing(plain_net: nn.Module) -> None:
    found = audit(plain_net, budget=1e-9)
    assert found.grade == "U"
    assert all("budget" in row.skipped for row in found.result.attacks[1:])


@pytest.mark.usefixtures("cheap")
def test_the_cost_is_told_before_it_starts(plain_net: nn.Module) -> None:
    with pytest.warns(UserWarning, match=r"at most [\d,]+ forward and [\d,]+ backward passes for each of 16"):
        audit(plain_net, samples=16)


@pytest.mark.usefixtures("cheap")
def test_the_audit_of_a_run_is_kept_and_counts_its_other_evaluations(tmp_path: Path) -> None:
    folder = robustplug.train(tiny(evaluate={"samples": 24}), out=tmp_path / "run").folder
    hard = [{"use": "pgd", "steps": 40, "restarts": 3}]
    robustplug.evaluate(folder, attacks=hard, out=folder / "evaluations")
    found = robustplug.audit(folder, out=folder / "evaluations")
    assert "other-evaluations" in verdicts(found)
    stored = json.loads((folder / "result.json").read_text())["audit"]
    assert stored["grade"] == found.grade
    assert [finding["check"] for finding in stored["findings"]] == list(verdicts(found))
    assert json.loads((folder / "evaluations" / "audit.json").read_text())["audit"] == stored


@pytest.mark.usefixtures("cheap")
def test_the_adaptive_suite_attacks_through_what_has_no_gradient(plain_net: nn.Module) -> None:
    suite = {
        "name": "adaptive",
        "adaptive": True,
        "row": [{"chain": "worst", "attack": {"use": "pgd", "steps": 10}}],
    }
    masked = Function(plain_net, MASKS["quantised"][1])
    options: dict[str, Any] = {"data": (X, Y), "vicinity": THREAT, "device": "cpu", "suite": suite}
    found = robustplug.evaluate(masked, **options)
    plain = robustplug.evaluate(masked, **{**options, "suite": {**suite, "adaptive": False}})
    names = [row.name for row in found.attacks]
    assert "straight-through" in names
    (worst,) = found.meta["worst_cases"]
    assert worst["accuracy"] == min(row.accuracy for row in found.attacks) < plain.attacks[-1].accuracy - 0.2


def test_the_refusal_of_a_model_without_gradients_says_what_to_do() -> None:
    with pytest.raises(Refused, match="black-box"):
        step: Any = robustplug.core.step.Step.__new__(robustplug.core.step.Step)
        step.gradient(torch.zeros(()), torch.zeros(1))
