"""Agents of finished runs."""

from __future__ import annotations

import torch

from robustplug.api import Refused, TaskInfo, open_model

from .agent import Agent


def load_agent(folder: str, info: TaskInfo, device: torch.device) -> Agent:
    """Return the agent of a run, in eval mode.

    Args:
        folder: of the run.
        info: of the task that it is to negotiate in.
        device: where to put it.

    Raises:
        Refused: there is no finished run, its model is no agent, or its vocabulary is another.
    """
    agent = open_model(folder, info, device)
    if not isinstance(agent, Agent):
        raise Refused(f"the model of {folder} is no negotiating agent")
    if agent.words() != getattr(info, "words", None):
        raise Refused(f"the agent of {folder} has another vocabulary: it was made on other data")
    return agent
