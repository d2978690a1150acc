"""`robustplug sprout`: the products of β, and the angles between input gradients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import robustplug
from robustplug.api import Batch, open_run
from robustplug.cli import main
from robustplug_sprout.analysis import mean_cosines, products

RECIPE = {
    "name": "tiny",
    "task": {"use": "digits", "validation": 64, "test": 1600},
    "model": {"use": "small-cnn", "width": 4, "hidden": 16},
    "train": {"epochs": 1, "batch_size": 64, "device": "cpu"},
    "validate": {"samples": 32, "attack": {"use": "fgsm"}},
    "evaluate": {"samples": 32},
}
PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("runs")
    return {
        name: robustplug.train({**RECIPE, "name": name, "method": {"use": name}}, out=top / name).folder
        for name in ("sprout", "erm")
    }


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["sprout", *map(str, arguments)])


def test_the_correlogram_is_drawn_and_kept(runs: dict[str, Path]) -> None:
    result = run("correlogram", runs["sprout"])
    assert result.exit_code == 0, result.output
    body = json.loads((runs["sprout"] / "result.json").read_text())
    beta = np.array(body["beta"]["values"])
    assert len(beta) == 10
    assert len(set(beta.tolist())) == 10
    np.testing.assert_allclose(body["beta"]["products"], np.outer(beta, beta), rtol=1e-6)
    assert body["attacks"][0]["name"] == "clean"
    assert (runs["sprout"] / "figures" / "beta.png").read_bytes().startswith(PNG)
    learned = open_run(runs["sprout"]).method.label_map.beta  # type: ignore[attr-defined]
    np.testing.assert_allclose(beta, learned.detach().numpy(), rtol=1e-6)


def test_a_run_without_beta_has_no_correlogram(runs: dict[str, Path]) -> None:
    result = run("correlogram", runs["erm"])
    assert result.exit_code == 2
    assert "has no β" in result.output


def test_cosines_are_written_and_drawn(runs: dict[str, Path], tmp_path: Path) -> None:
    result = run("cosine", runs["sprout"], runs["erm"], "--samples", 50, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    body = json.loads((tmp_path / "out" / "result.json").read_text())
    cosine = np.array(body["cosine"])
    np.testing.assert_allclose(np.diag(cosine), 1)
    assert cosine[0, 1] == cosine[1, 0]
    assert abs(cosine[0, 1]) < 0.99
    assert np.array(body["samples"]).max() == 50
    assert (tmp_path / "out" / "cosine.png").read_bytes().startswith(PNG)


def test_the_result_of_a_run_is_never_overwritten(runs: dict[str, Path]) -> None:
    before = (runs["erm"] / "result.json").read_bytes()
    result = run("cosine", runs["sprout"], runs["erm"], "--samples", 20, "--out", runs["erm"])
    assert result.exit_code == 2
    assert "is a run folder, whose result is kept" in result.output
    assert (runs["erm"] / "result.json").read_bytes() == before


def test_one_run_has_no_angle(runs: dict[str, Path]) -> None:
    assert run("cosine", runs["erm"]).exit_code == 2


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for command in ("correlogram", "cosine"):
        result = run(command, tmp_path, *([tmp_path] if command == "cosine" else []))
        assert result.exit_code == 2
        assert "is not a run folder" in result.output


def test_products_are_those_of_all_pairs() -> None:
    assert products(torch.tensor([2.0, 3.0])).tolist() == [[4, 6], [6, 9]]


def test_the_mean_cosine_is_that_of_the_gradients() -> None:
    """For a linear model ∇_x CE = W^T (p − y), by hand."""
    models = [nn.Linear(5, 3, bias=False).double() for _ in range(2)]
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 5)) for _ in models]
    for model, weight in zip(models, weights, strict=True):
        model.weight.data = torch.tensor(weight)
    x, y = rng.normal(size=(7, 5)), rng.integers(0, 3, 7)
    batch = Batch(torch.tensor(x), torch.tensor(y), torch.arange(7))
    found, counts = mean_cosines(models, [batch])
    gradients = []
    for weight in weights:
        z = x @ weight.T
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        rows = (p - np.eye(3)[y]) @ weight
        gradients.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    assert float(found[0, 1]) == pytest.approx(float((gradients[0] * gradients[1]).sum(1).mean()), rel=1e-5)
    assert counts.tolist() == [[7, 7], [7, 7]]


def test_samples_without_a_gradient_do_not_count() -> None:
    sure, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    sure.weight.data = torch.tensor([[1e6, 0.0], [0.0, 0.0]])
    other.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    batch = Batch(torch.tensor([[1.0, 0.0], [-1e-7, 0.0]]), torch.tensor([0, 0]), torch.arange(2))
    _, counts = mean_cosines([sure, other], [batch])
    assert counts.tolist() == [[1, 1], [1, 2]]
