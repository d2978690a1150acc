"""Images and labels in .tar files, the shards of WebDataset."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...api import BrokenData, DataMissing, Split, Unreadable, open_file
from . import WebDatasetOptions
from .image_folder import ENDINGS, hidden
from .inspection import Inspection, Source
from .picture_task import PictureTask, labelled_task

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
# Bytes of an entry, the shards of a path, and bytes of a label.
_LARGEST, _SHARDS, _LABEL = 2**28, 100_000, 2**16


@dataclass(frozen=True, slots=True)
class Member:
    """A file within a .tar file, by its place; it is read without the archive's index.

    Attributes:
        shard: path of the .tar file.
        name: name of the file in it.
        start, size: its place in the .tar file, in bytes.
    """

    shard: str
    name: str
    start: int
    size: int

    def open(self) -> IO[bytes]:
        """Return its content.

        Raises:
            BrokenData: the .tar file cannot be read.
        """
        if self.size > _LARGEST:
            raise BrokenData(f"{self} is too large: {self.size} bytes, of at most {_LARGEST}")
        try:
            with open_file(self.shard) as file:
                file.seek(self.start)
                return io.BytesIO(file.read(self.size))
        except (OSError, Unreadable) as error:
            raise BrokenData(f"{self} cannot be read: {error}") from error

    def __str__(self) -> str:
        return f"{self.shard}:{self.name}"


def webdataset(options: WebDatasetOptions) -> PictureTask:
    """Build the task: entries of one name, such as 000017.jpg and 000017.cls, are a sample.

    Raises:
        DataMissing: no files are named, or they do not exist.
        BrokenData: a .tar file cannot be read, or a sample has no image, no label, or several; such samples
            may be skipped.
        ValueError: there is one class, or a split has classes that the training split lacks.
    """
    given: dict[Split, float | str | None] = {
        "train": options.train,
        "validation": options.validation,
        "test": options.test,
    }
    paths = {split: path for split, path in given.items() if isinstance(path, str)}
    shares = {split: share for split, share in given.items() if isinstance(share, float)}
    if "train" not in paths and "test" not in paths:
        raise DataMissing("no shards are named: task.train, or task.test for an evaluation")
    inspection = Inspection(options)
    found = {split: read_shards(path, options, inspection) for split, path in paths.items()}
    return labelled_task(found, (), shares, options, inspection)


def read_shards(path: str, options: WebDatasetOptions, inspection: Inspection) -> list[tuple[Source, str]]:
    """List the images of .tar files with the text of their labels.

    Args:
        path: path of the files, also with ranges and wildcards.
        options: ending of the labels, and what happens to incomplete samples.
        inspection: takes the incomplete samples.

    Raises:
        DataMissing: there are no such files.
        BrokenData: one cannot be read, or a sample is incomplete.
    """
    shards = list(find_shards(path))
    if not shards:
        raise DataMissing(f"there are no files {Path(path).expanduser().absolute()}")
    found: list[tuple[Source, str]] = []
    bad = []
    for shard in shards:
        for key, members in _samples(shard).items():
            images = [member for ending, member in members if f".{ending.rpartition('.')[2]}" in ENDINGS]
            labels = [member for ending, member in members if ending == options.label.lower()]
            if len(images) == len(labels) == 1:
                found.append((images[0], _text(labels[0])))
            else:
                listed = ", ".join(member.name for _, member in members)
                bad.append(
                    f"{shard}: the sample {key} has {len(images)} images and {len(labels)} labels "
                    f"(.{options.label}) among {listed}"
                )
    inspection.reject(bad, len(found) + len(bad))
    if not found:
        raise BrokenData(f"there is no image with a label in {path}")
    return found


def find_shards(path: str) -> Iterator[Path]:
    """Yield the files of a path with "{000..009}" and wildcards, in order."""
    text = str(Path(path).expanduser())
    count = math.prod(max(1, int(last) - int(first) + 1) for first, last in _RANGE.findall(text))
    if count > _SHARDS or "**" in text:
        raise ValueError(f'{path[:80]!r} stands for more than {_SHARDS} files: use "*" within one folder')
    span = _RANGE.search(text)
    if span is not None:
        for number in range(int(span[1]), int(span[2]) + 1):
            yield from find_shards(f"{text[: span.start()]}{number:0{len(span[1])}}{text[span.end() :]}")
    elif any(mark in text for mark in "*?["):
        pattern = Path(text)
        anchor = Path(pattern.anchor or ".")
        yield from sorted(anchor.glob(str(pattern.relative_to(pattern.anchor))))
    elif os.path.lexists(text):
        yield Path(text)
    else:
        raise DataMissing(f"there is no file {Path(text).absolute()}")


def _samples(shard: Path) -> dict[str, list[tuple[str, Member]]]:
    """Return the entries of a .tar file by the name of their sample, each with its ending."""
    groups: dict[str, list[tuple[str, Member]]] = {}
    try:
        with open_file(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                folder, _, name = entry.name.rpartition("/")
                # A sparse entry holds other bytes than its size says.
                if (
                    not entry.isreg()
                    or entry.issparse()
                    or any(hidden(part) for part in entry.name.removeprefix("./").split("/"))
                ):
                    continue
                key, _, ending = name.partition(".")
                member = Member(str(shard), entry.name, entry.offset_data, entry.size)
                groups.setdefault(f"{folder}/{key}".lstrip("/"), []).append((ending.lower(), member))
    except Unreadable as error:
        raise BrokenData(f"{shard} {error}") from error
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as error:
        raise BrokenData(
            f"{shard} cannot be read as a .tar file: {error}; unpack .tar.gz files first, gunzip {shard}"
        ) from error
    return groups


def _text(member: Member) -> str:
    with dataclasses.replace(member, size=min(member.size, _LABEL)).open() as file:
        return file.read().decode("utf-8", "replace").strip()
