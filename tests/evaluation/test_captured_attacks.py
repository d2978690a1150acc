"""Attacks whose iterations are captured give the same bits as attacks that run as they are written."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.builtin.perturbations import apgd, sparse_apgd
from robustplug.core.calling.stand_ins import Averaged
from robustplug.core.replaying.iterations import Iterations
from robustplug.core.types import AttackResult, Batch, View
from robustplug.devices.processes import start
from robustplug.evaluation import setting
from robustplug.evaluation.audit.stand_ins import Borrowed, Bridge, Bridged, Rescaled
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.readable import readable
from robustplug.evaluation.setting import Attack
from robustplug.subjects.data.task import ArrayTask
from robustplug.subjects.subject import Source

from ..builtin.attacks import EPS, step_of
from ..training.recording import Recordings
from .masks import digits

ATTACKS: dict[str, dict[str, Any]] = {
    "pgd": {"steps": 5},
    "pgd with restarts": {"steps": 4, "restarts": 2, "loss": {"use": "margin"}},
    "pgd to a class": {"steps": 4, "target": "runner-up", "start": "normal"},
    "fgsm": {},
    "mi-fgsm": {"steps": 5},
    "apgd-ce": {"steps": 12, "restarts": 2},
    "apgd-dlr": {"steps": 9},
    "apgd-t": {"steps": 7, "targets": 3},
    "square": {"queries": 30},
}
HARD_LABEL: dict[str, dict[str, Any]] = {
    "opt": {"queries": 100, "starts": 5, "directions": 3},
    "sign-opt": {"queries": 120, "starts": 5, "directions": 10},
    "svm-opt": {"queries": 80, "starts": 5, "directions": 10},
    "zo-sign-sgd": {"queries": 80, "starts": 5, "directions": 10},
    "rays": {"queries": 60},
    "zoo": {"queries": 60, "coordinates": 8, "lr": 0.1},
    "nes": {"queries": 60, "directions": 10},
}
RADII = {**EPS, "l1": 4.0}
# Rows of a whole batch, and of the batches that are attacked: the last ones are ragged.
MOST, ROWS = 12, (12, 12, 12, 12, 7, 5)


class Noisy(nn.Module):
    """A model with random outputs, drawn from the global generator."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.model(x + 0.05 * torch.rand_like(x))
        return outputs + 0.1 * torch.randn(len(x), 10)


class Given(nn.Module):
    """A given module: it writes into its inputs, and its BatchNorm goes back to training mode.

    Args:
        model: what it calls.
        restless: whether it has a BatchNorm.
    """

    def __init__(self, model: nn.Module, restless: bool = False) -> None:
        super().__init__()
        self.model, self.norm = model, nn.BatchNorm2d(1) if restless else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train(isinstance(self.norm, nn.BatchNorm2d))
        x -= 0.01
        outputs: Tensor = self.model(self.norm(x))
        return outputs


class Half(nn.Module):
    """A model in bfloat16."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.model(x.bfloat16())
        return outputs


class Waiting(nn.Module):
    """A model that waits for the device."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.model(x)
        return outputs if float(x.detach().min()) > -1 else outputs * 2


