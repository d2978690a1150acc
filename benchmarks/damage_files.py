"""Kinds of damage to a whole file: its bytes, another file in its place, something that is no file."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Inapplicable(Exception):
    """The damage cannot be done to this file, or would change nothing."""


@dataclass(frozen=True)
class Target:
    """What is damaged.

    Attributes:
        folder: folder that holds everything that the command reads.
        file: path of the file in it.
        other: the same folder of another run, made with another seed or method.
        earlier: the same folder at an earlier time; it may lack the file.
    """

    folder: Path
    file: Path
    other: Path
    earlier: Path

    @property
    def path(self) -> Path:
        return self.folder / self.file

    def parts(self) -> list[Path]:
        """Return the file and those that belong to it: of a checkpoint, both."""
        return sorted(path for path in self.path.parent.glob(f"{self.path.stem}.*") if path.is_file())


Damage = Callable[[Target, random.Random], None]


# Bytes.


def flip(target: Target, rng: random.Random) -> None:
    data = bytearray(target.path.read_bytes())
    if not data:
        raise Inapplicable
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    target.path.write_bytes(data)


def truncate(target: Target, rng: random.Random) -> None:
    data = target.path.read_bytes()
    if len(data) < 2:
        raise Inapplicable
    target.path.write_bytes(data[: rng.randrange(1, len(data))])


def empty(target: Target, rng: random.Random) -> None:
    target.path.write_bytes(b"")


def noise(target: Target, rng: random.Random) -> None:
    target.path.write_bytes(rng.randbytes(max(8, target.path.stat().st_size)))


# Other files.


def _take(target: Target, source: Path) -> None:
    if not source.is_file() or source.read_bytes() == target.path.read_bytes():
        raise Inapplicable
    shutil.copyfile(source, target.path)


def foreign(target: Target, rng: random.Random) -> None:
    """Take the file of the same name from another run."""
    _take(target, target.other / target.file)


def foreign_all(target: Target, rng: random.Random) -> None:
    """Take all files that belong together from another run, for example both of a checkpoint."""
    for part in target.parts():
        source = target.other / target.file.parent / part.name
        if not source.is_file():
            raise Inapplicable
        shutil.copyfile(source, part)


def sibling(target: Target, rng: random.Random) -> None:
    """Take another file of the same kind from this folder."""
    near = [
        path
        for path in sorted(target.folder.rglob(f"*{target.path.suffix}"))
        if path.is_file() and path != target.path
    ]
    if not near:
        raise Inapplicable
    _take(target, rng.choice(near))


def swap(target: Target, rng: random.Random) -> None:
    """Exchange two files of a folder, and all that belongs to them."""
    near = [
        path
        for path in sorted(target.path.parent.glob(f"*{target.path.suffix}"))
        if path.stem != target.path.stem
    ]
    if not near:
        raise Inapplicable
    other = rng.choice(near)
    for part in target.parts():
        twin = other.with_suffix(part.suffix)
        if twin.is_file():
            one, two = part.read_bytes(), twin.read_bytes()
            part.write_bytes(two)
            twin.write_bytes(one)


def older(target: Target, rng: random.Random) -> None:
    _take(target, target.earlier / target.file)


def rename(target: Target, rng: random.Random) -> None:
    """Rename all that belongs to the file; a checkpoint looks newer then."""
    stem = target.path.stem
    new = stem.replace("-0000", "-0009", 1) if "-0000" in stem else f"{stem}-{rng.randrange(9)}"
    for part in target.parts():
        part.rename(part.with_name(new + part.suffix))


def remove(target: Target, rng: random.Random) -> None:
    target.path.unlink()


def remove_all(target: Target, rng: random.Random) -> None:
    for part in target.parts():
        part.unlink()


# What is not a file.


def fifo(target: Target, rng: random.Random) -> None:
    target.path.unlink()
    os.mkfifo(target.path)


def folder(target: Target, rng: random.Random) -> None:
    target.path.unlink()
    target.path.mkdir()
    (target.path / "inside").write_text("x")


def link(target: Target, rng: random.Random) -> None:
    """Put a link to the file of another run, to nothing, to itself, to a device, to a file of the system."""
    where = [
        target.other / target.file,
        Path("nowhere"),
        Path(target.path.name),
        Path("/dev/zero"),
        Path("/etc/passwd"),
    ]
    goal = rng.choice(where)
    target.path.unlink()
    target.path.symlink_to(goal)


def forbidden(target: Target, rng: random.Random) -> None:
    if os.getuid() == 0:
        raise Inapplicable  # root reads everything
    target.path.chmod(0)


ANY: dict[str, Damage] = {
    "a flipped bit": flip,
    "truncated": truncate,
    "emptied": empty,
    "noise": noise,
    "from another run": foreign,
    "with its parts from another run": foreign_all,
    "another file of its kind": sibling,
    "exchanged": swap,
    "an older copy": older,
    "renamed": rename,
    "removed": remove,
    "removed with its parts": remove_all,
    "a named pipe": fifo,
    "a folder": folder,
    "a link": link,
    "no permission": forbidden,
}
