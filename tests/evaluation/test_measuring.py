"""Rows that measure and certify, bounds from both sides, and wrappers around the model under test."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.types import AttackResult, Result
from robustplug.evaluation.audit.audit import _elsewhere
from robustplug.plugin.component import Component, Kind, NoOptions
from robustplug.recipe.errors import RecipeError
from robustplug.report.figures.certified import certified_accuracy, draw_certified
from robustplug.report.material import Material
from robustplug.report.pages.compared import comparison_sheets
from robustplug.report.tables.measures import measured_beside
from robustplug.report.tables.results import result_tables
from robustplug.runs.result_file import result_from_json, result_to_json
from robustplug.runs.result_types import StoredResult

from ..training.runs import read_json, tiny

Register = Callable[[Kind, Component], None]

EPS = 0.1
SIZE = 37


class Larger(nn.Module):
    """Classify (N, 2) by the larger number: exactly robust within half the difference, L∞."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 10


def data() -> tuple[Tensor, Tensor]:
    x = torch.rand(SIZE, 2, generator=torch.Generator().manual_seed(3))
    y = x.argmax(1)
    y[::7] = 1 - y[::7]
    return x, y


def truth() -> Tensor:
    """Return the exact certified radius of each sample, -1 where the prediction is wrong."""
    x, y = data()
    radius = (x[:, 0] - x[:, 1]).abs().double() / 2
    return torch.where(x.argmax(1) == y, radius, -1.0)


class Exact:
    """The exact certificate of `Larger`, a little smaller by `slack`; negative slack lies."""

    norm, radii, confidence, about = math.inf, (0.05, 0.2), 1.0, ""
    slack, portion = 2e-6, 10
    calls = 0
    stop_after: int | None = None

    def __init__(self, options: NoOptions) -> None:
        pass

    def __call__(self, step: Any, view: Any, vicinity: Any) -> Mapping[str, Tensor]:
        stop = type(self).stop_after
        if stop is not None and type(self).calls >= stop:
            raise KeyboardInterrupt
        type(self).calls += 1
        assert len(view) <= self.portion
        with torch.no_grad():
            outputs = step.forward(view.x)
        radius = (view.x[:, 0] - view.x[:, 1]).abs().double() / 2 - self.slack
        right = step.score(view, outputs)
        return {"certified radius": torch.where(right & (radius >= 0), radius, -1.0), "twice": 2 * radius}


class Lying(Exact):
    slack = -0.05


class Elsewhere(Exact):
    about = "another model"
    slack = -0.05


class OtherNorm(Exact):
    norm = 2.0


class Wrong(Exact):
    def __call__(self, step: Any, view: Any, vicinity: Any) -> Mapping[str, Tensor]:
        return {"one": torch.zeros(1)}


@pytest.fixture
def certificates(robustplug_register: Register) -> None:
    for kind in (Exact, Lying, Elsewhere, OtherNorm, Wrong):
        kind.calls, kind.stop_after = 0, None
        robustplug_register("measurement", Component(kind.__name__.lower(), kind, summary="a test"))


def evaluated(*measurements: str, **changes: Any) -> Result:
    given: dict[str, Any] = {
        "data": data(),
        "threat": {"use": "linf", "eps": EPS},
        "attacks": [{"use": "pgd", "steps": 10}],
        "measurements": list(measurements),
        "batch_size": 16,
        "device": "cpu",
    }
    return robustplug.evaluate(Larger(), **{**given, **changes})


def row(result: Result, name: str) -> AttackResult:
    return next(row for row in result.attacks if row.name == name)


@pytest.mark.usefixtures("certificates")
def test_a_certificate_bounds_the_robust_accuracy_from_below() -> None:
    result = evaluated("exact")
    found, attack, clean = row(result, "exact"), row(result, "pgd"), result.attacks[0]
    radii = truth()
    assert found.certified is not None
    assert (found.bound, found.certified.norm, found.certified.confidence) == ("lower", "inf", 1.0)
    torch.testing.assert_close(torch.tensor(found.certified.radii).double(), radii, atol=3e-6, rtol=0)
    assert found.right == tuple((torch.tensor(found.certified.radii) >= EPS).tolist())
    assert all(
        low <= high <= whole for low, high, whole in zip(found.right, attack.right, clean.right, strict=True)
    )
    assert 0 < found.accuracy <= attack.accuracy < clean.accuracy
    (sides,) = result.meta["bounds"]
    assert sides["certified"] == found.accuracy
    assert sides["robust"] == attack.accuracy
    assert sides["undecided"] == pytest.approx(attack.accuracy - found.accuracy)
    assert "contradictions" not in result.meta
    # Several radii at once, over all samples, each with its interval.
    at = found.measures["certified at 0.05"]
    assert at.count == SIZE
    assert at.mean == pytest.approx(100 * float((radii >= 0.05).double().mean()))
    assert at.low < at.mean < at.high
    assert found.measures["certified radius"].mean == pytest.approx(
        float(radii.clamp_min(0).mean()), abs=1e-5
    )
    assert found.measures["twice"].count == SIZE


