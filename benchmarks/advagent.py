"""Time negotiations in batches against one at a time: roll-outs, the reactive attack, imitation.

    python benchmarks/advagent.py                          # a new agent of the published sizes
    python benchmarks/advagent.py runs/advagent-sv-deal    # agent and data of a supervised run

Both sides of a ratio run the same code on the same machine: "one at a time" is a batch of one. The time of
an imitation epoch is extrapolated from its first batches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

import robustplug
from robustplug.api import Feed, Step, View, isolated, open_run, prepare, stream, training_loss
from robustplug.evaluation.setting import plain_objective
from robustplug_advagent.agents.agent import Agent
from robustplug_advagent.agents.talk import TARGET, draw_noise, play
from robustplug_advagent.agents.voice import Voice
from robustplug_advagent.attacks import replace
from robustplug_advagent.dialogues.task import NegotiationTask

# Batch size of the supervised recipes.
BATCH = 32


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def imitate(agent: Agent, task: NegotiationTask, batches: int) -> float:
    """Imitate people for this many batches, and return the estimated seconds of a whole epoch."""
    method = robustplug.build("method", "erm", vicinity={"use": "rules"}, loss={"use": "dialogue"})
    prepare(method, agent, task)
    optimizer = torch.optim.AdamW(agent.parameters(), lr=0.0015, weight_decay=0.0)
    agent.train()
    done, spent = 0, 0.0
    with isolated(0):
        for number, batch in enumerate(task.batches("train", Feed(batch_size=BATCH, shuffle=True))):
            started = time.perf_counter()
            step = Step(agent, method, task, batch, stream(number, "benchmark"))
            loss, _ = training_loss(method, step)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
            optimizer.step()
            # The first batch includes torch's one-time setup.
            if number:
                done, spent = done + len(batch), spent + time.perf_counter() - started
            if number == batches:
                break
    agent.eval()
    return spent / done * len(task.dialogues("train")[0])


def roll_out(voice: Voice, task: NegotiationTask, batch: int, count: int) -> float:
    """Return the seconds per dialogue when `batch` of `count` dialogues are rolled out at once."""
    x = task.scenarios("test")[:count]
    noise = draw_noise(len(x), 20, 100, stream(0, "benchmark"))
    first = torch.full((len(x),), TARGET)

    def work() -> None:
        for at in range(0, len(x), batch):
            rows = slice(at, at + batch)
            play(x[rows], voice, voice, first[rows], noise[rows])

    return seconds(work) / len(x)


def react(agent: Agent, task: NegotiationTask, chunk: int, count: int) -> float:
    """Return the reactive attack's seconds per dialogue when `chunk` sentences are scored at once."""
    x = task.scenarios("test")[:count]
    view = View(x, torch.full((len(x), 6), -1), "adv", x, torch.arange(len(x)))
    objective = plain_objective(robustplug.build("loss", "dialogue"))
    step = Step(agent, objective, task, view, stream(0, "benchmark"), evaluating=True)  # type: ignore[arg-type]
    attack, rules = robustplug.build("perturbation", "reactive-attack"), robustplug.build("vicinity", "rules")
    known, replace.CHUNK["cpu"] = replace.CHUNK["cpu"], chunk
    try:
        return seconds(lambda: attack(step, view, rules)) / len(x)
    finally:
        replace.CHUNK["cpu"] = known


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", nargs="?", help="folder of a supervised run")
    parser.add_argument("--batches", type=int, default=12, help="number of imitation batches to time")
    parser.add_argument(
        "--dialogues", type=int, default=256, help="number rolled out at once; an eighth is attacked"
    )
    options = parser.parse_args()
    if options.run:
        opened = open_run(options.run, device="cpu")
        agent, task, name = opened.model, opened.task, options.run
    else:
        name = "scripted-negotiation"
        task = robustplug.build("task", name, dialogues=1000, scenarios=options.dialogues)
        agent = robustplug.build("model", "negotiator", info=task.info)
    assert isinstance(agent, Agent)
    assert isinstance(task, NegotiationTask)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {name}")
    # The agent of a run is already trained, so the imitation is timed on a new one.
    learner = agent if options.run is None else robustplug.build("model", "negotiator", info=task.info)
    epoch = imitate(learner, task, options.batches)
    print(f"{'':24}{'batched':>14}{'one at a time':>16}{'ratio':>8}")
    voice, few = Voice(agent), max(2, options.dialogues // 8)
    rows = [
        (
            "roll-out, a dialogue",
            roll_out(voice, task, options.dialogues, options.dialogues),
            roll_out(voice, task, 1, few),
        ),
        ("reactive attack", react(agent, task, 512, few), react(agent, task, 1, 2)),
    ]
    for label, batched, alone in rows:
        print(f"{label:24}{1000 * batched:11.1f} ms{1000 * alone:13.1f} ms{alone / batched:8.1f}")
    print(f"{'imitation, an epoch':24}{epoch:12.1f} s  of {len(task.dialogues('train')[0]):,} dialogues")


if __name__ == "__main__":
    main()
