"""A study on a Ray cluster of two nodes: a dead node, a preempted one, a full queue, a submit that fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import robustplug

from .common import (
    EXACT,
    assert_conforms,
    assert_equal,
    assert_shares,
    assert_two_trained,
    command,
    epochs_done,
    paused,
    program,
    run,
    starts,
    write_study,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a head, which carries out nothing, and two nodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        # Read when ray is imported: a machine with much else to do takes long.
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        cluster_of = pytest.importorskip("ray.cluster_utils").Cluster
        head = {**NODE, "num_cpus": 0, "include_dashboard": False}
        made = cluster_of(initialize_head=True, head_node_args=head)
        try:
            yield made
        finally:
            made.shutdown()


def ray_options(cluster: Any) -> list[str]:
    return [
        "--launcher",
        "ray",
        "--set",
        f"launcher.address={cluster.address}",
        "--set",
        "launcher.pause=0.5",
    ]


def raylet_of(process: int) -> int:
    """Return the process of the node under which a worker runs: its parent's parent."""
    for _ in range(2):
        status = Path(f"/proc/{process}/status").read_text()
        process = int(status.split("PPid:", 1)[1].split()[0])
    return process


def test_dead_and_preempted_nodes_change_no_bit(cluster: Any, local: Path, tmp_path: Path) -> None:
    nodes = {}
    for _ in range(2):
        node = cluster.add_node(**NODE)
        nodes[node.all_processes["raylet"][0].process.pid] = node
    file, out = write_study(tmp_path, [0, 1, 2], 6), tmp_path / "ray"
    with subprocess.Popen(command(file, "ray", *ray_options(cluster)), cwd=tmp_path) as terminal:
        first, second = paused(out, "seed-0", 2), paused(out, "seed-1", 2)
        # The third waits: both nodes are taken. The terminal is closed.
        assert epochs_done(out, "seed-2") == 0
        terminal.kill()
    status = run(file, "ray", "--status")
    assert status.stdout.count(": running (ray ") == 2, status.stdout + status.stderr
    assert ": queued (ray " in status.stdout
    killed, preempted = nodes[raylet_of(first)], nodes[raylet_of(second)]
    # The node first: a worker that dies alone is a failure of its run.
    cluster.remove_node(killed, allow_graceful=False)
    os.kill(first, signal.SIGKILL)
    cluster.remove_node(preempted, allow_graceful=True)
    os.kill(second, signal.SIGCONT)
    for _ in range(2):
        cluster.add_node(**NODE)
    followed = run(file, "ray", "--follow")
    assert followed.returncode == 0, followed.stderr
    assert_equal(out, local)
    for name in ("seed-0", "seed-1"):
        begun, *resumed = starts(out, name)
        assert begun is None
        assert resumed
        assert all(epoch is not None and epoch >= 1 for epoch in resumed)
    before = (out / "jobs" / "submitted.jsonl").read_bytes()
    again = run(file, "ray", *ray_options(cluster))
    assert again.returncode == 0, again.stderr
    assert (out / "jobs" / "submitted.jsonl").read_bytes() == before


def test_a_submit_that_fails_says_why_and_leaves_nothing(cluster: Any, tmp_path: Path) -> None:
    file = write_study(tmp_path, [0, 1], 1)
    done = run(file, "ray", *ray_options(cluster), "--set", "launcher.resources.absent=1")
    assert done.returncode == 2
    assert "cannot take a run: a run asks for 1 absent, and has 0 absent on a node" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ray" / "runs").exists()
    done = run(file, "ray", "--launcher", "ray", "--set", "launcher.address=127.0.0.1:1")
    assert done.returncode == 2
    assert "cannot use the Ray cluster 127.0.0.1:1" in done.stderr


def test_amounts_that_no_node_has_are_refused_at_once(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(**NODE)
    file = write_study(tmp_path, [0], 1)
    for option, why in (
        ("cpus=2", "asks for 2 CPU, and has 1 CPU on a node"),
        ("gpus=1", "asks for 1 GPU, and has 0 GPU on a node"),
        ("memory=100000", "GB of memory on a node"),
    ):
        done = run(file, "ray", *ray_options(cluster), "--set", f"launcher.{option}")
        assert done.returncode == 2
        assert why in done.stderr
        assert "Traceback" not in done.stderr


def test_an_actor_that_cannot_be_made_is_one_sentence(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(**NODE)
    file = write_study(tmp_path, [0], 1)
    # The nodes find another package of this name, which is no plugin.
    (tmp_path / "shadow" / "robustplug_ray").mkdir(parents=True)
    (tmp_path / "shadow" / "robustplug_ray" / "__init__.py").write_text("")
    shadow = f'launcher.runtime_env={{ env_vars = {{ PYTHONPATH = "{tmp_path / "shadow"}" }} }}'
    done = run(file, "ray", *ray_options(cluster), "--set", shadow)
    assert done.returncode == 2, done.stderr
    assert "Ray cannot make the actor that starts the runs" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_evaluation_is_shared_by_jobs(cluster: Any, tmp_path: Path) -> None:
    for _ in range(2):
        cluster.add_node(**NODE)
    assert_shares(tmp_path, *ray_options(cluster))


@pytest.mark.slow
def test_the_program_of_the_docs_trains_one_run_in_two_workers(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "mine.toml").write_text(EXACT)
    changes = {
        '"/shared/runs/mine"': repr(str(tmp_path / "run")),
        '"cat"': repr(str(tmp_path / "mine.toml")),
        ', overrides=["train.epochs=1", "evaluate.samples=16"]': "",
    }
    (tmp_path / "main.py").write_text(program("processes.md", "ray.train", changes))
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    alone = robustplug.train(tmp_path / "mine.toml", out=tmp_path / "alone").folder
    assert_two_trained(tmp_path / "run", alone)


def test_it_conforms() -> None:
    pytest.importorskip("ray")
    assert_conforms("ray")
