"""Hostile names and files, and what a command must make of them."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from robustplug.cli import main

SECONDS = 60

Make = Callable[[Path], Path]


class TooLong(BaseException):
    """A block took too long; no `except Exception` catches it."""


@contextmanager
def in_time(seconds: int = SECONDS) -> Iterator[None]:
    """Fail if a block takes long, as reading from a pipe would, even if it catches the interruption."""
    late = False

    def stop(*_: object) -> None:
        nonlocal late
        late = True
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        if late:
            raise AssertionError("it hangs")


def run(*arguments: str | Path) -> Result:
    """Run the command line; a traceback, a hang and an escape sequence in its output fail."""
    with in_time():
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"traceback from {arguments}") from result.exception
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", result.output), repr(result.output)
    return result


def refused(*arguments: str | Path) -> str:
    """Run the command line, which must end with exit code 2 and a short message; return the message."""
    result = run(*arguments)
    assert result.exit_code == 2, (result.exit_code, result.output[-2000:])
    assert "Traceback" not in result.output
    message = result.output.strip()
    assert message
    assert len(message.splitlines()) < 12, message[:3000]
    return message


def pipe(path: Path) -> Path:
    """Make a named pipe, from which reading waits."""
    os.mkfifo(path)
    return path


def zeros(path: Path) -> Path:
    """Make a link to a device that never ends."""
    path.symlink_to("/dev/zero")
    return path


def loop(path: Path) -> Path:
    """Make a link to itself."""
    path.symlink_to(path)
    return path


def folder(path: Path) -> Path:
    """Make a folder."""
    path.mkdir()
    return path


def listener(path: Path) -> Path:
    """Make a socket, by a short name: that of a socket may not be long."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
    return path


def memory(path: Path) -> Path:
    """Make a link to a file of the system that states a size of 0 and has no end."""
    path.symlink_to("/proc/self/mem")
    return path


def long(path: Path) -> Path:
    """Return a path of 5,000 characters."""
    return path.with_name("x" * 5000 + path.suffix)


NO_FILES: dict[str, Make] = {
    "pipe": pipe,
    "device": zeros,
    "link to itself": loop,
    "folder": folder,
    "socket": listener,
    "memory": memory,
    "long name": long,
}

# Names that a user, an archive or a recipe may give.
NAMES = {
    "markup": "[rich]markup[/red]",
    "end of markup": "[/]",
    "escape sequence": "a\x1b[31m\x1b]0;title\x07b",
    "newline": "a\nb",
    "no UTF-8": os.fsdecode(b"a\xff\xfeb"),
    "markup of a terminal": "[red]a[link=b]",
    "html": "<img src=x onerror=alert(1)>",
    "turned text": "a\u202egpj.exe",
}
