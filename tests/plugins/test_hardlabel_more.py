"""Hard-label attacks: targets, the smooth objective, scores, peers of ART, failures, and curves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import robustplug
from robustplug.api import Batch, Feed, Refused, Step, View, open_evaluation, stream
from robustplug.cli import main
from robustplug.testing import ToyTask
from robustplug_hardlabel import NesOptions, OptOptions, SignOptOptions, ZooOptions, scores, searches
from robustplug_hardlabel.attack import HardLabel
from robustplug_hardlabel.commands import measure
from robustplug_hardlabel.curves import adbd, distances_at, grid, summary
from robustplug_hardlabel.objective import Smooth
from robustplug_hardlabel.oracle import training_images
from robustplug_hardlabel.peers import Peer
from robustplug_hardlabel.pool import Array, Sample, SearchFailed, rows_of_call, run


def nearest_mean(task: Any) -> nn.Module:
    """Return the linear model that chooses the nearest class mean of a task's training samples."""
    batch = next(iter(task.batches("train", Feed(batch_size=task.info.sizes["train"]))))
    x = batch.x.flatten(1)
    means = torch.stack([x[batch.y == label].mean(0) for label in range(task.info.classes)])
    layer = nn.Linear(means.shape[1], len(means))
    with torch.no_grad():
        layer.weight.copy_(means)
        layer.bias.copy_(-means.square().sum(1) / 2)
    return nn.Sequential(nn.Flatten(), layer).eval()


def make_step(norm: str = "l2", eps: float = 1.0, evaluating: bool = False, model: Any = None) -> Any:
    task = ToyTask()
    model = (model or nearest_mean(task)).eval()
    method = robustplug.build("method", "erm", vicinity={"use": norm, "eps": eps})
    batch = next(iter(task.batches("test", Feed(batch_size=8))))
    with torch.no_grad():
        batch = Batch(batch.x, model(batch.x).argmax(1), batch.index)
    step = Step(model, method, task, batch, stream(0, "attack"), evaluating=evaluating)
    return step, View.of(batch, "adv"), method.vicinity


def attack(name: str, **options: Any) -> Any:
    return robustplug.build("perturbation", name, **options)


# --- the smooth objective


@pytest.mark.parametrize("value", [1e-8, 1e-3, 0.5, 20.0])
def test_smooth_lengths_undo_the_value(value: float) -> None:
    """Against the sum of the thesis, §2.4.2, written down anew, and a bisection of it."""
    rng = np.random.default_rng(0)
    thetas = rng.normal(size=(7, 30)).astype(np.float32)
    thetas /= np.abs(thetas).max(1)[:, None]
    lengths = Smooth(0.2).lengths(thetas, value)
    for theta, length in zip(thetas, lengths, strict=True):

        def objective(size: float, theta: Array = theta) -> float:
            return sum(max(size * abs(float(entry)) - 0.2, 0.0) ** 2 for entry in theta)

        assert objective(length) == pytest.approx(value, rel=1e-5)
        assert Smooth(0.2).value(theta, length) == pytest.approx(value, rel=1e-5)
        low, high = 0.0, 100.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if objective(middle) < value else (low, middle)
        assert length == pytest.approx(high, rel=1e-6)


def test_the_smooth_objective_is_zero_within_the_radius() -> None:
    theta = np.array([1.0, -0.5], dtype=np.float32)
    assert Smooth(0.3).value(theta, 0.3) == 0
    assert Smooth(0.3).lengths(theta[None], 0.0) == pytest.approx([0.3])


SMOOTHED = [searches.sign_opt(SignOptOptions()), searches.opt(OptOptions())]


@pytest.mark.parametrize("make", SMOOTHED)
def test_the_smooth_objective_reaches_a_radius_that_the_plain_one_does_not(make: Any) -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=64).astype(np.float32)
    eps = 0.06
    gap = 0.8 * eps * np.abs(normal).sum()

    def oracle(points: Array, numbers: Any) -> Any:
        flags = (points - 0.5) @ normal > gap
        return flags, flags

    plain = Sample(np.full(64, 0.5, dtype=np.float32), np.random.default_rng(1), math.inf, 3000, eps)
    smooth = Sample(plain.x, np.random.default_rng(1), math.inf, 3000, eps, objective=Smooth(eps))
    for sample in (plain, smooth):
        run([sample], make, oracle, lambda number, sample: False)
    assert plain.distance > smooth.distance
    if make is SMOOTHED[0]:
        assert smooth.distance <= eps * (1 + 1e-4)
        assert smooth.asked < 3000


