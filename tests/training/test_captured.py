"""Updates that are replayed give the same as updates that run as they are written, bit for bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

import robustplug
from robustplug.builtin.tasks import augment, picture_task
from robustplug.errors import RunError
from robustplug.plugin.component import Component, NoOptions
from robustplug.plugin.host import registry
from robustplug.training.running import captured

from . import capturing as own
from .capturing import COMPONENTS, Told, capturing, replays
from .recording import Call, Recordings, Waits
from .runs import merged, offered, outcome, tiny
from .test_resume import Killed, kill_after_save

# Nine batches of 16 an epoch: the first one watched, three to warm up, and the last one of five.
SMALL: dict[str, Any] = {
    "train": {"epochs": 2, "batch_size": 16},
    "evaluate": {"samples": 8, "attack": [{"use": "fgsm"}]},
    "validate": {"samples": 8},
}
REPLAYS = 4 + 7
# Methods of pictures that the recipe fits; those first whose every update is replayed.
WHOLE = ["erm", "pgd-at", "fast-at", "n-fgsm", "trades", "bilateral"]
METHODS = [
    component.name
    for (kind, _), component in registry().components.items()
    if kind == "method" and not component.tasks
]


def without_recipe(value: Any) -> Any:
    """Leave out what names the recipe: it holds how updates were run."""
    if isinstance(value, dict):
        return {key: without_recipe(each) for key, each in value.items() if "recipe" not in key}
    return [without_recipe(each) for each in value] if isinstance(value, list) else value


def left(folder: Path) -> Any:
    return without_recipe(outcome(folder))


def compared(recipe: dict[str, Any], tmp_path: Path, **given: Any) -> tuple[list[Recordings], Told]:
    """Train as it is written and captured, and require the same of both."""
    told = Told()
    eager, other = tmp_path / "eager", tmp_path / "captured"
    robustplug.train(recipe, out=eager, reporter=Told(), **given)
    with capturing() as made:
        robustplug.train(recipe, out=other, reporter=told, **given)
    assert left(eager) == left(other)
    return made, told


def small(method: str, **tables: Any) -> dict[str, Any]:
    return merged(tiny(method), merged(SMALL, tables))


@pytest.mark.table
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_same_bits_captured(method: str, tmp_path: Path) -> None:
    made, told = compared(small(method), tmp_path)
    if method in WHOLE:
        assert (replays(made), told.slower) == (REPLAYS, [])
    else:  # what is not replayed is told
        assert replays(made) or told.slower


def test_all_passes_of_a_batch_are_replayed(tmp_path: Path) -> None:
    made, told = compared(merged(small("free-at"), {"method": {"replays": 3}}), tmp_path)
    # Of 27 updates of an epoch, the first one and the last three run as they are written; three warm up.
    assert (replays(made), told.slower) == (2 * (27 - 1 - 3) - 3, [])


VARIANTS: dict[str, dict[str, Any]] = {
    "averaged weights": {"train": {"ema_decay": 0.9}},
    "a schedule": {"schedule": {"use": "warm-up", "epochs": 1, "then": {"use": "cosine"}}},
    "adamw and clipping": {"optimizer": {"use": "adamw", "lr": 0.01}, "train": {"clip_grad_norm": 0.1}},
    "class weights": {"train": {"class_weights": "balanced"}},
    "no channels-last": {"train": {"channels_last": False}},
    "bfloat16": {"train": {"precision": "bfloat16"}},
    "groups": {"optimizer": {"groups": [{"params": ["network.19"], "lr": 0.01}]}},
}


@pytest.mark.table
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_setting_gives_the_same_bits_captured(variant: str, tmp_path: Path) -> None:
    made, told = compared(small("pgd-at", **VARIANTS[variant]), tmp_path)
    assert (replays(made), told.slower) == (REPLAYS, [])


def test_graphs_hold_the_augmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cropped, crop = list[int](), augment.random_crop

    def counting(x: torch.Tensor, *given: Any) -> torch.Tensor:
        cropped.append(len(x))
        return crop(x, *given)

    monkeypatch.setattr(augment, "random_crop", counting)
    made, told = compared(small("pgd-at", task={"augment": True}), tmp_path)
    assert (replays(made), told.slower) == (REPLAYS, [])
    # Both runs look at a first batch. Of the 16 whole batches of two epochs, one crops all by Python, and the
    # other the two first ones, three to warm up, and one while it is captured.
    assert cropped.count(16) == (1 + 16) + (1 + 2 + 3 + 1)


def folder_of_digits(root: Path, count: int) -> str:
    """Write digits as pictures in a folder for each class, and return where."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:count], digits.target, strict=False)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype("uint8")).save(root / str(label) / f"{number}.png")
    return str(root)


