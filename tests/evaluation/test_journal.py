"""An evaluation that was killed goes on where it was, with the same results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustplug.core.random import uniform_like
from robustplug.core.step import Step
from robustplug.core.types import AttackResult, Cost, View
from robustplug.devices.processes import start
from robustplug.errors import Refused
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.journal import Chunk, Journal, discard
from robustplug.evaluation.setting import Attack

from ..training.runs import timeless
from .test_evaluate import EPS, evaluation

ALONE = start("cpu", "float32")
CHUNK = Chunk([1, 2], (3, 0, 6, 6), [(0.1, 0.5)], 0.25)


class Noisy:
    """Move each sample at random; stop the process at a call."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls, self.stop_at = 0, stop_at

    def __call__(self, step: Step, view: View, vicinity: Any) -> View:
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        step.forward(view.x)
        return view.replace(x=view.origin + EPS * 0.99 * uniform_like(view.origin, step.rng).sign())

    def cost(self, target: Cost) -> Cost:
        return Cost(1, 0)


def journaled(path: Path, **changes: Any) -> Evaluation:
    return dataclasses.replace(evaluation(), journal=path, **changes)


def rows(subject: Evaluation, *attacks: Any, batch_size: int = 4) -> tuple[AttackResult, ...]:
    named = [Attack(f"noisy {n}", {}, attack, chain="main") for n, attack in enumerate(attacks)]
    return subject.run("test", named, batch_size)


def plain(results: tuple[AttackResult, ...]) -> Any:
    return timeless([dataclasses.asdict(row) for row in results])


@pytest.mark.parametrize("stop_at", range(8))
def test_a_killed_evaluation_goes_on_with_the_next_batch(stop_at: int, tmp_path: Path) -> None:
    whole_first, whole_second = Noisy(), Noisy()
    whole = rows(evaluation(), whole_first, whole_second)
    total = whole_first.calls + whole_second.calls
    assert total > 8
    path = tmp_path / "notes.journal"
    before = Noisy(stop_at)
    second = Noisy(max(0, stop_at - whole_first.calls))
    with pytest.raises(KeyboardInterrupt):
        rows(journaled(path), before, second)
    after = (Noisy(), Noisy())
    again = rows(journaled(path), *after)
    assert plain(again) == plain(whole)
    assert before.calls + second.calls + sum(attack.calls for attack in after) == total


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    path = tmp_path / "notes.journal"
    first = rows(journaled(path), Noisy())
    again = Noisy()
    assert plain(rows(journaled(path), again)) == plain(first)
    assert again.calls == 0
    discard(path)
    rows(journaled(path), again)
    assert again.calls > 0


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"identity": {"weights": "others"}}, {"batch_size": 5}],
    ids=["seed", "weights", "batches"],
)
def test_the_notes_of_another_evaluation_are_not_used(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "notes.journal"
    size = change.pop("batch_size", 4)
    rows(journaled(path), Noisy())
    again = Noisy()
    rows(journaled(path, **change), again, batch_size=size)
    assert again.calls > 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def garble(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-1], b"\xff{\n"]))


def lose_a_key(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    body = json.loads(lines[-1])
    del body["counts"]
    path.write_text("".join([*lines[:-1], json.dumps(body) + "\n"]))


@pytest.mark.parametrize("damage", [cut, garble, lose_a_key])
def test_a_broken_line_costs_its_batch_only(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "notes.journal"
    journal = Journal.open(path, "this", ALONE)
    journal.add(0, 0, CHUNK)
    journal.add(0, 1, CHUNK)
    journal.close()
    damage(path)
    journal = Journal.open(path, "this", ALONE)
    assert journal.chunk(0, 0) == CHUNK
    assert journal.chunk(0, 1) is None
    journal.add(0, 1, CHUNK)
    journal.close()
    assert Journal.open(path, "this", ALONE).chunks == {(0, 0, 0): CHUNK, (0, 0, 1): CHUNK}


class Pair:
    """Two processes in one: `other` holds what the other one sends."""

    world = 2

    def __init__(self, rank: int, other: list[str]) -> None:
        self.rank, self.main, self.other = rank, rank == 0, other

    def gather_lines(self, lines: list[str]) -> list[str]:
        return [*lines, *self.other] if self.main else [*self.other, *lines]

    def lines_from_main(self, lines: list[str]) -> list[str]:
        return lines if self.main else self.other


def test_only_the_main_process_writes_and_each_gets_its_own_notes_back(tmp_path: Path) -> None:
    path, theirs = tmp_path / "notes.journal", dataclasses.replace(CHUNK, right=[7])
    second: Any = Pair(1, [])
    journal = Journal.open(path, "this", second)
    journal.add(0, 0, theirs)
    sent = list(journal._pending)
    assert not path.exists()
    first: Any = Pair(0, sent)
    journal = Journal.open(path, "this", first)
    journal.add(0, 0, CHUNK)
    journal.end_of_attack()
    journal.close()
    assert Journal.open(path, "this", first).chunk(0, 0) == CHUNK
    again: Any = Pair(1, path.read_text().splitlines()[1:])
    assert Journal.open(path, "this", again).chunk(0, 0) == theirs
    discard(path)
    assert list(tmp_path.iterdir()) == []


def test_an_attack_that_refuses_costs_its_own_row_and_is_asked_again(tmp_path: Path) -> None:
    class Missing(Noisy):
        def __call__(self, step: Step, view: View, vicinity: Any) -> View:
            raise Refused("the library is not installed")

    path = tmp_path / "notes.journal"
    results = rows(journaled(path), Missing(), Noisy())
    assert results[1].skipped == "the library is not installed"
    assert results[1].right == ()
    assert torch.tensor(results[1].accuracy).isnan()
    assert results[2].attempted == sum(results[0].right), "the next attack starts where the last one stood"
    assert rows(journaled(path), Noisy(), Noisy())[1].skipped == ""