def test_the_smooth_objective_is_for_linf() -> None:
    with pytest.raises(Refused, match="smooth objective"):
        attack("sign-opt", objective="smooth")(*make_step("l2"))


# --- targets


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sign-opt", "opt", "svm-opt", "zo-sign-sgd"])
def test_targeted_attacks_reach_their_class_from_images_of_it(name: str) -> None:
    step, view, vicinity = make_step()
    found = attack(name, target="random", queries=600, starts=20).samples(step, view, vicinity)
    classes = step.task.info.classes
    assert all(sample.goal != sample.label and 0 <= sample.goal < classes for sample in found)
    images = training_images(step, {sample.goal for sample in found}, 20)
    reached = 0
    for sample in found:
        assert sample.starts is not None
        np.testing.assert_array_equal(sample.starts, images[sample.goal])
        assert sample.asked <= 600
        if sample.best is not None:
            x = torch.from_numpy(sample.best).view(1, *view.x.shape[1:])
            logits = step.model(x)[0].detach()
            # Just across the boundary, the rounding of another batch decides.
            assert float(logits[sample.goal]) >= float(logits.max()) - 1e-4
            assert sample.distance < np.linalg.norm(sample.starts - sample.x, axis=1).min()
            reached += 1
    assert reached >= len(found) // 2


def test_targets_are_the_same_for_all_attacks() -> None:
    goals = []
    for name in ("sign-opt", "opt"):
        step, view, vicinity = make_step()
        step.rng.manual_seed(len(name))
        samples = attack(name, target="random", queries=30, starts=5).samples(step, view, vicinity)
        goals.append([sample.goal for sample in samples])
    assert goals[0] == goals[1]


def test_training_images_are_those_of_the_class() -> None:
    step, *_ = make_step()
    whole = [
        (x, int(y))
        for batch in step.task.batches("train", Feed())
        for x, y in zip(batch.x, batch.y, strict=True)
    ]
    found = training_images(step, {0, 1}, 3)
    for label in (0, 1):
        expected = [x.flatten().numpy() for x, y in whole if y == label][:3]
        np.testing.assert_array_equal(found[label], np.stack(expected))


# --- scores


def test_gain_and_likelihood_are_those_of_the_papers() -> None:
    rng = np.random.default_rng(0)
    logs = torch.from_numpy(rng.normal(size=(5, 4)).astype(np.float32)).log_softmax(1).numpy()
    own = Sample(np.zeros(3, dtype=np.float32), rng, 2, 10, label=2)
    aimed = Sample(np.zeros(3, dtype=np.float32), rng, 2, 10, label=2, goal=1)
    for row, gain, lead in zip(logs, scores.gain(own, logs), scores.gain(aimed, logs), strict=True):
        assert gain == pytest.approx(max(row[[0, 1, 3]]) - row[2])
        assert lead == pytest.approx(row[1] - max(row[[0, 2, 3]]))
    np.testing.assert_allclose(scores.likelihood(own, logs), -logs[:, 2])
    np.testing.assert_allclose(scores.likelihood(aimed, logs), logs[:, 1])


def test_zoo_comes_close_to_the_nearest_point_of_a_linear_model() -> None:
    step, view, vicinity = make_step()
    found = attack("zoo", queries=4000, coordinates=16).samples(step, view, vicinity)
    (weight,) = [p.detach().numpy() for p in step.model.parameters() if p.dim() == 2]
    ratios = []
    for sample in found:
        x = torch.from_numpy(sample.x).view(1, *view.x.shape[1:])
        logits = step.model(x).detach().numpy()[0]
        exact = min(
            (logits[sample.label] - logits[k]) / np.linalg.norm(weight[sample.label] - weight[k])
            for k in range(len(logits))
            if k != sample.label
        )
        ratios.append(sample.distance / exact)
    # The bounds of pixels may make the nearest point farther, never nearer.
    assert min(ratios) > 1 - 1e-3
    assert np.median(ratios) < 1.25


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_nes_stays_within_the_radius_and_ends_when_it_succeeds(norm: str) -> None:
    step, view, vicinity = make_step(norm, 2.0 if norm == "l2" else 0.5)
    found = attack("nes", queries=2000).samples(step, view, vicinity)
    assert np.mean([sample.best is not None for sample in found]) > 0.8
    for sample in found:
        assert sample.best is None or sample.distance <= sample.radius
        assert sample.best is None or sample.asked < 2000


