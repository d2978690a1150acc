"""Follow the jobs of a study until they have ended, wherever they are carried out."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.reporting import Reporter
from ..devices.signals import StopRequest, stop_requests
from ..errors import Interrupted
from .launchers.protocol import JobState, Launcher
from .messages import Ended, Failed, Messages, pass_on
from .work import Failure

# Seconds between two looks at a stop signal.
_ATTENTIVE = 0.1
# Looks that a job of another machine gets to show its last message: files take their time to be seen.
_LOOKS = 3


@dataclass
class _Followed:
    """A submitted job; it has a reporter once it runs."""

    number: str
    messages: Messages
    reporter: Reporter | None = None
    looks: int = 0

    def failure(self, state: JobState) -> Failure | None:
        """Return why the job failed; None for a job that is done."""
        match self.messages.ended:
            case Ended(kind="done"):
                return None
            case Failed(reason=reason, details=details):
                return Failure(reason, details)
            case Ended():
                return Failure("was stopped: the same command goes on from its checkpoint", "")
        reason = state.reason or "its job ended without a word"
        return Failure(f"{reason}; the same command goes on from its checkpoint", state.details)


@dataclass(frozen=True)
class Hearer:
    """Hold the functions that receive what happens to the jobs, each known by the number of its run.

    Attributes:
        submitted: receives the jobs that were submitted, with the numbers of the launcher.
        ready: says whether a job can be submitted; one that cannot waits for others.
        start: receives a job that starts, and returns the reporter of its progress.
        done: receives a job that ended, and its failure, if any.
        full: receives the number of jobs for which the queue has no room.
    """

    submitted: Callable[[Iterable[tuple[int, str]]], None]
    ready: Callable[[int], bool]
    start: Callable[[int], Reporter]
    done: Callable[[int, Failure | None], None]
    full: Callable[[int], None]


def follow(
    launcher: Launcher,
    jobs: dict[int, Path],
    going: Mapping[int, str],
    messages: Callable[[int], Messages],
    hearer: Hearer,
) -> None:
    """Submit jobs as the launcher takes them, and follow all until they have ended.

    Args:
        launcher: the launcher.
        jobs: files of the jobs to submit, by the number of the run; one that is submitted is taken out.
            `hearer.done` may take out those that cannot be submitted any more.
        going: jobs that were submitted before: their numbers of the launcher, by the number of the run.
        messages: returns the messages of the job of a run.
        hearer: receives what happens.

    Raises:
        Interrupted: Ctrl-C or SIGTERM was received. Jobs that last go on; others have stopped at their next
            batch. A second signal kills those.
        RunError: the launcher refuses a job, or cannot say how far the jobs are.
    """
    followed = {at: _Followed(number, messages(at)) for at, number in going.items()}
    asked, again, told = False, 0.0, False
    with stop_requests() as stop:
        while followed or jobs:
            ready = [at for at in jobs if hearer.ready(at)]
            if ready and not stop.signal and time.monotonic() >= again:
                with _noted_first() if launcher.lasting else contextlib.nullcontext():
                    took = list(zip(ready, launcher.submit([jobs[at] for at in ready]), strict=False))
                    hearer.submitted(took)
                for at, number in took:
                    del jobs[at]
                    followed[at] = _Followed(number, messages(at))
                again = time.monotonic() + launcher.pause
                if len(took) < len(ready) and not told:
                    told = True
                    hearer.full(len(ready) - len(took))
            if stop.signal and not asked:
                asked = True
                if launcher.lasting:
                    break
                jobs.clear()
                launcher.cancel([each.number for each in followed.values()])
            _look(launcher, followed, hearer, asked)
            _wait(launcher.pause if followed or jobs else 0.0, stop, asked)
        if asked:
            raise Interrupted("stopped", 128 + stop.signal)


@contextlib.contextmanager
def _noted_first() -> Iterator[None]:
    """Let no signal come between the submission of jobs and its note, nor reach the programs that submit."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _look(launcher: Launcher, followed: dict[int, _Followed], hearer: Hearer, asked: bool) -> None:
    """Pass on what has happened since the last look, and drop the jobs that have ended."""
    states = launcher.states([each.number for each in followed.values()])
    for at, each in list(followed.items()):
        state = states.get(each.number) or JobState("ended")
        if state.name == "queued" and each.reporter is None:
            continue
        found = list(each.messages.read())
        if state.name == "ended" and each.messages.ended is None and launcher.lasting:
            each.looks += 1
            if each.looks < _LOOKS:
                continue
        stopped = each.messages.ended is None or each.messages.ended.kind == "stopped"
        if state.name == "ended" and asked and stopped:
            del followed[at]
            continue
        reporter = each.reporter = each.reporter or hearer.start(at)
        for message in found:
            pass_on(message, reporter)
        if state.name == "ended":
            each.messages.tell_malformed(reporter)
            del followed[at]
            hearer.done(at, each.failure(state))


def _wait(seconds: float, stop: StopRequest, asked: bool) -> None:
    """Wait, but not longer than until a stop signal that nobody has looked at."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and (asked or not stop.signal):
        time.sleep(min(_ATTENTIVE, left))
