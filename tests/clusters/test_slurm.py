"""A study on a real Slurm of two nodes: a killed node, a preempted job, a full queue, a submit that fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
    until,
    write_study,
)

SCRIPT = Path(__file__).with_name("slurm.sh")
SLURM = ["--launcher", "slurm", "--set", "launcher.pause=1", "--set", "launcher.minutes=30"]
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("submitit")
    if os.geteuid() or shutil.which("slurmctld") is None or shutil.which("munged") is None:
        pytest.skip("Slurm is not installed: as root, apt-get install slurmctld slurmd slurm-client munge")
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("OMP_NUM_THREADS", "1")
        try:
            subprocess.run(["bash", str(SCRIPT), "start", str(folder)], check=True, timeout=120)
            yield folder
        finally:
            said("scancel", "--user", "root")
            subprocess.run(["bash", str(SCRIPT), "stop", str(folder)], check=True, timeout=60)


def said(*program: str) -> str:
    return subprocess.run(program, capture_output=True, text=True, check=False).stdout


def nodes() -> dict[str, tuple[str, str]]:
    """Return number and node of each running job, by the index in its array."""
    lines = said("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%K|%A|%N").splitlines()
    parts = [line.strip().split("|") for line in lines]
    return {index: (number, node) for index, number, node in parts if index != "N/A"}


def kill_node(folder: Path, node: str, number: str) -> None:
    """Kill the daemon of a node, and every process of its job, as if the machine had lost its power."""
    os.kill(int((folder / f"{node}.pid").read_text()), signal.SIGKILL)
    conf = f"SLURM_CONF={folder / 'slurm.conf'}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (process / "environ").read_bytes().split(b"\0")
            title = (process / "cmdline").read_bytes()
            of_job = f"SLURM_JOB_ID={number}".encode() in variables
            if conf in variables and (of_job or title.startswith(f"slurmstepd: [{number}.".encode())):
                os.kill(int(process.name), signal.SIGKILL)


def test_a_killed_node_and_a_preempted_job_change_no_bit(cluster: Path, local: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path, [0, 1, 2], 6)
    out = tmp_path / "slurm"
    with subprocess.Popen(command(file, "slurm", *SLURM), cwd=tmp_path) as terminal:
        paused(out, "seed-0", 2)
        paused(out, "seed-1", 2)
        # The third waits: both nodes are taken. The terminal is closed.
        assert epochs_done(out, "seed-2") == 0
        terminal.kill()
    at = nodes()
    (killed, node), (_, other) = at["0"], at["1"]
    assert {node, other} == {"n1", "n2"}
    status = run(file, "slurm", "--status")
    assert status.stdout.count(": running (slurm ") == 2, status.stdout + status.stderr
    assert ": queued (slurm " in status.stdout
    kill_node(cluster, node, killed)
    # Slurm wakes what it preempts, and sends SIGTERM.
    urgent = ["sbatch", "--partition=urgent", f"--nodelist={other}", "--output=/dev/null", "--wrap=sleep 2"]
    subprocess.run(urgent, check=True, capture_output=True, cwd=tmp_path)
    until(lambda: "down" in said("sinfo", "--noheader", f"--nodes={node}", "--format=%T"), "the node's death")
    subprocess.run(["slurmd", "-f", str(cluster / "slurm.conf"), "-N", node], check=True)
    followed = run(file, "slurm", "--follow")
    assert followed.returncode == 0, followed.stderr
    assert_equal(out, local)
    # Both went on from a checkpoint, and neither began again.
    for name in ("seed-0", "seed-1"):
        first, *resumed = starts(out, name)
        assert first is None
        assert resumed
        assert all(epoch is not None and epoch >= 1 for epoch in resumed)
    before = (out / "jobs" / "submitted.jsonl").read_bytes()
    again = run(file, "slurm", *SLURM)
    assert again.returncode == 0, again.stderr
    assert (out / "jobs" / "submitted.jsonl").read_bytes() == before


def test_a_run_that_is_told_to_stop_is_queued_again(cluster: Path, local: Path, tmp_path: Path) -> None:
    """SIGUSR1, SIGUSR2 and SIGTERM, each without Slurm's doing."""
    file = write_study(tmp_path, [0], 6)
    out = tmp_path / "slurm"
    with subprocess.Popen(command(file, "slurm", *SLURM), cwd=tmp_path) as terminal:
        for number, name in enumerate(("USR1", "TERM"), 1):
            process = paused(out, "seed-0", 2 * number)
            said("scancel", f"--signal={name}", "--user=root")
            os.kill(process, signal.SIGCONT)
            until(lambda: len(starts(out, "seed-0")) > number, "the way back")  # noqa: B023
        assert terminal.wait(600) == 0
    weights = Path("runs", "seed-0", "model.safetensors")
    assert (tmp_path / "slurm" / weights).read_bytes() == (local / weights).read_bytes()