@pytest.mark.table(1)
@pytest.mark.parametrize("mixed", [False, True])
def test_graphs_hold_the_augmentation_of_kept_pictures_and_of_mixtures(
    mixed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cropped, crop = list[int](), augment.random_crop

    def counting(x: torch.Tensor, *given: Any) -> torch.Tensor:
        cropped.append(len(x))
        return crop(x, *given)

    monkeypatch.setattr(picture_task, "random_crop", counting)
    root = folder_of_digits(tmp_path / "digits", 200)
    folder = {"use": "image-folder", "root": root, "augment": True, "workers": 0}
    recipe = small("pgd-at")
    recipe["task"] = {"use": "mix", "base": folder, "extra": folder, "share": 0.5} if mixed else folder
    made, told = compared(recipe, tmp_path)
    assert told.slower == []
    size = robustplug.build("task", recipe["task"].pop("use"), **recipe["task"]).info.sizes["train"]
    whole, parts = 2 * (size // 16), 2 if mixed else 1
    # All are cropped by Python in one run, and in the other all but those that are replayed.
    assert replays(made) > whole // 2
    assert cropped.count(16 // parts) == parts * (2 * (1 + whole) - replays(made) + 1)


def test_an_average_that_begins_after_a_warm_up_is_in_the_graphs_from_then_on(tmp_path: Path) -> None:
    recipe = small("ema")
    made, told = compared({**recipe, "method": {**recipe["method"], "warmup": 1, "decay": 0.8}}, tmp_path)
    assert told.slower == []
    assert replays(made) > 0


def test_mixed_labels_give_the_same_bits_captured(tmp_path: Path) -> None:
    recipe = merged(small("pgd-at"), {"method": {"vicinity": {"use": "cutmix"}}})
    made, told = compared(recipe, tmp_path)
    assert replays(made) or told.slower


def test_dropout_and_statistics_are_the_same_captured(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(), nn.Linear(32, 10)
    )
    made, told = compared(small("erm"), tmp_path, model=model)
    assert (replays(made), told.slower) == (REPLAYS, [])


def freezing(method: str, tmp_path: Path, **tables: Any) -> tuple[int, list[str]]:
    """Train a method of `capturing`, captured and not; return its replays, and what was told."""
    recipe = small("erm", **tables)
    recipe["method"] = {"use": method.lower()}
    with offered("method", *COMPONENTS):
        made, told = compared(recipe, tmp_path)
    return replays(made), told.slower


@pytest.mark.table
@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("ReadsTheBatch", "progress.batch is read, which changes from update to update"),
        ("ReadsTheMoment", "progress.batch is read"),
        ("ComparesTheProgress", "progress.batch is read"),
        ("ReadsTheSeed", "step.seed is read, which changes from update to update"),
        ("Counts", "method.count changes in every update"),
        ("CountsInAClosure", "method.factor.count changes in every update"),
        ("Draws", "Python's random generator changes in every update"),
        ("DrawsFromNumPy", "NumPy's random generator changes in every update"),
        ("ReplacesItsState", "method.state._local['last'] changes in every update"),
        ("KeepsTheUpdate", "method.at changes between updates"),
        ("Waits", "_local_scalar_dense waits for the device (in method"),
        ("ChoosesRows", "index waits for the device"),
        ("Declares", "the method, or a component of it, declares that it waits for the device (needs_sync)"),
    ],
)
def test_what_a_graph_would_freeze_is_told_once_and_runs_as_it_is_written(
    method: str, reason: str, tmp_path: Path
) -> None:
    count, told = freezing(method, tmp_path)
    assert count == 0
    (message,) = told
    assert message.startswith("updates run without a CUDA graph, with the same results but slower: ")
    assert reason in message


def test_a_graph_holds_as_long_as_the_epoch_that_was_read(tmp_path: Path) -> None:
    assert freezing("ReadsTheEpoch", tmp_path) == (REPLAYS, [])


def test_state_on_the_device_that_is_written_in_place_is_replayed(tmp_path: Path) -> None:
    assert freezing("WritesItsState", tmp_path) == (REPLAYS, [])


def test_state_that_changes_between_epochs_is_captured_anew(tmp_path: Path) -> None:
    # One update of the second epoch is run as it is written, to see that the state stays.
    assert freezing("ChangesBetweenEpochs", tmp_path) == (REPLAYS - 1, [])


def test_draws_memories_and_counted_rows_are_replayed(tmp_path: Path) -> None:
    assert freezing("LearnsWithNoise", tmp_path) == (REPLAYS, [])


def test_one_pass_may_be_captured_where_another_cannot(tmp_path: Path) -> None:
    count, (message,) = freezing("Alternates", tmp_path)
    assert count == REPLAYS
    assert message.startswith('updates of pass "slow" run without a CUDA graph')


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "a schedule of the momentum": {"schedule": {"use": "torch:OneCycleLR"}},
    "the same, clipped": {"schedule": {"use": "torch:OneCycleLR"}, "train": {"clip_grad_norm": 0.1}},
    "a schedule of beta": {"optimizer": {"use": "adamw"}, "schedule": {"use": "torch:OneCycleLR"}},
    "adam": {"optimizer": {"use": "torch:Adam", "fused": True}, "schedule": {"use": "cosine"}},
    "sgd of torch": {"optimizer": {"use": "torch:SGD", "lr": 0.1}, "schedule": {"use": "cosine"}},
    "steps counted in Python": {"optimizer": {"use": "torch:Rprop"}, "schedule": {"use": "cosine"}},
    "adagrad": {"optimizer": {"use": "torch:Adagrad"}, "schedule": {"use": "cyclic"}},
}