@pytest.mark.usefixtures("certificates")
def test_a_contradiction_is_reported_as_our_own_fault() -> None:
    with pytest.warns(UserWarning, match="CONTRADICTION"):
        result = evaluated("lying", "exact")
    x, _ = data()
    half = (x[:, 0] - x[:, 1]).abs() / 2
    broken = ((truth() >= 0) & (half < EPS)).nonzero()[:, 0].tolist()
    opposed = result.meta["contradictions"]
    # PGD moves by the whole radius at most, which must be within what is certified.
    found = {each["sample"] for each in opposed}
    assert {i for i in broken if float(half[i]) + 0.05 >= EPS} <= found <= set(broken)
    assert all(each["distance"] <= each["radius"] + 1e-5 for each in opposed)
    assert {each["certificate"] for each in opposed} == {"lying"}
    text = "\n".join(str(part) for part in result_tables(result, 100))
    assert "CONTRADICTION: sample" in text


@pytest.mark.usefixtures("certificates")
def test_what_is_certified_of_another_model_is_no_bound_and_no_contradiction() -> None:
    result = evaluated("elsewhere")
    assert "bounds" not in result.meta
    assert "contradictions" not in result.meta
    assert any("another model" in str(part) for part in result_tables(result, 100))


@pytest.mark.usefixtures("certificates")
@pytest.mark.parametrize(
    ("name", "reason"), [("othernorm", "about L2, and the threat model has L∞"), ("wrong", '"one" as')]
)
def test_what_cannot_be_measured_affects_its_own_row_alone(name: str, reason: str) -> None:
    result = evaluated(name)
    assert reason in row(result, name).skipped
    assert not row(result, "pgd").skipped


@pytest.mark.usefixtures("certificates")
def test_a_killed_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = evaluated("exact")
    Exact.calls, Exact.stop_after = 0, 3
    with pytest.raises(KeyboardInterrupt):
        evaluated("exact", out=tmp_path)
    Exact.calls, Exact.stop_after = 0, None
    again = evaluated("exact", out=tmp_path)
    assert Exact.calls == math.ceil(SIZE / Exact.portion) - 3
    assert row(again, "exact").certified == row(whole, "exact").certified
    assert row(again, "exact").measures == row(whole, "exact").measures


@pytest.mark.usefixtures("certificates")
def test_a_result_is_read_back_as_it_was_written() -> None:
    result = evaluated("exact", "input-gradient")
    body = json.loads(json.dumps(result_to_json(result)))
    assert result_from_json(body).attacks == result.attacks
    radii = body["attacks"][2]["certified"]["radii"]
    for changed in (radii[:-8], "!", radii[:8] + "////" + radii[12:]):
        body["attacks"][2]["certified"]["radii"] = changed
        with pytest.raises(ValueError, match="radi"):
            StoredResult.model_validate(body)