def test_nes_goes_on_until_a_point_within_the_radius_is_adversarial() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=32).astype(np.float32)
    # Probes of a large sigma are adversarial long before the iterate is.
    gap = 0.97 * 0.1 * np.abs(normal).sum()

    def oracle(points: Array, numbers: Any) -> Any:
        lead = ((points - 0.5) @ normal - gap) * 4
        logs = np.stack([-np.logaddexp(0, lead), -np.logaddexp(0, -lead)], 1)
        return lead > 0, logs

    sample = Sample(np.full(32, 0.5, dtype=np.float32), rng, math.inf, 4000, 0.1, 0)
    run([sample], scores.nes(NesOptions(4000, sigma=0.05)), oracle, lambda number, sample: False)
    assert sample.distance <= 0.1


def test_zoo_makes_its_steps_fit_a_small_budget() -> None:
    step, view, vicinity = make_step()
    found = attack("zoo", queries=30).samples(step, view, vicinity)
    assert all(0 < sample.asked <= 30 for sample in found)


@pytest.mark.parametrize(("name", "options"), [("zoo", {"coordinates": 8}), ("nes", {"directions": 10})])
@pytest.mark.parametrize("queries", [1, 20, 333])
def test_budgets_of_searches_with_scores_are_kept(name: str, options: Any, queries: int) -> None:
    step, view, vicinity = make_step()
    found = attack(name, queries=queries, **options).samples(step, view, vicinity)
    assert all(sample.asked <= queries for sample in found)
    assert step.meter.forwards == sum(sample.asked for sample in found)


# --- ART's


def global_state() -> str:
    return str(np.random.get_state(legacy=False))


@pytest.mark.parametrize("name", ["boundary", "hop-skip-jump"])
def test_peers_find_points_within_their_budget(name: str) -> None:
    step, view, vicinity = make_step()
    before = global_state()
    found = attack(name, queries=300).samples(step, view, vicinity)
    assert global_state() == before
    assert step.meter.forwards == sum(sample.asked for sample in found)
    assert all(sample.asked <= 300 for sample in found)
    assert np.mean([sample.best is not None for sample in found]) > 0.5
    for sample in found:
        if sample.best is not None:
            x = torch.from_numpy(sample.best).view(1, *view.x.shape[1:])
            logits = step.model(x)[0].detach()
            assert float(logits[sample.label]) <= float(logits.topk(2).values[-1]) + 1e-4
            assert sample.distance == pytest.approx(float(np.linalg.norm(sample.best - sample.x)), rel=1e-5)


def test_evaluated_peers_stop_at_their_first_success_within_the_radius() -> None:
    step, view, vicinity = make_step("linf", 0.5, evaluating=True)
    found = attack("hop-skip-jump", queries=600).samples(step, view, vicinity)
    broken = [sample for sample in found if sample.distance <= 0.5]
    assert broken
    assert all(sample.asked < 600 for sample in broken)


# --- models that fail


class Failing(nn.Module):
    """Give what `spoil` makes of the logits, from the given row on."""

    def __init__(self, inner: nn.Module, after: int, spoil: Any) -> None:
        super().__init__()
        self.inner, self.after, self.spoil, self.rows = inner, after, spoil, 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        self.rows += len(x)
        return self.spoil(logits) if self.rows > self.after else logits


def broken(logits: Tensor) -> Tensor:
    raise ValueError("the service is down")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (broken, "after [0-9,]+ queries: ValueError: the service is down"),
        (lambda logits: logits * float("nan"), "returned NaN or infinite scores for [0-9]+ of [0-9]+ points"),
        (lambda logits: logits[:, 0], "not a row of 3 scores"),
        (lambda logits: logits[:, :2], r"returned \([0-9]+, 2\) for [0-9]+ points, not a row of 3 scores"),
        (lambda logits: logits / 0, "returned NaN or infinite scores"),
        (lambda logits: logits[:1].expand(2, -1), r"returned \(2, [0-9]+\) for [0-9]+ points"),
    ],
)
@pytest.mark.parametrize("name", ["sign-opt", "hop-skip-jump"])
def test_a_model_that_fails_is_reported_and_the_best_is_kept(name: str, spoil: Any, message: str) -> None:
    task = ToyTask()
    model = Failing(nearest_mean(task), 8 + 8 * 250, spoil)
    step, view, vicinity = make_step(model=model)
    with pytest.raises(SearchFailed, match=message) as caught:
        attack(name, queries=1000, starts=20).samples(step, view, vicinity)
    assert any(sample.best is not None for sample in caught.value.samples)
    assert all(flag.requires_grad for flag in model.parameters())


