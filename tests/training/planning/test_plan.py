"""`robustplug plan`: what is measured here, what is arithmetic, and what it says of both."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import robustplug
from robustplug.core.types import Cost
from robustplug.errors import RunError
from robustplug.recipe.load import read_recipe
from robustplug.training.planning import plan as planning
from robustplug.training.planning.measure import Measured
from robustplug.training.planning.plan import Asked, _by_epoch, cost_of, plan
from robustplug.training.planning.scaling import Links
from tests.cli.conftest import run_cli

TINY = ["model.width=2", "method.perturbation.steps=3", "train.batch_size=8", "validate.samples=10"]


@pytest.fixture(scope="module")
def planned() -> dict[str, Any]:
    asked = Asked(nodes=2, gpus=2, price=3.0, seconds=3.0, links=Links(1e9, 1e8, 1e-5))
    return plan("pgd-at", [*TINY, "train.device=cpu"], asked)


def test_passes_and_updates_are_those_of_the_recipe(planned: dict[str, Any]) -> None:
    info = robustplug.build("task", "digits").info
    cost = robustplug.build("method", "pgd-at", perturbation={"use": "pgd", "steps": 3}).cost()
    assert cost == Cost(4, 4)
    passes = planned["passes"]
    assert (passes["forwards_per_sample"], passes["backwards_per_sample"]) == tuple(cost)
    assert passes["total"] == 8 * info.sizes["train"] * planned["epochs"]
    assert planned["updates"] == -(-info.sizes["train"] // 8) * planned["epochs"]
    assert (planned["batch_size"], planned["rows"]) == (8, 2)


def test_hours_memory_and_cost_follow_from_what_is_measured(planned: dict[str, Any]) -> None:
    network = robustplug.build("model", "small-cnn", width=2, info=robustplug.build("task", "digits").info)
    weights = sum(each.numel() * 4 for each in network.parameters())
    assert planned["measured"]["gradient_bytes"] == weights
    # Weights, gradients and momentum; a checkpoint has no gradients.
    assert 3 * weights <= planned["memory"]["state"] < 3 * weights + 2000
    assert 2 * weights <= planned["checkpoint_bytes"] < 2 * weights + 4000
    update = planned["update"]
    measured, rows = planned["measured"], planned["rows"]
    assert update["computing"] == pytest.approx(measured["fixed"] + rows * measured["row"])
    assert update["seconds"] == pytest.approx(update["computing"] + update["exchange"])
    hours = planned["hours"]
    assert hours["training"] == pytest.approx(planned["updates"] * update["seconds"] / 0.9 / 3600)
    assert planned["device_hours"] == pytest.approx(4 * hours["total"])
    assert planned["cost"] == pytest.approx(3.0 * planned["device_hours"])
    said = " ".join(planned["how"])
    assert "Measured here" in said
    assert "Assumed: 1 GB/s between the devices of a node, 0.1 GB/s between nodes" in said
    assert json.loads(json.dumps(planned)) == planned


def test_memory_is_that_of_a_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Measured("CPU", {2: 1.0, 8: 2.0}, {0: (1, 1)}, 40, 100, 1000.0, 0, 50, 96, 10)
    monkeypatch.setattr(planning, "measure", lambda *_: found)
    settings = ["train.batch_size=64", "train.sync_batch_norm=true", "train.micro_batch=4"]
    whole, parts = (plan("erm", settings[:each], Asked(gpus=2)) for each in (1, 3))
    assert whole["memory"]["bytes"] == 100 + 32 * 1000
    assert parts["memory"]["bytes"] == 100 + 4 * 1000
    assert "BatchNorm exchanges" in " ".join(parts["how"])
    assert "BatchNorm" not in " ".join(whole["how"])


def test_validation_counts_the_samples_of_its_own_split(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Measured("CPU", {2: 0.2, 8: 0.8}, {0: (1, 1)}, 40, 100, 1000.0, 0, 50, 10_000, 30)
    monkeypatch.setattr(planning, "measure", lambda *_: found)

    def hours(samples: int, **asked: Any) -> float | None:
        words = ["train.epochs=4", "validate.every=2", f"validate.samples={samples}"]
        said: float | None = plan("pgd-at", words, Asked(efficiency=1.0, **asked))["hours"]["validation"]
        return said

    # A pass of a row takes a third of 0.1 s, and its backward pass two; twice ten steps, and two looks.
    attack = robustplug.build("perturbation", "pgd", steps=10, keep="best").cost(Cost(0, 0)) + (2, 0)
    sample = 0.1 * (attack.forwards + 2 * attack.backwards) / 3 / 3600
    assert hours(7) == pytest.approx(2 * 7 * sample)
    assert hours(1000) == pytest.approx(2 * 30 * sample), "all that there are, and not those of training"
    # Random data have no split of their own, so what is asked for is taken to be there.
    assert hours(1000, stand_in=((1, 8, 8), 10, 500)) == pytest.approx(2 * 1000 * sample)
    recipe = read_recipe("pgd-at")
    whole = dataclasses.replace(recipe, validate=dataclasses.replace(recipe.validate, samples=None))
    assert planning._validated(whole, found) == 30
    assert planning._validated(whole, dataclasses.replace(found, validation=None)) is None


def test_numbers_of_devices_that_do_not_divide_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Measured("CPU", {2: 0.2, 8: 0.8}, {0: (1, 1)}, 40, 100, 1000.0, 0, 50, 960, 30)
    monkeypatch.setattr(planning, "measure", lambda *_: found)

    def made(batch: int, nodes: int, gpus: int) -> tuple[list[int], str]:
        planned = plan("erm", [f"train.batch_size={batch}"], Asked(nodes=nodes, gpus=gpus))
        return [row["devices"] for row in planned["scaling"]["table"]], " ".join(planned["how"])

    devices, said = made(512, 2, 8)
    assert devices == [1, 8, 64, 512]
    assert "divided equally" not in said
    # Nodes are used as a whole: 11 with six devices, and not 10.67.
    devices, said = made(600, 2, 6)
    assert devices == [1, 6, 66, 510]
    assert "On 66 and 510 devices, 600 rows cannot be divided equally" in said
    devices, said = made(100, 3, 1)
    assert "On 3 and 8 and 64 devices, 100 rows cannot be divided equally" in said


def test_between_two_epochs_of_other_cost_the_greater_counts() -> None:
    cheap, dear = (31.0, 31.0), (53.0, 51.0)
    assert _by_epoch({0: cheap, 3: cheap, 6: dear, 8: dear}, 9) == [cheap] * 4 + [dear] * 5
    assert _by_epoch({8: dear}, 9) == [dear] * 9


def test_a_warm_up_is_found() -> None:
    found = plan("iaat", [*TINY, "method.warmup=5", "train.epochs=12", "train.device=cpu"], Asked(seconds=60))
    tried = {int(epoch): tuple(each) for epoch, each in found["measured"]["passes"].items()}
    # A clean forward, three steps and the update; then two candidates of three steps and a look come first.
    assert tried[0] == tried[4] == (5.0, 4.0)
    assert tried[11][0] >= 5.0 + 4.0
    assert tried[5][1] >= 4.0 + 3.0
    assert "right about every clean sample" in " ".join(found["how"])


def test_a_faster_device_and_a_memory_are_taken_into_account() -> None:
    found = Measured("CPU", {2: 1.0, 4: 1.5}, {0: (1, 1)}, 8, 8, 1.0, 4, 8, 100, 10)
    cost = cost_of(found, faster=2.0)
    assert (cost.fixed, cost.row, cost.gradients, cost.memory) == (0.25, 0.125, 8, 12.0)


def test_the_command_says_what_is_measured_and_what_is_assumed(tmp_path: Path) -> None:
    words = [word for each in TINY for word in ("--set", each)]
    done = run_cli("plan", "pgd-at", "--seconds", "1", "--json", str(tmp_path / "plan.json"), *words)
    assert done.exit_code == 0, done.output
    for text in ("Measured here, on a", "Assumed: a device computes", "checkpoint", "same batch"):
        assert text in done.output
    assert " cost " not in done.output
    assert json.loads((tmp_path / "plan.json").read_text())["cost"] is None


@pytest.mark.parametrize(
    "words",
    [
        ("--faster", "inf"),
        ("--price", "nan"),
        ("--reached", "nan"),
        ("--shape", "3,99999999999999999999"),
        ("--shape", "9" * 5000),
        ("--shape", "3,0"),
    ],
)
def test_absurd_numbers_are_refused(words: tuple[str, str]) -> None:
    done = run_cli("plan", "pgd-at", *words)
    assert done.exit_code == 2, done.output
    assert words[0] in done.output


def test_more_devices_than_rows_are_refused() -> None:
    with pytest.raises(RunError, match="a batch of 8 rows is less than one for each of 16 devices"):
        plan("pgd-at", TINY, Asked(nodes=2, gpus=8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 100 images in the layout of ImageNet, ten classes of random pixels."""
    root, rng = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for label in range(10):
            place = root / split / f"n{label:08d}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return root


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["pgd-at-imagenet", "iaat-imagenet"])
def test_a_recipe_for_imagenet_makes_an_update_and_is_evaluated(
    name: str, folder: Path, tmp_path: Path
) -> None:
    small = [
        f"task.root={folder}",
        "task.size=32",
        "task.workers=0",
        "task.validation=0.2",
        "train.epochs=1",
        "train.batch_size=64",
        "train.device=cpu",
        "method.perturbation.steps=2",
        "method.vicinity.eps=4/255",
        "validate.samples=4",
        "validate.attack.steps=1",
        "evaluate.samples=4",
        "evaluate.attack.0.steps=2",
    ]
    if name == "iaat-imagenet":
        small += ["method.warmup=0", "method.selection.steps=1"]
    trained = robustplug.train(name, overrides=small, out=tmp_path / name)
    assert len(trained.history) == 1
    assert [row.skipped for row in trained.result.attacks] == ["", ""]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_imagenet_is_planned_without_its_data() -> None:
    asked = Asked(nodes=16, gpus=8, seconds=1.0, stand_in=((3, 64, 64), 1000, 1_281_167))
    found = plan("iaat-imagenet", ["train.device=cpu"], asked)
    assert (found["rows"], found["updates"]) == (32, 313 * 110)
    assert 90e6 < found["measured"]["gradient_bytes"] < 110e6, "25.6 million weights"
    # Weights and momentum; a radius for each image in four bytes, and 32 snapshots of all in two.
    assert found["checkpoint_bytes"] == pytest.approx(204.5e6 + (4 + 32 * 2) * 1_281_167, rel=0.01)
    assert "stand in" in " ".join(found["how"])