def channels_last(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(memory_format=torch.channels_last)


@dataclass
class Run:
    """What attacks on all batches gave.

    Attributes:
        found: examples and counts of each batch.
        replays: number of iterations that were replayed.
        graphs: number of graphs.
        told: what could not be captured.
    """

    found: list[tuple[Tensor, int, int, int]] = field(default_factory=list)
    replays: int = 0
    graphs: int = 0
    told: list[str] = field(default_factory=list)

    def equals(self, other: Run) -> bool:
        return all(
            torch.equal(one[0], another[0]) and one[1:] == another[1:]
            for one, another in zip(self.found, other.found, strict=True)
        )

    @property
    def moved(self) -> int:
        return sum(int(found[3]) for found in self.found)


def attacked(
    model: nn.Module, name: str, options: dict[str, Any], norm: str, how: str, dtype: Any = torch.float32
) -> Run:
    """Attack batches of several sizes; `how` is "plain", "padded" or "captured"."""
    x, y = digits()
    ball, attack = robustplug.build("vicinity", norm, eps=RADII[norm]), build(name, options)
    run, at = Run(), 1400
    recordings = Recordings([])
    iterations = Iterations(recordings if how == "captured" else None, MOST, run.told.append)
    for number, rows in enumerate(ROWS):
        chosen = slice(at, at + rows)
        at += rows
        batch = Batch(x[chosen].to(dtype), y[chosen], torch.arange(rows) + at)
        step = step_of(model, batch, seed=number)
        step.iterations = None if how == "plain" else iterations
        # Some rows are done at once, and others last.
        radius = torch.linspace(0.0, 1.5 * RADII[norm], rows)
        view = View.of(batch, "adv", radius=radius)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            moved = attack(step, view, ball).x
        meter = step.meter
        counts = (meter.forwards, meter.backwards, int((moved != batch.x).flatten(1).any(1).sum()))
        run.found.append((moved, *counts))
    run.replays, run.graphs = iterations.replays, len(recordings.made)
    return run


def build(name: str, options: dict[str, Any]) -> Any:
    return robustplug.build("perturbation", name.split(" ")[0], **options)


@pytest.mark.table
@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_gives_the_same_bits(name: str, norm: str, plain_net: nn.Module) -> None:
    plain, padded, captured = (
        attacked(plain_net, name, ATTACKS[name], norm, how) for how in ("plain", "padded", "captured")
    )
    assert captured.equals(padded)
    assert padded.equals(plain)
    assert captured.moved > 0
    assert not captured.told
    assert captured.replays >= captured.graphs > 0


@pytest.mark.table(1)
@pytest.mark.parametrize(("norm", "track"), [("linf", apgd._Track), ("l1", sparse_apgd._Track)])
def test_graphs_hold_how_apgd_adapts_its_steps(
    norm: str, track: Any, plain_net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, look_back = list[int](), track.look_back

    def counting(self: Any, *given: Tensor) -> None:
        calls.append(len(self.x))
        look_back(self, *given)

    monkeypatch.setattr(track, "look_back", counting)
    padded = attacked(plain_net, "apgd-ce", {"steps": 40}, norm, "padded")
    written = len(calls)
    calls.clear()
    captured = attacked(plain_net, "apgd-ce", {"steps": 40}, norm, "captured")
    assert captured.equals(padded)
    assert 0 < len(calls) < written / 2  # the others were replayed


@pytest.mark.table
@pytest.mark.parametrize("name", HARD_LABEL)
def test_every_hard_label_search_gives_the_same_bits(name: str, plain_net: nn.Module) -> None:
    norm = "linf" if name == "rays" else "l2"
    padded, captured = (
        attacked(plain_net, name, HARD_LABEL[name], norm, how) for how in ("padded", "captured")
    )
    assert captured.equals(padded)
    assert captured.moved > 0
    assert not captured.told
    assert captured.replays >= captured.graphs > 0


@pytest.mark.table
@pytest.mark.parametrize("name", ["pgd", "mi-fgsm", "apgd-ce", "apgd-t", "square"])
@pytest.mark.parametrize("kind", [Noisy, Given, Half, channels_last, Waiting])
def test_every_kind_of_model_gives_the_same_bits(name: str, kind: Any, plain_net: nn.Module) -> None:
    model = kind(plain_net).eval()
    padded, captured = (attacked(model, name, ATTACKS[name], "linf", how) for how in ("padded", "captured"))
    assert captured.equals(padded)
    assert captured.moved > 0
    if kind is Waiting:
        assert captured.replays == 0
        assert all("waits for the device" in message for message in captured.told)
    else:
        assert not captured.told
        assert captured.replays > 0


@pytest.mark.table(1)
@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "square"])
def test_inputs_in_half_precision_give_the_same_bits(name: str, plain_net: nn.Module) -> None:
    model = Half(plain_net).eval()
    padded, captured = (
        attacked(model, name, ATTACKS[name], "l2", how, torch.bfloat16) for how in ("padded", "captured")
    )
    assert captured.equals(padded)
    assert captured.replays > 0


@contextlib.contextmanager
def capturing(graphs: bool) -> Iterator[list[Iterations]]:
    """Pad and, if wanted, capture the attacks of all evaluations in a block."""
    made: list[Iterations] = []

    def on(device: torch.device, capture: bool, most: int, tell: Any) -> Iterations:
        made.append(Iterations(Recordings([]) if graphs and capture else None, most, tell))
        return made[-1]

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(setting, "iterations_on", on)
        yield made