@pytest.mark.table
@pytest.mark.parametrize("variant", OPTIMIZERS)
def test_every_optimizer_and_schedule_gives_the_same_bits_captured(variant: str, tmp_path: Path) -> None:
    tables = OPTIMIZERS[variant]
    recipe = {**small("erm"), **{name: table for name, table in tables.items() if name != "train"}}
    made, told = compared(merged(recipe, {"train": tables.get("train", {})}), tmp_path)
    assert (replays(made), told.slower) == (REPLAYS, [])
    parts = {sum(not isinstance(call, Call) for call in one.calls) for one in made[0].made}
    assert parts == {0 if variant == "adam" else 1}


class Own(torch.optim.SGD):
    """An optimizer of a plugin: it counts in Python, reads its rate there, and waits for the device."""

    count = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.count += 1
        for entry in self.param_groups:
            for parameter in entry["params"]:
                largest = float(parameter.grad.abs().max())
                parameter.data.sub_(parameter.grad, alpha=float(entry["lr"]) / (largest + self.count))


def test_an_optimizer_of_a_plugin_makes_its_step_between_the_parts_of_a_graph(tmp_path: Path) -> None:
    def own(options: Any, *, params: Any, **changes: Any) -> torch.optim.Optimizer:
        return Own(params, lr=0.1, **changes)

    with offered("optimizer", Component("own", own, NoOptions)):
        recipe = {**small("pgd-at"), "optimizer": {"use": "own"}, "schedule": {"use": "cosine"}}
        made, told = compared(recipe, tmp_path)
    assert (replays(made), told.slower) == (REPLAYS, [])


