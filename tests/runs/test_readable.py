"""What a run writes can be read at any time: metrics.jsonl only grows, every other file is whole."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import robustplug
from robustplug.files.seals import opened

from ..training.runs import tiny


class Reader:
    """Read a run folder all the time, and note what is wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines, self.reads = folder, b"", 0
        self.wrong: list[str] = []
        self.sizes: set[int] = set()

    def read(self) -> None:
        self.reads += 1
        metrics = self.folder / "metrics.jsonl"
        if metrics.exists():
            now = metrics.read_bytes()
            if not now.startswith(self.lines):
                self.wrong.append("metrics.jsonl lost what it had")
            self.lines = now
            self.sizes.add(len(now))
            for line in now.splitlines()[: now.count(b"\n")]:
                json.loads(line)
        for path in [*self.folder.glob("*.json"), *self.folder.glob("*/*.json")]:
            try:
                body = json.loads(path.read_bytes())
            except FileNotFoundError:
                continue  # a checkpoint that was pruned
            if path.name != "environment.json":
                opened(body)


@contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    reader, done = Reader(folder), threading.Event()

    def loop() -> None:
        while not done.wait(0.005):
            try:
                reader.read()
            except Exception as error:
                reader.wrong.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield reader
    finally:
        done.set()
        thread.join()


def test_a_run_is_read_while_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with reading(folder) as reader:
        robustplug.train(tiny(train={"epochs": 6, "checkpoint_batches": 1}), out=folder)
        robustplug.evaluate(folder, attacks=["fgsm"], out=folder / "evaluations")
        robustplug.train(resume=folder, epochs=8)
    assert reader.wrong == []
    assert reader.lines.count(b"\n") == 8
    # It was read in between, not only at the end.
    assert len(reader.sizes) > 2
