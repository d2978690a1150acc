"""The benchmark of a GPU runs every line on the CPU, within its minutes, and says what it leaves out."""

from __future__ import annotations

import io
import json
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gpu_parts import installed, ours
from gpu_parts.cifar import find, read, unpickled
from gpu_parts.device import TINY, Machine
from gpu_parts.floors import Bare, Images, network
from gpu_parts.made_up import write_binary, write_pickles, write_pictures
from gpu_parts.report import Report, table
from gpu_parts.robust import Robust
from torch import nn

from robustplug.core.random import isolated
from robustplug.core.types import Progress
from robustplug.plugin.host import registry

ROOT = Path(__file__).parents[2]
TIMES = {"ours": 1.0, "reference": 2.0}


SCRIPT = ROOT / "benchmarks" / "gpu.py"
# Runs the benchmark as if some packages were not installed.
WITHOUT = """
import importlib.util, runpy, sys
hidden, found, sys.argv = sys.argv[1].split(","), importlib.util.find_spec, sys.argv[2:]
sys.modules.update(dict.fromkeys(hidden))
importlib.util.find_spec = lambda name, *package: None if name in hidden else found(name, *package)
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def dry_run(folder: Path, *arguments: str, without: str = "") -> tuple[int, dict[str, Any], str]:
    """Run the benchmark in a process of its own."""
    numbers = folder / "gpu.json"
    start = ["-c", WITHOUT, without] if without else []
    command = [sys.executable, *start, str(SCRIPT), "--dry-run", "--json", str(numbers), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    shown = done.stdout + done.stderr
    assert numbers.exists(), shown
    return done.returncode, json.loads(numbers.read_text()), shown


@pytest.mark.slow
@pytest.mark.timeout(1200)  # it takes 40 s of an idle core
def test_a_dry_run_fills_every_section(tmp_path: Path) -> None:
    code, found, shown = dry_run(tmp_path, "--minutes", "60")
    assert code == 0, shown
    assert "errors" not in found
    names = {name for name in registry().names("method") if not registry().get("method", name).tasks}
    assert set(found["methods"]) == set(found["passes"]) == set(found["bits"])
    certified = {"consistency", "crown-ibp", "ibp", "macer", "mtl-ibp", "sabr", "smooth-adv", "smooth-mix"}
    around = {"awp", "ema", "gairat", "gradalign", "swa"}
    assert names - set(found["methods"]) == {"denoiser", "hat", "rslad"} | certified | around
    for name, passes in found["passes"].items():
        if name != "iaat":  # the rows that it attacks depend on the data
            assert passes["declared"] == passes["ours"], name
    assert all(
        bits["two runs"] and bits["captured and eager"] is not False for bits in found["bits"].values()
    )
    for rows in found["step"].values():
        assert {"bare loop, bfloat16", "torch.compile and CUDA graph", "ours, pgd-at, fast = off"} <= set(
            rows
        )
        assert all(time > 0 for time in rows.values())
    assert found["training"]["clean"] <= 1
    assert 0 < found["training"]["of which until the first update"] < found["training"]["seconds"]
    assert found["audit"]["grade"] in "ABUF"
    assert found["autoattack"]["images"] == 8
    assert found["autoattack"]["other verdicts"] == 0
    assert set(found["seconds"]) == {"table", "training", "autoattack", "bits", "audit", "methods", "large"}


@pytest.mark.slow
def test_a_missing_package_costs_only_its_rows(tmp_path: Path) -> None:
    only = ("--only", "table", "training", "bits")
    code, found, shown = dry_run(tmp_path, *only, without="pydantic,tomli_w,torchattacks")
    assert code == 0, shown
    (rows,) = found["step"].values()
    assert "torch.compile and CUDA graph" in rows
    assert "ours, pgd-at, fast = off" not in rows
    assert "pip install pydantic tomli-w" in shown
    assert "pip install --no-deps torchattacks" in shown
    assert {each["what"] for each in found["left_out"]} >= {"training on CIFAR-10", "bits"}


def test_a_section_beyond_the_minutes_is_left_out_and_an_error_ends_only_its_own(tmp_path: Path) -> None:
    now, said = [0.0], list[str]()
    report = Report(tmp_path / "numbers.json", minutes=1, clock=lambda: now[0], say=said.append)

    def work() -> None:
        assert report.left() == 20
        now[0] += 30
        assert report.left() == -10

    def broken() -> None:
        report.put("half", 1)
        raise ValueError("no\nluck")

    report.section("first", 10, 20, work)
    report.section("second", 31, 40, lambda: pytest.fail("no time is left"))
    report.section("third", 30, 40, broken)
    kept = json.loads((tmp_path / "numbers.json").read_text())
    assert kept["half"] == 1
    assert kept["seconds"] == {"first": 30, "second": 0, "third": 0}
    assert [each["what"] for each in kept["left_out"]] == ["second", "third"]
    assert "it needs 31 s, and 30 s are left" in said[2]
    assert kept["left_out"][1]["why"] == "ValueError: no luck"
    assert "broken" in kept["errors"]["third"]
    assert report.failed


def test_tables_have_columns_of_one_width() -> None:
    lines = table(["what", "ms"], [["a long name", "1.00"], ["b", "10.00"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2] == "| a long name |  1.00 |"


@pytest.mark.parametrize("write", [write_pickles, write_binary, write_pictures])
@pytest.mark.parametrize("nested", [False, True])
def test_every_form_of_the_data_is_read(tmp_path: Path, write: Any, nested: bool) -> None:
    write(tmp_path)
    inner = next(iter(tmp_path.iterdir())) if write is not write_pictures and nested else tmp_path
    task = read(inner, workers=0)
    pictures = write is write_pictures
    assert task.info.shape == ((3, 12, 12) if pictures else (3, 32, 32))
    assert task.info.classes == 10
    sizes = (
        {"train": 78, "validation": 2, "test": 20}
        if pictures
        else {"train": 50, "validation": 50, "test": 20}
    )
    assert task.info.sizes == sizes
    x, _ = task._data["train"]
    assert x.dtype == torch.uint8


def test_both_binary_forms_hold_the_same(tmp_path: Path) -> None:
    write_pickles(tmp_path / "a")
    write_binary(tmp_path / "b")
    assert read(tmp_path / "a", 0).digest() == read(tmp_path / "b", 0).digest()


def test_a_folder_without_data_and_a_pickle_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cifar-10-batches-py"):
        find(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="no part of CIFAR-10"):
        unpickled(io.BytesIO(pickle.dumps({b"data": Path("x")})))


def test_a_clone_that_is_not_installed_states_its_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = {(point.name, point.value) for point in metadata.entry_points(group="robustplug")}
    stated = metadata.entry_points
    monkeypatch.setattr(metadata, "entry_points", lambda **_: ())
    installed.provide_clone()
    assert sys.path[:2] == [str(ROOT), str(ROOT / "plugins")]
    monkeypatch.setattr(metadata, "entry_points", stated)
    (found,) = metadata.distributions(path=[sys.path[-1]])
    points = {(point.name, point.value) for point in found.entry_points if point.group == "robustplug"}
    assert ("builtin", "robustplug.builtin") in points
    assert found.version
    assert known <= points


def test_bare_passes_stay_in_the_threat_model() -> None:
    machine = Machine(dry=True)
    images = Images.random(4, machine)
    model = network(machine)
    bare = Bare(model, model, images)
    x = bare.attack(3)
    assert (bare.forwards, bare.backwards) == (3, 3)
    assert float((x - images.x).abs().max()) <= 8 / 255 + 1e-6
    assert float((x - images.x).abs().max()) > 0
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    assert all(parameter.requires_grad for parameter in model.parameters())
    before = [parameter.detach().clone() for parameter in model.parameters()]
    bare.train(x, views=2)
    assert any(not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_a_graph_of_a_dry_run_calls_its_function() -> None:
    machine, calls = Machine(dry=True), []
    replay = machine.graph(lambda: calls.append(1))
    replay()
    assert len(calls) == 2
    assert machine.milliseconds(lambda: calls.append(1), lambda: math.inf) > 0
    assert len(calls) == 4


def test_the_time_of_an_update_leaves_out_the_ends_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    run = ours.Ours(Machine(dry=True), "erm", 4, batches=8)
    assert run.loop.update == 0

    class Loop:
        def epoch(
            self, epoch: int, first: int, batches: Any, rows: int, size: int, after: Any, kept: Any
        ) -> None:
            for number in range(1, 9):
                now[0] += 0.002 if 4 < number < 8 else 1
                after(Progress(0, 1, number, 8, 0, 8))

    assert run.replays is None
    monkeypatch.setattr(run, "loop", Loop())
    vars(run.loop)["runner"] = SimpleNamespace(inner=SimpleNamespace(replays=3))
    assert run.replays == 3
    assert run.milliseconds(lambda: math.inf) == pytest.approx(2)


def test_verdicts_of_both_attacks_are_compared_sample_by_sample(tmp_path: Path) -> None:
    said = list[str]()
    machine = Machine(dry=True, chosen=replace(TINY, eps="1/120", attacked=24, block=12))
    report = Report(tmp_path / "numbers.json", minutes=5, say=said.append)
    robust = Robust(machine, report, None, [], tmp_path / "run")
    robust.task = ours.images_task(30, 6)
    with isolated(0):
        robust.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 10))
    robust.auto_attack()
    found = report.results["autoattack"]
    assert found["images"] == 24
    assert 0 < found["robust"] < 1
    assert found["robust"] == found["reference robust"]
    assert found["other verdicts"] == 0
    robust._note({"ours": [torch.tensor([True, False])], "reference": [torch.tensor([False, False])]}, TIMES)
    found = report.results["autoattack"]
    assert (found["other verdicts"], found["only ours broke"], found["only the reference broke"]) == (1, 0, 1)
    assert found["ratio"] == 0.5


def test_without_a_network_nothing_is_attacked_or_audited(tmp_path: Path) -> None:
    report = Report(None, minutes=5, say=lambda line: None)
    robust = Robust(Machine(dry=True), report, None, [], tmp_path / "run")
    robust.train()
    robust.audit()
    robust.auto_attack()
    reasons = {each["what"]: each["why"] for each in report.left_out}
    assert reasons == {
        "training on CIFAR-10": "no data are given: --data FOLDER",
        "audit": "no network was trained",
        "AutoAttack": "no network was trained",
    }


def test_settings_that_recipes_lack_are_left_out() -> None:
    assert ours.settings(epochs=1, unheard_of=2) == {"epochs": 1}
    assert ours.knows("epochs")
    assert not ours.knows("unheard_of")
