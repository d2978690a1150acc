"""A small study that a cluster carries out, and its parts that do not depend on who did it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustplug.runs.lock import holder
from robustplug.runs.result_file import read_result
from robustplug.testing.kit import run_checks

from ..docs.blocks import code_blocks

DOCS = Path(__file__).parents[2] / "docs"

# The epochs are long enough to be interrupted.
STUDY = """
base = "cat"
seeds = {seeds}
[set]
train = {{ epochs = {epochs}, device = "cpu", batch_size = 16 }}
task = {{ validation = 1000, test = 300 }}
model.width = 2
"method.perturbation.steps" = 2
validate.samples = 20
validate.attack.steps = 1
evaluate.samples = 40
"evaluate.attack" = [{{ use = "pgd", steps = 1 }}]
"""


def write_study(folder: Path, seeds: list[int], epochs: int) -> Path:
    file = folder / "mine.toml"
    file.write_text(STUDY.format(seeds=seeds, epochs=epochs))
    return file


def command(file: Path, out: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "robustplug", "study", str(file), "--out", out, *options]


def run(file: Path, out: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(file, out, *options),
        cwd=file.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


# What differs between one process and two is the rounding of sums.
EXACT = """
schema = 1
task = { use = "digits" }
model = { use = "small-cnn", width = 2, batchnorm = false }
method = { use = "erm", vicinity = { use = "linf", eps = 0.1 } }
train = { epochs = 2, device = "cpu", select = "last" }
validate = { samples = 20, attack = { use = "none" } }
evaluate = { samples = 40, attack = [{ use = "fgsm" }] }
"""


def program(page: str, what: str, changes: Mapping[str, str]) -> str:
    """Return the one block of a page of the docs that has some words in it, with others in their place."""
    (found,) = [block.text for block in code_blocks(DOCS / page) if what in block.text]
    for old, new in changes.items():
        assert old in found, old
        found = found.replace(old, new)
    return found


def assert_two_trained(run_folder: Path, alone: Path) -> None:
    """Compare a run of two processes with the same of one."""
    from safetensors.torch import load_file

    assert json.loads((run_folder / "environment.json").read_text())["processes"] == 2
    both, one = (load_file(folder / "model.safetensors") for folder in (run_folder, alone))
    assert both.keys() == one.keys()
    assert all((both[name] - value).abs().max() <= 1e-5 for name, value in one.items())
    assert len(read_result(run_folder / "result.json").result.attacks) == 2


def timeless(value: Any) -> Any:
    """Return a tree without the times that were measured."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in ("seconds", "seal")}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def table(folder: Path) -> Any:
    return timeless(json.loads((folder / "result.json").read_text()))


def assert_equal(one: Path, other: Path) -> None:
    """Compare the results of a study, and weights and verdicts of its runs bit for bit."""
    assert table(one) == table(other)
    names = sorted(path.name for path in (one / "runs").iterdir())
    assert names == sorted(path.name for path in (other / "runs").iterdir())
    for name in names:
        first, second = one / "runs" / name, other / "runs" / name
        assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
        rows = [
            [row.right for row in read_result(run / "result.json").result.attacks] for run in (first, second)
        ]
        assert rows[0] == rows[1]


def assert_conforms(launcher: str) -> None:
    outcomes = run_checks(launcher, "launcher")
    assert [each for each in outcomes if each.skipped or not each.passed] == []


def assert_shares(folder: Path, *options: str) -> None:
    """Evaluate a model in two jobs of a launcher, and compare the rows with those of one process."""
    from safetensors.torch import save_file

    import robustplug

    info = robustplug.build("task", "digits").info
    network = robustplug.build("model", "small-cnn", width=2, info=info)
    save_file(network.state_dict(), folder / "net.safetensors")
    words = ["evaluate", "net.safetensors", "--task", "digits", "--model", "small-cnn", "--device", "cpu"]
    words += ["--set", "model.width=2", "--set", "evaluate.samples=60", "--set", "evaluate.batch_size=8"]
    rows = []
    for name, more in (("alone", ()), ("shared", ("--processes", "2", *options))):
        done = subprocess.run(
            [sys.executable, "-m", "robustplug", *words, "--out", name, *more],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        rows.append(timeless(json.loads((folder / name / "evaluation.json").read_text())["attacks"]))
    assert rows[0] == rows[1]
    assert [path.name for path in (folder / "shared").glob("*-shares-*")] == []


def until(true: Callable[[], object], what: str, seconds: float = 240.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} takes too long"
        time.sleep(0.2)


def epochs_done(folder: Path, run: str) -> int:
    file = folder / "runs" / run / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def paused(folder: Path, run: str, epochs: int) -> int:
    """Pause the worker of a run after some epochs, and return its number: no test depends on its speed."""
    until(lambda: epochs_done(folder, run) >= epochs, f"the training of {run}")
    process = int(holder(folder / "runs" / run / ".lock")["pid"])
    os.kill(process, signal.SIGSTOP)
    return process


def starts(folder: Path, run: str) -> list[int | None]:
    """Return the epochs at which a run was resumed, None for its start."""
    lines = (folder / "jobs" / f"{run}.jsonl").read_text().splitlines()
    said = [json.loads(line) for line in lines if line.startswith("{")]
    return [each["run"]["resumed_at_epoch"] for each in said if each["kind"] == "begin"]