def test_an_evaluation_says_why_a_row_failed_and_runs_the_others() -> None:
    inner = nearest_mean(robustplug.build("task", "digits"))
    calls = 0

    def of_user(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if 60 < calls < 70:
            raise ValueError("the service is down")
        logits: Tensor = inner(x)
        return logits

    attacks = [{"use": "sign-opt", "queries": 2000}, {"use": "rays", "queries": 200}]
    failed, last = (
        robustplug.evaluate(of_user, task="digits", attacks=attacks[:1], samples=20).attacks[1],
        None,
    )
    calls = 100
    last = robustplug.evaluate(of_user, task="digits", attacks=attacks, samples=20).attacks[2]
    assert "the model failed after" in failed.skipped
    assert "the service is down" in failed.skipped
    assert not last.skipped


# --- who shares a batch


@pytest.mark.parametrize("name", ["sign-opt", "boundary"])
def test_an_evaluation_is_the_same_in_batches_of_any_size(name: str) -> None:
    model = nearest_mean(robustplug.build("task", "digits"))
    rights = [
        robustplug.evaluate(
            model,
            task="digits",
            attacks=[{"use": name, "queries": 150, "starts": 20}],
            vicinity={"use": "l2", "eps": 0.5},
            samples=12,
            batch_size=size,
        )
        .attacks[1]
        .right
        for size in (12, 5)
    ]
    assert rights[0] == rights[1]
    assert 0 < sum(rights[0]) < 12


def test_large_inputs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustplug_hardlabel.pool.AT_ONCE", 108 * 3)
    step, view, vicinity = make_step()
    few = attack("sign-opt", queries=200, starts=10).samples(step, view, vicinity)
    monkeypatch.undo()
    many = attack("sign-opt", queries=200, starts=10).samples(step, view, vicinity)
    for one, other in zip(few, many, strict=True):
        assert one.asked == other.asked
        assert one.distance == pytest.approx(other.distance, rel=1e-3)


# --- calls


def test_calls_fit_the_caches_of_a_cpu() -> None:
    assert rows_of_call(784, True) == 334
    assert rows_of_call(64, True) == 1024
    assert rows_of_call(3 * 224 * 224, True) == 32
    assert rows_of_call(784, False) == 1024


# --- curves


def a_sample(trace: list[tuple[int, float]]) -> Sample:
    sample = Sample(np.full(4, 0.25, dtype=np.float32), np.random.default_rng(0), math.inf, 0)
    sample.trace = trace
    sample.distance = trace[-1][1] if trace else math.inf
    return sample


def test_curves_are_those_of_the_traces() -> None:
    samples = [a_sample([(1, 4.0), (10, 2.0)]), a_sample([(5, 3.0)]), a_sample([])]
    queries = [1, 4, 5, 9, 10, 20]
    table = distances_at(samples, queries)
    inf = math.inf
    assert table.tolist() == [[4, 4, 4, 4, 2, 2], [inf, inf, 3, 3, 3, 3], [inf] * 6]
    found = summary(table, queries, [2.5, 3.5])
    assert found["median"] == [None, None, 4, 4, 3, 3]
    assert summary(distances_at(samples[1:], queries), queries, [1.0])["median"] == [None] * 6
    assert found["mean"] == [None] * 6
    assert found["success"]["2.5"] == pytest.approx([0, 0, 0, 0, 1 / 3, 1 / 3])
    assert found["success"]["3.5"] == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])


def test_the_boundary_distance_counts_wrong_samples_with_nothing() -> None:
    samples = [a_sample([(1, 0.3)]), a_sample([])]
    assert adbd(samples, 4) == pytest.approx((0.3 + 0.75) / 4)


def test_grids_end_with_the_budget() -> None:
    assert grid(3) == [1, 2, 3]
    assert grid(4000)[-1] == 4000
    assert len(grid(4000)) == 80
    assert {500, 1000, 2000} <= set(grid(4000))


