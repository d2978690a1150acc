"""A study whose jobs go on when its command has ended, with a launcher of this process."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import robustplug.run
from robustplug.errors import RunError
from robustplug.plugin.component import Component, NoOptions
from robustplug.plugin.host import registered
from robustplug.recipe.study import read_study
from robustplug.studies.going import going_of, standings
from robustplug.studies.launchers.jobs import messages_file
from robustplug.studies.launchers.protocol import JobState
from robustplug.studies.messages import Relay
from robustplug.studies.work import Commands, Job, carry_out
from tests.cli.conftest import run_cli

STUDY = """
base = "cat"
seeds = [0, 1]
[set]
train = { epochs = 1, device = "cpu", batch_size = 32 }
task = { validation = 1400, test = 300 }
model.width = 2
"method.perturbation.steps" = 1
validate.samples = 20
validate.attack.steps = 1
evaluate.samples = 40
"evaluate.attack" = [{ use = "pgd", steps = 1 }]
"""


class Far:
    """Hold jobs that do not start until `works` is set, and then one at each look."""

    jobs: Mapping[str, Path] = {}
    done: Sequence[str] = ()
    works, cancelled = False, False
    look: Callable[[], object] = staticmethod(lambda: None)
    places, lasting, pause = 2, True, 0.0

    def __init__(self, options: NoOptions, *, folder: Path, gpus: bool) -> None:
        assert folder.is_absolute()

    def submit(self, jobs: Sequence[Path]) -> Sequence[str]:
        Far.jobs = {**Far.jobs, **{f"far-{job.stem}": job for job in jobs}}
        return [f"far-{job.stem}" for job in jobs]

    def states(self, numbers: Sequence[str]) -> Mapping[str, JobState]:
        Far.look()
        for number in numbers:
            if Far.works and number not in Far.done:
                job = Far.jobs[number]
                with messages_file(job).open("a") as lines:
                    relay = Relay(lines.write)
                    run = robustplug.run
                    commands = Commands(run.train, run.evaluate, run.audit)
                    assert carry_out(Job.parse(job.read_bytes()), commands, relay) is None
                    relay.send("done")
                Far.done = [*Far.done, number]
                break
        ended = {*Far.done, *(Far.jobs if Far.cancelled else ())}
        return {number: JobState("ended" if number in ended else "queued") for number in numbers}

    def cancel(self, numbers: Sequence[str]) -> None:
        Far.cancelled = True

    def close(self) -> None:
        pass


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for name, value in {"jobs": {}, "done": (), "works": False, "cancelled": False}.items():
        monkeypatch.setattr(Far, name, value)
    with registered("launcher", Component("far", Far, summary="far away")):
        file = tmp_path / "mine.toml"
        file.write_text(STUDY)
        yield file


def statuses(folder: Path) -> list[str]:
    return [
        run["status"]
        for cell in json.loads((folder / "result.json").read_text())["cells"]
        for run in cell["runs"]
    ]


def submitted(file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Submit the study, and press Ctrl-C at the first look at its jobs."""
    with monkeypatch.context() as patch:
        patch.setattr(Far, "look", staticmethod(lambda: signal.raise_signal(signal.SIGTERM)))
        return run_cli("study", file, "--launcher", "far")


def test_the_terminal_can_be_closed(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = study.parent / "studies" / "mine"
    result = submitted(study, monkeypatch)
    assert result.exit_code == 143, result.output
    assert "what was submitted goes on: see it with --status" in result.output
    assert sorted(Far.jobs) == ["far-seed-0", "far-seed-1"]
    shown = run_cli("study", study, "--status").output
    assert "seed-1: queued (far far-seed-1)" in shown
    assert shown.splitlines()[-1] == "2 runs: 2 queued"
    with pytest.raises(
        RunError, match="2 runs of the study go on in the launcher far: follow them with --follow"
    ):
        robustplug.run.study(study, out=folder)
    first = Far.jobs
    monkeypatch.setattr(Far, "works", True)
    result = run_cli("study", study, "--follow")
    assert result.exit_code == 0, result.output
    assert statuses(folder) == ["finished", "finished"]
    # Nothing was submitted twice, nor is it again.
    assert run_cli("study", study, "--launcher", "far", "--quiet").exit_code == 0
    assert Far.jobs == first
    assert len((folder / "jobs" / "submitted.jsonl").read_text().splitlines()) == 2


def test_a_job_that_is_gone_without_a_word_leaves_its_run_unfinished(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(study, monkeypatch)
    monkeypatch.setattr(Far, "done", ["far-seed-0"])
    monkeypatch.setattr(Far, "works", True)
    result = run_cli("study", study, "--follow")
    assert statuses(study.parent / "studies" / "mine") == ["not started", "finished"]
    assert result.exit_code == 1
    assert "Runs that are not finished, though their jobs have ended: 1." in result.output.replace("\n", " ")


def test_what_is_queued_can_be_ended_and_given_elsewhere(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study.parent / "studies" / "mine"
    submitted(study, monkeypatch)
    known = read_study(study)
    assert [each.status for each in standings(known, folder)[0]] == ["queued", "queued"]
    assert run_cli("study", study, "--cancel").output == "2 runs are ended\n"
    assert going_of(known, folder).numbers == {}
    assert run_cli("study", study, "--cancel").output == "nothing is queued, and nothing runs\n"
    assert [each.status for each in standings(known, folder)[0]] == ["not started", "not started"]


def test_what_cannot_be_asked_is_told_and_the_folder_is_read(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(study, monkeypatch)

    def unreachable() -> None:
        raise RunError("the cluster is not there")

    monkeypatch.setattr(Far, "look", staticmethod(unreachable))
    shown = run_cli("study", study, "--status")
    assert shown.exit_code == 0
    assert (
        "2 runs were submitted to far, and may go on: the cluster is not there; if they do not, delete"
        in (shown.output)
    )
    assert shown.output.endswith("2 runs: 2 not started\n")
    result = run_cli("study", study)
    assert result.exit_code == 2
    assert "the cluster is not there" in result.output


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--launcher", "fur"], 'no launcher is named "fur". Did you mean "far"?'),
        (["--launcher", "far", "--processes", "2"], '"far" has no such option'),
        (["--set", "launcher.processes=0"], "launcher.processes"),
        (["--set", "lancher.use=far"], 'did you mean "launcher"?'),
    ],
)
def test_problems_of_the_launcher_are_told_before_anything_is_run(
    study: Path, options: list[str], why: str
) -> None:
    result = run_cli("study", study, *options)
    assert result.exit_code == 2
    assert why in result.output
    assert not (study.parent / "studies").exists()
