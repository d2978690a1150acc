"""Averages of the weights, against independent means of the weights and of the statistics of batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import robustplug
from robustplug.core.method import Averaging
from robustplug.core.types import Progress
from robustplug.errors import RunError
from robustplug.recipe.errors import RecipeError
from robustplug.training.loop import Loop
from robustplug.training.running.average import Average
from robustplug.training.running.update import Outcome, Update
from robustplug.training.session import Session
from robustplug_robmask.masks import MaskedNorm

from ..training.runs import merged, newest, tiny
from ..training.test_resume import check_resume

INNER = {"use": "pgd-at", "perturbation": {"use": "pgd", "steps": 1}}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def around(name: str, epochs: int = 3, inner: Mapping[str, Any] = INNER, **options: Any) -> dict[str, Any]:
    made = tiny(name, train={"epochs": epochs, "select": "last"})
    return {**made, "method": {"use": name, "inner": dict(inner), **options}}


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


class Spy:
    """Note the weights after each update and at the end of each epoch, and the inputs of an epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.updates: list[dict[str, Tensor]] = []
        self.epochs: list[dict[str, Tensor]] = []
        self.inputs: list[Tensor] = []
        compute, close = Loop.compute, Session.close_average

        def computed(loop: Loop, update: Update, watched: bool = True) -> Outcome:
            found = compute(loop, update, watched)
            self.updates.append(weights_of(loop.model))
            return found

        def closed(session: Session, inputs: Any) -> None:
            self.epochs.append(weights_of(session.loop.model))
            self.inputs = list(inputs)
            close(session, self.inputs)

        monkeypatch.setattr(Loop, "compute", computed)
        monkeypatch.setattr(Session, "close_average", closed)


def saved(folder: Path, part: str) -> dict[str, Tensor]:
    tensors = load_file(folder / "checkpoints" / f"{newest(folder)}.safetensors")
    return {key.removeprefix(part): value for key, value in tensors.items() if key.startswith(part)}


def check_weights(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)


def test_swa_is_the_mean_over_epochs_and_its_statistics_are_those_of_the_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    run = robustplug.train(around("swa", 5, warmup=1, every=2), out=tmp_path / "run")
    chosen = [spy.epochs[1], spy.epochs[3]]
    found = run.model.state_dict()
    mean = {name: torch.stack([each[name] for each in chosen]).mean(0) for name in chosen[0]}
    check_weights(found, mean)
    assert all(torch.equal(found[key], value) for key, value in saved(run.folder, "ema/module.").items())
    # The statistics, by hand: the means of those of the batches that reach each layer.
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, given: tuple[Tensor]) -> None:
            x = given[0].detach().transpose(0, 1).flatten(1)
            seen.setdefault(name, []).append((x.mean(1), x.var(1)))

        return hook

    layers = {name: part for name, part in run.model.named_modules() if isinstance(part, nn.BatchNorm2d)}
    handles = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    with torch.no_grad():
        run.model.train()
        for layer in layers.values():
            layer.track_running_stats = False
        for x in spy.inputs:
            run.model(x)
    for handle in handles:
        handle.remove()
    assert len(layers) == 4
    for name, values in seen.items():
        for which, key in enumerate(("running_mean", "running_var")):
            expected = torch.stack([pair[which] for pair in values]).mean(0)
            torch.testing.assert_close(found[f"{name}.{key}"], expected, atol=1e-5, rtol=1e-4)
    last = torch.cat([value.flatten() for value in spy.epochs[-1].values()])
    apart = torch.cat([value.flatten() for value in mean.values()]) - last
    shown = run.result.meta["training"]["mechanism"]["average"]
    assert shown == pytest.approx(float(apart.norm() / last.norm()), rel=1e-4)
    far = [report.train["mechanism/average"] > 0 for report in run.history]
    assert far == [False, False, True, True, True]


def test_ema_follows_its_recurrence_over_the_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    run = robustplug.train(around("ema", decay=0.4, warmup=1), out=tmp_path / "run")
    mean, *rest = spy.updates[4:]
    decays = [2 / 11, 3 / 12, 4 / 13, 5 / 14, 0.4, 0.4, 0.4]
    for decay, weights in zip(decays, rest, strict=True):
        mean = {name: decay * value + (1 - decay) * weights[name] for name, value in mean.items()}
    assert len(spy.updates) == 3 * 4
    check_weights(run.model.state_dict(), mean)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    recipe = merged(tiny("pgd-at"), {"train": {"epochs": 3, "select": "last"}, "method": INNER})
    return saved(robustplug.train(recipe, out=tmp_path_factory.mktemp("plain") / "run").folder, "model/")


def test_an_average_changes_nothing_of_the_training(plain: dict[str, Tensor], tmp_path: Path) -> None:
    run = robustplug.train(around("swa"), out=tmp_path / "run")
    trained = saved(run.folder, "model/")
    assert trained.keys() == plain.keys()
    assert all(torch.equal(value, plain[key]) for key, value in trained.items())
    assert any(not torch.equal(value, plain[key]) for key, value in run.model.state_dict().items())
    # An evaluation loads the average, and finds what the training found.
    again = robustplug.evaluate(run.folder)
    assert [row.accuracy for row in again.attacks] == [row.accuracy for row in run.result.attacks]
    # Each epoch reads its inputs once more: 1 of the attack, 1 of the loss, 1 for the statistics.
    assert run.result.meta["training"]["forwards_per_sample"] == 3


