"""What reading a file may cost: memory that is free, and archives that state more than that."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path
from typing import IO

from .reading import Unreadable, open_file

# Share of the free memory that the content of one file may take.
_SHARE = 2
# Deflate packs at most 1032 bytes into one; weights and arrays reach this only where they are zeros.
_RATIO, _SMALL = 200, 256 * 2**20
_MANY = 100_000


def free_memory() -> int:
    """Return how many bytes of memory this process can still take; 1 GiB where the system does not say."""
    found = [1 << 30]
    with contextlib.suppress(ValueError, OSError, AttributeError):
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        # Unlike free pages, it counts caches that the system gives up.
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")] or found
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        lines = (group / "memory.stat").read_text().splitlines()
        caches = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        found.append(max(0, limit - used + caches))
    return min(found)


def largest_content() -> int:
    """Return how many bytes the content of one file may take in memory: half of what is free."""
    return free_memory() // _SHARE


def check_size(size: int, what: str = "it") -> None:
    """Check that content fits into memory before it is read.

    Args:
        size: number of bytes that a file states.
        what: subject of the message.

    Raises:
        Unreadable: it does not.
    """
    limit = largest_content()
    if size > limit:
        raise Unreadable(
            f"is refused: {what} takes {gibibytes(size)} of memory, more than half of what is free "
            f"({gibibytes(limit)})"
        )


def check_zip(source: str | Path | IO[bytes]) -> None:
    """Check what a zip archive states about its content, before any of it is unpacked.

    An archive that understates a size is safe: readers unpack no more than it states.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it is no regular file or no zip archive, unpacks to more than half of the free memory,
            has over 100,000 entries, or is a bomb: over 256 MiB, and 200 times the size of the file.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_file(source)) if isinstance(source, str | Path) else source
        try:
            entries = stack.enter_context(zipfile.ZipFile(file)).infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise Unreadable(f"is damaged or cut off ({error})") from error
        packed, total = file.seek(0, os.SEEK_END), sum(entry.file_size for entry in entries)
        file.seek(0)
    if len(entries) > _MANY:
        raise Unreadable(f"is refused: it has {len(entries)} entries, of at most {_MANY}")
    check_size(total, "its unpacked content")
    if total > _SMALL and total > _RATIO * packed:
        raise Unreadable(
            f"is refused: it unpacks to {gibibytes(total)}, more than {_RATIO} times its size, as only an "
            "archive of zeros or a bomb does"
        )


def gibibytes(size: int) -> str:
    """Return a number of bytes as text, for example "3.2 GiB"."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