def task() -> ArrayTask:
    x, y = digits()
    data = (x[1400:1440], y[1400:1440])
    return ArrayTask({"train": data, "validation": data, "test": data}, default_model="none")


def evaluated(model: nn.Module, attacks: list[Attack], graphs: bool) -> tuple[Any, list[Iterations]]:
    ball, loss = robustplug.build("vicinity", "linf", eps=0.06), robustplug.build("loss", "ce")
    found = Evaluation(model, task(), ball, loss, 0, start("cpu", "float32"), capture=True)
    with capturing(graphs) as made:
        rows = found.run("test", attacks, 8)
    return [timeless(row) for row in rows], made


def timeless(row: AttackResult) -> dict[str, Any]:
    # The accuracy of a row that was skipped equals nothing.
    assert not row.skipped, row.skipped
    return {name: value for name, value in vars(row).items() if name != "seconds"}


def test_an_evaluation_reports_the_same_numbers(plain_net: nn.Module) -> None:
    attacks = [
        Attack(name, {}, build(name, ATTACKS[name])) for name in ("mi-fgsm", "pgd", "apgd-ce", "square")
    ]
    eager, without = evaluated(plain_net, attacks, graphs=False)
    captured, made = evaluated(plain_net, attacks, graphs=True)
    assert captured == eager
    assert 0 < captured[-1]["broken"] + captured[1]["broken"] < 40
    assert len(made) == len(without) == len(attacks)
    assert all(one.replays > 0 and not one._kinds for one in made)
    assert not any(one.replays for one in without)


def test_statistics_of_a_padded_batch_do_not_count(plain_net: nn.Module) -> None:
    model = readable(Given(plain_net, restless=True), task(), "test", torch.device("cpu")).model
    attacks = [Attack("pgd", {}, build("pgd", {"steps": 6}))]
    eager, _ = evaluated(model, attacks, graphs=False)
    captured, made = evaluated(model, attacks, graphs=True)
    assert captured == eager
    assert made[0].replays > 0


def test_the_stand_ins_of_an_audit_are_captured(plain_net: nn.Module) -> None:
    noisy = Noisy(plain_net)
    kinds = {
        "rescaled": lambda model: Rescaled(model, 0.1),
        "straight-through": lambda model: Bridged(model, Bridge(entry="model.0")),
        "borrowed": lambda model: Borrowed(model, plain_net),
        "averaged": lambda model: Averaged(model, 2),
        "substitute": lambda _: plain_net,
    }
    attacks = [
        Attack(
            name,
            {},
            build("pgd", {"steps": 6}),
            stand_in=kind,
            chain=name,
            transfers=name == "substitute",
        )
        for name, kind in kinds.items()
    ]
    eager, _ = evaluated(noisy, attacks, graphs=False)
    captured, made = evaluated(noisy, attacks, graphs=True)
    assert captured == eager
    assert all(one.replays > 0 for one in made)


def test_examples_of_another_model_are_made_captured(plain_net: nn.Module, tmp_path: Any) -> None:
    found = []
    for graphs in (False, True):
        source = Source("source", copy.deepcopy(plain_net), tmp_path / str(graphs), "weights")
        attack = Attack("pgd", {}, build("pgd", {"steps": 6}), source=source)
        rows, made = evaluated(Noisy(plain_net), [attack], graphs)
        found.append(rows)
        assert (made[0].replays > 0) == graphs
    assert found[0] == found[1]


@pytest.mark.parametrize(("fast", "captured"), [("auto", True), ("capture", True), ("off", False)])
def test_a_recipe_turns_graphs_off(fast: str, captured: bool, plain_net: nn.Module) -> None:
    with capturing(True) as made:
        settings: Any = {"samples": 20, "batch_size": 5, "overrides": [f"train.fast={fast}"]}
        robustplug.evaluate(plain_net, task="digits", attacks=[{"use": "mi-fgsm", "steps": 8}], **settings)
    (one,) = made
    assert (one.graphs is not None) == captured
    assert (one.replays > 0) == captured
