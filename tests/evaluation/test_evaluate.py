from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MethodType
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.step import Step
from robustplug.core.types import AttackResult, Batch, Cost, Feed, Split, View
from robustplug.devices.processes import start
from robustplug.evaluation.chunks import regroup
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.rows import use_label
from robustplug.evaluation.setting import Attack
from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.runs.result_file import result_from_json, result_to_json
from robustplug.subjects.data.task import ArrayTask

from ..training.runs import read_json, timeless, tiny

EPS = 0.1
SIZE = 23


class Images(nn.Module):
    """Classify (N, 1, 1, 2) by its larger pixel; dropout and BatchNorm are there to be left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.norm = nn.Dropout(0.9), nn.BatchNorm1d(2, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.dropout(x.flatten(1)))
        return result


def toy_task() -> ArrayTask:
    rng = torch.Generator().manual_seed(3)
    x = torch.rand(SIZE, 1, 1, 2, generator=rng) * 0.6 + 0.2
    y = x.flatten(1).argmax(1)
    y[::7] = 1 - y[::7]
    data = (x, y)
    return ArrayTask(
        {"train": data, "validation": data, "test": data}, class_names=["left", "right"], default_model="none"
    )


def evaluation(model: nn.Module | None = None) -> Evaluation:
    vicinity = robustplug.build("vicinity", "linf", eps=EPS)
    loss = robustplug.build("loss", "ce")
    return Evaluation(model or Images(), toy_task(), vicinity, loss, 0, start("cpu", "float32"))


def all_samples() -> Batch:
    (batch,) = toy_task().batches("test", Feed(batch_size=SIZE))
    return batch


class Fake:
    """An attack made of a function from a view to a view; remembers the samples it was given."""

    def __init__(self, move: Callable[[View], View]) -> None:
        self.move = move
        self.seen: list[int] = []

    def __call__(self, step: Step, view: View, vicinity: Any) -> View:
        assert step.evaluating
        self.seen += view.index.tolist()
        return self.move(view)

    def cost(self, target: Cost) -> Cost:
        return Cost(0, 0)


def run(attacks: Sequence[Fake], batch_size: int = 5) -> tuple[AttackResult, ...]:
    named = [Attack(f"fake {n}", {}, attack) for n, attack in enumerate(attacks)]
    return evaluation().run("test", named, batch_size)


def toward_the_other(view: View, reach: float, rows: Tensor | None = None) -> View:
    """Move the larger pixel down and the smaller up."""
    flat = view.origin.flatten(1)
    sign = torch.where(flat == flat.amax(1, keepdim=True), -1.0, 1.0).view_as(view.origin)
    moved = view.origin + reach * sign
    return view.replace(x=moved if rows is None else torch.where(rows.view(-1, 1, 1, 1), moved, view.origin))


def breakable(reach: float) -> Tensor:
    batch = all_samples()
    flat: Tensor = batch.x.flatten(1)
    return (flat[:, 0] - flat[:, 1]).abs() < 2 * reach


def clean() -> Tensor:
    batch = all_samples()
    right: Tensor = batch.x.flatten(1).argmax(1) == batch.y
    return right


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_accuracy_is_that_of_brute_force_and_only_survivors_go_on(batch_size: int) -> None:
    even = Fake(lambda view: toward_the_other(view, EPS * 0.99, view.index % 2 == 0))
    weak, strong = (
        Fake(lambda view: toward_the_other(view, EPS / 2)),
        Fake(lambda view: toward_the_other(view, EPS)),
    )
    rows = run([even, weak, strong], batch_size)
    standing, outcomes, expected = (
        torch.ones(SIZE, dtype=torch.bool),
        torch.zeros(SIZE, dtype=torch.int64),
        [],
    )
    index = torch.arange(SIZE)
    broken = [~clean(), breakable(EPS * 0.99) & (index % 2 == 0), breakable(EPS / 2), breakable(EPS)]
    for fallen in broken:
        attempted, standing = int(standing.sum()), standing & ~fallen
        outcomes += standing
        expected.append((attempted, attempted - int(standing.sum()), int(standing.sum()) / SIZE))
    assert [(row.attempted, row.broken, row.accuracy) for row in rows] == expected
    assert all(row.broken for row in rows), "the toy data must let every attack break something"
    survived = torch.tensor([row.right for row in rows]).sum(0)
    assert survived.tolist() == outcomes.tolist()
    assert sorted(even.seen) == clean().nonzero()[:, 0].tolist()
    assert sorted(strong.seen) == (outcomes >= 3).nonzero()[:, 0].tolist()
    assert [row.rejected for row in rows] == [0, 0, 0, 0]
    assert rows[0].name == "clean"
    assert rows[0].forwards == 1


def outside(view: View) -> View:
    return toward_the_other(view, EPS * 1.01)


def nowhere(view: View) -> View:
    return view.replace(x=torch.full_like(view.x, torch.nan))


def beyond_the_pixels(view: View) -> View:
    """Stay in the ball of a wider radius, but leave [0, 1]."""
    return view.replace(x=view.origin + torch.tensor([-1.0, 0.0]).view(1, 1, 1, 2))


@pytest.mark.parametrize("move", [outside, nowhere, beyond_the_pixels])
def test_a_result_outside_the_ball_is_thrown_away(move: Callable[[View], View]) -> None:
    rows = run([Fake(move), Fake(lambda view: view)])
    assert rows[1].rejected == rows[1].attempted == int(clean().sum())
    assert rows[1].broken == 0
    assert rows[2].attempted == rows[1].attempted
    assert rows[2].rejected == 0


def relabel(view: View) -> View:
    return view.replace(y=1 - view.y)


def move_the_origin(view: View) -> View:
    far = toward_the_other(view, 0.6)
    return far.replace(origin=far.x)


def widen_the_radius(view: View) -> View:
    return toward_the_other(view, 0.6).replace(radius=torch.ones(len(view)))


@pytest.mark.parametrize("move", [relabel, move_the_origin, widen_the_radius])
def test_what_an_attack_says_about_labels_origins_and_radii_counts_for_nothing(
    move: Callable[[View], View],
) -> None:
    rows = run([Fake(move)])
    assert rows[1].broken == 0


def test_only_the_first_samples() -> None:
    rows = evaluation().run("test", [], 4, samples=10)
    assert len(rows[0].right) == 10
    assert rows[0].accuracy == int(clean()[:10].sum()) / 10
    assert len(evaluation().run("test", [], 4, samples=1000)[0].right) == SIZE


def batches(*sizes: int) -> Iterator[Batch]:
    index = iter(torch.split(torch.arange(sum(sizes)), list(sizes)))
    return (Batch(rows[:, None] * 1.0, rows * 2, rows) for rows in index)


@pytest.mark.parametrize("sizes", [(3, 3, 3), (1, 0, 5, 0, 2), (10,), (0, 0), (4, 4), (2, 11, 1)])
def test_ragged_batches_are_joined(sizes: tuple[int, ...]) -> None:
    joined = list(regroup(batches(*sizes), 4))
    total = sum(sizes)
    assert [len(batch) for batch in joined] == [4] * (total // 4) + ([total % 4] if total % 4 else [])
    index = torch.cat([torch.zeros(0, dtype=torch.int64), *(batch.index for batch in joined)])
    assert index.tolist() == list(range(total))
    assert all(torch.equal(batch.y, 2 * batch.index) for batch in joined)
    assert all(torch.equal(batch.x[:, 0], batch.index.float()) for batch in joined)


def test_batches_that_are_no_tensors_stay_as_they_are() -> None:
    texts = [Batch(["a", "b"], ["c", "d"], torch.arange(2)), Batch([], [], torch.arange(0))]
    assert list(regroup(iter(texts), 4)) == texts[:1]


def test_the_model_is_put_back_as_it_was() -> None:
    model = Images().train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluation(model).run("test", [Attack("pgd", {}, robustplug.build("perturbation", "pgd", steps=2))], 5)
    assert (model.training, model.dropout.training, model.norm.training) == (True, True, False)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    def fail(view: View) -> View:
        raise RuntimeError("the attack is broken")

    rows = evaluation(model).run(
        "test", [Attack("fail", {}, Fake(fail)), Attack("none", {}, Fake(lambda v: v))], 5
    )
    assert rows[1].skipped.startswith("RuntimeError: the attack is broken (test_evaluate.py, line ")
    assert rows[2].accuracy == rows[0].accuracy, "the next attack is run all the same"
    assert (model.training, model.dropout.training, model.norm.training) == (True, True, False)


class Precise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(x.flatten(1))
        return result


def autocasting(module: nn.Module) -> nn.Module:
    """Put an autocasting forward on the instance, as Accelerate does for mixed precision."""
    module._original_forward = module.forward  # type: ignore[assignment]
    plain: Any = type(module).forward
    module.forward = MethodType(torch.autocast("cpu", torch.bfloat16)(plain), module)
    return module


@pytest.mark.parametrize("wrap", [lambda module: module, nn.Sequential], ids=["itself", "inside another"])
def test_a_model_that_was_trained_in_bfloat16_is_evaluated_in_float32(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    plain = Precise()
    x = all_samples().x
    expected = plain(x).detach()
    model = wrap(autocasting(plain))
    assert not torch.allclose(model(x).float(), expected, atol=1e-5, rtol=0)
    heard: list[Tensor] = []

    class Listen(Fake):
        def __call__(self, step: Step, view: View, vicinity: Any) -> View:
            heard.append(step.forward(view.x).detach() - expected[view.index])
            return view

    evaluation(model).run("test", [Attack("listen", {}, Listen(lambda view: view))], 30)
    assert heard
    # Sums of batches of other sizes may differ in their last bit: which do is the processor's choice.
    assert all(difference.dtype == torch.float32 and difference.abs().max() < 1e-6 for difference in heard)
    assert not torch.allclose(model(x).float(), expected, atol=1e-5, rtol=0), "afterwards it autocasts again"


def test_a_forward_that_a_user_put_on_a_module_is_used() -> None:
    model = Images()
    model.forward = lambda x: -x.flatten(1)  # type: ignore[method-assign]
    rows = evaluation(model).run("test", [], 5)
    assert rows[0].accuracy == 1 - int(clean().sum()) / SIZE


def test_evaluation_is_deterministic_and_its_noise_depends_on_the_seed() -> None:
    def noisy(seed: int) -> Any:
        pgd = robustplug.build("perturbation", "noise")
        subject = dataclasses.replace(evaluation(), seed=seed)
        points: list[Tensor] = []
        keep = Fake(lambda view: view)

        class Recorded(Fake):
            def __call__(self, step: Step, view: View, vicinity: Any) -> View:
                moved: View = pgd(step, view, vicinity)
                points.append(moved.x)
                return moved

        rows = subject.run("test", [Attack("noise", {}, Recorded(keep.move))], 5)
        return timeless([dataclasses.asdict(row) for row in rows]), torch.cat(points)

    one, two, other = noisy(0), noisy(0), noisy(1)
    assert one[0] == two[0]
    assert torch.equal(one[1], two[1])
    assert one[1].shape != other[1].shape or not torch.equal(one[1], other[1])


def test_labels_name_the_options_that_differ() -> None:
    margin = resolve(Use("pgd", {"steps": 7, "loss": {"use": "margin"}, "step_size": 0.5}), "perturbation")
    assert use_label(margin, "perturbation") == "pgd (steps=7, step_size=0.5, loss=margin)"
    assert use_label(resolve(Use("fgsm"), "perturbation"), "perturbation") == "fgsm"


ATTACKS = [{"use": "pgd", "steps": 3, "restarts": 2}, {"use": "pgd", "steps": 3, "loss": {"use": "margin"}}]
THREAT = {"use": "linf", "eps": 0.1}


@pytest.fixture(scope="module", params=["float32", "bfloat16", "averaged"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    train: dict[str, Any] = {"precision": "float32", "ema_decay": 0.5}
    if request.param != "averaged":
        train = {"precision": request.param}
    recipe = tiny("pgd-at", seed=4, train=train, method={"vicinity": THREAT}, evaluate={"samples": 90})
    recipe["evaluate"]["attack"] = ATTACKS
    return robustplug.train(recipe, out=tmp_path_factory.mktemp("runs") / "run")


def numbers(result: Any) -> Any:
    body = timeless(result_to_json(result))
    return {key: body[key] for key in ("split", "samples", "threat", "attacks")}


def test_a_run_folder_evaluates_to_the_numbers_of_its_result(trained: Any) -> None:
    stored = result_from_json(read_json(trained.folder / "result.json"))
    again = robustplug.evaluate(trained.folder, device="cpu")
    assert numbers(again) == numbers(stored) == numbers(trained.result)
    assert again.meta["recipe_hash"] == stored.meta["recipe_hash"]


def test_a_module_evaluates_to_the_numbers_of_its_run(trained: Any) -> None:
    again = robustplug.evaluate(
        trained.model,
        task={"use": "digits", "validation": 64, "test": 1600},
        attacks=ATTACKS,
        vicinity=THREAT,
        samples=90,
        seed=4,
        device="cpu",
    )
    assert numbers(again) == numbers(trained.result)


def test_what_the_evaluation_can_be_asked_for(trained: Any) -> None:
    result = robustplug.evaluate(trained.folder, overrides=["evaluate.samples=20"], device="cpu")
    assert (result.samples, len(result.attacks)) == (20, 3)
    assert result.attacks[0].right == trained.result.attacks[0].right[:20]
    result = robustplug.evaluate(
        trained.folder, attacks=["fgsm"], split="validation", samples=30, vicinity={"use": "l2", "eps": 0.2}
    )
    assert (result.split, result.samples, result.threat) == ("validation", 30, {"use": "l2", "eps": 0.2})
    assert [row.name for row in result.attacks] == ["clean", "fgsm"]


def test_only_the_evaluation_of_a_trained_run_can_be_changed(trained: Any) -> None:
    wrong = ["train.epochs=3", "evaluate.samples=20", "method.vicinity.eps=0"]
    with pytest.raises(RecipeError, match=r"only evaluate\.\*") as caught:
        robustplug.evaluate(trained.folder, overrides=wrong)
    assert [problem.override for problem in caught.value.problems] == [wrong[0], wrong[2]]


def test_a_module_needs_a_task() -> None:
    with pytest.raises(TypeError, match='task="digits"'):
        robustplug.evaluate(nn.Linear(2, 2))


def test_any_module_is_evaluated_without_being_changed(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    result = robustplug.evaluate(model, task="digits", attacks=["fgsm"], samples=40, device="cpu")
    assert result.threat == {"use": "linf", "eps": 8 / 255}
    assert result.samples == 40
    assert model.training
    assert model[1].training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_inputs_outside_the_valid_range_are_no_robust_samples(scale: float) -> None:
    subject = evaluation()
    inner = subject.task

    class Scaled:
        """A task that does not say that its inputs are in another range."""

        info, default_model = inner.info, inner.default_model

        def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
            for batch in inner.batches(split, feed):
                yield dataclasses.replace(batch, x=batch.x * scale)

        def score(self, view: View, output: Any) -> Tensor:
            return inner.score(view, output)

    subject = dataclasses.replace(subject, task=cast(Any, Scaled()))
    pgd = Attack("pgd", {}, robustplug.build("perturbation", "pgd", steps=2))
    _, row = subject.run("test", [pgd], 5)
    assert ("outside the valid range" in row.skipped) == (scale > 1)
    assert math.isnan(row.accuracy) == (scale > 1)
