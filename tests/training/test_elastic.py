"""A run goes on with another number of processes, and after torchrun has started them again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import robustplug
from robustplug.devices.processes import Processes
from robustplug.errors import RunError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.options import Recipe
from robustplug.recipe.write import write_recipe
from robustplug.runs import checkpoint, launch
from robustplug.runs.choose import begun_run
from robustplug.runs.heads import names
from robustplug.runs.launch import agent, began
from robustplug.training import fit_batch
from robustplug.training.session import dealt, pooled

from .capturing import Told
from .elastic import METHODS, recipe, trained
from .runs import newest, read_json, tiny
from .test_killed import environment
from .test_resume import Killed, kill_after_save
from .two_processes import exact

LIMIT = 600


def shares(rows: Tensor, world: int) -> list[Tensor]:
    return [rows[rank::world] for rank in range(world)]


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (4, 1), (1, 3), (3, 2)])
def test_rows_of_batches_are_dealt_anew(before: int, after: int) -> None:
    rows = torch.rand(11, 2)
    found = [dealt(shares(rows, before), rank, after) for rank in range(after)]
    for one, other in zip(found, shares(rows, after), strict=True):
        assert torch.equal(one, other)


def test_the_same_processes_keep_what_they_had() -> None:
    parts = [torch.rand(3), torch.rand(3)]
    assert dealt(parts, 1, 2) is parts[1]
    assert pooled(parts, 0, 2) is parts[0]
    assert torch.equal(pooled(parts, 0, 3), (parts[0] + parts[1]) / 2)
    assert int(pooled([torch.tensor(4), torch.tensor(5)], 0, 1)) == 4


def test_a_run_of_two_processes_goes_on_in_one(tmp_path: Path) -> None:
    """The checkpoint is one as two processes write it; what it would train is what one trains."""
    folder = tmp_path / "free-at"
    for name in ("whole", "free-at"):
        trained(recipe("free-at"), tmp_path / name, None if name == "whole" else 3)
    found = checkpoint.load(folder / "checkpoints", newest(folder))
    tensors, meta = dict(found.tensors), {**found.meta, "world": 2}
    (shape,) = meta["local"]["method/delta"]
    parts = shares(tensors["local/method/delta"].reshape(shape), 2)
    tensors["local/method/delta"] = torch.cat([part.reshape(-1) for part in parts])
    meta["local"] = {"method/delta": [list(part.shape) for part in parts]}
    run = read_json(folder / "manifest.json")["run"]
    checkpoint.save(folder / "checkpoints", found.name, tensors, meta, run)
    told = Told()
    robustplug.train(resume=folder, reporter=told)
    assert any("goes on with 1 processes instead of 2" in message for message in told.messages)
    one, other = weights(folder), weights(tmp_path / "whole")
    assert all(torch.equal(one[key], value) for key, value in other.items())


def test_processes_that_would_change_the_batches_are_refused(tmp_path: Path) -> None:
    # 133 rows: three are left for the last of 14 batches, which four processes would leave out.
    settings = tiny("erm", train={"batch_size": 10, "checkpoint_batches": 1}, evaluate={"samples": 8})
    trained(settings, tmp_path / "run", 2)
    found = checkpoint.load(tmp_path / "run/checkpoints", newest(tmp_path / "run"))
    run = read_json(tmp_path / "run/manifest.json")["run"]
    meta = {**found.meta, "world": 4, "local": {}}
    for name in names(tmp_path / "run/checkpoints"):
        for suffix in ("json", "safetensors"):
            (tmp_path / "run/checkpoints" / f"{name}.{suffix}").unlink()
    checkpoint.save(tmp_path / "run/checkpoints", found.name, found.tensors, meta, run)
    with pytest.raises(RunError, match="4 processes have 13 batches an epoch, and 1 would have 14"):
        robustplug.train(resume=tmp_path / "run")


def test_only_the_own_launch_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    settings = tiny("erm", train={"checkpoint_batches": 1}, evaluate={"samples": 8}, validate={"samples": 8})
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    trained(settings, folder, 2)
    assert read_json(folder / "environment.json")["launch"] == [agent()]
    assert agent().endswith(f" {os.getppid()}")
    assert not began(folder), "this process has begun it, and trains another one"
    launch._HERE.clear()
    assert began(folder), "the same agent has started its workers again"
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not began(folder), "another launch without a name"
    with pytest.raises(RunError, match="already contains a run"):
        robustplug.train(settings, out=folder)
    monkeypatch.undo()
    assert not began(folder), "torchrun did not start it"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert robustplug.train(settings, out=folder).result.attacks
    assert len(read_json(folder / "result.json")["history"]) == 2
    assert began(folder)
    with pytest.raises(RunError, match="already contains a run"):
        robustplug.train(settings, out=folder)


def test_a_run_whose_batch_was_found_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, found = tmp_path / "run", list[bool]()

    def fitting(recipe: Recipe, reporter: Any, resume: bool = False) -> Recipe:
        found.append(resume)
        return fit_batch._with_rows(recipe, 66)

    monkeypatch.setattr(fit_batch, "with_fitting_batch", fitting)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    settings = tiny("erm", train={"checkpoint_batches": 1}, evaluate={"samples": 8}, validate={"samples": 8})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after_save(patch, 2)
        robustplug.train(settings, out=folder, fit_batch=True)
    launch._HERE.clear()
    run = robustplug.train(settings, out=folder, fit_batch=True)
    assert found == [False]
    assert run.parts is not None
    assert run.parts.recipe.train.batch_size == 66


def test_a_job_that_is_queued_again_goes_on_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "4711")
    trained(tiny("erm", train={"checkpoint_batches": 1}), tmp_path / "run", 1)
    launch._HERE.clear()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not began(tmp_path / "run"), "a launch of the same name, for the first time"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert began(tmp_path / "run")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "4712")
    assert not began(tmp_path / "run")


def test_processes_that_meet_to_look_for_a_run_are_ready_for_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for fast, found in (("off", None), ("capture", "0")):
        monkeypatch.setenv(key, "")  # so that it is put back afterwards
        monkeypatch.delenv(key)
        assert begun_run(tiny("erm", train={"fast": fast}), (), tmp_path / "run") is None
        assert os.environ.get(key) == found


def test_one_process_that_knows_the_run_suffices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that joins may get the first process, and its agent did not begin the run."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "pair")
    said = list[list[str]]()

    def gather(self: Processes, lines: list[str]) -> list[str]:
        said.append(lines)
        return [*lines, str(tmp_path / "run")]

    monkeypatch.setattr(Processes, "gather_lines", gather)
    assert begun_run(tiny("erm"), (), tmp_path / "run") == tmp_path / "run"
    assert said == [[]]


def weights(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(folder / "checkpoints" / f"{newest(folder)}.safetensors")
    return {key: value for key, value in tensors.items() if key.startswith(("model/", "state/", "optimizer"))}


def close(folder: Path, other: Path) -> None:
    """Require what runs on different numbers of processes leave to be equal up to rounding."""
    one, two = weights(folder), weights(other)
    assert one.keys() == two.keys()
    for key, value in two.items():
        assert (one[key].double() - value.double()).abs().max() <= 1e-5, key
    histories = [read_json(each / "result.json")["history"] for each in (folder, other)]
    for here, there in zip(*histories, strict=True):
        assert here["train"] == pytest.approx(there["train"], abs=1e-4)
        assert here["validation"] == pytest.approx(there["validation"], abs=2 / 32)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
def test_four_then_two_then_four_processes_train_what_one_trains(tmp_path: Path) -> None:
    for world, count in ((4, "3"), (2, "4"), (4, "all")):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(world), "-m", f"{__package__}.elastic", str(tmp_path), count]
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert done.returncode == 0, done.stderr[-6000:]
    for method in METHODS:
        robustplug.train(recipe(method), out=tmp_path / "alone" / method)
        close(tmp_path / method, tmp_path / "alone" / method)
        processes = read_json(tmp_path / method / "checkpoints" / f"{newest(tmp_path / method)}.json")
        assert processes["meta"]["world"] == 4


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def child(process: subprocess.Popen[bytes]) -> int:
    """Return the worker of an agent."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"robustplug" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(workers[0])


