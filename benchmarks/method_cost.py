"""What a training step of one method costs relative to that of another.

    python benchmarks/method_cost.py
    python benchmarks/method_cost.py --pairs sprout/erm --rounds 25

Both steps run in turn, on models and a batch of the same shape. A method whose cost depends on the data,
such as IAAT, is not here: its result.json says what its training took.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from step_cost import RandomImages, make_model, our_step, paired

from robustplug.engine.processes import start

TRADES = {"perturbation": {"steps": 10}}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "erm": ("erm", {}),
    "sprout": ("sprout", {}),
    "sprout-official": ("sprout", {"variant": "official"}),
    "trades": ("trades", TRADES),
    "backward-smoothing": ("trades", {"perturbation": {"use": "backward-smoothing"}}),
    "fast-trades": ("trades", {"perturbation": {"steps": 1, "start": "uniform"}}),
    "advprop": ("advprop", {}),
    "robmask": ("robmask", {}),
}
PAIRS = (
    "sprout/erm",
    "sprout-official/erm",
    "backward-smoothing/trades",
    "fast-trades/trades",
    "robmask/advprop",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", nargs="*", default=list(PAIRS), metavar="METHOD/METHOD")
    parser.add_argument("--model", default="small-cnn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="height and width of the RGB images")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.model}, float32")
    rows: list[dict[str, Any]] = []
    for pair in options.pairs:
        processes = start(options.device, "float32")
        task = RandomImages(options.batch, (3, options.size, options.size), processes.device)
        first, second = (
            our_step(
                *METHODS[name], make_model(options.model, task, processes.device, True), task, processes, True
            )
            for name in pair.split("/")
        )
        times = paired(first, second, options.rounds, processes.device)
        rows.append({"pair": pair, **times._asdict()})
        print(f"{pair:26} {times.text('the other')}", flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
