"""Time dialogues in batches against one at a time, and compare their results: roll-outs, attacks, searches.

    python benchmarks/dialogues.py                          # an agent of the published sizes
    python benchmarks/dialogues.py runs/advagent-sv-deal    # agent and data of a supervised run

Without a run, an agent is first trained for two epochs, so that its dialogues are as long as those that it
learns from: an untrained one says hundreds of words.

Both sides of a ratio negotiate about the same scenarios with the same noise. "One at a time" is a batch of
one dialogue, and a search that scores one sentence at a time; it is timed on the first dialogues only. As
dialogues differ, the ratio is that of the seconds of a word that is said, or of a query of a search. The
dialogues of one side must be those of the other.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor

import robustplug
from robustplug.api import Step, View, open_run, stream
from robustplug.evaluation.setting import plain_objective
from robustplug_advagent.agents.agent import Agent
from robustplug_advagent.attacks import replace
from robustplug_advagent.dialogues.layout import HEAD, PAD
from robustplug_advagent.dialogues.task import NegotiationTask

# What is timed, by name: the attack, its options, and how many times fewer dialogues are batched.
WORK: dict[str, tuple[str, dict[str, Any], int]] = {
    "roll-out": ("partner", {}, 1),
    "reactive attack, <pad>": ("reactive-attack", {"search": "pad"}, 2),
    "reactive attack, every place": ("reactive-attack", {}, 8),
    "preemptive attack, <pad>": ("preemptive-attack", {"search": "pad"}, 4),
}
QUICK = ("train.epochs=2", "validate.samples=8", "evaluate.samples=8")
# Sizes of the first release of Lewis et al.
PUBLISHED = {
    "model.word": 256,
    "model.goal": 64,
    "model.reader": 128,
    "model.attention": 256,
    "model.choice": 256,
}


class Timed(NamedTuple):
    """Hold the dialogues of some scenarios.

    Attributes:
        dialogues: words of each dialogue, with its scenario.
        seconds: seconds for each of them.
        work: mean number of words of a dialogue, or of queries of its search.
    """

    dialogues: list[list[int]]
    seconds: float
    work: float


def negotiate(
    agent: Agent,
    task: NegotiationTask,
    rules: Any,
    name: str,
    options: dict[str, Any],
    count: int,
    batch: int,
    chunk: int,
) -> Timed:
    """Negotiate about the first scenarios of the test.

    Args:
        agent, task, rules: the target, which also speaks for the other side, its task, and the vicinity.
        name, options: the perturbation.
        count: number of scenarios.
        batch: number of dialogues at once.
        chunk: number of sentences that a search scores at once.
    """
    x = task.scenarios("test")[:count]
    attack = robustplug.build("perturbation", name, **options)
    objective = plain_objective(robustplug.build("loss", "dialogue"))
    known, replace.CHUNK["cpu"] = replace.CHUNK["cpu"], chunk
    found: list[list[int]] = []
    queries = 0.0
    started = time.perf_counter()
    try:
        for index in torch.split(torch.arange(len(x)), batch):
            view = View(x[index], torch.full((len(index), 6), -1), "adv", x[index], index)
            rng = stream(0, "benchmark")
            step = Step(agent, objective, task, view, rng, evaluating=True)  # type: ignore[arg-type]
            found += plain(attack(step, view, rules).x)
            queries += step.meter.forwards
    finally:
        replace.CHUNK["cpu"] = known
    seconds = (time.perf_counter() - started) / len(x)
    words = sum(len(row) - HEAD for row in found)
    return Timed(found, seconds, (words if name == "partner" else queries) / len(x))


def plain(x: Tensor) -> list[list[int]]:
    """Return dialogues without padding."""
    return [[word for place, word in enumerate(row) if place < HEAD or word != PAD] for row in x.tolist()]


def ratios(agent: Agent, task: NegotiationTask, dialogues: int, chunk: int) -> dict[str, tuple[Timed, Timed]]:
    """Return what each kind of work gives and takes, batched and one at a time.

    Args:
        agent, task: as for `negotiate`.
        dialogues: number of dialogues at once.
        chunk: number of sentences that a batched search scores at once.
    """
    found, rules = {}, robustplug.build("vicinity", "rules")
    for label, (name, options, fewer) in WORK.items():
        few = max(2, dialogues // fewer)
        batched = negotiate(agent, task, rules, name, options, few, dialogues, chunk)
        alone = negotiate(agent, task, rules, name, options, max(2, few // 8), 1, 1)
        found[label] = (batched, alone)
    return found


def differing(batched: Timed, alone: Timed) -> int:
    """Return the number of dialogues that are not the same, batched and one at a time."""
    return sum(one != other for one, other in zip(batched.dialogues, alone.dialogues, strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", nargs="?", help="folder of a supervised run")
    parser.add_argument("--dialogues", type=int, default=128, help="number of dialogues at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.run is None:
            sizes = [f"{name}={size}" for name, size in PUBLISHED.items()]
            robustplug.train("advagent-sv", overrides=[*QUICK, *sizes], out=folder)
        opened = open_run(options.run or folder, device="cpu")
    agent, task, name = opened.model, opened.task, options.run or "advagent-sv, published sizes, 2 epochs"
    assert isinstance(agent, Agent)
    assert isinstance(task, NegotiationTask)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {name}")
    print(f"{'':32}{'batched':>12}{'one at a time':>16}{'ratio':>8}{'different':>11}")
    for label, (batched, alone) in ratios(agent.eval(), task, options.dialogues, 512).items():
        ratio = (alone.seconds / alone.work) / (batched.seconds / batched.work)
        print(
            f"{label:32}{1000 * batched.seconds:9.1f} ms{1000 * alone.seconds:13.1f} ms"
            f"{ratio:8.1f}{differing(batched, alone):5} of {len(alone.dialogues)}"
        )


if __name__ == "__main__":
    main()
