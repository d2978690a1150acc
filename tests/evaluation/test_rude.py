"""An attack that changes what it is handed loses its own row, and no other one."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.guards import switches
from robustplug.core.random import isolated
from robustplug.core.types import AttackResult, Batch, Feed, Split, View
from robustplug.devices.processes import start
from robustplug.errors import RunError
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.setting import Attack
from robustplug.subjects.data.task import ArrayTask

from ..core.guards.rude import HARMLESS, RUDE, Change, RudeAttack, bits, no_gradients, train_mode, write_x

pytestmark = pytest.mark.table

SIZE = 24


class Net(nn.Module):
    """Classify images (1, 1, 2), with layers that depend on the mode."""

    def __init__(self) -> None:
        super().__init__()
        with isolated(0):
            self.body = nn.Sequential(
                nn.Flatten(), nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)
            )

        x = inputs()
        difference = self.eval().body(x).diff(dim=1).detach()
        self.train()
        self.body[4].get_parameter("bias").data[1] -= difference.median()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits


def inputs() -> Tensor:
    return torch.rand(SIZE, 1, 1, 2, generator=torch.Generator().manual_seed(3)) * 0.6 + 0.2


def arrays() -> tuple[Tensor, Tensor]:
    """Return samples that the network classifies correctly, but for every seventh."""
    x = inputs()
    y = Net().eval()(x).argmax(1)
    y[::7] = 1 - y[::7]
    return x, y


def evaluation(
    model: nn.Module, data: tuple[Tensor, Tensor], task: type[ArrayTask] = ArrayTask
) -> Evaluation:
    splits: dict[Split, tuple[Tensor, Tensor]] = {"train": data, "validation": data, "test": data}
    vicinity, loss = robustplug.build("vicinity", "linf", eps=0.1), robustplug.build("loss", "ce")
    made = task(splits, class_names=["left", "right"], default_model="none")
    return Evaluation(model, made, vicinity, loss, 0, start("cpu", "float32"), losses=True)


def pgd() -> Attack:
    return Attack("pgd", {}, robustplug.build("perturbation", "pgd", steps=2), chain="")


def run(model: nn.Module, attacks: Sequence[Attack], data: tuple[Tensor, Tensor] | None = None) -> list[Any]:
    return list(evaluation(model, data or arrays()).run("test", attacks, 7))


def numbers(row: AttackResult) -> list[Any]:
    return [row.right, row.distance, row.measures, row.rejected, row.forwards, row.confusion]


def everything(model: nn.Module) -> list[Any]:
    return [
        [bits(each) for each in model.state_dict().values()],
        [(each.requires_grad, each.grad, each.dtype, each._backward_hooks) for each in model.parameters()],
        [(type(part), part.training, len(part._forward_hooks)) for part in model.modules()],
        ["forward" in vars(part) for part in model.modules()],
        [name for name, _ in model.named_modules()],
        torch.get_rng_state().tolist(),
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        switches.read(),
    ]


@pytest.fixture(scope="module")
def clean() -> list[Any]:
    """Return the rows of an evaluation whose second attack cannot be run."""
    return run(Net(), [pgd(), Attack("rude", {}, None, chain="", refused="not here"), pgd()])


@pytest.fixture(autouse=True)
def folder() -> Iterator[None]:
    before = Path.cwd()
    yield
    os.chdir(before)


@pytest.mark.parametrize("fail", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("change", RUDE, ids=lambda change: change.__name__)
def test_a_rude_attack_loses_its_row_and_no_other(change: Change, fail: bool, clean: list[Any]) -> None:
    model, data = Net(), arrays()
    before = everything(model)
    attack = RudeAttack(change, ValueError("over") if fail else None)
    rows = run(model, [pgd(), Attack("rude", {}, attack, chain=""), pgd()], data)
    assert everything(model) == before
    assert all(torch.equal(one, other) for one, other in zip(data, arrays(), strict=True))
    assert np.isnan(rows[2].accuracy)
    assert ("over" if fail else "RudeAttack of ") in rows[2].skipped
    assert [numbers(rows[at]) for at in (0, 1, 3)] == [numbers(clean[at]) for at in (0, 1, 3)]


@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
def test_what_an_attack_has_for_itself_changes_no_other_row(change: Change, clean: list[Any]) -> None:
    model = Net()
    before = everything(model)
    rows = run(model, [pgd(), Attack("rude", {}, RudeAttack(change), chain=""), pgd()])
    assert everything(model) == before
    assert not rows[2].skipped
    assert rows[2].right == rows[0].right
    assert [numbers(rows[at]) for at in (0, 1, 3)] == [numbers(clean[at]) for at in (0, 1, 3)]


class Quit(BaseException):
    """End everything."""


@pytest.mark.parametrize("error", [SystemExit(3), Quit("now"), GeneratorExit(), MemoryError()], ids=repr)
def test_no_exception_of_an_attack_ends_the_evaluation(error: BaseException, clean: list[Any]) -> None:
    attack = Attack("rude", {}, RudeAttack(no_gradients, error), chain="")
    rows = run(Net(), [pgd(), attack, pgd()])
    assert rows[2].skipped
    assert numbers(rows[3]) == numbers(clean[3])


def test_ctrl_c_stays_ctrl_c() -> None:
    model = Net()
    before = everything(model)
    with pytest.raises(KeyboardInterrupt):
        run(model, [Attack("rude", {}, RudeAttack(train_mode, KeyboardInterrupt()), chain="")])
    assert everything(model) == before


class RudeShift:
    """A shift that writes into the samples that it is given."""

    eps, norm = 0.1, None

    def sample(self, step: Any, batch: Batch) -> Batch:
        batch.x.zero_()
        return batch


def test_a_shift_and_an_attack_in_later_batches_are_refused_too(clean: list[Any]) -> None:
    class Later(RudeAttack):
        batches = 0

        def __call__(self, step: Any, view: View, vicinity: Any) -> View:
            self.batches += 1
            return super().__call__(step, view, vicinity) if self.batches > 1 else view

    def weights(step: Any, view: View, vicinity: Any) -> None:
        next(step.model.parameters()).data.zero_()

    shifted = Attack("rude", {}, None, chain="", shift=RudeShift())  # type: ignore[arg-type]
    for attack in (
        shifted,
        *(Attack("rude", {}, Later(c), chain="") for c in (write_x, train_mode, weights)),
    ):
        rows = run(Net(), [pgd(), attack, pgd()])
        assert "changed" in rows[2].skipped
        assert numbers(rows[3]) == numbers(clean[3])


class Counting(Net):
    """Count calls in a buffer, switch gradients, and seed the generators."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        getattr(torch, "manual_seed")(0)  # noqa: B009
        getattr(np.random, "seed")(0)  # noqa: B009
        logits = super().forward(x)
        torch.set_grad_enabled(False)
        self.body[3].train()
        return logits


