"""Small tasks, agents and dialogues for the tests of AdvAgent."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

import robustplug
from robustplug.api import isolated
from robustplug_advagent.agents.agent import Agent
from robustplug_advagent.dialogues.layout import HEAD, PAD, Words
from robustplug_advagent.dialogues.task import NegotiationTask

TASK: dict[str, Any] = {
    "use": "scripted-negotiation",
    "dialogues": 64,
    "scenarios": 24,
    "train_scenarios": 32,
    "unknown_below": 2,
}
SIZES: dict[str, Any] = {"word": 12, "goal": 6, "reader": 16, "attention": 10, "choice": 12, "dropout": 0.0}
MODEL: dict[str, Any] = {"use": "negotiator", **SIZES}
RULES: dict[str, Any] = {"use": "rules", "turns": 6, "words": 6}


@functools.cache
def small_task() -> NegotiationTask:
    options = {key: value for key, value in TASK.items() if key != "use"}
    task: NegotiationTask = robustplug.build("task", TASK["use"], **options)
    return task


def small_agent(seed: int = 0, scale: float = 8.0) -> Agent:
    """Return an untrained agent that is sure of what it says: of large weights."""
    with isolated(seed):
        options = {**SIZES, "init": 0.1 * scale}
        agent: Agent = robustplug.build("model", "negotiator", info=small_task().info, **options)
    return agent.eval()


def row(words: Words, text: str, goal: tuple[int, ...] = (1, 2, 2, 4, 3, 0, 0, 1, 4)) -> Tensor:
    """Return a dialogue as a row (1, 12 + T); the default pool has 1 book, 2 hats and 2 balls."""
    return torch.tensor([[*goal, -1, -1, -1, *words.encode(text.split())]])


def stack(*rows: Tensor) -> Tensor:
    width = max(each.shape[1] for each in rows)
    padded = [torch.nn.functional.pad(each, (0, width - each.shape[1]), value=PAD) for each in rows]
    return torch.cat(padded)


def words_of(x: Tensor) -> Tensor:
    return x[:, HEAD:]