@pytest.mark.parametrize("options", [{"use": "swa", "warmup": 9}, {"use": "ema", "decay": 0}])
def test_a_run_without_an_average_leaves_its_last_weights(
    options: dict[str, Any], plain: dict[str, Tensor], tmp_path: Path
) -> None:
    run = robustplug.train({**around("swa"), "method": {**options, "inner": INNER}}, out=tmp_path / "run")
    own = {key: value for key, value in run.model.state_dict().items() if not key.endswith(STATISTICS)}
    assert all(torch.equal(value, plain[key]) for key, value in own.items())
    assert run.result.meta["training"]["mechanism"]["average"] == 0
    if "warmup" in options:
        assert all(torch.equal(value, plain[key]) for key, value in run.model.state_dict().items())
        again = robustplug.evaluate(run.folder)
        assert again.attacks[-1].accuracy == run.result.attacks[-1].accuracy


def test_the_option_of_training_is_the_same_average(tmp_path: Path) -> None:
    first = robustplug.train(around("ema", 2, decay=0.6), out=tmp_path / "first")
    recipe = merged(tiny("pgd-at"), {"train": {"ema_decay": 0.6, "select": "last"}, "method": INNER})
    second = robustplug.train(recipe, out=tmp_path / "second").model.state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.model.state_dict().items())


@pytest.mark.table(1)
@pytest.mark.parametrize(("name", "options"), [("swa", {"warmup": 1}), ("ema", {"decay": 0.8})])
def test_a_killed_run_resumes_with_the_same_bits(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    check_resume(around(name, 2, **options), tmp_path, (3, 5))


def test_layers_that_training_leaves_alone_keep_their_statistics(tmp_path: Path) -> None:
    recipe = merged(around("swa", 1), {"model": {"freeze": ["network.1"]}})
    run = robustplug.train(recipe, out=tmp_path / "frozen")
    found = run.model.state_dict()
    assert torch.equal(found["network.1.running_var"], torch.ones(4))
    assert not torch.equal(found["network.4.running_var"], torch.ones(4))


class Spare(nn.Module):
    """A network with a BatchNorm that its inputs do not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.spare = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        assert self.spare.running_mean is not None
        self.spare.running_mean.fill_(7)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.linear(x))
        return found


def test_an_exponential_average_reads_and_counts_on_the_device_of_the_weights() -> None:
    """A graph of an update would keep what the host knew when it was captured."""
    model = nn.Linear(3, 3, device="meta")
    average = Average(Averaging(decay=0.9), model)
    before = average.kept.n_averaged
    for done in range(3):
        average.after_update(model, Progress(0, 1), done)  # a number read from "meta" is an error
    assert average.kept.n_averaged is before
    assert before.device.type == "meta"


def test_layers_that_no_input_reaches_keep_their_statistics() -> None:
    model = Spare()
    average = Average(Averaging(decay=0.5), model)
    x = torch.arange(12.0).view(4, 3)
    assert average.estimate([x, x]) == 8
    kept = average.kept.module
    assert isinstance(kept, Spare)
    assert kept.spare.running_mean is not None
    assert torch.equal(kept.spare.running_mean, torch.full((3,), 7.0))
    torch.testing.assert_close(kept.norm.running_mean, model.linear(x).detach().mean(0))


class Others(nn.Module):
    """A network with statistics that are no BatchNorm's: masks, an instance norm, buffers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.masked = MaskedNorm(nn.BatchNorm2d(2), 2, separate=True)
        self.instance = nn.InstanceNorm2d(2, track_running_stats=True)
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("share", torch.zeros(2))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.get_buffer("share").add_(1)
            self.get_buffer("seen").add_(3)
        found: Tensor = self.norm(self.instance(self.masked(x)))
        return found


@pytest.mark.parametrize(("decay", "late"), [(None, 0.5), (0.125, 0.875), (0.75, 9 / 11)])
def test_statistics_of_other_layers_are_averaged_like_the_weights(decay: float | None, late: float) -> None:
    model = Others()
    average = Average(Averaging(decay=decay), model)
    x = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    states = []
    for number in range(2):
        model(x + number)
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        if decay is None:
            average.after_epoch(model, number)
        else:
            average.after_update(model, Progress(number, 2), number)
    kept = average.kept.module
    before = {name: value.clone() for name, value in kept.state_dict().items()}
    others = [name for name in before if name.startswith(("masked", "instance", "share", "seen"))]
    assert {"masked.mean", "masked.variance", "masked.batches", "instance.running_var"} < set(others)
    for name in others:
        first, last = (state[name] for state in states)
        # Counts have no mean: they are those of the last weights.
        whole = not first.is_floating_point()
        expected = last if whole else (1 - late) * first + late * last
        torch.testing.assert_close(before[name], expected)
    # The basis of the mask that was on has moved, and so has its average; the other basis has not.
    assert not torch.equal(before["masked.mean"][0], before["masked.mean"][1])
    assert torch.equal(before["masked.mean"][1], torch.zeros(2))
    average.estimate([x, x + 5])
    after = kept.state_dict()
    assert not torch.equal(after["norm.running_mean"], before["norm.running_mean"])
    for name in others:
        assert torch.equal(after[name], before[name]), name


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (around("swa", inner={"use": "ema", "inner": INNER}), "averages its weights already"),
        (merged(around("swa"), {"train": {"ema_decay": 0.5}}), "and so does the method"),
    ],
)
def test_two_averages_are_refused(recipe: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((RecipeError, RunError), match=message):
        robustplug.train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