def test_what_a_model_changes_itself_is_put_back_and_blamed_on_nobody(clean: list[Any]) -> None:
    model = Counting()
    before = everything(model)
    rows = run(model, [pgd(), Attack("polite", {}, RudeAttack(lambda *_: None), chain=""), pgd()])
    assert not any(row.skipped for row in rows)
    assert everything(model) == before
    assert numbers(rows[0])[0] == numbers(clean[0])[0]


class InPlace(Net):
    """Normalise the inputs in place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5)) if not x.requires_grad else super().forward(x - 0.5)


def test_a_model_that_changes_its_inputs_leaves_those_of_the_caller() -> None:
    data = arrays()
    rows = run(InPlace(), [pgd()], data)
    assert not any(row.skipped for row in rows)
    assert rows[1].rejected == 0
    assert torch.equal(data[0], arrays()[0])


class OneBuffer(ArrayTask):
    """Serve every batch in the same buffers."""

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        x, y, index = (torch.empty(0, dtype=kind) for kind in (torch.float32, torch.int64, torch.int64))
        for batch in super().batches(split, feed):
            for buffer, own in ((x, batch.x), (y, batch.y), (index, batch.index)):
                buffer.resize_(own.shape).copy_(own)
            yield Batch(x, y, index)


def test_a_task_may_serve_the_same_buffers(clean: list[Any]) -> None:
    rows = evaluation(Net(), arrays(), OneBuffer).run("test", [pgd()], 7)
    assert [numbers(row) for row in rows] == [numbers(row) for row in clean[:2]]


class RudeScore(ArrayTask):
    """Write into the labels while scoring."""

    def score(self, view: View, output: Any) -> Tensor:
        right = super().score(view, output)
        view.y.zero_()
        return right


def test_a_task_that_writes_while_it_scores_is_named() -> None:
    data = arrays()
    with pytest.raises(RunError, match="RudeScore of .* changed the labels"):
        evaluation(Net(), data, RudeScore).run("test", [pgd()], 7)
    assert torch.equal(data[1], arrays()[1])
