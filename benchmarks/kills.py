"""Kill real commands with SIGKILL, resume them, and compare every bit with a run that was not killed.

    python benchmarks/kills.py --kills 200 --json kills.json
    python benchmarks/kills.py --kills 6 --only cat evaluate

Every bundled recipe that trains in seconds, evaluations, audits, attacks and studies run in processes of
their own, with nothing pinned: "auto" decides about precision, layout and threads. Half of the kills come at
a random time. The others are aimed at a random one of the moments at which a file is opened for writing,
synced, renamed or removed, and leave a torn file where they interrupt a write. Every killed command is given
again until it ends, and may be killed up to four times. Exit code 1 if any bit differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from kinds_of_work import PREPARED, Work, works
from left_behind import differences, left_behind

HERE = Path(__file__).resolve()
LIMIT = 300  # seconds for one command


def child(at: int, count_file: str, arguments: Sequence[str]) -> None:
    """Run a command in this process; die at its `at`-th moment of writing, or count these moments."""
    import runpy
    import signal

    top, seen = str(Path.cwd()), 0
    sync = os.fsync

    def moment(file: int | None = None) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            if file is not None and (size := os.fstat(file).st_size):
                os.ftruncate(file, size * (at % 7) // 7)
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.truncate") or not isinstance(
            arguments[0], str
        ):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if Path(top, arguments[0]).is_relative_to(top):
            moment()

    def synced(fd: Any) -> None:
        moment(fd)
        sync(fd)

    os.fsync = synced
    sys.addaudithook(hook)
    sys.argv = ["robustplug", *arguments]
    try:
        runpy.run_module("robustplug", run_name="__main__", alter_sys=True)
    finally:
        if count_file:
            Path(count_file).write_text(str(seen))


@dataclass
class Whole:
    """What a command does that is not killed: its bits, its times in seconds, its moments of writing."""

    bits: Mapping[str, Any]
    begins: float
    ends: float
    moments: int


@dataclass
class Tally:
    """Count the kills of one kind of work."""

    kills: int = 0
    identical: int = 0
    differing: int = 0
    what: list[str] = field(default_factory=list)


def start(work: Work, folder: Path, at: int | None = None, counted: str = "", again: bool = False) -> Any:
    """Start the command of a work in its folder; with `at`, under the launcher that counts and kills."""
    arguments = list(work.again if again else work.first)
    python = [sys.executable, "-m", "robustplug"]
    if at is not None:
        python = [sys.executable, str(HERE), "--child", str(at), counted, "--"]
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        log.write(f"\n$ {' '.join(arguments)} (at {at})\n".encode())
        log.flush()
        return subprocess.Popen([*python, *arguments], cwd=folder, stdout=log, stderr=log)


def measure(work: Work, folder: Path) -> Whole:
    """Run the command once, undisturbed."""
    counted = folder.parent / f"{folder.name}.count"
    began = time.monotonic()
    process = start(work, folder, 0, str(counted))
    while not work.began(folder) and process.poll() is None:
        time.sleep(0.01)
    begins = time.monotonic() - began
    if process.wait(LIMIT) != 0:
        raise SystemExit(f"{work.kind} failed: see {folder}.log")
    return Whole(left_behind(folder), begins, time.monotonic() - began, int(counted.read_text()))


def finished(folder: Path) -> bool:
    """Return whether the last command found a run that needs no resuming: it was killed after its result."""
    last = Path(f"{folder}.log").read_text(encoding="utf-8").rpartition("\n$ ")[2]
    return "is finished; evaluate it with" in last


def case(work: Work, whole: Whole, folder: Path, seed: int, most: int) -> tuple[int, list[str]]:
    """Kill a command up to `most` times, then let it end; return the number of kills and what differs."""
    rng = random.Random(seed)
    kills = 0
    for _ in range(rng.randint(1, min(4, most))):
        again = work.began(folder)
        if rng.random() < 0.5:
            process = start(work, folder, rng.randint(1, whole.moments), again=again)
            process.wait(LIMIT)
        else:
            process = start(work, folder, again=again)
            delay = rng.uniform(whole.begins * 0.9, whole.ends)
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.kill()
            process.wait()
        if process.returncode == 0 or finished(folder):
            break
        if process.returncode != -9:
            return kills, [f"exit code {process.returncode}: see {folder}.log"]
        kills += 1
    if not kills:
        return 0, []
    for _ in range(3):
        # The workers of a killed study stop by themselves, and hold their runs until then.
        process = start(work, folder, again=work.began(folder))
        if process.wait(LIMIT) == 0 or not work.patient:
            break
        time.sleep(2)
    if process.returncode != 0 and not finished(folder):
        return kills, [f"exit code {process.returncode}: see {folder}.log"]
    return kills, differences(whole.bits, left_behind(folder))


class Campaign:
    """Kill until a number of kills is reached, each kind of work in turn.

    Args:
        chosen: the kinds of work.
        kills: number of kills.
        seed: determines when and what is killed.
        top: folder to work in.
    """

    def __init__(self, chosen: Sequence[Work], kills: int, seed: int, top: Path) -> None:
        self.chosen, self.kills, self.seed, self.top = chosen, kills, seed, top
        self.tallies = {work.kind: Tally() for work in chosen}
        self.wholes: dict[str, Whole] = {}
        self.counting = Lock()
        self.measuring = {work.kind: Lock() for work in chosen}
        self.rounds = count()

    def run(self, processes: int) -> None:
        """Prepare what the work needs, then kill, with a number of commands at a time."""
        makers = {work.prepares: work for work in works() if work.prepares}
        wanted: dict[str, Work] = {}

        def want(work: Work) -> None:
            for need in work.needs:
                want(makers[need])
                wanted[need] = makers[need]

        for work in self.chosen:
            want(work)
        for need, maker in wanted.items():
            if not (self.top / PREPARED / need).exists():
                folder = self.ready(maker, f"prepare-{maker.kind}")
                measure(maker, folder)
                shutil.copytree(folder / need, self.top / PREPARED / need)
        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(lambda _: self.turns(), range(processes)))

    def ready(self, work: Work, name: str) -> Path:
        """Make a folder with what a command reads."""
        folder = self.top / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for need in work.needs:
            shutil.copytree(self.top / PREPARED / need, folder / need)
        for file, text in work.files.items():
            (folder / file).write_text(text)
        return folder

    def whole(self, work: Work) -> Whole:
        """Return what the command does that is not killed."""
        with self.measuring[work.kind]:
            if work.kind not in self.wholes:
                self.wholes[work.kind] = measure(work, self.ready(work, f"{work.kind}-whole"))
            return self.wholes[work.kind]

    def left(self) -> int:
        """Return how many kills remain."""
        return self.kills - sum(tally.kills for tally in self.tallies.values())

    def turns(self) -> None:
        """Take one kind of work after the other."""
        while (left := self.left()) > 0:
            with self.counting:
                number = next(self.rounds)
            work = self.chosen[number % len(self.chosen)]
            whole = self.whole(work)
            folder = self.ready(work, f"{work.kind}-{number}")
            kills, wrong = case(work, whole, folder, self.seed * 10**6 + number, left)
            with self.counting:
                tally = self.tallies[work.kind]
                tally.kills += kills
                tally.differing += kills if wrong else 0
                tally.identical += 0 if wrong else kills
                tally.what += [f"{folder.name}: {each}" for each in wrong]
                if kills:
                    state = "something differs" if wrong else "the same bits"
                    print(f"{folder.name}: {kills} kills, {state}", *wrong, sep="\n    ", flush=True)
            if not wrong:
                shutil.rmtree(folder)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]), sys.argv[3], sys.argv[5:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="kinds of work; all by default")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where to work; kept, with the log of every failure")
    given = parser.parse_args()
    chosen = [work for work in works() if not given.only or work.kind in given.only]
    if not chosen:
        parser.error(f"--only takes: {', '.join(work.kind for work in works())}")
    random.Random(given.seed).shuffle(chosen)
    top = given.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    top = top.resolve()
    began = time.monotonic()
    campaign = Campaign(chosen, given.kills, given.seed, top)
    campaign.run(given.processes)
    tallies = campaign.tallies
    print(f"\n{'kind':24}{'kills':>7}{'identical':>11}{'differing':>11}")
    for kind, tally in sorted(tallies.items()):
        print(f"{kind:24}{tally.kills:7}{tally.identical:11}{tally.differing:11}")
    total = sum(tally.kills for tally in tallies.values())
    good = sum(tally.identical for tally in tallies.values())
    seconds = round(time.monotonic() - began)
    print(
        f"{good} of {total} kills ended with the same bits, in {seconds} s; seed {given.seed}; folder {top}"
    )
    if given.json is not None:
        body = {"kills": total, "identical": good, "seconds": seconds, "seed": given.seed}
        kinds = {kind: asdict(tally) for kind, tally in sorted(tallies.items())}
        given.json.write_text(json.dumps({**body, "kinds": kinds}, indent=1) + "\n")
    sys.exit(good != total)


if __name__ == "__main__":
    main()
