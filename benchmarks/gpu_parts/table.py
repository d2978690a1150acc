"""The table of step times, and of all methods beside their bare passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .device import Machine, Work
from .floors import Bare, Images, Passes, art_step, network, torchattacks_step
from .installed import NEEDED, missing
from .ours import FAST, Ours, methods, runnable
from .report import Report, table

PEERS = "torchattacks loop, float32"
LIMIT = "torch.compile and CUDA graph"
CAPTURED = "CUDA graph of the bare loop"
# Returns the milliseconds of an update.
Row = tuple[str, Callable[[], float]]


def rows_of(machine: Machine, report: Report, rows: int, leave_out: Callable[[str, str], None]) -> list[Row]:
    """Return the rows of the table."""
    images, pgd = Images.random(rows, machine), Passes(machine.sizes.steps)

    def timed(work: Work) -> float:
        return machine.milliseconds(work, report.left)

    def bare(compiled: bool, graph: bool) -> float:
        model = network(machine)
        called: Any = torch.compile(model, dynamic=False) if compiled else model
        step = pgd.step(Bare(model, called, images))
        return timed(machine.graph(step) if graph else step)

    def ours(fast: str, data: bool = False) -> float:
        run = Ours(machine, "pgd-at", rows, fast, batches=batches_of(machine))
        time = run.milliseconds(report.left, data)
        report.note(f"pgd-at, batch {rows}, {fast}", run.notes)
        return time

    found: list[Row] = []
    for name, module, package, make in (
        (PEERS, "torchattacks", "--no-deps torchattacks", torchattacks_step),
        ("ART, float32", "art", "adversarial-robustness-toolbox", art_step),
    ):
        if missing({module: package}):
            leave_out(name, f"it is not installed: pip install {package}")
        else:
            found.append((name, lambda make=make: timed(make(machine, images))))  # type: ignore[misc]
    found += [
        ("bare loop, bfloat16", lambda: bare(False, False)),
        (CAPTURED, lambda: bare(False, True)),
        ("torch.compile", lambda: bare(True, False)),
        (LIMIT, lambda: bare(True, True)),
    ]
    lacking = missing(NEEDED)
    if lacking:
        leave_out("ours", f"packages are missing: {lacking}")
        return found
    for fast in runnable(FAST, leave_out):
        found.append((f"ours, pgd-at, fast = {fast}", lambda fast=fast: ours(fast)))  # type: ignore[misc]
    last = found[-1][0].rpartition(" ")[2]
    found.append((f"ours, with its data, fast = {last}", lambda: ours(last, data=True)))
    return found


def batches_of(machine: Machine) -> int:
    """Return the updates of an epoch that is timed."""
    return 6 if machine.dry else 24


def step_times(machine: Machine, report: Report, rows: int) -> None:
    """Print and keep the milliseconds of a step of PGD-AT at a batch size, and their ratios."""
    name = f"batch {rows}"
    times: dict[str, float] = {}
    made = rows_of(machine, report, rows, lambda what, why: report.leave_out(f"{name}: {what}", why))
    for row, make in made:
        if report.left() <= 0:
            report.leave_out(f"{name}: {row}", "no time is left")
            continue
        try:
            times[row] = make()
        except Exception as error:  # of another package, or memory: the other rows still count
            report.failed = True
            report.leave_out(
                f"{name}: {row}", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            )
        machine.free()
        report.put("step", name, {key: round(value, 3) for key, value in times.items()})
    lines = [
        [row, f"{time:.2f}", ratio(time, times.get(LIMIT)), ratio(time, times.get(PEERS))]
        for row, time in times.items()
    ]
    report.say(table([f"PGD-AT({machine.sizes.steps}), {name}", "ms", f"to {LIMIT}", f"to {PEERS}"], lines))


def ratio(time: float, other: float | None) -> str:
    """Return a ratio as text."""
    return "–" if other is None else f"{time / other:.2f}"


def all_methods(machine: Machine, report: Report) -> None:
    """Print and keep the milliseconds of a step of every method beside its bare passes, captured."""
    lacking = missing(NEEDED)
    if lacking:
        report.leave_out("all methods", f"packages are missing: {lacking}")
        return
    rows = machine.sizes.batches[0]
    images = Images.random(rows, machine)
    fasts = runnable(FAST, lambda what, why: report.leave_out(f"all methods: {what}", why))
    lines: list[list[str]] = []
    longest = 0.0
    for number, (name, (_, passes)) in enumerate(methods(machine.sizes.steps).items()):
        left = report.left()
        if left < longest:
            report.leave_out(
                f"all methods: {name}", f"it needs about {longest:.0f} s, and {left:.0f} s are left"
            )
            continue
        try:
            times = one_method(machine, report, name, passes, images, machine.ways(fasts, number))
        except Exception as error:
            report.failed = True
            report.leave_out(
                f"all methods: {name}", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            )
            continue
        longest = max(longest, left - report.left())
        bare = times["bare"]
        lines.append(
            [name, f"{bare:.2f}"]
            + [f"{times[fast]:.2f}" if fast in times else "–" for fast in fasts]
            + [f"{times[fast] / bare:.2f}" if fast in times else "–" for fast in fasts]
        )
    head = ["method", "bare passes captured, ms", *fasts, *(f"{fast}, ratio" for fast in fasts)]
    report.say(table(head, lines))


def one_method(
    machine: Machine, report: Report, name: str, passes: Passes, images: Images, fasts: Sequence[str]
) -> dict[str, float]:
    """Return the milliseconds of a method's bare passes, captured, and of ours by `train.fast`."""
    rows = len(images.x)
    model = network(machine)
    bare = Bare(model, model, images)
    step = machine.graph(passes.step(bare))
    times = {"bare": machine.milliseconds(step, report.left)}
    for fast in fasts:
        if "compile" in fast and report.left() < 20 and not machine.dry:
            report.leave_out(f"all methods: {name}, {fast}", "no time to compile is left")
            continue
        run = Ours(machine, name, rows, fast, batches=batches_of(machine))
        times[fast] = run.milliseconds(report.left)
        report.note(f"{name}, batch {rows}, {fast}", run.notes)
        if fast == "off":
            counted: dict[str, Any] = {"declared": passes.counted, "ours": run.counted}
            report.put("passes", name, counted)
        machine.free()
        report.put("methods", name, {key: round(value, 3) for key, value in times.items()})
    return times
