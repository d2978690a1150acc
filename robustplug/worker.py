"""The worker process for one run of a study. `robustplug study` starts it.

It reads a job from its standard input and reports progress on its standard output, each as a line of JSON.
When the input ends, because the study has stopped or died, it stops as on Ctrl-C.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading

from .errors import Interrupted
from .files.reading import Unreadable
from .studies.messages import Relay
from .studies.work import Commands, Job, carry_out

# Bytes of a job.
_LONGEST = 16 * 2**20


def main() -> None:
    """Run the job in the first line of the input."""
    # The output of libraries must not mix with the messages.
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as messages:
        os.dup2(2, 1)
        # A process that was started in the background ignores SIGINT by default.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        relay = Relay(messages.write)
        try:
            job = Job.parse(_first_line())
        except Unreadable as error:
            relay.send("failed", reason=f"the job that the study gave to its process {error}", details="")
            return
        working = threading.Event()
        working.set()
        threading.Thread(target=_stop_at_end_of_input, args=(working,), daemon=True).start()
        try:
            from .run import audit, evaluate, train

            failure = carry_out(job, Commands(train, evaluate, audit), relay)
            working.clear()
        except (Interrupted, KeyboardInterrupt):
            relay.send("stopped")
            sys.exit(130)
        if failure is not None:
            relay.send("failed", reason=failure.reason, details=failure.details)
        else:
            relay.send("done")


def _first_line() -> bytes:
    # Unbuffered: a thread that waits in a buffered reader would block the exit of the process.
    with open(0, "rb", buffering=0, closefd=False) as file:
        return file.readline(_LONGEST)


def _stop_at_end_of_input(working: threading.Event) -> None:
    while os.read(0, 1):
        pass
    if working.is_set():
        _thread.interrupt_main()


if __name__ == "__main__":
    main()
