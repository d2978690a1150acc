"""Suites on a trained run: chains, sweeps, transfer, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.core.types import Result
from robustplug.errors import RunError
from robustplug.runs.result_file import result_from_json

from ..training.runs import read_json, timeless, tiny

THREAT = {"use": "linf", "eps": 0.1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    robustplug.train(tiny("pgd-at", method={"vicinity": THREAT}), out=root / "robust")
    robustplug.train(tiny("erm", seed=1, method={"vicinity": THREAT}), out=root / "plain")
    return root


def evaluate(run: Path, *rows: dict[str, Any], **options: Any) -> Result:
    suite = {"name": "mine", "row": list(rows)}
    return robustplug.evaluate(run, suite=suite, samples=60, batch_size=25, device="cpu", **options)


def pgd(**options: Any) -> dict[str, Any]:
    return {"use": "pgd", "steps": 3, **options}


def test_rows_stand_alone_unless_they_are_chained(runs: Path) -> None:
    result = evaluate(
        runs / "robust",
        {"attack": pgd()},
        {"attack": pgd(), "chain": "a"},
        {"attack": pgd(steps=5), "chain": "b"},
        {"attack": {"use": "noise"}, "chain": "a"},
    )
    clean, alone, first, other, second = result.attacks
    right = sum(clean.right)
    assert [row.attempted for row in (alone, first, other)] == [right] * 3
    assert second.attempted == sum(first.right) < right
    assert all(a or not b for a, b in zip(first.right, second.right, strict=True))
    worst = {chain["chain"]: chain["accuracy"] for chain in result.meta["worst_cases"]}
    assert worst == {"a": second.accuracy, "b": other.accuracy}


def test_labels_say_what_is_special(runs: Path) -> None:
    result = evaluate(
        runs / "robust",
        {"attack": pgd(), "sweep": {"attack": {"restarts": [1, 2]}}},
        {"attack": pgd(), "scale": 0.5},
        {"attack": pgd(), "vicinity": {"use": "l2", "eps": 0.5}},
        {"label": "my own", "attack": pgd(), "scale": 2},
    )
    assert [row.name for row in result.attacks[1:]] == [
        "pgd (steps=3, restarts=1)",
        "pgd (steps=3, restarts=2)",
        "pgd (steps=3) · linf (eps=0.05)",
        "pgd (steps=3) · l2 (eps=0.5)",
        "my own",
    ]
    assert [row.threat["eps"] for row in result.attacks[1:]] == [0.1, 0.1, 0.05, 0.5, 0.2]
    half, full = result.attacks[3], result.attacks[1]
    assert half.accuracy >= full.accuracy
    assert max(half.distance["linf"], 0.05) == pytest.approx(0.05, abs=1e-5)


def test_transferred_examples_are_kept_and_used_again(runs: Path) -> None:
    row = {"attack": pgd(), "transfer": True}
    (_, missing) = evaluate(runs / "robust", row).attacks
    assert "--source" in missing.skipped
    (_, first) = evaluate(runs / "robust", row, sources=[runs / "plain"]).attacks
    assert first.name == "pgd (steps=3) from plain"
    (folder,) = (runs / "plain" / "examples").iterdir()
    manifest = read_json(folder / "manifest.json")
    assert manifest["attack"]["steps"] == 3
    assert manifest["threat"] == THREAT
    assert len(manifest["source"]["weights"]) == 64
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) == 3, "60 samples in batches of 25"
    times = [path.stat().st_mtime_ns for path in files]
    (_, again) = evaluate(runs / "robust", row, sources=[runs / "plain"]).attacks
    assert timeless(again.__dict__) == timeless(first.__dict__)
    assert [path.stat().st_mtime_ns for path in files] == times
    files[1].unlink()
    assert evaluate(runs / "robust", row, sources=[runs / "plain"]).attacks[1].right == first.right
    files[0].write_bytes(files[1].read_bytes())
    with pytest.warns(UserWarning, match="is of other samples; they are made anew"):
        (_, anew) = evaluate(runs / "robust", row, sources=[runs / "plain"]).attacks
    assert anew.right == first.right
    (other,) = evaluate(runs / "robust", row | {"scale": 0.5}, sources=[runs / "plain"]).attacks[1:]
    assert len(list((runs / "plain" / "examples").iterdir())) == 2
    assert other.accuracy >= first.accuracy


def test_examples_of_a_model_itself_are_its_white_box_examples(runs: Path) -> None:
    start = {"start": "zero"}
    rows: list[dict[str, Any]] = [{"attack": pgd(**start)}, {"attack": pgd(**start), "transfer": True}]
    (_, white, transferred) = evaluate(runs / "plain", *rows, sources=[runs / "plain"]).attacks
    assert transferred.right == white.right
    assert transferred.forwards == pytest.approx(sum(evaluate(runs / "plain").attacks[0].right) / 60)


def test_a_source_must_be_a_run_that_fits(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        evaluate(runs / "robust", sources=[tmp_path])


def test_results_are_written_and_notes_removed(runs: Path, tmp_path: Path) -> None:
    result = evaluate(runs / "robust", {"attack": pgd()}, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".lock") == [
        "mine.json"
    ]
    stored = result_from_json(read_json(tmp_path / "out" / "mine.json"))
    assert stored == result
    assert stored.meta["suite"] == "mine"
    body = json.loads((tmp_path / "out" / "mine.json").read_text())
    with pytest.raises(ValueError, match="evaluate the model again"):
        result_from_json({**body, "format": 1})


def test_a_shift_comes_first_and_counts_all_samples(runs: Path) -> None:
    shift = {"use": "rotate", "degrees": 10}
    result = evaluate(runs / "robust", {"shift": shift}, {"shift": shift, "attack": pgd()})
    _, rotated, attacked = result.attacks
    assert rotated.attempted == attacked.attempted == 60
    assert rotated.name == "rotate"
    assert attacked.accuracy <= rotated.accuracy
    assert rotated.shift["degrees"] == 10
    assert rotated.threat == {}


def test_corruptions_are_summed_up_against_a_reference(runs: Path, tmp_path: Path) -> None:
    row = {
        "shift": {"use": "corruption"},
        "sweep": {"shift": {"kind": ["contrast", "pixelate"], "severity": [1, 2, 3, 4, 5]}},
    }
    reference = evaluate(runs / "plain", row, out=runs / "plain" / "evaluations")
    same = evaluate(runs / "plain", row, reference=runs / "plain")
    assert same.meta["corruptions"]["mce"] == pytest.approx(1)
    said = evaluate(runs / "robust", row, reference=runs / "plain").meta["corruptions"]
    errors = {kind: sum(found.values()) for kind, found in said["errors"].items()}
    others = {kind: sum(found.values()) for kind, found in reference.meta["corruptions"]["errors"].items()}
    expected = sum(errors[kind] / others[kind] for kind in errors) / 2
    assert said["mce"] == pytest.approx(expected)
    assert said["reference"] == "plain"
    with pytest.raises(RunError, match="first run robustplug evaluate"):
        evaluate(runs / "robust", row, reference=tmp_path)
    part = row | {"sweep": {"shift": {"kind": ["contrast"], "severity": [1, 2]}}}
    said = evaluate(runs / "robust", part, reference=runs / "plain").meta["corruptions"]
    assert "mce" not in said
    assert "contrast" in said["note"]


def test_the_parts_of_an_ensemble_are_rows_of_one_chain(runs: Path) -> None:
    parts = [pgd(), {"use": "noise"}]
    result = evaluate(runs / "robust", {"attack": {"use": "ensemble", "attacks": parts}})
    _, first, second = result.attacks
    assert second.attempted == sum(first.right)
    assert first.chain == second.chain != ""
    assert first.name.endswith("pgd")


def test_the_model_and_the_layout_of_its_weights_are_put_back(runs: Path) -> None:
    model: Any = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 10))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    robustplug.evaluate(model, task="digits", attacks=["fgsm"], samples=20, device="cpu")
    assert model[0].weight.is_contiguous()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
