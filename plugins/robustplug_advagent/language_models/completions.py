"""What an endpoint of chat completions sends, parsed into types."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from robustplug.api import Unreadable, parsed

from .replies import Reply

# Why a completion ended that is no reply: it was cut off, or withheld.
_CUT = ("length", "content_filter")


class _Loose(BaseModel):
    """Be the base of what an endpoint sends: endpoints add keys of their own."""

    model_config = ConfigDict(strict=True, frozen=True)


class _Message(_Loose):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Loose):
    message: _Message
    finish_reason: str | None = None


class _Usage(_Loose):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(_Loose):
    choices: list[_Choice]
    usage: _Usage | None = None


def reply_in(tree: Any) -> Reply:
    """Return the reply in a completion.

    Raises:
        Unreadable: it is of other types, or holds none.
    """
    completion = parsed(_Completion, tree)
    if not completion.choices:
        raise Unreadable("holds no choice")
    message, reason = completion.choices[0].message, completion.choices[0].finish_reason
    whole = bool(message.content) and not message.refusal and reason not in _CUT
    usage = completion.usage or _Usage()
    return Reply(
        message.content or message.refusal or "",
        whole,
        _count(usage.prompt_tokens),
        _count(usage.completion_tokens),
    )


def _count(number: int | None) -> int | None:
    return None if number is None or number < 0 else number
