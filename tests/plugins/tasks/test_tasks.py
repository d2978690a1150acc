"""Scores, measures and losses of the tasks against independent transcriptions, and their runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from torch import Tensor

import robustplug
from robustplug.api import Batch, BrokenData, RecipeError, Refused, TaskInfo, View
from robustplug.core.random import stream
from robustplug.evaluation.rows import suite_attacks
from robustplug.recipe.load import read_suite, recipe_from_mapping
from robustplug.run import report
from robustplug_tasks.attacks import segpgd_weights
from robustplug_tasks.classes import OrdinalTask
from robustplug_tasks.labels import MultiLabelTask
from robustplug_tasks.losses import beyond, label_margin, steps
from robustplug_tasks.options import SegmentationOptions
from robustplug_tasks.regression import RegressionTask
from robustplug_tasks.segmentation import SegmentationTask, pixel_losses, right_pixels, segmentation
from robustplug_tasks.shapes import drawn


def view(x: Tensor, y: Tensor) -> View:
    return View.of(Batch(x, y, torch.arange(len(x))))


def normal(*shape: int) -> Tensor:
    return torch.empty(*shape).normal_(0, 1, generator=stream(0, "tasks", *shape))


def test_regression_is_right_within_its_bound() -> None:
    x, y = normal(6, 2), torch.tensor([1.0, 2, 3, 4, 5, 6])
    task = RegressionTask({"test": (x, y)}, bound=0.5, bounds=(-9.0, 9.0))
    output = (y + torch.tensor([0.0, 0.5, -0.5, 0.6, -2.0, 0.1]))[:, None]
    assert task.score(view(x, y), output).tolist() == [True, True, True, False, False, True]
    found = {name: values.double() for name, values in task.measure(view(x, y), output).items()}
    assert found["MAE"].mean() == pytest.approx(3.7 / 6)
    pooled = task.pool(found)
    errors = (output[:, 0] - y).double()
    assert pooled["RMSE"].mean == pytest.approx(math.sqrt(float(errors.square().mean())))
    total = float((y - y.mean()).double().square().sum())
    assert pooled["R²"].mean == pytest.approx(1 - float(errors.square().sum()) / total, abs=1e-6)
    assert task.info.outputs == 1
    assert task.info.classes is None


def test_several_labels_are_right_all_together_or_one_alone() -> None:
    x, y = normal(3, 2), torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 0]])
    output = torch.tensor([[1.0, -1, 2], [1, -1, 2], [1, 1, 1]])
    names = ("a", "b", "c")
    every = MultiLabelTask({"test": (x, y)}, names=names, bounds=(-9.0, 9.0))
    one = MultiLabelTask({"test": (x, y)}, names=names, success="a", bounds=(-9.0, 9.0))
    assert every.score(view(x, y), output).tolist() == [True, False, False]
    assert one.score(view(x, y), output).tolist() == [True, False, True]
    found = every.measure(view(x, y), output)
    assert found["label c"].tolist() == [100, 100, 0]
    assert found["labels"].tolist() == pytest.approx([100, 200 / 3, 200 / 3])
    pooled = every.pool({name: values.double() for name, values in found.items()})
    # a: 2 of 3 predicted are there, all found; b: perfect; c: 2 of 3.
    assert pooled["F1"].mean == pytest.approx(100 * (0.8 + 1 + 0.8) / 3)
    assert label_margin(output, y).tolist() == [-1, 1, 1]
    assert label_margin(output, y, 0).tolist() == [-1, 1, -1]
    # Whether any label is wrong is what the sign says, and at 0 whether that label is there.
    logits, there = (
        torch.tensor([[0.0, -1.0], [0.0, -1.0], [2.0, -1.0]]),
        torch.tensor([[0.0, 0], [1, 0], [0, 0]]),
    )
    pair = MultiLabelTask({"test": (x, there)}, names=("a", "b"), bounds=(-9.0, 9.0))
    assert label_margin(logits, there).tolist() == [0, 0, 2]
    assert pair.score(view(x, there), logits).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="no label 'd'; \"any\", or one of a, b, c"):
        MultiLabelTask({"test": (x, y)}, names=names, success="d")
    with pytest.raises(ValueError, match="row 1 has 2 for 'b'"):
        MultiLabelTask({"test": (x, torch.tensor([[1.0, 0, 1], [0, 2, 1], [1, 1, 0]]))}, names=names)
    with pytest.raises(ValueError, match=r"the shape \(3, 3\): give 0 or 1 for each of 2 labels"):
        MultiLabelTask({"test": (x, y)}, names=("a", "b"))


def test_ordered_classes_count_steps() -> None:
    x, y = normal(4, 2), torch.tensor([0, 1, 2, 3])
    task = OrdinalTask({"test": (x, y)}, ["a", "b", "c", "d"], within=1, bounds=(-9.0, 9.0))
    output = torch.eye(4)[[0, 3, 1, 1]]
    assert task.score(view(x, y), output).tolist() == [True, False, True, False]
    assert task.measure(view(x, y), output)["steps off"].tolist() == [0, 2, 1, 2]


def test_the_losses_of_ordered_classes() -> None:
    logits, labels = normal(5, 4), torch.tensor([0, 1, 2, 3, 1])
    shares = logits.softmax(1)
    expected = [sum(float(shares[n, k]) * abs(k - int(labels[n])) for k in range(4)) for n in range(5)]
    assert steps(logits, labels).tolist() == pytest.approx(expected)
    rows = torch.nn.functional.one_hot(labels, 4).float()
    assert steps(logits, rows).tolist() == pytest.approx(expected)
    for within in (0, 1, 2):
        far = [[float(logits[n, k]) for k in range(4) if abs(k - int(labels[n])) > within] for n in range(5)]
        near = [
            [float(logits[n, k]) for k in range(4) if abs(k - int(labels[n])) <= within] for n in range(5)
        ]
        found = beyond(logits, labels, within).tolist()
        assert all(math.isfinite(value) for value in found)
        pairs = [(value, max(a) - max(b)) for value, a, b in zip(found, far, near, strict=True) if a]
        assert [value for value, _ in pairs] == pytest.approx([value for _, value in pairs])
        off = (logits.argmax(1) - labels).abs() > within
        assert [value > 0 for value in found] == off.tolist()


def test_segmentation_counts_pixels() -> None:
    x, y = torch.rand(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
    y[0, :2], y[1, 0, 0] = 1, 255
    task = SegmentationTask({"test": (x, y)}, classes=3, bound=0.7)
    seen = y.clone()
    seen[0, 0], seen[1, 0, 0], seen[1, 3] = 2, 0, 1
    output = torch.nn.functional.one_hot(seen, 3).permute(0, 3, 1, 2).float()
    assert task.shares(view(x, y), output).tolist() == pytest.approx([12 / 16, 11 / 15])
    assert task.score(view(x, y), output).tolist() == [True, True]
    found = {name: values.double() for name, values in task.measure(view(x, y), output).items()}
    # Class 0: 8 + 11 shared of 8 + 15; class 1: 4 shared of 8 + 4; class 2 is predicted alone.
    assert task.pool(found)["mIoU"].mean == pytest.approx(100 * (19 / 23 + 4 / 12 + 0) / 3)
    assert float(pixel_losses(output, y)[1, 0, 0]) == 0
    with pytest.raises(ValueError, match=r"labels have the shape \(2, 3, 4\)"):
        SegmentationTask({"test": (x, y[:, :3])})
    with pytest.raises(ValueError, match="classes: there are 1, and a pixel has the class 1"):
        SegmentationTask({"test": (x, y)}, classes=1)


def test_outputs_that_are_no_numbers_are_wrong() -> None:
    x, nan, inf = normal(3, 2), float("nan"), float("inf")
    ordered = OrdinalTask({"test": (x, torch.zeros(3).long())}, ["a", "b", "c"], 1, bounds=(-9.0, 9.0))
    output, seen = (
        torch.tensor([[1.0, 0, 0], [nan, nan, nan], [inf, 0, 0]]),
        view(x, torch.zeros(3).long()),
    )
    assert ordered.score(seen, output).tolist() == [True, False, False]
    assert ordered.measure(seen, output)["steps off"].tolist() == [0, 2, 2]
    assert ordered.measure(seen, output)["exact"].tolist() == [100, 0, 0]
    right, _ = right_pixels(output[:, :, None, None], torch.zeros(3, 1, 1).long())
    assert right.flatten().tolist() == [True, False, False]
    numbers = RegressionTask({"test": (x, torch.zeros(3))}, bound=0.5, bounds=(-9.0, 9.0))
    output, seen = torch.tensor([[0.0], [nan], [-inf]]), view(x, torch.zeros(3))
    assert numbers.score(seen, output).tolist() == [True, False, False]
    found = numbers.measure(seen, output)
    assert found["MAE"].tolist() == [0, inf, inf]
    pooled = numbers.pool(found)
    assert (pooled["RMSE"].mean, pooled["R²"].mean, pooled["RMSE"].count) == (inf, -inf, 3)

    y = torch.tensor([[0.0, 1], [1, 0], [0, 0]])
    labels = MultiLabelTask({"test": (x, y)}, names=("a", "b"), bounds=(-9.0, 9.0))
    output = torch.tensor([[-1.0, inf], [2, -1], [nan, nan]])
    assert labels.score(view(x, y), output).tolist() == [True, True, False]
    scores = labels.pool(labels.measure(view(x, y), output))
    # Of each label one is there and is found, and one of two that are absent is taken as there.
    assert scores["F1"].mean == pytest.approx(100 * 2 / 3)
    assert scores["AUROC"].mean == pytest.approx(100 * (0.5 + 0.75) / 2)

    y = torch.zeros(2, 4, 4, dtype=torch.int64)
    pixels = SegmentationTask({"test": (torch.rand(2, 1, 4, 4), y)}, classes=2)
    output = torch.stack([torch.ones(2, 4, 4), torch.zeros(2, 4, 4)], 1)
    output[1] = nan
    assert pixels.score(view(torch.rand(2, 1, 4, 4), y), output).tolist() == [True, False]


def test_outputs_of_another_shape_are_refused() -> None:
    x, y, pixels = normal(3, 2), torch.zeros(3, 2), torch.zeros(3, 4, 4, dtype=torch.int64)
    numbers = RegressionTask({"test": (x, y[:, 0])}, bound=0.5, bounds=(-9.0, 9.0))
    with pytest.raises(Refused, match=r"one number for each input, and the model returns \(3, 2\)"):
        numbers.score(view(x, y[:, 0]), torch.zeros(3, 2))
    labels = MultiLabelTask({"test": (x, y)}, names=("a", "b"), bounds=(-9.0, 9.0))
    with pytest.raises(Refused, match=r"2 labels need a logit each, .* the model returns \(3, 1\)"):
        labels.score(view(x, y), torch.zeros(3, 1))
    task, seen = SegmentationTask({"test": (torch.rand(3, 1, 4, 4), pixels)}, classes=2), view(x, pixels)
    with pytest.raises(Refused, match=r"logits \(N, K, 4, 4\), and the model returns \(3, 2\)"):
        task.score(seen, torch.zeros(3, 2))
    with pytest.raises(Refused, match="the model has 5 classes, and the task 2"):
        task.measure(seen, torch.zeros(3, 5, 4, 4))


@pytest.mark.parametrize("target", ["random", "least-likely"])
def test_a_target_needs_classes(target: str) -> None:
    x, y = torch.rand(6, 3), torch.rand(6)
    task = RegressionTask({"test": (x, y)}, bound=9.0)
    attack = {"use": "pgd", "target": target, "steps": 1}
    result = robustplug.evaluate(
        torch.nn.Linear(3, 1), data=task, threat={"use": "linf", "eps": 0.1}, attacks=[attack]
    )
    assert result.attacks[1].skipped == "a targeted attack needs classes, and the task has none"


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((9, 1, 4, 4)), np.full((9, 4, 4), "a"), "the type <U1: give a class number"),
        (np.full((9, 1, 4, 4), "a"), np.zeros((9, 4, 4)), "the type <U1: give numbers"),
        (np.zeros((0, 1, 4, 4)), np.zeros((0, 4, 4)), "the labels are empty"),
        (
            np.zeros((9, 1, 4, 4)),
            np.full((9, 4, 4), 300, np.uint16),
            "the class 300: classes are from 0 to 254",
        ),
    ],
)
def test_arrays_that_are_no_images_and_classes_are_named(
    x: Any, y: Any, message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", x=x, y=y)
    with pytest.raises(ValueError, match=message):
        segmentation(SegmentationOptions(data=str(tmp_path / "a.npz")))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez_compressed(
        file, x=np.random.default_rng(0).random((9, 1, 4, 4)), y=np.zeros((9, 4, 4), np.int64)
    )
    found = bytearray(file.read_bytes())
    found[200:300] = bytes(100)
    file.write_bytes(found)
    with pytest.raises(BrokenData, match=r"a\.npz cannot be read"):
        segmentation(SegmentationOptions(data=str(file)))


def test_objects_in_an_archive_are_not_unpickled(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, x=np.zeros((9, 1, 4, 4)), y=np.array([None] * 9, dtype=object))
    with pytest.raises(BrokenData, match="the array y is damaged, or holds Python objects"):
        segmentation(SegmentationOptions(data=str(file)))
    with ZipFile(file, "w") as archive:
        archive.writestr("x", b"text")
        archive.writestr("y", b"text")
    with pytest.raises(BrokenData, match="x is no array"):
        segmentation(SegmentationOptions(data=str(file)))


def test_segpgd_turns_from_right_pixels_to_all() -> None:
    right = torch.tensor([[[True, False]]])
    assert segpgd_weights(right, 0, 10).flatten().tolist() == [1.0, 0.0]
    assert segpgd_weights(right, 5, 10).flatten().tolist() == [0.75, 0.25]
    assert segpgd_weights(right, 10, 10).flatten().tolist() == [0.5, 0.5]


def test_shapes_are_the_same_however_many_there_are() -> None:
    x, y, present = drawn(6, 16, 0.05, 0)
    fewer, _, _ = drawn(3, 16, 0.05, 0)
    assert torch.equal(x[:3], fewer)
    assert x.shape == (6, 1, 16, 16)
    assert bool(((x >= 0) & (x <= 1)).all())
    for kind in range(3):
        assert torch.equal(present[:, kind].bool(), (y == kind + 1).flatten(1).any(1))
    assert not torch.equal(drawn(3, 16, 0.05, 1)[0], fewer)


def test_images_and_masks_come_from_a_file(tmp_path: Path) -> None:
    x, y, _ = drawn(20, 8, 0.0, 0)
    file = tmp_path / "masks.npz"
    np.savez(file, x=(255 * x).round().byte().numpy(), y=y.numpy())
    task = robustplug.build("task", "segmentation", data=str(file))
    assert task.info.sizes == {"train": 14, "validation": 2, "test": 4}
    assert task.info.shape == (1, 8, 8)
    np.savez(file, x=x.numpy())
    with pytest.raises(ValueError, match="has no array 'y'"):
        robustplug.build("task", "segmentation", data=str(file))


SMALL: dict[str, dict[str, Any]] = {
    "regression": {
        "task": {"use": "regression", "bound": 60.0},
        "model": {"use": "regressor", "hidden": [8]},
    },
    "ordinal": {"task": {"use": "ordinal", "cuts": [100, 200]}, "model": {"use": "mlp", "hidden": [8]}},
    "multi-label": {
        "task": {"use": "multi-label", "samples": 60, "size": 8},
        "model": {"use": "small-cnn", "width": 4, "hidden": 8},
    },
    "shapes": {
        "task": {"use": "shapes", "samples": 60, "size": 8},
        "model": {"use": "small-fcn", "width": 4},
    },
}


@pytest.mark.parametrize(
    "name",
    [
        "regression",
        "shapes",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ordinal", "multi-label")),
    ],
)
def test_runs_rows_and_pages_work(name: str, tmp_path: Path) -> None:
    pixels = name in ("shapes", "multi-label")
    vicinity = {"use": "linf", "eps": 0.1} if pixels else {"use": "scaled", "scales": "std", "eps": 0.2}
    attack = {"use": "seg-pgd", "steps": 3} if name == "shapes" else {"use": "apgd", "steps": 5}
    recipe = {
        **SMALL[name],
        "method": {"use": "pgd-at", "vicinity": vicinity, "perturbation": {"use": "pgd", "steps": 1}},
        "optimizer": {"use": "adamw", "lr": 0.01},
        "train": {"epochs": 1, "batch_size": 64},
        "validate": {"attack": {"use": "none"}},
        "evaluate": {"attack": [{"use": "worst", "attack": attack}, {"use": "pgd", "steps": 3}]},
    }
    run = robustplug.train(recipe, out=tmp_path / "run")
    clean, worst, _ = run.result.attacks
    size = run.result.samples
    assert worst.attempted == size
    assert len(clean.right) == len(worst.right) == size
    quantity = {"regression": "MAE", "ordinal": "steps off", "multi-label": "labels", "shapes": "mIoU"}[name]
    better = name in ("multi-label", "shapes")
    gap = clean.measures[quantity].mean - worst.measures[quantity].mean
    assert gap >= 0 if better else gap <= 0
    # A suite's loss is for classes, if it states none: the attack ascends that of the evaluation.
    suite = {"name": "s", "row": [{"attack": {"use": "pgd", "steps": 3}}]}
    rows = robustplug.evaluate(run.folder, suite=suite).attacks
    if name != "ordinal":
        alone = robustplug.evaluate(run.folder, attacks=[{"use": "pgd", "steps": 3}]).attacks
        assert rows[1].right == alone[1].right
    assert not rows[1].skipped
    kept = robustplug.evaluate(run.folder, keep_examples=True).examples
    assert kept is None or kept.label.shape[0] == len(kept)
    page = report(run.folder, compute=False).page.read_text()
    assert quantity in page


def test_an_attack_of_classes_in_an_ensemble_is_found() -> None:
    both = {"use": "ensemble", "attacks": [{"use": "pgd"}, {"use": "square"}]}
    table = {**SMALL["multi-label"], "method": {"use": "pgd-at", "vicinity": {"use": "linf", "eps": 0.1}}}
    recipe = recipe_from_mapping({**table, "evaluate": {"attack": [{"use": "pgd"}]}})
    with pytest.raises(RecipeError, match='"square" is for classes') as error:
        recipe_from_mapping({**table, "evaluate": {"attack": [both]}})
    assert [problem.key for problem in error.value.problems] == ["evaluate.attack.0.attacks.1"]
    threat = recipe.method.options.vicinity
    suite = read_suite({"name": "s", "row": [{"attack": both}]}, {"use": "linf", "eps": 0.1})
    info = TaskInfo(sizes={"test": 4}, shape=(1, 8, 8), classes=None, mean=(0.5,), std=(0.5,))
    (row,) = suite_attacks(suite, threat, (), info)
    assert row.refused == 'perturbation "square" is for classes, and the task has none'


@pytest.mark.parametrize(
    ("name", "task", "fits"),
    [
        ("rays", "shapes", False),
        ("hop-skip-jump", "shapes", False),
        ("rays", "multi-label", True),
        ("sign-opt", "regression", True),
        ("zoo", "multi-label", False),
    ],
)
def test_hard_label_attacks_of_other_labels_are_refused_when_the_recipe_is_read(
    name: str, task: str, fits: bool
) -> None:
    table = {
        **SMALL[task],
        "method": {"use": "erm"},
        "evaluate": {"vicinity": {"use": "linf", "eps": 0.1}, "attack": [{"use": name}]},
    }
    if fits:
        recipe_from_mapping(table)
        return
    with pytest.raises(RecipeError, match=f'"{name}" is for classes.*labels of the task are') as error:
        recipe_from_mapping(table)
    assert [problem.key for problem in error.value.problems] == ["evaluate.attack.0"]


def test_a_suite_leaves_out_the_attacks_that_are_for_other_labels(tmp_path: Path) -> None:
    rows = [{"attack": {"use": name, "queries": 20}} for name in ("rays", "sign-opt")]
    suite = {"name": "s", "row": [*rows, {"attack": {"use": "pgd", "steps": 1}}]}
    table = {**SMALL["shapes"], "method": {"use": "erm"}, "train": {"epochs": 1}}
    table["evaluate"] = {"vicinity": {"use": "linf", "eps": 0.1}, "attack": [], "samples": 4}
    run = robustplug.train({**table, "validate": {"attack": {"use": "none"}}}, out=tmp_path / "run")
    found = robustplug.evaluate(run.folder, suite=suite)
    _, rays, sign_opt, pgd = found.attacks
    assert rays.skipped == (
        'perturbation "rays" is for classes or numbers or label-sets, and the labels of the task are pixels'
    )
    assert "are pixels" in sign_opt.skipped
    assert not pgd.skipped


def test_an_audit_says_which_checks_need_classes(tmp_path: Path) -> None:
    recipe = {
        **SMALL["regression"],
        "method": {"use": "erm", "vicinity": {"use": "scaled", "scales": "std", "eps": 0.2}},
        "train": {"epochs": 1},
        "validate": {"attack": {"use": "none"}},
    }
    run = robustplug.train(recipe, out=tmp_path / "run")
    found = robustplug.audit(run.folder)
    states = {finding.check: finding.verdict for finding in found.findings}
    needing = ("cross-entropy", "other-losses", "black-box", "attack-power", "gradients")
    assert {states[check] for check in needing} == {"not run"}
    reasons = {row.name: row.skipped for row in found.result.attacks}
    assert reasons["apgd-t"] == 'perturbation "apgd-t" is for classes, and the task has none'
    assert reasons["margin"] == 'loss "margin" is for classes, and the task has none'
    assert not reasons["pgd"]
    assert found.grade in ("U", "B")


def test_apgd_on_the_loss_of_the_evaluation_reaches_the_optimum_of_a_linear_model() -> None:
    from robustplug.api import Objective, Step

    weights = torch.tensor([[1.0, -2.0, 0.5]])
    model = torch.nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.copy_(weights)
        model.bias.zero_()
    x, y = torch.full((4, 3), 0.5), torch.tensor([-1.0, -2.0, 1.0, 2.0])
    task = RegressionTask({"test": (x, y)}, bound=10.0)
    assert isinstance(task.info, TaskInfo)
    loss = robustplug.build("loss", "absolute")
    batch = Batch(x, y, torch.arange(4))
    objective = Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)
    step = Step(model, objective, task, batch, stream(0, "apgd"), evaluating=True)
    vicinity = robustplug.build("vicinity", "linf", eps=0.1)
    attack = robustplug.build("perturbation", "worst", attack={"use": "apgd", "steps": 30})
    moved = attack(step, View.of(batch, "adv"), vicinity)
    error = (model(moved.x)[:, 0] - y).abs()
    clean = (model(x)[:, 0] - y).abs()
    assert torch.allclose(error, clean + 0.1 * weights.abs().sum(), atol=1e-4)
    assert step.evaluating


def test_a_task_that_is_an_object_has_the_defaults_of_its_component() -> None:
    x = torch.rand(20, 3, generator=stream(0, "given"))
    weights = torch.tensor([[1.0, -2.0, 0.5]])
    task = RegressionTask({"test": (x, (x @ weights.T)[:, 0])}, bound=0.2)
    model = torch.nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(weights)
    result = robustplug.evaluate(model, data=task, threat={"use": "linf", "eps": 0.1}, attacks=["apgd"])
    clean, attacked = result.attacks
    assert clean.accuracy == 1
    assert clean.measures["MAE"].mean == pytest.approx(0, abs=1e-6)
    # The largest error is 0.35 inside the range of the inputs, and at least 0.2 near most of its edges.
    assert attacked.accuracy < 0.5
    with pytest.raises(RecipeError, match="labels of the task are numbers"):
        robustplug.evaluate(model, data=task, threat={"use": "linf", "eps": 0.1}, attacks=["apgd-ce"])
