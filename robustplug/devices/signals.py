"""Stop at the next batch on request."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """Store the signal that requested the stop, if any."""

    signal: int = 0


@dataclass
class _Process:
    """How this process takes stop signals: whether all of them are one request, and whether it came."""

    once: bool = False
    asked: bool = False


_PROCESS = _Process()


def stop_once() -> None:
    """Take all stop signals of this process as one request, however many come, SIGUSR1 and SIGUSR2 included.

    A batch system sends SIGTERM and the signal that it was asked for to each process of a job, and a launcher
    passes them on. Elsewhere, somebody who presses Ctrl-C a second time means it.
    """
    _PROCESS.once = True
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_once)
    for name in ("SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):  # not on Windows
            signal.signal(getattr(signal, name), lambda *_: signal.raise_signal(signal.SIGTERM))


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    if not _PROCESS.asked:
        _PROCESS.asked = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM of a block into a request; a second one acts at once.

    See `stop_once` for the exception.

    Outside the main thread, where Python allows no handlers, no requests are possible.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in watched}

    def ask(number: int, frame: FrameType | None) -> None:
        # The handlers stay: a component that exchanges one is then known by it.
        if _PROCESS.once:
            _PROCESS.asked = True
        elif request.signal:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        request.signal = number

    for number in watched:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number in watched:
            signal.signal(number, before[number])
