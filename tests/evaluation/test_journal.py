"""An evaluation that was killed goes on where it was, with the same results."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustplug.core.random import uniform_like
from robustplug.core.reporting import Silent
from robustplug.core.step import Step
from robustplug.core.types import AttackResult, Batch, Cost, View
from robustplug.devices.processes import start
from robustplug.errors import Refused
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.kept.journal import Journal, discard
from robustplug.evaluation.kept.records import Chunk, encode, linked, misfit, read_records
from robustplug.evaluation.setting import Attack

from ..training.runs import timeless
from .test_evaluate import EPS, evaluation

pytestmark = pytest.mark.table

ALONE = start("cpu", "float32")
CHUNK = Chunk([1, 2], (3, 0, 6, 6), [(0.1, 0.5)], 0.25)


class Warned(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


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


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))


Damage = Callable[[list[Any]], None]


def changed(name: str, value: Any, at: int = -1) -> Damage:
    """Return a damage that gives a field of a record another value, without its digests."""

    def damage(lines: list[Any]) -> None:
        lines[at]["record"][name] = value

    return damage


def forged(name: str, value: Any, at: int = -1) -> Damage:
    """Return a damage that also writes the digest of the record anew, as a program would."""

    def damage(lines: list[Any]) -> None:
        record = {**lines[at]["record"], name: value}
        if value is None and name != "told":
            del record[name]
        (text,), _ = linked([encode(record, lines[0]["seal"]["belongs"]["evaluation"])], "")
        lines[at] = json.loads(text) | {"chain": lines[at]["chain"]}

    return damage


def moved(lines: list[Any]) -> None:
    lines[-1], lines[-2] = lines[-2], lines[-1]


def renumbered(lines: list[Any]) -> None:
    lines[-1]["record"], lines[-2]["record"] = lines[-2]["record"], lines[-1]["record"]


def of_another(lines: list[Any]) -> None:
    (text,), _ = linked([encode(lines[-1]["record"], "0" * 64)], "")
    lines[-1] = text


DAMAGES: dict[str, Damage] = {
    "counts as booleans": changed("counts", [True, False, True, True]),
    "huge counts": changed("counts", [1e308, 0, 0, 0]),
    "emptied right": changed("right", []),
    "negative indices": changed("right", [-1, -2]),
    "a string": changed("right", "0123"),
    "seconds as text": changed("seconds", "1"),
    "no distances": changed("distances", []),
    "another batch": changed("batch", 0),
    "another attack": changed("attack", 0),
    "forged: emptied right": forged("right", []),
    "forged: negative indices": forged("right", [-1, -2]),
    "forged: other indices": forged("right", [900, 901]),
    "forged: twice the same": forged("right", [8, 8]),
    "forged: booleans": forged("counts", [True, False, True, True]),
    "forged: huge counts": forged("counts", [10**300, 0, 0, 0]),
    "forged: rows": forged("counts", [3, 0, 4, 4]),
    "forged: rejected": forged("counts", [4, 99, 4, 4]),
    "forged: negative passes": forged("counts", [4, 0, -4, 4]),
    "forged: infinite seconds": forged("seconds", float("inf")),
    "forged: negative seconds": forged("seconds", -1.0),
    "forged: distances of one number": forged("distances", [[0.1]]),
    "forged: infinite distance": forged("distances", [[float("inf"), 0.1]]),
    "forged: too many distances": forged("distances", [[0.1, 0.1]] * 9),
    "forged: short measures": forged("measures", {"loss": [0.5]}),
    "forged: measures as text": forged("measures", {"loss": ["a", "b", "c", "d"]}),
    "forged: told of another": forged("told", [True, 900, "x"]),
    "forged: told of numbers": forged("told", [1, 2, 3]),
    "forged: index": forged("index", [1, 2, 3, 4]),
    "forged: classes": forged("predicted", [99, 99, 99, 99]),
    "forged: confidence": forged("confidence", [2.0] * 4),
    "forged: a key less": forged("counts", None),
    "forged: a key more": forged("more", 1),
    "forged: negative process": forged("process", -1),
    "lines in another order": moved,
    "records in another order": renumbered,
    "a line removed": lambda lines: lines.pop(-2),
    "the first record removed": lambda lines: lines.pop(1),
    "a line of another evaluation": of_another,
    "no JSON": lambda lines: lines.__setitem__(-2, "{\n"),
    "a list": lambda lines: lines.__setitem__(-2, []),
    "a number": lambda lines: lines.__setitem__(-2, 3),
    "nested deeply": lambda lines: lines.__setitem__(-2, "[" * 9999 + "\n"),
    "zeros": lambda lines: lines.__setitem__(-2, "\0" * 300 + "\n"),
    "no header": lambda lines: lines.pop(0),
    "a changed header": lambda lines: lines[0].update(journal="x"),
    "a header without seal": lambda lines: lines[0].pop("seal"),
}


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, int]:
    """An evaluation that was stopped in its last row: its journal, the whole result, and all calls."""
    path, calls = tmp_path_factory.mktemp("half") / "notes.journal", (Noisy(), Noisy())
    whole = rows(evaluation(), *calls)
    total = sum(each.calls for each in calls)
    with pytest.raises(KeyboardInterrupt):
        rows(journaled(path), Noisy(), Noisy(calls[1].calls - 1))
    return path, plain(whole), total


@pytest.mark.parametrize("name", DAMAGES)
def test_of_a_damaged_journal_only_sound_records_are_kept(
    name: str, half: tuple[Path, Any, int], tmp_path: Path
) -> None:
    path, lines = tmp_path / "notes.journal", lines_of(half[0])
    key = lines[0]["seal"]["belongs"]["evaluation"]
    DAMAGES[name](lines)
    write_lines(path, lines)
    before, found = read_records(half[0], key), read_records(path, key)
    (problem,) = found.problems
    assert "was damaged or changed: line " in problem
    assert "\n" not in problem
    assert {*found.records} <= {*before.records}, "each is as it was written"
    assert len(found.records) >= len(before.records) - 4
    assert f"{len(found.records)} sound records are kept" in problem


@pytest.mark.parametrize("name", ["emptied right", "forged: emptied right", "a line removed", "no header"])
def test_a_damaged_journal_is_named_and_changes_no_number(
    name: str, half: tuple[Path, Any, int], tmp_path: Path
) -> None:
    before, whole, total = half
    path, said, calls = tmp_path / "notes.journal", Warned(), (Noisy(), Noisy())
    lines = lines_of(before)
    DAMAGES[name](lines)
    write_lines(path, lines)
    assert plain(rows(journaled(path, reporter=said), *calls)) == whole
    (warning,) = said.warnings
    assert str(path) in warning
    assert sum(each.calls for each in calls) <= 4 < total
    mended = read_records(path, lines_of(path)[0]["seal"]["belongs"]["evaluation"])
    assert (len(mended.records), mended.problems) == (len(lines_of(before)), []), "all batches, none damaged"


SOUND = Chunk([4, 5], (3, 1, 6, 6), [(0.1, 0.5)], 0.25, {"loss": [0.1, 0.2, float("nan")]}, (True, 6, "x"))
CLASSED = dataclasses.replace(SOUND, index=[4, 5, 6], predicted=[0, 1, 1], confidence=[0.5, 1.0, math.nan])


def test_a_sound_record_fits_its_samples() -> None:
    assert misfit(SOUND, [4, 5, 6], None) == misfit(CLASSED, [4, 5, 6], 2) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"counts": (4, 0, 6, 6)},
        {"counts": (3, 4, 6, 6)},
        {"right": [4, 7]},
        {"right": [4, 4]},
        {"distances": [(0.1, 0.5)] * 2},
        {"measures": {"loss": [0.1]}},
        {"told": (True, 7, "x")},
        {"index": [4, 5]},
        {"index": [5, 4, 6]},
        {"predicted": [0, 1]},
        {"predicted": [0, 1, 2]},
        {"confidence": [0.5, 1.0]},
        {"confidence": [0.5, 1.0, 1.5]},
        {"confidence": [0.5, 1.0, -0.5]},
    ],
    ids=str,
)
def test_a_record_of_other_samples_is_made_again(change: dict[str, Any], tmp_path: Path) -> None:
    wrong, said, index = dataclasses.replace(CLASSED, **change), Warned(), torch.tensor([4, 5, 6])
    assert misfit(wrong, [4, 5, 6], 2)
    journal = Journal.open(tmp_path / "notes.journal", "this", ALONE, said.warn)
    journal.add(1, 0, wrong)
    journal.add(1, 1, CLASSED)
    journal.close()
    journal = Journal.open(tmp_path / "notes.journal", "this", ALONE, said.warn)
    batch = Batch(torch.zeros(3), torch.zeros(3), index)
    assert journal.chunk(1, 0, batch, 2) is None
    assert len(said.warnings) == 1
    assert str(journal.chunk(1, 1, batch, 2)) == str(CLASSED)


def test_an_undamaged_journal_is_not_mentioned(half: tuple[Path, Any, int], tmp_path: Path) -> None:
    path, said = tmp_path / "notes.journal", Warned()
    path.write_bytes(half[0].read_bytes())
    assert plain(rows(journaled(path, reporter=said), Noisy(), Noisy())) == half[1]
    path.write_bytes(half[0].read_bytes()[:-7])  # the last line of a process that was killed
    assert plain(rows(journaled(path, reporter=said), Noisy(), Noisy())) == half[1]
    assert said.warnings == []


@pytest.mark.parametrize(
    ("text", "match"),
    [('{"evaluation": "abc"}\n{}\n', "earlier version"), (None, "another evaluation")],
    ids=["earlier version", "another evaluation"],
)
def test_a_journal_that_is_not_used_is_named(
    text: str | None, match: str, half: tuple[Path, Any, int], tmp_path: Path
) -> None:
    path, said = tmp_path / "notes.journal", Warned()
    path.write_text(text or half[0].read_text())
    rows(journaled(path, reporter=said, identity={"weights": "others"}), Noisy())
    (warning,) = said.warnings
    assert match in warning


def test_a_journal_costs_the_same_per_batch_however_long_it_is(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "notes.journal", "this", ALONE, print)
    sizes = []
    for number in range(50):
        journal.add(0, number, CHUNK)
        journal.end_of_attack()
        sizes.append((tmp_path / "notes.journal").stat().st_size)
    assert sizes[-1] - sizes[-2] <= sizes[1] - sizes[0] + 8
    journal.close()
    assert len(Journal.open(tmp_path / "notes.journal", "this", ALONE, print).chunks) == 50


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
    journal = Journal.open(path, "this", second, print)
    journal.add(0, 0, theirs)
    sent = list(journal._pending)
    assert not path.exists()
    first: Any = Pair(0, sent)
    journal = Journal.open(path, "this", first, print)
    journal.add(0, 0, CHUNK)
    journal.end_of_attack()
    journal.close()
    assert Journal.open(path, "this", first, print).chunks[0, 0, 0] == CHUNK
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    again: Any = Pair(1, [f"{line['own']} {json.dumps(line['record'])}" for line in lines])
    assert Journal.open(path, "this", again, print).chunks[1, 0, 0] == theirs
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
