"""Write in a thread what the next steps need not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Behind:
    """Do one piece of work after the other in a thread, while the caller goes on.

    Work that failed is reported by the next call: no second piece begins, and what came before stays.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, once the one before is done.

        Raises:
            Exception: what the work before raised.
        """
        self.wait()
        self._thread = threading.Thread(target=self._do, args=(work,), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until all work is done.

        Raises:
            Exception: what the work raised.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failure = error
