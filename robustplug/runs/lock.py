"""The lock of a folder: it belongs to a process and a run, and shows when the folder is no longer theirs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..files.reading import Unreadable, read_bytes
from .folder import LOCK, writing

if TYPE_CHECKING:
    from filelock import BaseFileLock

# Network file systems without locks; filelock itself deals with ENOSYS.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# Where there are no locks, this file stands for one as long as it exists.
MARK = ".exists"


class Held:
    """Hold the lock of a folder.

    Args:
        folder: the locked folder.
        file: the lock file.
    """

    def __init__(self, folder: Path, file: Path) -> None:
        self.folder, self._file = folder, file
        # While it is open, no other file gets its number.
        self._number = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))

    def note(self, run: str = "") -> None:
        """State in the lock who holds it, for those who find it taken."""
        if self._file.name.endswith(MARK):
            return  # holds what filelock wrote
        body = {"run": run, "host": platform.node(), "pid": os.getpid(), "since": int(time.time())}
        with contextlib.suppress(OSError):
            os.ftruncate(self._number, 0)
            os.pwrite(self._number, json.dumps(body).encode(), 0)

    def check(self, kept: Callable[[Path], str]) -> None:
        """Stop if the folder was moved away, removed or replaced since it was locked.

        Args:
            kept: returns a sentence on what is kept in a folder.

        Raises:
            RunError: the path leads elsewhere now; the message states where the folder is.
        """
        with contextlib.suppress(OSError):
            if os.path.samestat(self._file.stat(), os.fstat(self._number)):
                return
        now = self._now()
        path = self.folder
        if now is not None:
            raise RunError(f"{path} was moved to {now} while this process worked in it. {kept(now)}")
        if path.exists() and not self._file.exists():
            raise RunError(
                f"the lock {self._file} was removed while this process worked in {path}, so that another one "
                f"could work there, too. {kept(path)}"
            )
        what = "removed and made anew" if path.exists() else "removed"
        raise RunError(
            f"{path} was {what} while this process worked in it: nothing of it is kept. Start again"
        )

    def _now(self) -> Path | None:
        """Return the folder to which the locked one was moved, where the system states it."""
        try:
            file = Path(f"/proc/self/fd/{self._number}").readlink()
            if os.path.samestat(file.stat(), os.fstat(self._number)):
                return file.parent
        except OSError:
            pass
        return None

    def close(self) -> None:
        """Close the lock file, without releasing the lock."""
        with contextlib.suppress(OSError):
            os.close(self._number)


@contextlib.contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[Held]:
    """Keep every other process out of a folder for a block; the lock of a killed process is released.

    Args:
        folder: folder to lock; created if it does not exist.
        name: file name of the lock, one for each kind of work in the folder.

    Raises:
        RunError: another process holds the lock, or the folder cannot be created or written.
    """
    with writing(f"the folder {folder}", "Choose another with --out."):
        folder.mkdir(parents=True, exist_ok=True)
        file, lock = _acquire(folder, name)
        held = Held(folder, file)
    try:
        held.note()
        yield held
    finally:
        held.close()
        # Where the folder was removed, there is nothing to release.
        with contextlib.suppress(OSError):
            lock.release()


def _acquire(folder: Path, name: str) -> tuple[Path, BaseFileLock]:
    from filelock import FileLock, SoftFileLock, Timeout

    file = folder / name
    try:
        lock: BaseFileLock = FileLock(file, blocking=False)
        try:
            lock.acquire()
        except OSError as error:
            if error.errno not in _NO_LOCKS or isinstance(error, Timeout):
                raise
            file = folder / f"{name}{MARK}"
            # It takes over the lock of a process of this host that does not exist any more.
            lock = SoftFileLock(file, blocking=False)
            try:
                lock.acquire()
            except Timeout:
                if file.exists():
                    raise
                lock.acquire()  # it was that of such a process, and older versions only remove it
    except Timeout:
        raise RunError(_taken(folder, file)) from None
    return file, lock


def _taken(folder: Path, file: Path) -> str:
    """Return that another process holds a lock, which, since when, and what to do."""
    text = f"another process is using {folder}"
    mend = "wait for it, or choose another folder with --out"
    who = holder(file)
    if not who:
        return f"{text}: {mend}"
    age = max(0, int(time.time() - who["since"]))
    text += f": process {who['pid']} on host {who['host']}, for {_span(age)}"
    if file.name.endswith(MARK):
        mend += f"; if that process has ended, delete {file}"
    return f"{text}; {mend}"


def holder(file: Path) -> dict[str, Any]:
    """Return host, pid and start time of the holder of a lock, as far as the lock states them."""
    try:
        text = read_bytes(file, 4096).decode()
        if file.name.endswith(MARK):
            pid, host, *_ = text.splitlines()
            return {"pid": int(pid), "host": host, "since": file.stat().st_mtime}
        body = json.loads(text)
        return {"pid": int(body["pid"]), "host": str(body["host"]), "since": float(body["since"])}
    except (OSError, Unreadable, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _span(seconds: int) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
