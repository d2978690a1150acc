"""Randomised smoothing: bounds, draws, certificates against an exact smoothed model, and the command."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, norm
from torch import Tensor, nn

import robustplug
from robustplug.core.types import AttackResult, Result, TaskInfo
from robustplug.errors import Refused
from robustplug.recipe.errors import RecipeError
from robustplug.runs.result_file import read_result
from robustplug_smoothing import SmoothedOptions, SmoothingOptions
from robustplug_smoothing.commands import NAME
from robustplug_smoothing.draws import BLOCK, draw, votes
from robustplug_smoothing.measurement import ABSTAINED, ACCURACY, Smoothing, noise_of
from robustplug_smoothing.radii import draws_for, largest_radius, lower_bound, radius_of
from robustplug_smoothing.wrapper import Smoothed

from ..training.runs import tiny

SIGMA = 0.2
INFO = TaskInfo(sizes={"test": 12}, shape=(4,), classes=2)


class Linear(nn.Module):
    """Two logits ±wx: the smoothed model is Φ(w(x)/(σ‖w‖)), and its exact L2 radius |w(x)|/‖w‖."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, -1.0, 2.0, 0.5]))

    def forward(self, x: Tensor) -> Tensor:
        score = (x - 0.5) @ self.weight
        return torch.stack([score, -score], 1)


