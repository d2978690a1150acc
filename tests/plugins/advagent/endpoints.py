"""Endpoints for tests: a client without waiting, a server, and a command that evaluates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from robustplug_advagent.language_models.cache import ReplyCache
from robustplug_advagent.language_models.endpoint import Endpoint
from robustplug_advagent.language_models.options import ChatOptions
from robustplug_advagent.language_models.replies import Message, Request

from .chat_server import Answering, Chat, chat_server

SECRET = "sk-very-secret-0123456789"
CPU = torch.device("cpu")


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTPLUG_REPLIES", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@contextlib.contextmanager
def serving(answer: Answering, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    with chat_server(answer) as chat:
        monkeypatch.setenv("OPENAI_BASE_URL", chat.address)
        yield chat


def ask(number: int = 0, text: str = "hello") -> Request:
    return Request((Message("system", "negotiate"), Message("user", text)), 0.5, number)


def endpoint(waits: list[float] | None = None, **options: Any) -> Endpoint:
    noted = [] if waits is None else waits

    def sleep(seconds: float) -> None:
        # Without waiting: the endpoint looks at the clock again.
        noted.append(seconds)
        found._not_before = 0.0

    found = Endpoint(ChatOptions(**{"name": "m", "parallel": 1, **options}), ReplyCache(Path("kept")), sleep)
    return found


EVALUATE = (
    "evaluate", "openai-chat:m", "--task", "scripted-negotiation", "--set", "task.dialogues=64",
    "--set", "task.scenarios=6", "--set", "task.unknown_below=2",
    "--set", "evaluate.vicinity={use='rules',unknown=true}",
    "--set", "evaluate.attack=[{use='partner'}]", "--device", "cpu", "--json", "found.json",
)  # fmt: skip