def test_where_the_device_is_waited_for_nothing_is_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = Recordings.__init__

    def waiting(self: Recordings, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.waits.append("method.py:7 waits for the device")

    monkeypatch.setattr(Recordings, "__init__", waiting)
    made, told = compared(small("erm"), tmp_path)
    assert [one.made for one in made] == [[]]
    assert [message.rpartition(": ")[2] for message in told.slower] == ["method.py:7 waits for the device"]


@pytest.mark.table(1)
@pytest.mark.parametrize("count", [6, 12])
def test_a_run_that_dies_within_an_epoch_goes_on_captured(count: int, tmp_path: Path) -> None:
    recipe = small("pgd-at", train={"checkpoint_batches": 1, "ema_decay": 0.9})
    robustplug.train(recipe, out=tmp_path / "whole")
    with capturing() as made:
        with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
            kill_after_save(monkeypatch, count)
            robustplug.train(recipe, out=tmp_path / "killed")
        robustplug.train(resume=tmp_path / "killed")
    assert replays(made) > 0
    assert left(tmp_path / "killed") == left(tmp_path / "whole")


def test_a_loss_that_is_not_finite_is_found_in_the_update_that_had_it(tmp_path: Path) -> None:
    recipe = small("erm", optimizer={"lr": 1e25})
    said = []
    for name in ("eager", "captured"):
        with (
            capturing() as made,
            pytest.MonkeyPatch.context() as monkeypatch,
            pytest.raises(RunError) as found,
        ):
            if name == "eager":
                monkeypatch.setattr("robustplug.training.making.choose_fast", lambda *_: "off")
            robustplug.train(recipe, out=tmp_path / name)
        said.append(re.sub(r"\(.*?\)", "", str(found.value)))
    assert said[0] == said[1]
    assert re.match(r"the loss is (nan|inf) at epoch 1, batch \d of 9", said[0])
    assert made is not None


def test_few_graphs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "_GRAPHS", 1)
    made, told = compared(small("sprout"), tmp_path)
    assert replays(made) or told.slower


def test_the_stand_in_changes_nothing_while_it_records_and_freezes_numbers() -> None:
    weight, draws, factor = torch.ones(3), torch.Generator().manual_seed(0), [2.0]
    weight.requires_grad_()
    before = draws.get_state()

    class Result:
        def __init__(self) -> None:
            self.logged = {"sum": (weight * factor[0] + torch.rand(3, generator=draws)).sum()}
            self.counted: dict[str, torch.Tensor] = {}
            with torch.no_grad():
                weight.add_(1)

    graph, result = Recordings([draws]).capture(Result)
    assert torch.equal(weight, torch.ones(3))
    assert torch.equal(draws.get_state(), before)
    factor[0] = 100.0
    graph.replay()
    expected = 6 + torch.rand(3, generator=torch.Generator().manual_seed(0)).sum()
    assert torch.equal(result.logged["sum"], expected)
    assert torch.equal(weight, 2 * torch.ones(3))
    graph.replay()
    assert 12 <= float(result.logged["sum"].detach()) < 15


@pytest.mark.parametrize(
    "function",
    [
        lambda: torch.ones(3).sum().item(),
        lambda: bool(torch.ones(()) > 0),
        lambda: torch.ones(3)[torch.ones(3) > 0],
        lambda: torch.ones(3).nonzero(),
        lambda: torch.tensor([1.0, 2.0]),
    ],
)
def test_the_stand_in_refuses_what_waits_for_a_device(function: Any) -> None:
    with pytest.raises(Waits):
        Recordings([]).capture(function)


def test_every_method_of_the_stand_ins_tests_is_used() -> None:
    source = Path(__file__).read_text()
    assert [name for name in own.METHODS if f'"{name}"' not in source] == []