@pytest.mark.slow
def test_the_command_writes_draws_and_prints_curves(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    robustplug.train(
        "erm", overrides=["train.epochs=1", "evaluate.samples=10", "validate.samples=10"], out=run_folder
    )
    suite = tmp_path / "two.toml"
    suite.write_text(
        'schema = 1\nname = "two"\n'
        '[[row]]\nattack = { use = "sign-opt", queries = 300, starts = 20 }\n'
        'vicinity = { use = "l2", eps = 1 }\n'
        '[[row]]\nattack = { use = "rays", queries = 100 }\nvicinity = { use = "linf", eps = 0.2 }\n'
        '[[row]]\nattack = { use = "pgd" }\n'
        '[[row]]\nattack = { use = "rays" }\nvicinity = { use = "l2", eps = 1 }\n'
        '[[row]]\nattack = { use = "sign-opt" }\nshift = { use = "grey" }\n'
    )
    arguments = ["hard-label", "curves", str(run_folder), "--suite", str(suite), "--samples", "12"]
    done = CliRunner().invoke(main, [*arguments, "--threshold", "0.5", "--threshold", "1/2"])
    assert done.exit_code == 0, done.output
    assert "average decision boundary distance" in done.output
    assert "pgd: not run: this attack does not search" in done.output
    folder = run_folder / "evaluations"
    body = json.loads((folder / "hard-label.json").read_text())
    sign, linf, other, refused, shifted = body["rows"]
    assert "needs an L∞ threat model" in refused["failed"]
    assert "rows with a shift" in shifted["failed"]
    assert (sign["norm"], linf["norm"]) == ("l2", "linf")
    assert "failed" in other
    assert sign["queries"][-1] == 300
    assert max(sign["asked"]) <= 300
    assert list(sign["success"]) == ["0.5"]
    assert sign["median"][-1] == pytest.approx(
        sorted(sign["distances"])[len(sign["distances"]) // 2], rel=1e-6
    )
    assert 0 < linf["adbd"] < 1
    assert json.loads((run_folder / "result.json").read_text())["hard-label"]["rows"] == body["rows"]
    names = {path.name for path in (folder / "figures").glob("*.png")}
    assert names == {
        f"hard-label-{what}.png"
        for what in ("distance-l2", "distance-linf", "success-l2", "success-linf", "paths")
    }


def test_curves_of_a_model_that_is_never_right_say_so(tmp_path: Path) -> None:
    class Never:
        classes_ = np.arange(10)

        def predict(self, rows: Any) -> Any:
            # The first images of the digits' test split are of other classes.
            return np.full(len(rows), self.label)

        label = 0

    first = int(next(iter(robustplug.build("task", "digits").batches("test", Feed(batch_size=1)))).y)
    Never.label = (first + 1) % 10
    opened = open_evaluation(Never(), task="digits", attacks=["sign-opt"], samples=1)
    result, paths = measure(opened, [], lambda result, line: None)
    assert result["right"] == 0
    assert result["rows"][0]["failed"] == "no sample is classified correctly"
    assert paths == {}


def test_options_of_searches_are_checked() -> None:
    for wrong in ({"target": "least"}, {"objective": "rough"}, {"queries": 0}):
        with pytest.raises(robustplug.recipe.errors.RecipeError):
            attack("sign-opt", **wrong)


def test_searches_with_scores_alone_or_together_are_the_same() -> None:
    both: list[Any] = [
        scores.zoo(ZooOptions(400, coordinates=8)),
        scores.nes(NesOptions(400, directions=10)),
    ]
    for search in both:
        rng = np.random.default_rng(0)
        normal = rng.normal(size=(2, 16)).astype(np.float32)
        xs = rng.uniform(0.3, 0.7, (5, 16)).astype(np.float32)

        def oracle(points: Array, numbers: Any, normal: Array = normal) -> Any:
            logits = np.einsum("md,kd->mk", points, normal) * 3
            logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            return logs[:, 0] < logs[:, 1], logs

        def samples(rows: Any, xs: Array = xs) -> list[Sample]:
            return [Sample(xs[i], np.random.default_rng(i), 2, 400, 0.5, 0) for i in rows]

        together = samples(range(5))
        run(together, search, oracle, lambda number, sample: False)
        (alone,) = samples([3])
        run([alone], search, oracle, lambda number, sample: False)
        assert (alone.asked, alone.trace) == (together[3].asked, together[3].trace)


def test_classes_of_components_are_what_the_command_looks_for() -> None:
    assert isinstance(attack("sign-opt"), HardLabel)
    assert isinstance(attack("boundary"), Peer)
