"""Measure how training scales on the cores of this machine, and compare with the model that `plan` uses.

    python -m benchmarks.scaling --write

Updates of PGD adversarial training on the digits are timed with one and with two processes of one thread
each: with the same batch (strong scaling), and with the same rows for each (weak scaling). Two cores share a
memory and its bandwidth, and their exchange is over the loopback of one machine: that says what the code
costs, and nothing of a network. What 8, 64 and 512 devices would do is a prediction of the model alone, from
the measured update and links that are assumed. The machine should do nothing else; it takes some minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robustplug.training.planning.scaling import (
    Links,
    Prediction,
    UpdateCost,
    breaks,
    exchange_seconds,
    fitted,
    predict,
)

RECIPE = "pgd-at"
# The first epoch pays for what is made once.
EPOCHS = 3
ROWS = (64, 128, 256)
SETTINGS = (
    f"train.epochs={EPOCHS}",
    "train.device=cpu",
    "validate.samples=2",
    "validate.attack.steps=1",
    "evaluate.samples=2",
    "evaluate.attack=[]",
)
DEVICES = (8, 64, 512)
NUMBERS, PAGE = Path(__file__).with_name("scaling.json"), Path(__file__).parents[1] / "docs" / "clusters.md"
BEGIN, END = "<!-- scaling -->\n", "<!-- end -->"


def launch(processes: int, *module: str) -> subprocess.CompletedProcess[str]:
    """Run a module in some processes of one thread each."""
    one = [sys.executable, "-m", *module]
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    several += ["--nproc-per-node", str(processes), "-m", *module]
    return subprocess.run(
        one if processes == 1 else several,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )


def update_seconds(processes: int, rows: int) -> float:
    """Return the seconds of an update, the median of the epochs but the first."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        sets = [word for each in (*SETTINGS, f"train.batch_size={rows}") for word in ("--set", each)]
        launch(processes, "robustplug", "train", "--recipe", RECIPE, "--out", str(out), "--quiet", *sets)
        epochs = [json.loads(line)["seconds"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    return float(statistics.median(epochs[1:])) / updates_of(rows)


def updates_of(rows: int) -> int:
    """Return the number of updates of an epoch."""
    import robustplug

    samples = robustplug.build("task", "digits").info.sizes["train"]
    return -(-int(samples) // rows)


def gradient_bytes() -> int:
    """Return the bytes of the gradients of the recipe's model."""
    import robustplug

    info = robustplug.build("task", "digits").info
    model = robustplug.build("model", "small-cnn", width=16, info=info)
    return sum(each.numel() * each.element_size() for each in model.parameters())


def exchange(size: int) -> None:
    """Print the seconds in which two processes add up so many bytes; runs within `launch`."""
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    values, times = torch.ones(size // 4), []
    for _ in range(30):
        distributed.barrier()
        began = time.perf_counter()
        distributed.all_reduce(values)
        times.append(time.perf_counter() - began)
    if distributed.get_rank() == 0:
        print(statistics.median(times))
    distributed.destroy_process_group()


def measured(repeats: int) -> dict[str, Any]:
    """Time the updates, in turns, so that a slow moment does not meet one of them alone."""
    cases = [(1, ROWS[0]), (1, ROWS[1]), (2, ROWS[1]), (2, ROWS[2])]
    times: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    for _ in range(repeats):
        for case in cases:
            times[case].append(update_seconds(*case))
    size = gradient_bytes()
    took = float(launch(2, "benchmarks.scaling", "--exchange", str(size)).stdout.split()[-1])
    return {
        "updates": [
            {"processes": processes, "rows": rows, "seconds": statistics.median(each), "all": each}
            for (processes, rows), each in times.items()
        ],
        "gradient_bytes": size,
        "exchange_seconds": took,
    }


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """Add the model: what it says of two processes here, and of many devices elsewhere."""
    times = {(each["processes"], each["rows"]): each["seconds"] for each in found["updates"]}
    cost = UpdateCost(*fitted({rows: times[1, rows] for rows in ROWS[:2]}), found["gradient_bytes"])
    # The loopback, at the speed at which it exchanges these gradients.
    here = Links(within=found["gradient_bytes"] / found["exchange_seconds"], latency=0.0)
    strong, weak = (predict(cost, rows, 1, 2, here) for rows in ROWS[1:])
    far = Links()
    return {
        **found,
        "cost": dataclasses.asdict(cost),
        "strong": {
            "speedup": times[1, ROWS[1]] / times[2, ROWS[1]],
            "predicted": times[1, ROWS[1]] / strong.seconds,
        },
        "weak": {
            "efficiency": times[1, ROWS[1]] / times[2, ROWS[2]],
            "predicted": times[1, ROWS[1]] / weak.seconds,
        },
        "assumed": dataclasses.asdict(far),
        "devices": [
            {
                "devices": devices,
                "strong": None if devices > ROWS[1] else _row(predict(cost, ROWS[1], devices // 8, 8, far)),
                "weak": _row(predict(cost, ROWS[1] * devices, devices // 8, 8, far)),
                "exchange": exchange_seconds(cost.gradients, devices // 8, 8, far),
            }
            for devices in DEVICES
        ],
        "breaks": dict(zip(("devices", "why"), breaks(cost, ROWS[1], 8, far), strict=True)),
    }


def _row(found: Prediction) -> dict[str, float]:
    return {"seconds": found.seconds, "efficiency": found.efficiency}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the table, as Markdown."""
    yield "| processes | batch | an update | |"
    yield "|---|---|---|---|"
    one, strong, weak = found["updates"][1:]
    said = {
        (2, ROWS[1]): f"strong: {found['strong']['speedup']:.2f} times as fast, the model says "
        f"{found['strong']['predicted']:.2f}",
        (2, ROWS[2]): f"weak: {found['weak']['efficiency']:.0%} of the speed for each, the model says "
        f"{found['weak']['predicted']:.0%}",
    }
    for each in (found["updates"][0], one, strong, weak):
        place = each["processes"], each["rows"]
        yield f"| {place[0]} | {place[1]} | {1000 * each['seconds']:.0f} ms | {said.get(place, '')} |"
    yield ""
    yield f"| devices | batch of {ROWS[1]} | {ROWS[1]} rows on each |"
    yield "|---|---|---|"
    for each in found["devices"]:
        strong, weak = each["strong"], each["weak"]
        own = (
            "a device has no row"
            if strong is None
            else f"{1000 * strong['seconds']:.1f} ms, {strong['efficiency']:.0%} computes rows"
        )
        rest = f"{1000 * weak['seconds']:.1f} ms, {weak['efficiency']:.0%}"
        yield f"| {each['devices']} (predicted) | {own} | {rest} |"
    yield ""
    at, why = found["breaks"]["devices"], found["breaks"]["why"]
    yield f"With a batch of {ROWS[1]}, more devices are wasted from {at} on: {why}."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=2, help="times that each case is measured")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--write", action="store_true", help="write scaling.json, and the table of the docs")
    parser.add_argument("--exchange", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.exchange is not None:
        exchange(options.exchange)
        return
    found = judged(measured(options.repeats))
    table = "\n".join(lines(found))
    for file in [options.json] * (options.json is not None) + [NUMBERS] * options.write:
        file.write_text(json.dumps(found, indent=2) + "\n")
    if options.write:
        text = PAGE.read_text()
        begin = text.index(BEGIN) + len(BEGIN)
        PAGE.write_text(f"{text[:begin]}{table}\n{text[text.index(END, begin) :]}")
    print(table)


if __name__ == "__main__":
    main()
