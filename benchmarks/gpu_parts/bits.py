"""The same bits: two runs of one seed, and captured updates against eager ones."""

from __future__ import annotations

from .device import Machine
from .installed import NEEDED, missing
from .ours import Ours, methods, runnable
from .report import Report, table

# Enough that graphs are captured, between warm-up updates and the last one on fewer rows.
BATCHES = 10


def same_bits(machine: Machine, report: Report) -> None:
    """Compare weights, method state and logged means of every method after an epoch."""
    lacking = missing(NEEDED)
    if lacking:
        report.leave_out("bits", f"packages are missing: {lacking}")
        return
    fasts = runnable(("off", "capture"), lambda what, why: report.leave_out(f"bits: {what}", why))
    rows = machine.sizes.batches[0]
    lines = []
    longest = 0.0
    for number, name in enumerate(methods(machine.sizes.steps)):
        ways, left = machine.ways(fasts, number), report.left()
        if left < longest:
            report.leave_out(f"bits: {name}", f"it needs about {longest:.0f} s, and {left:.0f} s are left")
            continue
        digests: dict[str, str] = {}
        replays: int | None = None
        for fast in (*ways, ways[-1] + ", again"):
            run = Ours(machine, name, rows, fast.partition(",")[0], batches=BATCHES, ragged=True)
            run.epoch(data=True)
            digests[fast], replays = run.digest(), run.replays
            report.note(f"{name}, bits, {fast}", run.notes)
            del run
            machine.free()
        twice = digests[ways[-1]] == digests[f"{ways[-1]}, again"]
        equal = digests[ways[0]] == digests[ways[-1]] if len(ways) > 1 else None
        report.put("bits", name, {"two runs": twice, "captured and eager": equal, "replays": replays})
        report.failed = report.failed or not twice or equal is False
        lines.append([name, _word(twice), "not captured" if replays == 0 else _word(equal)])
        longest = max(longest, left - report.left())
    report.say(table(["method", "two runs", "captured and eager"], lines))


def _word(equal: bool | None) -> str:
    return "–" if equal is None else "same bits" if equal else "DIFFERENT"