class Nodes:
    """The agents of torchrun, which play nodes on this machine; their files are in a folder.

    Args:
        folder: the folder, with the recipe mine.toml.
        options: options of torchrun.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.agents = folder, list[subprocess.Popen[bytes]]()
        self._log = (folder / "log").open("ab")
        self._command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", *options]
        self._command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
        self._command += ["--rdzv-id", "pair", "--max-restarts", "3"]

    def add(self, address: str = "127.0.0.1") -> subprocess.Popen[bytes]:
        """Start an agent."""
        command = [*self._command, "--local-addr", address, "-m", "robustplug", "train"]
        command += ["--recipe", "mine.toml", "--out", "run"]
        # Else workers may read from the agents' store where those that died have listened.
        own = {**environment(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "LOGLEVEL": "INFO"}
        self.agents.append(
            subprocess.Popen(command, env=own, cwd=self.folder, stdout=self._log, stderr=self._log)
        )
        return self.agents[-1]

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def until(self, true: Callable[[], object]) -> None:
        """Wait until something is true, as long as all agents live."""
        deadline = time.monotonic() + LIMIT
        while not true():
            assert time.monotonic() < deadline, self.said()[-6000:]
            assert all(each.poll() is None for each in self.agents), self.said()[-6000:]
            time.sleep(0.01)

    def progress(self, world: int) -> int:
        """Return the number of the newest update that so many processes made, 0 for none."""
        found = [0]
        for file in (self.folder / "run/checkpoints").glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # it is one of those that are not kept
                meta = read_json(file)["meta"]
                found += [meta["update"]] if meta["world"] == world else []
        return max(found)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.agents:
            each.kill()
        self._log.close()


def settings_of_nodes(folder: Path, epochs: int) -> dict[str, Any]:
    """Return a recipe whose outcome depends on the processes through rounding alone, and write it."""
    settings: Any = exact("pgd-at")
    settings["train"] |= {"batch_size": 10, "checkpoint_batches": 1, "epochs": epochs}
    (folder / "mine.toml").write_text(write_recipe(recipe_from_mapping(settings)))
    found: dict[str, Any] = settings
    return found


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_two_nodes_go_on_after_a_worker_was_killed(tmp_path: Path) -> None:
    settings = settings_of_nodes(tmp_path, 3)
    with Nodes(tmp_path, "--nnodes", "2") as nodes:
        agents = [nodes.add() for _ in range(2)]
        nodes.until(lambda: nodes.progress(2) >= 2)
        os.kill(child(agents[1]), signal.SIGKILL)
        assert [agent.wait(LIMIT) for agent in agents] == [0, 0], nodes.said()[-6000:]
    robustplug.train(settings, out=tmp_path / "alone")
    close(tmp_path / "run", tmp_path / "alone")
    assert "resuming at epoch" in nodes.said()
    assert "already contains" not in nodes.said()


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_nodes_join_and_leave_a_run(tmp_path: Path) -> None:
    """One node begins, another one joins it and gets the first process, and is lost again."""
    settings = settings_of_nodes(tmp_path, 6)
    patience = "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3"
    with Nodes(tmp_path, "--nnodes", "1:2", "--rdzv-conf", patience) as nodes:
        first = nodes.add("127.0.0.2")
        nodes.until(lambda: nodes.progress(1) >= 2)
        # Paused until the other one is there: no part of this depends on how fast a worker is.
        worker = child(first)
        os.kill(worker, signal.SIGSTOP)
        alone = nodes.progress(1)
        second = nodes.add("127.0.0.1")
        nodes.until(lambda: "new nodes from group_rank" in nodes.said())
        os.kill(worker, signal.SIGCONT)
        nodes.until(lambda: nodes.progress(2) > alone)
        for each in (child(second), second.pid):
            os.kill(each, signal.SIGKILL)
        assert first.wait(LIMIT) == 0, nodes.said()[-6000:]
    robustplug.train(settings, out=tmp_path / "alone")
    close(tmp_path / "run", tmp_path / "alone")
    last = read_json(tmp_path / "run/checkpoints" / f"{newest(tmp_path / 'run')}.json")
    assert last["meta"]["world"] == 1
    assert nodes.said().count("resuming at epoch") == 2
    assert "already contains" not in nodes.said()
