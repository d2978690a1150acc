"""Damage what the program reads back, one thing at a time, and see what the commands do with it.

    python benchmarks/faults.py --damages 2000 --json faults.json
    python benchmarks/faults.py --damages 100 --only "unfinished run"

Kinds of damage (damage.py) × places and methods (places_of_damage.py). Each damage is done to a copy of a
prepared folder, then a command that reads the damaged file runs in this process, with a time limit. Its
outcome is one of

    same         the numbers of the undamaged folder
    named        a line names the file, and the command goes on; the numbers are those of the undamaged
                 folder, or a part of them, or those of a folder without the file
    refused      exit code 2, or 1 if only a part is left out, and a line that names the file
    accepted     other numbers without a word, from a file of the user's own, or a forged one that is sealed
                 again; or fewer, without an evaluation that was removed as a whole
    unnamed      exit code 2 or other numbers, with a message that does not name the file
    other        the file is named, but the numbers are neither those with nor those without it
    different    other numbers, and nothing says why
    traceback    an unexpected exception
    hang         the time limit was exceeded

Exit code 1 unless every outcome is one of the first four.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ |= {"COLUMNS": "2000", "TERM": "dumb", "OMP_NUM_THREADS": "1"}

import torch
from click.testing import CliRunner
from damage import damage, kinds
from damage_files import Inapplicable, Target
from places_of_damage import METHODS, Place, Reading, places

from robustplug.cli import main as command_line

OUTCOMES = ("same", "named", "refused", "accepted", "unnamed", "other", "different", "traceback", "hang")
GOOD = OUTCOMES[:4]
LIMIT = 120  # seconds
DOUBT = re.compile("cannot|damaged|changed|another|missing|not as it was")
# The second is what the program says instead of the first.
UNEXPECTED = re.compile(r"Traceback \(most recent call last\)|This is a bug")


class TooLong(BaseException):
    """The time limit was exceeded."""


@dataclass(frozen=True)
class Case:
    """One damage and its outcome."""

    number: int
    place: str
    method: str
    file: str
    kind: str
    command: str
    outcome: str
    said: str


@dataclass(frozen=True)
class Done:
    """What a command did: exit code, output, numbers, exception, page."""

    code: int
    said: str
    numbers: Any
    failure: str = ""
    page: str = ""


def invoke(reading: Reading, folder: Path) -> Done:
    """Run a command in a folder, with a time limit."""
    os.chdir(folder)
    stopped: list[bool] = []

    def stop(*_: object) -> None:
        stopped.append(True)
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        result = CliRunner().invoke(command_line, list(reading.arguments))
    except TooLong:
        return Done(-1, "", None, "hang")
    except BaseException as error:  # a click runner passes on what is no Exception
        return Done(-1, "", None, f"{type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if stopped:  # the command may have turned it into a message
        return Done(-1, result.output, None, "hang")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return Done(
            result.exit_code, result.output, None, f"{type(result.exception).__name__}: {result.exception}"
        )
    if re.search(UNEXPECTED, result.output) or result.exit_code not in (0, 1, 2):
        return Done(result.exit_code, result.output, None, result.output[-300:])
    numbers = None
    if result.exit_code in (0, 1):
        try:
            numbers = reading.numbers(folder, result.output)
        except (OSError, ValueError, KeyError) as error:
            numbers = f"no numbers: {error}"
    pages = (
        [path.read_text() for path in folder.glob("*/report/index.html")]
        if "report" in reading.arguments
        else []
    )
    return Done(result.exit_code, result.output, numbers, page="".join(pages))


class Campaign:
    """Do damages.

    Args:
        top: folder to work in.
        seed: determines every damage.
        only: names of places; empty for all.
        methods: methods to do damages with; empty for all.
    """

    def __init__(self, top: Path, seed: int, only: Sequence[str] = (), methods: Sequence[str] = ()) -> None:
        self.top, self.seed, self.case = top, seed, top / "case"
        self.places = {name: place for name, place in places().items() if not only or name in only}
        self.methods = methods
        self.known: dict[tuple[str, ...], Any] = {}

    def store(self, place: str, method: str, which: str) -> Path:
        """Return a prepared folder: "now", "earlier" or "other", the same with another seed."""
        folder = self.top / "store" / place.replace(" ", "-") / method
        if not (folder / "other").exists():
            shutil.rmtree(folder, ignore_errors=True)
            for seed, name in ((0, "now"), (1, "other")):
                self._build(self.places[place], method, seed, folder, name)
        return folder / which

    def _build(self, place: Place, method: str, seed: int, folder: Path, name: str) -> None:
        def earlier() -> None:
            if name == "now":
                shutil.copytree(self.case, folder / "earlier", dirs_exist_ok=True)

        # Always at the same path, which is part of what some files say.
        self._empty()
        os.chdir(self.case)
        place.build(method, seed, earlier)
        os.chdir(self.top)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.case, folder / name)

    def _empty(self) -> None:
        os.chdir(self.top)
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()

    def fresh(self, place: str, method: str) -> None:
        """Copy the prepared folder to the path of the case."""
        stored = self.store(place, method, "now")
        os.chdir(self.top)
        shutil.rmtree(self.case, ignore_errors=True)
        shutil.copytree(stored, self.case, symlinks=True)

    def without(self, place: str, method: str, reading: Reading, removed: Sequence[str] = ()) -> Done:
        """Return what the command does without some files."""
        key = (place, method, " ".join(reading.arguments), *removed)
        if key not in self.known:
            self.fresh(place, method)
            for name in removed:
                (self.case / name).unlink(missing_ok=True)
            self.known[key] = invoke(reading, self.case)
        found: Done = self.known[key]
        return found

    def one(self, number: int) -> Case | None:
        """Do one damage; None if it would change nothing."""
        rng = random.Random(self.seed * 10**6 + number)
        name = rng.choice(list(self.places))
        place = self.places[name]
        method = rng.choice([each for each in place.methods if not self.methods or each in self.methods])
        stored = self.store(name, method, "now")
        readings: dict[str, Sequence[Reading]] = {}
        for pattern, commands in place.reads.items():
            for path in sorted(stored.glob(pattern)):
                if path.is_file() and not path.name.startswith("."):
                    readings[str(path.relative_to(stored))] = commands
        file = rng.choice(sorted(readings))
        reading = rng.choice(list(readings[file]))
        kind = rng.choice(list(kinds(Path(file))))
        undamaged = self.without(name, method, reading)
        if undamaged.failure or undamaged.code:
            raise SystemExit(f"undamaged, {name}/{method}: {' '.join(reading.arguments)}\n{undamaged}")
        self.fresh(name, method)
        before = listing(self.case)
        others = (self.store(name, method, which) for which in ("other", "earlier"))
        try:
            damage(kind, Target(self.case, Path(file), *others), rng)
        except Inapplicable:
            return None
        changed = sorted(dict(before.items() ^ listing(self.case).items()))
        done = invoke(reading, self.case)
        outcome = self.judge(name, method, reading, kind, changed, undamaged, done)
        command = " ".join(reading.arguments)
        said = done.failure or done.said
        return Case(
            number, name, method, file, kind, command, outcome, said[-1500:] if outcome not in GOOD else ""
        )

    def judge(
        self,
        name: str,
        method: str,
        reading: Reading,
        kind: str,
        changed: Sequence[str],
        undamaged: Done,
        done: Done,
    ) -> str:
        """Return the outcome of a command."""
        if done.failure:
            return "hang" if done.failure == "hang" else "traceback"
        words = re.sub(r"\s+", "", done.said + done.page)
        named = any(name in words for path in changed for name in names(Path(path)))
        if done.code == 2:
            return "refused" if named else "unnamed"
        if done.numbers == undamaged.numbers:
            return "named" if named and len(done.said) != len(undamaged.said) else "same"
        if self.places[name].authored or kind.startswith("forged"):
            return "accepted"
        part = isinstance(done.numbers, dict) and done.numbers.items() <= undamaged.numbers.items()
        if part and kind.startswith("removed") and all("evaluations" in path for path in changed):
            return "accepted"  # whoever removes a whole evaluation does not want to see it
        if not named and done.code == 1 and "left out" in done.said:
            return "refused"  # a run without its result is listed as unfinished
        if not named:
            return "unnamed" if re.search(DOUBT, done.said.replace(undamaged.said, "")) else "different"
        if part:
            return "named"
        for removed in (changed, [path for path in changed if path.endswith(".json")]):
            if done.numbers == self.without(name, method, reading, removed).numbers:
                return "named"
        return "refused" if done.code == 1 else "other"


def names(path: Path) -> list[str]:
    """Return what a message names a file by: its name, or that of its checkpoint or its examples."""
    more = [path.stem] if path.stem.startswith("epoch-") else []
    if path.name == "manifest.json":
        more += ["belongstoanotherrun"]  # what the message says of every file of the run then
    return [path.name, *more, *([path.parent.name] if "examples" in path.parts[:-2] else [])]


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode, size and a hash of every file of a folder."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        if not path.is_dir() or path.is_symlink():
            regular = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(folder))] = (
                state.st_mode,
                state.st_size,
                hash(path.read_bytes()) if regular else 0,
            )
    return found


def print_table(cases: Sequence[Case], by: str) -> None:
    """Print the number of outcomes for each kind or place."""
    counts = Counter((getattr(case, by), case.outcome) for case in cases)
    print(f"\n{by:34}" + "".join(f"{outcome:>11}" for outcome in OUTCOMES))
    for name in sorted({getattr(case, by) for case in cases}):
        print(f"{name:34}" + "".join(f"{counts[name, outcome] or '':>11}" for outcome in OUTCOMES))
    totals = Counter(case.outcome for case in cases)
    print(f"{'all':34}" + "".join(f"{totals[outcome]:11}" for outcome in OUTCOMES))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--damages", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="*", default=[], choices=list(places()), help="places; all by default"
    )
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--case", type=int, help="repeat one damage, and keep its folder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where to work; kept, with the prepared folders")
    given = parser.parse_args()
    json_file = None if given.json is None else given.json.resolve()
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() else None
    top = given.folder or Path(tempfile.mkdtemp(prefix="faults-", dir=parent))
    top = top.resolve()
    top.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    campaign = Campaign(top, given.seed, given.only, given.methods)
    if given.case is not None:
        print(json.dumps(asdict(campaign.one(given.case) or Case(0, *[""] * 7)), indent=1))
        return
    cases: list[Case] = []
    began = time.monotonic()
    number = 0
    while len(cases) < given.damages:
        case = campaign.one(number)
        number += 1
        if case is None:
            continue
        cases.append(case)
        if case.outcome not in GOOD:
            last = case.said.strip().splitlines()[-1:] or [""]
            print(
                f"{case.number}: {case.outcome}: {case.kind} · {case.file} ({case.method}) · {case.command}",
                flush=True,
            )
            print(f"    {last[0][:240]}", flush=True)
    print_table(cases, "kind")
    print_table(cases, "place")
    seconds = round(time.monotonic() - began)
    counts = Counter(case.outcome for case in cases)
    bad = sum(count for outcome, count in counts.items() if outcome not in GOOD)
    print(f"{len(cases)} damages in {seconds} s, {bad} of them neither same, named, refused nor accepted")
    if json_file is not None:
        body = {"damages": len(cases), "seconds": seconds, "seed": given.seed, "outcomes": dict(counts)}
        json_file.write_text(json.dumps({**body, "cases": [asdict(case) for case in cases]}, indent=1) + "\n")
    if given.folder is None:
        os.chdir("/")
        shutil.rmtree(top, ignore_errors=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
