"""Read dialogues and scenarios in the format of Deal or No Deal.

A dialogue is one line, seen by one side:

    <input> 1 4 4 1 1 2 </input> <dialogue> THEM: deal <eos> YOU: <selection> </dialogue>
    <output> item0=1 item1=0 item2=1 item0=0 item1=4 item2=0 </output>
    <partner_input> 1 0 4 2 1 2 </partner_input>

(on one line). An input is count and value of each item. The output is what both sides took, or six times
one of <disagree>, <no_agreement> and <disconnect>. A scenario is two lines of six numbers, one for each
side. Every turn but the last ends with <eos>; the last is <selection>. There are at most 4 pieces of each
item, and all pieces together are worth 10 to each side.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from robustplug.api import BrokenData

from .layout import ENDINGS, EOS, HEAD, ITEMS, MOST, PAD, SELECTION, SPECIALS, Words
from .scenarios import TOTAL

SHOWN = 20
"""Number of malformed lines that an error lists."""
LONGEST_TURN, LONGEST = 1000, 5000
"""Largest numbers of words of a turn, and of a dialogue. Those of people have at most 71 words in a turn."""

_LINE = re.compile(
    r"<input> (?P<input>[^<]*) </input> <dialogue> (?P<dialogue>.*) </dialogue> "
    r"<output> (?P<output>.*) </output> <partner_input> (?P<partner>[^<]*) </partner_input>"
)
_OUTCOME = re.compile(r"item([0-2])=([0-9]+)")
Read = TypeVar("Read")


class Dialogue(NamedTuple):
    """Hold a dialogue as one side sees it.

    Attributes:
        counts, own, other: pieces of the three items, and their values to the own and the other side.
        words: words from the first speaker's name to <selection>.
        outcome: pieces of each item for the own side, then for the other; or DISAGREE and the like.
    """

    counts: tuple[int, ...]
    own: tuple[int, ...]
    other: tuple[int, ...]
    words: tuple[str, ...]
    outcome: tuple[int, ...]


def parse_dialogue(line: str) -> Dialogue:
    """Read one line of a file of dialogues.

    Raises:
        ValueError: the line is malformed; the message states what is wrong.
    """
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise ValueError(
            "not of the form <input> … </input> <dialogue> … </dialogue> <output> … </output> "
            "<partner_input> … </partner_input>"
        )
    counts, own = _goal(match["input"], "<input>")
    same, other = _goal(match["partner"], "<partner_input>")
    if counts != same:
        raise ValueError(f"the counts differ: {counts} in <input>, {same} in <partner_input>")
    words = tuple(match["dialogue"].split())
    _check_words(words)
    return Dialogue(counts, own, other, words, _outcome(match["output"].split(), counts))


def _goal(text: str, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    numbers = text.split()
    if len(numbers) != 2 * len(ITEMS) or not all(number.isdecimal() for number in numbers):
        raise ValueError(f"{name} must be count and value of 3 items, 6 whole numbers, not “{text:.60}”")
    for place, number in enumerate(numbers):
        what, most = ("values", TOTAL) if place % 2 else ("counts", MOST)
        if len(number) > 4 or int(number) > most:
            raise ValueError(f"{name} has {number:.9}, but {what} are at most {most}")
    read = tuple(map(int, numbers))
    counts, values = read[::2], read[1::2]
    total = sum(map(int.__mul__, counts, values))
    if total != TOTAL:
        raise ValueError(f"{name} is worth {total} in all, but everything together is worth {TOTAL}")
    return counts, values


def _check_words(words: Sequence[str]) -> None:
    speakers = [word for word in words if word in ("YOU:", "THEM:")]
    if not words or words[0] not in ("YOU:", "THEM:"):
        raise ValueError("the dialogue must begin with YOU: or THEM:")
    if any(one == other for one, other in itertools.pairwise(speakers)):
        raise ValueError("the same side speaks twice in a row: YOU: and THEM: must alternate")
    if words.count(SPECIALS[SELECTION]) != 1 or words[-1] != SPECIALS[SELECTION]:
        raise ValueError("the dialogue must end with <selection>, and contain it only there")
    if SPECIALS[PAD] in words:
        raise ValueError(f"the dialogue contains {SPECIALS[PAD]}, which is no word")
    if len(words) > LONGEST:
        raise ValueError(f"the dialogue has {len(words)} words, more than {LONGEST}")
    begins = [place for place, word in enumerate(words) if word in ("YOU:", "THEM:")]
    for start, end in itertools.pairwise([*begins, len(words)]):
        turn = words[start + 1 : end]
        if len(turn) > LONGEST_TURN:
            raise ValueError(f"a turn has {len(turn)} words, more than {LONGEST_TURN}")
        closing = SPECIALS[SELECTION if end == len(words) else EOS]
        if turn[-1:] != (closing,) or SPECIALS[EOS] in turn[:-1]:
            raise ValueError(f"a turn does not end with its only {closing}: “{' '.join(turn):.60}”")
        if closing == SPECIALS[SELECTION] and len(turn) > 1:
            raise ValueError("the last turn must be <selection> alone")


def _outcome(words: Sequence[str], counts: Sequence[int]) -> tuple[int, ...]:
    if len(words) == 6 and len(set(words)) == 1 and words[0] in ENDINGS:
        return (ENDINGS[words[0]],) * 6
    found = [_OUTCOME.fullmatch(word) for word in words]
    if len(found) != 6 or any(
        match is None or int(match[1]) != place % 3 for place, match in enumerate(found)
    ):
        raise ValueError(
            f"<output> must be item0=, item1=, item2= with a number for each side, or one of "
            f"{', '.join(ENDINGS)} 6 times, not “{' '.join(words)}”"
        )
    taken = tuple(int(match[2]) for match in found if match is not None)
    for item, count in enumerate(counts):
        if taken[item] + taken[3 + item] != count:
            raise ValueError(
                f"<output> has {taken[item]} and {taken[3 + item]} of item{item}, but there are {count}"
            )
    return taken


def parse_scenarios(lines: Sequence[str]) -> tuple[int, ...]:
    """Read the two lines of a scenario: counts, values of one side, values of the other.

    Raises:
        ValueError: a line is malformed, or the two lines do not match.
    """
    if len(lines) != 2:
        raise ValueError("a scenario is two lines, one for each side; the second is missing")
    (counts, one), (same, other) = (_goal(line, "a line of a scenario") for line in lines)
    if counts != same:
        raise ValueError(f"the two lines of a scenario have different counts: {counts} and {same}")
    return (*counts, *one, *other)


def read_dialogues(path: Path, notes: list[str] | None = None) -> list[Dialogue]:
    """Read a file of dialogues.

    Args:
        path: UTF-8 file with one dialogue per line; empty lines are skipped.
        notes: receives a sentence on malformed lines, which are left out; None to refuse the file instead.

    Raises:
        BrokenData: lines are malformed; the message lists the first 20 with file and line.
        OSError: the file does not exist or cannot be read.
    """
    records = ((number, [line]) for number, line in _lines(path))
    return _read(path, records, lambda lines: parse_dialogue(lines[0]), notes)


def read_scenarios(path: Path, notes: list[str] | None = None) -> Tensor:
    """Read a file of scenarios, int64 (S, 9): counts, values of one side, values of the other.

    Args:
        path: UTF-8 file with two lines per scenario; empty lines are skipped.
        notes: as in `read_dialogues`.

    Raises:
        BrokenData, OSError: as in `read_dialogues`.
    """
    lines = list(_lines(path))
    pairs = ((lines[at][0], [line for _, line in lines[at : at + 2]]) for at in range(0, len(lines), 2))
    return torch.tensor(_read(path, pairs, parse_scenarios, notes)).view(-1, 9)


def read_test_scenarios(path: Path, notes: list[str] | None = None) -> Tensor:
    """Read the scenarios of a file of dialogues or of scenarios, int64 (S, 9).

    Args:
        path: file as for `read_dialogues`, of whose lines only the scenario is used, or as for
            `read_scenarios`.
        notes: as in `read_dialogues`.

    Raises:
        BrokenData, OSError: as in `read_dialogues`.
    """
    if not any(line.lstrip().startswith(b"<") for _, line in _lines(path)):
        return read_scenarios(path, notes)
    return torch.tensor([(*d.counts, *d.own, *d.other) for d in read_dialogues(path, notes)])


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, with their numbers; only line feeds end them."""
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    return ((number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip())


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: byte {line[error.start]:#04x} at place {error.start + 1}") from error


def _read(
    path: Path,
    records: Iterable[tuple[int, list[bytes]]],
    parse: Callable[[list[str]], Read],
    notes: list[str] | None,
) -> list[Read]:
    found: list[Read] = []
    problems: list[str] = []
    for number, lines in records:
        try:
            found.append(parse([_text(line) for line in lines]))
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems and notes is None:
        more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "\n".join(problems[:SHOWN])
        raise BrokenData(
            f"{len(problems)} malformed lines: fix them, or leave them out with task.skip_malformed = true\n"
            f"{listed}{more}"
        )
    if problems and notes is not None:
        notes.append(f"{len(problems)} malformed lines of {path} were left out; the first: {problems[0]}")
    if not found:
        raise BrokenData(f"{path} contains no usable data")
    return found


def vocabulary(dialogues: Iterable[Dialogue], threshold: int) -> Words:
    """Return the words that occur more than `threshold` times, most frequent first, then alphabetically.

    This is the rule of Lewis et al. 2017, with a threshold of 20, on the training dialogues.
    """
    counts = Counter(word for dialogue in dialogues for word in dialogue.words)
    kept = [(-count, word) for word, count in counts.items() if count > threshold]
    return Words.of(word for _, word in sorted(kept))


def encode(dialogues: Sequence[Dialogue], words: Words) -> tuple[Tensor, Tensor]:
    """Return dialogues as rows, int64 (N, 12 + T), and their outcomes, int64 (N, 6)."""
    width = max(len(dialogue.words) for dialogue in dialogues)
    rows = []
    for d in dialogues:
        padding = [PAD] * (width - len(d.words))
        rows.append([*d.counts, *d.own, *d.other, -1, -1, -1, *words.encode(d.words), *padding])
    return torch.tensor(rows).view(-1, HEAD + width), torch.tensor([d.outcome for d in dialogues]).view(-1, 6)
