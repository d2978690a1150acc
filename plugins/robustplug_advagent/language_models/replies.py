"""What a language model is asked, and what it replies."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch

from robustplug.api import Refused

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """Hold a message of a chat."""

    role: Role
    text: str


class Request(NamedTuple):
    """Ask for one reply.

    Attributes:
        messages: the chat so far.
        temperature: softmax temperature; 0 for the likeliest words.
        seed: seed of the drawn words, from 0 to 2³¹ − 1.
    """

    messages: tuple[Message, ...]
    temperature: float
    seed: int


class Reply(NamedTuple):
    """Hold one reply.

    Attributes:
        text: what the model wrote.
        whole: whether it is a reply, neither refused nor cut off.
        read, written: number of tokens of the request and of the reply; None if they were not told.
    """

    text: str
    whole: bool
    read: int | None
    written: int | None


class Replier(Protocol):
    """A language model."""

    def reply(self, requests: Sequence[Request], device: torch.device) -> list[Reply]:
        """Return a reply to each request, which depends on that request alone.

        Raises:
            Refused: there is no reply, or the bound on requests is spent.
        """
        ...

    def facts(self) -> Mapping[str, Any]:
        """Return what identifies the model and its settings, as plain JSON values."""
        ...


@dataclass
class Ledger:
    """Count requests, and refuse those beyond a bound.

    Attributes:
        most: largest number of requests; None for no bound.
        sent: number of requests so far.
    """

    most: int | None
    sent: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def spend(self) -> None:
        """Count a request that is about to be sent.

        Raises:
            Refused: the bound is spent.
        """
        with self._lock:
            if self.most is not None and self.sent >= self.most:
                raise Refused(
                    f"the bound of {self.most} requests is spent: raise max_queries; what was evaluated is "
                    "kept, and replies of an endpoint are not asked for again"
                )
            self.sent += 1