def test_a_submit_that_fails_says_why_and_leaves_nothing(cluster: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path, [0, 1], 1)
    done = run(file, "slurm", *SLURM, "--set", "launcher.partition=absent")
    assert done.returncode == 2
    assert "Slurm refuses the jobs: " in done.stderr
    assert "partition" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "slurm" / "runs").exists()
    assert not said("squeue", "--noheader")


@pytest.mark.slow
def test_the_script_of_the_docs_trains_one_run_on_both_nodes(cluster: Path, tmp_path: Path) -> None:
    # Both nodes are this machine, which has no GPU, and does not know their names.
    changes = {
        "--gpus-per-node=8 ": "",
        "--nproc-per-node 8": "--nproc-per-node 1",
        "$SLURMD_NODENAME:29500": "127.0.0.1:29517",
        "srun torchrun": f"srun {sys.executable} -m torch.distributed.run",
    }
    (tmp_path / "mine.toml").write_text(EXACT)
    (tmp_path / "job").write_text(program("processes.md", "#SBATCH", changes))
    done = subprocess.run(["sbatch", "--wait", "--output=log", "job"], cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, (tmp_path / "log").read_text()
    alone = robustplug.train(tmp_path / "mine.toml", out=tmp_path / "alone").folder
    assert_two_trained(tmp_path / "runs" / "mine", alone)


def test_an_evaluation_is_shared_by_jobs(cluster: Path, tmp_path: Path) -> None:
    assert_shares(tmp_path, *SLURM)


def test_it_conforms(cluster: Path) -> None:
    assert_conforms("slurm")


def test_a_full_queue_is_waited_for_and_what_is_queued_can_be_ended(cluster: Path, tmp_path: Path) -> None:
    """The limit of a cluster with accounts is played by a program before sbatch; the rest is real."""
    tools = tmp_path / "tools"
    tools.mkdir()
    real = shutil.which("sbatch")
    text = f"""#!/bin/sh
full() {{ echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }}
grep -q 'array=0-[1-9]' "$1" && full
[ $(squeue --noheader --array | wc -l) -ge 1 ] && full
exec {real} "$@"
"""
    (tools / "sbatch").write_text(text)
    (tools / "sbatch").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    said("scontrol", "update", "nodename=n[1-2]", "state=drain", "reason=test")
    file = write_study(tmp_path, [0, 1], 1)
    try:
        with subprocess.Popen(
            command(file, "slurm", *SLURM), cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        ) as terminal:
            assert terminal.stderr is not None
            warning = terminal.stderr.readline()
            assert "the queue takes no more jobs for now: 1 runs wait here until it does" in warning
            assert ": queued (slurm " in run(file, "slurm", "--status").stdout
            terminal.send_signal(signal.SIGINT)
            assert "what was submitted goes on" in terminal.stderr.read()
        assert terminal.returncode == 130
        assert "1 runs are ended" in run(file, "slurm", "--cancel").stdout
        until(lambda: not said("squeue", "--noheader"), "the end of the job")
        assert "2 runs: 2 not started" in run(file, "slurm", "--status").stdout
    finally:
        said("scontrol", "update", "nodename=n[1-2]", "state=resume")
    # With room again, one after the other.
    done = subprocess.run(command(file, "slurm", *SLURM), cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
