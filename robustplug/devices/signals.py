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


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM of a block into a request; a second one acts at once.

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
        if request.signal:
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
