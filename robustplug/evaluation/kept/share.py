"""A part of an evaluation that several processes share, on one machine or on many, through files alone."""

from __future__ import annotations

import functools
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ...errors import RunError
from .journal import JOURNAL_FORMAT, Again, Journal, Quiet
from .records import Chunk, misfit
from .tail import Spot, Tail

if TYPE_CHECKING:
    from ...core.types import Batch, Feed, Split
    from ..setting import Attack, Setting, Share

# Seconds without a new record after which the batches of others are taken over, and how many times the
# longest batch more.
PATIENCE, LONGER = 5.0, 2.0
_PAUSE = 0.1


@dataclass
class SharedJournal(Quiet):
    """The journals of all parts: each process writes its own, and reads those of the others as they grow.

    Each row ends in every process with the outcomes of all batches, which the next row starts from. A process
    that waits for others longer than they take for a batch attacks what is missing: others that were killed,
    or that wait in a queue, hold nobody up.

    Attributes:
        share: the part of this process.
        journal: its journal.
        warn: receives a sentence on each problem.
    """

    share: Share
    journal: Journal
    warn: Callable[[str], None]
    alone = False
    _tails: Sequence[Tail] = ()
    _spots: dict[tuple[int, int], Spot] = field(default_factory=dict)
    _expected: dict[int, array[int]] = field(default_factory=dict)
    _fitting: set[int] = field(default_factory=set)
    _classes: int | None = None
    _longest: float = 0.0
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        own = [self.share.path(number) for number in range(self.share.of)]
        # What was done in more parts, before the same command was given with fewer, is read, too.
        paths = dict.fromkeys([*own, *sorted(self.share.folder.glob("share-*.journal"))])
        self._tails = [Tail(path, self.journal.key) for path in paths]
        self._look()

    def mine(self, number: int) -> bool:
        """Return whether a batch is of this part."""
        return number % self.share.of == self.share.number

    def chunk(self, attack: int, number: int, batch: Batch, classes: int | None) -> Chunk | None:
        """Return the outcome of a batch if anybody has it, and remember which samples it must be about."""
        self._expected[number], self._classes = array("q", batch.index.tolist()), classes
        return self._read(attack, number)

    def add(self, attack: int, number: int, chunk: Chunk) -> None:
        """Record the outcome of a batch."""
        self.journal.add(attack, number, chunk)
        self._look()

    def shared(self, attack: int, again: Again) -> Iterator[Chunk]:
        """Wait until the outcomes of all batches of a row are there, and yield them in their order.

        Args:
            attack: number of the row.
            again: attacks the batches that are wanted, and records the outcomes.
        """
        since, rounds = time.monotonic(), 0
        while missing := [number for number in self._expected if self._lacks(attack, number)]:
            if self._look():
                since = time.monotonic()
            elif time.monotonic() - since > PATIENCE + LONGER * self._longest:
                wanted = self._taken_over(missing, rounds)
                again(functools.partial(self._wants, attack, wanted))
                since, rounds = time.monotonic(), rounds + 1
            else:
                time.sleep(_PAUSE)
        for number in sorted(self._expected):
            chunk = self._read(attack, number)
            if chunk is None:
                raise RunError(f"a journal in {self.share.folder} was changed: give the same command again")
            yield chunk

    def _wants(self, attack: int, wanted: set[int], number: int) -> bool:
        """Return whether a batch is to be attacked, unless somebody has done so in the meantime."""
        self._look()
        return number in wanted and self._lacks(attack, number)

    def _taken_over(self, missing: Sequence[int], rounds: int) -> set[int]:
        """Return what to attack in the place of others: in the first round another part in each process."""
        own, of = self.share.number, self.share.of
        first = {number for number in missing if (number // of) % of == own} if rounds == 0 else set[int]()
        return first or set(missing)

    def _look(self) -> bool:
        """Read what is new in all journals, and return whether anything is."""
        new = False
        for number, tail in enumerate(self._tails):
            for (_, attack, batch), spot in tail.news():
                new = new or number != self.share.number
                self._spots.setdefault((attack, batch), spot)
            if tail.foreign and tail.foreign not in self._told:
                self._told.add(tail.foreign)
                self.warn(f"{tail.path} {tail.foreign}")
        return new

    def _lacks(self, attack: int, number: int) -> bool:
        """Return whether nobody has an outcome of a batch that fits its samples."""
        if number not in self._fitting:
            self._read(attack, number)
        return number not in self._fitting

    def _read(self, attack: int, number: int) -> Chunk | None:
        """Return the outcome of a batch; one that does not fit its samples is forgotten."""
        spot = self._spots.get((attack, number))
        found = None if spot is None else spot.read(self.journal.key)
        if found is None or misfit(found, self._expected[number].tolist(), self._classes):
            self._spots.pop((attack, number), None)
            return None
        self._fitting.add(number)
        self._longest = max(self._longest, found.seconds)
        return found

    def end_of_attack(self) -> None:
        """Forget the batches of a row."""
        self._expected.clear()
        self._fitting.clear()
        self._longest = 0.0

    def close(self) -> None:
        """Close the journal of this part."""
        self.journal.close()


def journal_of(setting: Setting, split: Split, rows: Sequence[Attack], feed: Feed) -> Quiet:
    """Open the journal of an evaluation, if it has one.

    Args:
        setting: the evaluation.
        split: the split of its samples.
        rows: its attacks, in order.
        feed: its batches.
    """
    said = [(r.label, dict(r.options), dict(r.threat), dict(r.shift_options), r.chain) for r in rows]
    identity = {
        **setting.identity,
        "journal": JOURNAL_FORMAT,
        "split": split,
        "seed": setting.seed,
        "rows": said,
        "feed": asdict(feed),
    }
    if setting.share is not None:
        # Devices have numbers, which differ from process to process.
        identity["feed"] = {**asdict(feed), "device": ""}
        path = setting.share.path(setting.share.number)
        own = Journal.open(path, identity, setting.processes, setting.reporter.warn)
        return SharedJournal(setting.share, own, setting.reporter.warn)
    if setting.journal is None:
        return Quiet()
    return Journal.open(setting.journal, identity, setting.processes, setting.reporter.warn)
