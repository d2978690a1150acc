"""Agents of finished runs."""

from __future__ import annotations

import torch

from robustplug.api import Refused, TaskInfo, open_model

from .agent import Agent


def load_agent(folder: str, info: TaskInfo, device: torch.device) -> Agent:
    """Return the agent of a run, in eval mode.

    Args:
        folder: the run folder.
        info: info of the task in which the agent will negotiate.
        device: device of the agent.

    Raises:
        Refused: there is no finished run, its model is not an agent, or its vocabulary differs.
    """
    agent = open_model(folder, info, device)
    if not isinstance(agent, Agent):
        raise Refused(f"the model of the run {folder} is not a negotiating agent")
    if agent.words() != getattr(info, "words", None):
        raise Refused(f"the vocabulary of the agent of {folder} differs from the task's: use the same data")
    return agent
