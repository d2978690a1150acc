"""Two gloo processes give what one process gives, and only the first one writes."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import robustplug
from robustplug.training.train import Trained

from .learned import LEARNED
from .runs import newest, offered, outcome, read_json, timeless
from .test_captured import left
from .test_killed import environment
from .two_processes import CAPTURED, COMPARED, RESUMED, SAMPLES, exact

# The quick part is run by .ci/run.
pytestmark = pytest.mark.slow
LIMIT = 240


def train_alone(top: Path, methods: Sequence[str]) -> dict[str, Trained]:
    with offered("method", LEARNED):
        return {
            method: robustplug.train(exact(method, together=False), out=top / "alone" / method)
            for method in methods
        }


class Launch:
    """The reports of both processes, and the same runs by one."""

    def __init__(self, top: Path, part: str) -> None:
        module = f"{__package__}.two_processes"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        self.top = top
        with (top / "log").open("w") as log:
            process = subprocess.Popen(
                [*command, "-m", module, str(top), part], env=environment(), stdout=log, stderr=log
            )
            try:
                self.alone = train_alone(top, COMPARED[part])
                process.wait(LIMIT)
            finally:
                process.kill()
                process.wait()
        paths = [top / f"rank-{rank}.json" for rank in range(2)]
        self.reports: list[dict[str, Any]] = [read_json(path) if path.is_file() else {} for path in paths]

    def report(self, name: str) -> list[Any]:
        """Return what both processes say of a job."""
        for report in self.reports:
            if name not in report:
                pytest.fail(f"the launch did not come to {name}: {(self.top / 'log').read_text()[-6000:]}")
        return [report[name] for report in self.reports]


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Launch]:
    """Give the launch of a part, which is started when it is first asked for."""
    return functools.cache(lambda part: Launch(tmp_path_factory.mktemp(part), part))


@pytest.fixture(scope="module")
def launch(launches: Callable[[str], Launch]) -> Launch:
    return launches("quick")


def by_part(names: Mapping[str, Sequence[str]], *more: str) -> Any:
    """Return parameters, part and name, of which the slow part has more."""
    return [
        *(("quick", name) for name in names["quick"]),
        *(("slow", name) for name in (*names["slow"], *more)),
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "checkpoints" / f"{newest(folder)}.safetensors")
    return {key: value for key, value in tensors.items() if key.startswith(("model/", "state/"))}


@pytest.mark.parametrize(("part", "method"), by_part(COMPARED))
def test_two_processes_train_the_weights_of_one(
    part: str, method: str, launches: Callable[[str], Launch]
) -> None:
    launch = launches(part)
    launch.report(method)
    alone, together = weights(launch.top / "alone" / method), weights(launch.top / "runs" / method)
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        difference = float((together[key].double() - value.double()).abs().max())
        assert difference <= 1e-5, f"{key}: {difference}"


@pytest.mark.parametrize(("part", "method"), by_part(COMPARED))
def test_two_processes_evaluate_and_count_as_one(
    part: str, method: str, launches: Callable[[str], Launch]
) -> None:
    launch = launches(part)
    first, second = launch.report(method)
    alone: Trained = launch.alone[method]
    assert (first.pop("main"), second.pop("main")) == (True, False)
    assert first == second, "both know the whole result"
    for found, expected in zip(first["attacks"], alone.result.attacks, strict=True):
        row = timeless(asdict(expected))
        assert abs(found.pop("accuracy") - row.pop("accuracy")) <= 2 / SAMPLES
        assert found["name"] == row["name"]
        assert abs(found["attempted"] - row["attempted"]) <= 2
    assert first["attacks"][0]["attempted"] == len(first["attacks"][0]["right"]) == SAMPLES
    training = alone.result.meta["training"]
    assert first["passes"] == [training["forwards_per_sample"], training["backwards_per_sample"]]
    for found, report in zip(first["history"], alone.history, strict=True):
        assert found["train"] == pytest.approx(dict(report.train), abs=1e-4)
        assert found["validation"] == pytest.approx(dict(report.validation), abs=2 / 32)
    assert launch.report(f"{method} weights agree") == [True, True]


def test_the_memory_of_cat_is_the_same_on_both_after_every_update(launch: Launch) -> None:
    updates = 2 * 5
    assert launch.report("cat memory") == [[updates, 0], [updates, 0]]
    memory = weights(launch.top / "runs" / "cat")["state/eps.values"]
    assert memory.any()
    assert launch.report("resume cat memory")[0][1] == 0


def test_a_parameter_outside_the_model_has_moved(launch: Launch) -> None:
    launch.report("learned")
    scale = weights(launch.top / "runs" / "learned")["state/scale"]
    assert (scale - 1).abs().max() > 1e-3


def test_the_noise_of_the_processes_differs(launch: Launch) -> None:
    first, second = launch.report("draws")
    assert len(first) == len(second) == 2 * 5
    assert all(one != two for one, two in zip(first, second, strict=True))


def test_only_the_first_process_writes(launch: Launch) -> None:
    first, second = launch.report("written")
    assert first
    assert second == []


@pytest.mark.parametrize(("part", "name"), by_part(RESUMED, "averaged"))
def test_two_processes_resume_bit_for_bit(part: str, name: str, launches: Callable[[str], Launch]) -> None:
    launch = launches(part)
    job = name if name == "averaged" else f"resume {name}"
    launch.report(job)
    runs = launch.top / "runs"
    left, whole = outcome(runs / f"{name}-killed"), outcome(runs / f"{name}-whole")
    assert left["model"] == whole["model"]
    assert left["checkpoint"] == whole["checkpoint"]
    assert left == whole
    assert launch.report(f"{job} weights agree") == [True, True]


@pytest.mark.parametrize(("part", "method"), by_part(CAPTURED))
def test_two_processes_replay_what_they_exchange(
    part: str, method: str, launches: Callable[[str], Launch]
) -> None:
    launch = launches(part)
    (replays, told), (other, _) = launch.report(f"captured {method}")
    # Of 11 updates of an epoch, the first one and the last one run as they are written; eleven warm up.
    assert (replays, other, told) == (2 * (11 - 2) - 11, 2 * (11 - 2) - 11, [])
    runs = launch.top / "runs"
    eager, replayed = (left(runs / f"captured {method}-{which}") for which in ("eager", "replayed"))
    assert eager == replayed
    assert launch.report(f"captured {method} weights agree") == [True, True]


def test_what_one_process_cannot_capture_none_replays(launch: Launch) -> None:
    (replays, told), (other, _) = launch.report("refused")
    assert (replays, other) == (0, 0)
    why = "another process cannot capture them"
    assert told == [f"updates run without a CUDA graph, with the same results but slower: {why}"]


def test_a_signal_to_one_process_stops_both_and_resuming_gives_the_same_bits(
    launches: Callable[[str], Launch],
) -> None:
    launch = launches("slow")
    assert launch.report("stop") == ["Interrupted", "Interrupted"]
    assert launch.report("stopped")[0] == ["epoch-00000-batch-0000010"]
    runs = launch.top / "runs"
    assert outcome(runs / "stopped-killed") == outcome(runs / "stopped-whole")
