"""Processes that share an evaluation through files: the rows are those of one process, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.core.batches import index_batches
from robustplug.core.types import Batch, Feed, Split, TaskInfo, View
from robustplug.devices.processes import start
from robustplug.errors import RunError
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.kept import share as shares
from robustplug.evaluation.setting import Attack, Share
from robustplug.recipe.errors import RecipeError
from robustplug.runs.lock import holder
from robustplug.studies import sharing
from robustplug.studies.parts import Part, parse_job
from robustplug.studies.sharing import sharing_of

from .test_evaluate import evaluation
from .test_journal import Noisy, Warned, plain, rows

pytestmark = pytest.mark.table


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "PATIENCE", 0.0)
    monkeypatch.setattr(shares, "LONGER", 0.0)


def shared(folder: Path, number: int, of: int = 2, **changes: Any) -> Evaluation:
    return dataclasses.replace(evaluation(), share=Share(number, of, folder), **changes)


def records(path: Path) -> list[tuple[int, int]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return [(line["record"]["attack"], line["record"]["batch"]) for line in lines]


@pytest.mark.parametrize("stop_at", [0, 1, 3, 5])
def test_a_killed_part_is_done_again_alone(stop_at: int, tmp_path: Path) -> None:
    whole = rows(evaluation(), Noisy(), Noisy(), batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        rows(shared(tmp_path, 0), Noisy(stop_at), Noisy(max(0, stop_at - 3)), batch_size=3)
    before = records(tmp_path / "share-0.journal")
    assert plain(rows(shared(tmp_path, 1), Noisy(), Noisy(), batch_size=3)) == plain(whole)
    taken_over = records(tmp_path / "share-1.journal")
    assert not {*before} & {*taken_over}, "nothing is done twice"
    # The part that was killed starts again, and finds everything done.
    again = (Noisy(), Noisy())
    assert plain(rows(shared(tmp_path, 0), *again, batch_size=3)) == plain(whole)
    assert sum(each.calls for each in again) == 0


def test_what_more_parts_have_done_is_read_by_fewer(tmp_path: Path) -> None:
    whole = plain(rows(evaluation(), Noisy(), batch_size=3))
    with pytest.raises(KeyboardInterrupt):
        rows(shared(tmp_path, 4, of=5), Noisy(2), batch_size=3)
    before = records(tmp_path / "share-4.journal")
    assert before
    assert plain(rows(shared(tmp_path, 0, of=2), Noisy(), batch_size=3)) == whole
    assert not {*before} & {*records(tmp_path / "share-0.journal")}


def test_each_part_attacks_its_own_batches_and_reads_those_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows(evaluation(), Noisy(), batch_size=2)
    monkeypatch.setattr(shares, "PATIENCE", 60.0)
    found, turn = dict[int, Any](), threading.Lock()

    # Two threads, as two processes: one computes while the other waits, as random numbers of the process are
    # put back after an attack.
    original = shares.SharedJournal.shared

    def waiting(self: Any, attack: int, again: Any) -> Iterator[Any]:
        turn.release()
        try:
            chunks = list(original(self, attack, again))
        finally:
            turn.acquire()
        return iter(chunks)

    monkeypatch.setattr(shares.SharedJournal, "shared", waiting)

    def work(number: int) -> None:
        with turn:
            found[number] = plain(rows(shared(tmp_path, number), Noisy(), batch_size=2))

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {0: plain(whole), 1: plain(whole)}
    for number in (0, 1):
        batches = records(tmp_path / f"share-{number}.journal")
        assert batches
        assert {batch % 2 for _, batch in batches} == {number}


def test_what_is_damaged_or_of_another_evaluation_is_done_again(tmp_path: Path) -> None:
    whole = plain(rows(evaluation(), Noisy()))
    rows(shared(tmp_path, 0), Noisy())
    path = tmp_path / "share-0.journal"
    lines = path.read_text().splitlines(keepends=True)
    damaged = json.loads(lines[2])
    damaged["record"]["right"] = []
    path.write_text("".join([*lines[:2], json.dumps(damaged) + "\n", *lines[3:]]))
    again = Noisy()
    assert plain(rows(shared(tmp_path, 1), again)) == whole
    assert 0 < len(records(tmp_path / "share-1.journal")) <= 2
    said = Warned()
    assert plain(rows(shared(tmp_path, 1, identity={"weights": "x"}, reporter=said), Noisy())) == whole
    assert sum("belongs to another evaluation" in each for each in said.warnings) >= 1


class Endless:
    """A task of as many samples as one likes, which are made when they are asked for."""

    default_model = "small-cnn"

    def __init__(self, samples: int) -> None:
        self.info = TaskInfo(sizes={"test": samples}, shape=(1, 16, 16), classes=2, mean=(0.5,), std=(0.5,))

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        for index in index_batches(self.info.sizes[split], feed):
            x = (index.view(-1, 1, 1, 1) % 97 / 97).expand(-1, 1, 16, 16).clone()
            yield Batch(x, index % 2, index)

    def score(self, view: View, output: Any) -> Any:
        return output.argmax(1) == view.y


class Pixels(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        return torch.stack([flat[:, 0] - 0.5, 0.5 - flat[:, 1]], 1)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["journal", pytest.param("share", marks=pytest.mark.slow)])
def test_the_memory_of_an_evaluation_is_a_few_bytes_for_each_sample(way: str, tmp_path: Path) -> None:
    """Inputs are 1024 bytes, and their attacked ones as many; records of a batch are on the disk."""

    def peak(samples: int) -> int:
        base = evaluation()
        made: dict[str, Any] = {"journal": tmp_path / f"{samples}.journal"}
        if way == "share":
            made = {"share": Share(0, 1, tmp_path / str(samples))}
        subject = Evaluation(
            Pixels(), Endless(samples), base.vicinity, base.loss, 0, start("cpu", "float32"), **made
        )
        tracemalloc.start()
        subject.run("test", [Attack("noisy", {}, Noisy(), chain="main")], 500)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(500)
    few, many = peak(2_000), peak(12_000)
    assert (many - few) / 10_000 < 400, f"{(many - few) / 10_000:.0f} bytes for each sample"


def test_who_shares_is_read_from_the_arguments() -> None:
    assert sharing_of(None, None, ["evaluate.samples=3"]) == (None, ["evaluate.samples=3"])
    sharing, rest = sharing_of(None, 3, ["seed=1"])
    assert sharing is not None
    assert (sharing.launcher.name, sharing.launcher.options.processes, sharing.parts) == ("local", 3, 3)
    assert rest == ["seed=1"]
    sharing, _ = sharing_of("ray", 2, ["launcher.cpus=2"])
    assert sharing is not None
    assert (sharing.launcher.name, sharing.launcher.options.cpus, sharing.parts) == ("ray", 2.0, 2)
    with pytest.raises(RecipeError, match="cpu"):
        sharing_of("ray", None, ["launcher.cpu=2"])


def test_what_cannot_be_sent_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a Linear cannot be sent to other processes: give a run folder"):
        robustplug.evaluate(torch.nn.Linear(2, 2), task="digits", processes=2)
    with pytest.raises(RunError, match="an argument cannot be sent"):
        robustplug.evaluate(tmp_path, data=(torch.zeros(2, 2), torch.zeros(2)), processes=2)
    with pytest.raises(RunError, match="examples are kept by one process"):
        robustplug.evaluate(tmp_path, keep_examples=True, processes=2)
    with pytest.raises(RunError, match="a budget of time is kept by one process"):
        robustplug.audit(tmp_path, budget=1.0, processes=2)


def test_another_command_neither_follows_parts_nor_takes_their_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = list[Path]()

    def run(parts: Any) -> Path:
        folders.append(parts.folder)
        raise RunError("no part was done")

    monkeypatch.setattr(sharing._Parts, "run", run)
    suite = tmp_path / "mine.toml"

    def folder(rows: str = "a", **changes: Any) -> Path:
        suite.write_text(rows)
        with pytest.raises(RunError, match="no part was done"):
            robustplug.evaluate(tmp_path, out=tmp_path, **{"suite": suite, "processes": 2, **changes})
        return folders[-1]

    assert folder() == folder() == folder(processes=3)
    assert len({folder(), folder("b"), folder(samples=3), folder(suite=tmp_path / "x" / "mine.toml")}) == 4
    assert {each.name[:12] for each in folders} == {"mine-shares-"}


@pytest.mark.parametrize(("file", "noted"), [("audit.json", True), ("audit-smoothed.json", False)])
def test_the_audit_of_a_wrapped_model_is_not_noted_in_the_run(
    file: str, noted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = list[Any]()
    monkeypatch.setattr(sharing._Parts, "run", lambda parts: parts.folder / "part-0" / file)
    monkeypatch.setattr(sharing, "holds_run", lambda folder: True)
    monkeypatch.setattr(sharing, "read_sealed", lambda path, run: ({"audit": {}}, True))
    monkeypatch.setattr(sharing, "write_result", lambda *given: None)
    monkeypatch.setattr(sharing, "note_in_result", lambda *given: notes.append(given))
    who, _ = sharing_of(None, 2, [])
    assert who is not None
    sharing.share(who, "audit", tmp_path, {}, {}, tmp_path / "out")
    assert bool(notes) is noted


def test_a_part_is_a_job() -> None:
    part = Part(
        command="evaluate",
        model="runs/x",
        opening={"samples": 3},
        arguments={},
        number=0,
        of=2,
        shares="/s",
        folder="/s/part-0",
        directory="/",
    )
    assert parse_job(part.model_dump_json().encode()) == part


def network_of(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write a small network, and return its file and how it is opened."""
    from safetensors.torch import save_file

    info = robustplug.build("task", "digits").info
    network = robustplug.build("model", "small-cnn", width=2, info=info)
    save_file(network.state_dict(), folder / "net.safetensors")
    more: dict[str, Any] = {"task": "digits", "architecture": {"use": "small-cnn", "width": 2}}
    more |= {"samples": 48, "batch_size": 8, "device": "cpu", "threat": {"use": "linf", "eps": 0.1}}
    return folder / "net.safetensors", more


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", ["evaluate", "audit"])
def test_two_processes_say_what_one_says(command: str, tmp_path: Path) -> None:
    model, more = network_of(tmp_path)
    if command == "evaluate":
        attacks = [{"use": "pgd", "steps": 5, "restarts": 2}, {"use": "square", "queries": 50}]
        alone = robustplug.evaluate(model, attacks=attacks, out=tmp_path / "alone", **more)
        both = robustplug.evaluate(model, attacks=attacks, out=tmp_path / "both", processes=2, **more)
        assert plain(both.attacks) == plain(alone.attacks)
    else:
        more["samples"] = 8
        first = robustplug.audit(model, out=tmp_path / "alone", **more)
        second = robustplug.audit(model, out=tmp_path / "both", processes=2, **more)
        assert plain(second.result.attacks) == plain(first.result.attacks)
        assert second.to_json() == first.to_json()
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == sorted(
        path.name for path in (tmp_path / "alone").iterdir()
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_part_whose_process_is_killed_changes_no_row(tmp_path: Path) -> None:
    model, more = network_of(tmp_path)
    attacks = [{"use": "pgd", "steps": 400}, {"use": "pgd", "steps": 100, "restarts": 2}]
    alone = robustplug.evaluate(model, attacks=attacks, **more)
    out, found = tmp_path / "both", list[Any]()
    shares = "evaluation-shares-*"

    def work() -> None:
        found.append(robustplug.evaluate(model, attacks=attacks, out=out, processes=2, **more))

    thread = threading.Thread(target=work)
    thread.start()
    until = time.monotonic() + 600
    while not any(len(each.read_bytes().splitlines()) > 2 for each in out.glob(f"{shares}/share-0.journal")):
        assert time.monotonic() < until
        time.sleep(0.05)
    (lock,) = out.glob(f"{shares}/part-0/.lock")
    os.kill(int(holder(lock)["pid"]), signal.SIGKILL)
    thread.join(600)
    assert plain(found[0].attacks) == plain(alone.attacks)
    assert not [*out.glob(shares)]
