"""The audit flags models built to mask gradients, and passes an honestly trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.errors import Refused
from robustplug.evaluation.audit.audit import Audit

from ..training.runs import merged, read_json

SAMPLES = 60
BASE = {
    "task": {"use": "digits"},
    "model": {"use": "small-cnn", "width": 8, "hidden": 64},
    "method": {"use": "erm", "vicinity": {"use": "linf", "eps": 0.1}},
    "optimizer": {"use": "sgd", "lr": 0.1},
    "schedule": {"use": "cosine"},
    "train": {"epochs": 10, "batch_size": 64, "precision": "float32", "device": "cpu", "select": "last"},
    "validate": {"every": 100, "samples": 8, "attack": {"use": "none"}},
    "evaluate": {"samples": 10},
}


class Saturated(nn.Module):
    """Scale logits so far up that softmax has no gradient left in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = 1e4 * self.model(x)
        return result


class Quantised(nn.Module):
    """Round inputs to eight levels, which has no gradient anywhere."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model((x * 7).round() / 7)
        return result


def train(root: Path, name: str, **tables: Any) -> nn.Module:
    recipe = merged(BASE, {"name": name, **tables})
    return robustplug.train(recipe, out=root / name).model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audited")


@pytest.fixture(scope="module")
def plain(root: Path) -> nn.Module:
    return train(root, "plain")


def audit(model: nn.Module | Path, **options: Any) -> Audit:
    if isinstance(model, nn.Module):
        options |= {"task": "digits", "vicinity": {"use": "linf", "eps": 0.1}}
    return robustplug.audit(model, samples=SAMPLES, batch_size=SAMPLES, device="cpu", **options)


def verdicts(found: Audit) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in found.findings}


def test_an_honestly_trained_model_passes(root: Path, plain: nn.Module) -> None:
    method = {"use": "pgd-at", "perturbation": {"use": "pgd", "steps": 7}}
    train(root, "honest", method=method)
    found = audit(root / "honest", sources=[root / "plain"], out=root / "honest" / "evaluations")
    assert found.grade in "AB", found.findings
    assert "failure" not in verdicts(found).values()
    assert verdicts(found)["transfer"] == "pass"
    assert found.accuracy > 0.5
    stored = read_json(root / "honest" / "result.json")["audit"]
    assert stored["grade"] == found.grade
    assert all(finding["meaning"] for finding in stored["findings"])


@pytest.mark.slow
def test_saturated_logits_are_flagged(plain: nn.Module) -> None:
    found = audit(Saturated(plain))
    assert found.grade in "DF"
    assert verdicts(found)["gradients"] == "failure"
    assert verdicts(found)["other-losses"] == "failure"


def test_a_quantising_layer_is_flagged(plain: nn.Module) -> None:
    found = audit(Quantised(plain))
    assert found.grade == "F"
    assert verdicts(found)["gradients"] == verdicts(found)["unbounded"] == "failure"
    assert verdicts(found)["black-box"] == "failure"


@pytest.mark.slow
def test_training_with_much_label_smoothing_is_flagged(root: Path) -> None:
    smooth = {"label_map": {"use": "smooth", "alpha": 0.9}}
    found = audit(train(root, "smooth", method=smooth, train={"epochs": 20}))
    assert found.grade in "DF", found.findings
    assert verdicts(found)["other-losses"] == "failure"


class Dropping(nn.Module):
    """Drop inputs at random in evaluation, too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(nn.functional.dropout(x, 0.2, training=True))
        return result


def test_what_is_left_stochastic_is_flagged(plain: nn.Module) -> None:
    assert verdicts(audit(Dropping(plain)))["stochastic"] == "failure"


def test_a_model_without_gradients_is_audited_with_what_can_be_run(plain: nn.Module) -> None:
    def opaque(x: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = plain(x)
        return result

    found = robustplug.audit(
        opaque,
        task="digits",
        vicinity={"use": "linf", "eps": 0.1},
        samples=20,
        batch_size=20,
        device="cpu",
    )
    assert verdicts(found)["gradients"] == "not run"
    assert verdicts(found)["random-noise"] == "not run"
    assert next(row for row in found.result.attacks if row.name == "square").skipped == ""


def test_the_refusal_of_a_model_without_gradients_says_what_to_do() -> None:
    with pytest.raises(Refused, match="black-box"):
        step: Any = robustplug.core.step.Step.__new__(robustplug.core.step.Step)
        step.gradient(torch.zeros(()), torch.zeros(1))