def test_a_row_that_measures_states_no_accuracy_of_its_own() -> None:
    result = evaluated("input-gradient")
    found = row(result, "input-gradient")
    assert (found.bound, found.right) == ("none", result.attacks[0].right)
    x, y = data()
    x.requires_grad_()
    loss = nn.functional.cross_entropy(10 * x, y, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    assert found.measures["loss"].mean == pytest.approx(float(loss.detach().mean()), rel=1e-5)
    # The dual norm of L∞ is L1.
    assert found.measures["input gradient"].mean == pytest.approx(
        float(gradient.abs().sum(1).mean()), rel=1e-5
    )
    tables = [part for part in result_tables(result, 100) if hasattr(part, "columns")]
    assert [str(cell) for cell in tables[0].columns[1].cells][-1] == "–"


@pytest.mark.usefixtures("certificates")
def test_suites_and_recipes_name_measurements(tmp_path: Path) -> None:
    suite = {"row": [{"attack": {"use": "fgsm"}}, {"measurement": {"use": "exact"}, "scale": 0.5}]}
    result = evaluated(suite=suite, attacks=None, measurements=None)
    assert [each.bound for each in result.attacks] == ["upper", "upper", "lower"]
    half = result.attacks[2]
    assert half.threat["eps"] == EPS / 2
    assert half.accuracy == pytest.approx(float((truth() - 2e-6 >= EPS / 2).double().mean()))
    with pytest.raises(RecipeError, match="measured of clean samples"):
        evaluated(suite={"row": [{"attack": {"use": "fgsm"}, "measurement": {"use": "exact"}}]}, attacks=None)


def test_a_run_measures_what_its_recipe_says_and_comparisons_show_it(tmp_path: Path) -> None:
    folders = []
    for seed in (0, 1):
        recipe = tiny(
            seed=seed,
            train={"epochs": 1},
            evaluate={"measurement": [{"use": "input-gradient"}], "wrapper": {"use": "bit-depth", "bits": 2}},
        )
        folders.append(tmp_path / f"run-{seed}")
        robustplug.train(recipe, out=folders[-1])
    body = read_json(folders[0] / "result.json")
    assert body["attacks"][-1]["bound"] == "none"
    assert body["meta"]["wrapper"] == {"use": "bit-depth", "bits": 2}
    comparison = robustplug.compare(folders)
    sheets = comparison_sheets(comparison)
    (beside,) = [sheet for sheet in sheets if "measured" in sheet.title]
    assert "input gradient" in beside.heads
    assert all("input-gradient" not in [column.name for column in g.columns] for g in comparison.groups)
    robustplug.evaluate(folders[1], wrapper="ensemble", out=tmp_path / "other", attacks=["fgsm"])
    (group,) = robustplug.compare([folders[0], tmp_path / "other" / "evaluation-ensemble.json"]).groups
    assert any("bit-depth in run-0; ensemble in evaluation-ensemble" in note for note in group.notes)
    lines = {entry.name: entry.results for entry in comparison.groups[0].entries}
    assert [quantity.name for quantity in measured_beside(lines)] == ["loss", "input gradient"]


def test_the_model_under_test_is_the_wrapped_one() -> None:
    plain = evaluated()
    inside = evaluated(wrapper={"use": "bit-depth", "bits": 1}, measurements=["input-gradient"])
    x, y = data()
    right = (10 * x.round()).argmax(1) == y
    assert inside.attacks[0].right == tuple(right.tolist()) != plain.attacks[0].right
    # Its gradients are masked.
    assert row(inside, "input-gradient").measures["input gradient"].mean == 0


def test_a_wrapper_that_takes_the_gradient_is_warned_about() -> None:
    with pytest.warns(UserWarning, match="within the wrapper bit-depth, the outputs have no gradient"):
        evaluated(wrapper={"use": "bit-depth", "bits": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluated()


def test_evaluations_within_other_wrappers_lie_side_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    inside = {"use": "bit-depth", "bits": 4}
    robustplug.train(tiny(train={"epochs": 1}, evaluate={"wrapper": inside, "samples": 8}), out=folder)
    out = folder / "evaluations"
    # A wrapper that the run states itself is not in the name: a study finds the file by its suite.
    for wrapper in (None, inside, {**inside, "bits": 5}, {**inside, "bits": 2}):
        robustplug.evaluate(folder, attacks=["fgsm"], out=out, wrapper=wrapper)
    names = {"evaluation", "evaluation-bit-depth-bits=5", "evaluation-bit-depth-bits=2"}
    assert {path.stem for path in out.glob("*.json")} == names
    for name in names:
        bits = int(name[-1]) if "=" in name else 4
        assert read_json(out / f"{name}.json")["meta"]["wrapper"]["bits"] == bits


@pytest.mark.slow
def test_an_audit_within_a_wrapper_is_no_audit_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    robustplug.train(tiny(train={"epochs": 1}, evaluate={"samples": 8}), out=folder)
    out = folder / "evaluations"
    robustplug.audit(folder, out=out, wrapper={"use": "bit-depth", "bits": 2}, budget=1e-6)
    assert {path.stem for path in out.glob("*.json")} == {"audit-bit-depth-bits=2"}
    assert "audit" not in read_json(folder / "result.json")


def test_an_audit_counts_neither_certificates_nor_what_breaks_within_a_wrapper(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    robustplug.train(tiny(evaluate={"samples": 24}), out=folder)
    out = folder / "evaluations"
    plain = robustplug.evaluate(folder, attacks=[], out=out)
    expected = [all(row.right[at] for row in plain.attacks) for at in range(24)]
    assert _elsewhere(folder, plain) == expected
    robustplug.evaluate(folder, attacks=[], measurements=["ibp"], name="bounds", out=out)
    # So much noise that its votes are wrong without any attack.
    around = {"use": "smoothed", "sigma": 100.0, "draws": 2}
    inside = robustplug.evaluate(folder, attacks=["fgsm"], wrapper=around, out=out)
    assert any(good and not row.right[at] for row in inside.attacks for at, good in enumerate(expected))
    assert _elsewhere(folder, plain) == expected


def test_figures_show_certified_accuracy_and_both_sides(tmp_path: Path, certificates: None) -> None:
    result = evaluated("exact")
    material = Material(tmp_path, "", result=result)
    names = {path.name for path, _ in draw_certified(material, tmp_path)}
    assert names == {"certified-linf.png", "bounds.png"}
    assert all((tmp_path / name).is_file() for name in names)
    assert certified_accuracy([0.1, 0.2, -1.0, 0.0], 0.0) == 0.75
    assert certified_accuracy([0.1, 0.2, -1.0, 0.0], 0.1) == 0.5