class Dropping(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(len(x), 2)


def data(size: int = 12) -> tuple[Tensor, Tensor]:
    x = torch.rand(size, 4, generator=torch.Generator().manual_seed(1))
    y = Linear()(x).argmax(1)
    y[0] = 1 - y[0]
    return x, y


def certified(model: Any = None, eps: float = 0.05, **changes: Any) -> Result:
    threat = changes.pop("threat", {"use": "l2", "eps": eps})
    given = {"data": data(), "attacks": [], "threat": threat, "device": "cpu"}
    given |= {key: changes.pop(key) for key in ("out", "batch_size", "wrapper", "samples") if key in changes}
    table = {"use": "randomised-smoothing", "sigma": SIGMA, "n": 1000, "n0": 50, **changes}
    return robustplug.evaluate(model or Linear(), measurements=[table], **given)


def the_row(result: Result) -> AttackResult:
    return result.attacks[-1]


def test_the_bound_is_clopper_and_pearsons() -> None:
    n, alpha = 200, 0.01
    for count in (0, 1, 77, 199, 200):
        # The two-sided interval at 1 − 2α has the one-sided bound as its lower end.
        two_sided = binomtest(count, n).proportion_ci(1 - 2 * alpha, "exact").low
        assert float(lower_bound(count, n, alpha)) == pytest.approx(two_sided, abs=1e-12)
    assert float(lower_bound(n, n, alpha)) == pytest.approx(alpha ** (1 / n))


@pytest.mark.parametrize("p", [0.3, 0.55, 0.97])
def test_the_bound_holds_as_often_as_it_says(p: float) -> None:
    n, alpha = 60, 0.05
    counts = np.arange(n + 1)
    # The exact probability that the bound lies above p.
    assert binom.pmf(counts, n, p)[lower_bound(counts, n, alpha) > p].sum() <= alpha


def test_radii_are_those_of_each_noise_and_norm() -> None:
    p = np.array([0.4, 0.5, 0.6, 0.99])
    gaussian = radius_of(p, SIGMA, "gaussian", "l2", 16)
    np.testing.assert_allclose(gaussian, [-1, -1, *(SIGMA * norm.ppf(p[2:]))])
    np.testing.assert_allclose(radius_of(p, SIGMA, "gaussian", "linf", 16)[2:], gaussian[2:] / 4)
    np.testing.assert_allclose(radius_of(p, SIGMA, "gaussian", "l1", 16), gaussian)
    uniform = radius_of(p, SIGMA, "uniform", "l1", 16)
    np.testing.assert_allclose(uniform[2:], 2 * math.sqrt(3) * SIGMA * (p[2:] - 0.5))


@pytest.mark.parametrize(("noise", "kind"), [("gaussian", "l2"), ("gaussian", "linf"), ("uniform", "l1")])
def test_the_needed_draws_are_the_least_that_reach_a_radius(noise: Any, kind: Any) -> None:
    needed = int(draws_for(0.1, 0.001, SIGMA, noise, kind, 9))
    assert largest_radius(needed, 0.001, SIGMA, noise, kind, 9) >= 0.1
    assert largest_radius(needed - 1, 0.001, SIGMA, noise, kind, 9) < 0.1
    assert draws_for(100.0, 0.001, SIGMA, noise, kind, 9) == math.inf


def test_uniform_noise_cannot_change_a_probability_by_more_than_the_shift_over_its_width() -> None:
    # The half-space that is the worst event for a shift along one axis.
    reach = math.sqrt(3) * SIGMA
    x = draw((400_000,), SIGMA, "uniform", torch.Generator().manual_seed(0))
    assert float(x.std()) == pytest.approx(SIGMA, rel=0.01)
    for shift in (0.05, 0.3):
        change = float((x > -shift).double().mean() - (x > 0).double().mean())
        assert change == pytest.approx(shift / (2 * reach), abs=0.005)


def test_votes_do_not_depend_on_the_batch_or_on_the_rows_of_a_call() -> None:
    x, model = data()[0], Linear()
    calls: list[int] = []

    def predict(inputs: Tensor) -> Tensor:
        calls.append(len(inputs))
        classes: Tensor = model(inputs).argmax(1)
        return classes

    def counted(rows: int, which: list[int]) -> Tensor:
        return votes(predict, x[which], which, 5, "bound", 250, 2, SIGMA, "gaussian", rows)

    whole = counted(100 * BLOCK, list(range(12)))
    assert (whole.sum(1) == 250).all()
    assert calls == [12 * 250]
    for rows in (BLOCK, 3 * BLOCK):
        calls.clear()
        assert torch.equal(counted(rows, [7, 2]), whole[[7, 2]])
        assert max(calls) <= rows
    # A draw without a class votes for none.
    none = votes(
        lambda rows: torch.full((len(rows),), 2), x[[0]], [0], 5, "bound", 250, 2, 1.0, "gaussian", 9
    )
    assert none.tolist() == [[0, 0]]
    # Not only reproducible: another sample has other noise.
    assert not torch.equal(
        votes(predict, x[[0, 0]], [0, 1], 5, "bound", 250, 2, 1.0, "gaussian", 100)[0], whole[0]
    )


def test_certified_radii_are_below_the_exact_ones_and_reach_them_with_many_draws() -> None:
    x, _ = data()
    with torch.no_grad():
        exact = Linear()(x)[:, 0].abs() / Linear().weight.norm()
    row = the_row(certified(n=20_000, radii=[0.0, 0.1]))
    assert row.certified is not None
    assert (row.certified.norm, row.certified.confidence) == ("2", 0.999)
    assert row.certified.about == "the model smoothed with gaussian noise (sigma = 0.2)"
    radii = torch.tensor(row.certified.radii)
    assert radii[0] == -1  # its label is wrong
    known = radii >= 0
    assert int(known.sum()) >= 9
    assert bool((radii[known] <= exact[known]).all())
    near = known & (exact < 2 * SIGMA)
    assert bool((exact[near] - radii[near] < 0.03).all())
    assert row.right == tuple((radii >= 0.05).tolist())
    assert row.measures["certified at 0.1"].mean == pytest.approx(100 * float((radii >= 0.1).double().mean()))
    assert row.measures[ACCURACY].mean == pytest.approx(100 * float(known.double().mean()))
    assert row.measures[ABSTAINED].mean == 100 - 100 * float((known | (radii == -1)).double().mean())
    assert row.forwards == pytest.approx(20_000 + 50, rel=0.01)


def test_the_radii_are_the_same_in_any_batch_and_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = the_row(certified()).certified
    monkeypatch.setattr(Smoothing, "portion", 5)
    assert the_row(certified(batch_size=3, batch=200)).certified == whole
    call, calls = Smoothing.__call__, 0

    def killed(self: Smoothing, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return call(self, *args)

    monkeypatch.setattr(Smoothing, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        certified(out=tmp_path)
    assert the_row(certified(out=tmp_path)).certified == whole
    assert calls == 4  # three portions, of which the killed one is made again


def test_uniform_noise_certifies_less_than_the_exact_l1_distance() -> None:
    x, _ = data()
    with torch.no_grad():
        exact = Linear()(x)[:, 0].abs() / Linear().weight.abs().max()
    row = the_row(certified(noise="uniform", norm="l1", threat={"use": "l1", "eps": 0.05}))
    assert row.certified is not None
    radii = torch.tensor(row.certified.radii)
    assert row.certified.norm == "1"
    assert int((radii > 0).sum()) >= 6
    assert bool((radii <= exact).all())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threat": {"use": "linf", "eps": 0.05}}, "about L2, and the threat model has L∞"),
        ({"n": 20, "eps": 0.3}, "it takes n ="),
        ({"eps": 0.3, "alpha": 1e-4, "n": 30, "sigma": 0.01}, "no useful n could"),
        ({"n": 20, "radii": [0.3]}, "certify at most a radius of"),
        ({"model": Dropping()}, "answers at random"),
        ({"wrapper": {"use": "smoothed", "draws": 4}}, "smoothed already"),
    ],
)
def test_wrong_uses_say_what_to_do(changes: dict[str, Any], reason: str) -> None:
    row = the_row(certified(**changes))
    assert reason in row.skipped


def test_a_radius_in_another_norm_says_that_it_is_that_of_the_l2_ball() -> None:
    x, _ = data()
    for kind, divided in (("l1", 1.0), ("linf", 2.0)):
        changes: dict[str, Any] = {"norm": kind, "threat": {"use": kind, "eps": 0.01}}
        own, plain = the_row(certified(**changes)).certified, the_row(certified()).certified
        assert own is not None
        assert plain is not None
        assert f"the {kind} ball within its certified L2 ball" in own.about
        assert "ball" not in plain.about
        expected = [max(each, -1.0) if each < 0 else each / divided for each in plain.radii]
        assert list(own.radii) == pytest.approx(expected)
    assert x[0].numel() == 4  # the root of which divides the radius in L∞


def test_a_model_in_training_mode_and_uniform_noise_in_l2_are_refused() -> None:
    with pytest.raises(RecipeError, match="certifies l1 alone"):
        certified(noise="uniform")
    from robustplug.core.step import Step
    from robustplug_smoothing.measurement import refuse_unfit

    step: Any = Step(Linear().train(), None, None, None, torch.Generator())  # type: ignore[arg-type]
    with pytest.raises(Refused, match="training mode"):
        refuse_unfit(step, data()[0])


def test_the_smoothed_model_is_the_mean_over_fixed_draws() -> None:
    torch.manual_seed(3)
    inner, x = Linear().eval(), data()[0]
    module = Smoothed(SmoothedOptions(SIGMA, draws=5), model=inner, info=INFO)
    probabilities = torch.stack([inner(x + noise).softmax(1) for noise in module.noise]).mean(0)
    torch.testing.assert_close(module(x).softmax(1), probabilities)
    torch.testing.assert_close(module(x[3:4]), module(x)[3:4])
    votes_of = Smoothed(SmoothedOptions(SIGMA, draws=200, votes=True), model=inner, info=INFO)
    shares = votes_of(x).exp()
    with torch.no_grad():
        exact = torch.special.ndtr(inner(x)[:, 0] / (SIGMA * inner.weight.norm()))
    torch.testing.assert_close(shares[:, 0].double(), exact.double(), atol=0.12, rtol=0)


def test_a_function_that_returns_classes_is_certified_as_a_module_is() -> None:
    def classes(x: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = Linear()(torch.as_tensor(x)).argmax(1)
        return found

    assert the_row(certified(classes)).certified == the_row(certified()).certified


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    robustplug.train(tiny(train={"epochs": 1}), out=folder)
    return folder


Invoke = Callable[..., Any]


def invoke(*words: str) -> Any:
    from click.testing import CliRunner

    from robustplug.cli import main

    return CliRunner().invoke(main, words)


def test_the_command_certifies_a_run(run: Path) -> None:
    few = ("--n", "200", "--samples", "30")
    result = invoke("certify", str(run), *few, "--sigma", "0.1")
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    assert shown.startswith(f"certifying {run}: 300 passes for each sample")
    assert "≥" in shown
    assert "was trained without noise, and votes under gaussian noise of sigma = 0.1" in shown
    assert f"{NAME}-l2-gaussian-0.1.json" in shown
    # Another noise, and another sigma, lie beside it.
    for words in (("--sigma", "0.2"), ("--sigma", "0.1", "--noise", "uniform", "--norm", "l1")):
        assert invoke("certify", str(run), *few, *words, "--quiet").exit_code == 0
    files = {path.stem for path in (run / "evaluations").glob("*.json")}
    ends = ("l2-gaussian-0.1", "l2-gaussian-0.2", "l1-uniform-0.1")
    assert files == {f"{NAME}-{end}" for end in ends}
    assert (run / "evaluations" / "figures" / f"{NAME}-l2-gaussian-0.1.png").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_certify_what_one_certifies(run: Path, tmp_path: Path) -> None:
    few = ("--n", "200", "--samples", "40", "--sigma", "0.1", "--set", "evaluate.batch_size=8", "--quiet")
    rows = list[Any]()
    for name, more in (("alone", ()), ("both", ("--processes", "2"))):
        result = invoke("certify", str(run), *few, "--out", str(tmp_path / name), *more)
        assert result.exit_code == 0, result.output
        (file,) = (tmp_path / name).glob("*.json")
        found = read_result(file, run).result.attacks
        rows.append([dataclasses.replace(row, seconds=0.0) for row in found])
    assert repr(rows[0]) == repr(rows[1]), "repr: rows hold NaN, which equals nothing"
    certificate = rows[1][-1].certified
    assert len(certificate.radii) == 40
    assert 0 < sum(radius > 0 for radius in certificate.radii) < 40, "neither none nor all, which is no test"


def test_a_model_that_was_not_trained_with_the_noise_is_said_in_its_result(run: Path) -> None:
    table = {"use": "randomised-smoothing", "sigma": 0.1, "n": 200}
    threat = {"use": "l2", "eps": 0.05}
    result = robustplug.evaluate(run, attacks=[], measurements=[table], threat=threat, samples=8)
    (doubt,) = result.meta["doubts"]
    share = f"{the_row(result).measures[ACCURACY].mean:.1f} %"
    assert f"right on {share}" in doubt
    # A module that was given has no recipe, so nothing is known of it.
    assert "doubts" not in certified().meta


def test_the_kind_of_the_noise_counts_as_its_size_does() -> None:
    measures: Any = the_row(certified()).measures
    trained = {"use": "erm", "vicinity": {"use": "gaussian", "sigma": 0.25, "inner": {"use": "l2"}}}
    assert list(noise_of(trained)) == [("gaussian", 0.25)]
    assert list(noise_of({"use": "macer", "sigma": 0.5, "vicinity": {"use": "l2"}})) == [("gaussian", 0.5)]

    def doubts(**options: Any) -> list[str]:
        return list(Smoothing(SmoothingOptions(**options)).doubts(trained, measures))

    assert doubts(sigma=0.25) == []
    assert (
        "with gaussian noise of sigma = 0.25, and votes under gaussian noise of sigma = 0.5"
        in doubts(sigma=0.5)[0]
    )
    assert "votes under uniform noise of sigma = 0.25" in doubts(sigma=0.25, noise="uniform", norm="l1")[0]


def test_passes_of_the_smoothed_model_are_those_of_the_model() -> None:
    given: dict[str, Any] = {
        "data": data(),
        "threat": {"use": "l2", "eps": 0.05},
        "device": "cpu",
        "attacks": ["fgsm"],
    }
    found = {
        draws: robustplug.evaluate(Linear(), wrapper={"use": "smoothed", "draws": draws}, **given)
        for draws in (1, 5)
    }
    for one, five in zip(found[1].attacks, found[5].attacks, strict=True):
        assert five.forwards == pytest.approx(5 * one.forwards, rel=0.5)
    assert [found[draws].attacks[0].forwards for draws in (1, 5)] == [1, 5]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--n", "20", "--radius", "2"), "is asked for"),
        (("--noise", "uniform"), "uniform noise certifies L1 alone"),
        (("--norm", "linf"), "give --radius"),
        (("--radius", "nan"), "are finite numbers"),
        (("--alpha", "nan"), "are finite numbers"),
        (("--sigma", "inf"), "are finite numbers"),
    ],
)
def test_the_command_refuses_before_anything_runs(run: Path, words: tuple[str, ...], reason: str) -> None:
    result = invoke("certify", str(run), *words)
    assert result.exit_code == 2
    assert reason in " ".join(result.output.split())
