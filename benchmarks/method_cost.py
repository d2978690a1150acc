"""Time a training step of one method relative to that of another.

    python benchmarks/method_cost.py
    python benchmarks/method_cost.py --pairs sprout/erm --rounds 25

Both steps run in turn, on models and a batch of the same shape. "trades-by-hand" is TRADES written directly
from the paper: it recomputes f(x) in each step of the attack, where ours computes it once. Methods whose
cost depends on the data, such as IAAT, are left out; their result.json reports the cost of their training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from step_cost import RandomImages, Work, make_model, our_step, paired, repeated
from torch import Tensor, nn

from robustplug.api import Batch
from robustplug.devices.processes import Processes, start

TRADES = {"perturbation": {"steps": 10}}
# Past the warm-up, so that every part of the loss has a weight.
BOUNDED = {"warmup": 0.0, "rampup": 0.0}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "erm": ("erm", {}),
    "sprout": ("sprout", {}),
    "sprout-official": ("sprout", {"variant": "official"}),
    "trades": ("trades", TRADES),
    "backward-smoothing": ("trades", {"perturbation": {"use": "backward-smoothing"}}),
    "fast-trades": ("trades", {"perturbation": {"steps": 1, "start": "uniform"}}),
    "advprop": ("advprop", {}),
    "robmask": ("robmask", {}),
    "ibp": ("ibp", BOUNDED),
    "ibp-bounds-alone": ("ibp", {**BOUNDED, "kappa": 0.0}),
    "crown-ibp": ("crown-ibp", {**BOUNDED, "beta": 0.5}),
    "crown-ibp-fused": ("crown-ibp", {**BOUNDED, "beta": 0.5, "fused": True}),
    "crown-ibp-fused-bounds-alone": (
        "crown-ibp",
        {**BOUNDED, "kappa": 0.0, "beta": 0.5, "fused": True},
    ),
}
BY_HAND = "trades-by-hand"
PAIRS = (
    "sprout/erm",
    "sprout-official/erm",
    "backward-smoothing/trades",
    f"backward-smoothing/{BY_HAND}",
    "fast-trades/trades",
    f"fast-trades/{BY_HAND}",
    f"trades/{BY_HAND}",
    "robmask/advprop",
    "ibp/erm",
    "ibp-bounds-alone/erm",
    "crown-ibp/erm",
    "crown-ibp-fused/erm",
    "crown-ibp-fused-bounds-alone/erm",
)


def trades_by_hand(
    model: nn.Module, batch: Batch, eps: float = 8 / 255, beta: float = 6
) -> Callable[[], None]:
    """Return an update of ten-step TRADES, Zhang et al. 2019, Algorithm 1, without shared forwards."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    x, y = batch.x.contiguous(memory_format=torch.channels_last), batch.y

    def divergence(moved: Tensor) -> Tensor:
        logs, clean = model(moved).log_softmax(1), model(x).softmax(1)
        return F.kl_div(logs, clean, reduction="sum")

    def step() -> None:
        model.eval()
        moved = x + 1e-3 * torch.randn_like(x)
        for _ in range(10):
            moved.requires_grad_()
            (gradient,) = torch.autograd.grad(divergence(moved), moved)
            moved = moved.detach() + eps / 4 * gradient.sign()
            moved = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(0, 1)
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) + beta / len(x) * divergence(moved)
        torch.autograd.backward(loss)
        optimizer.step()

    return step


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
        first, second = (step_of(name, options.model, task, processes) for name in pair.split("/"))
        times = paired(first, second, options.rounds, processes.device)
        rows.append({"pair": pair, **times._asdict()})
        print(f"{pair:26} {times.text('the other')}", flush=True)
    print(json.dumps(rows))


def step_of(name: str, model_name: str, task: RandomImages, processes: Processes) -> Work:
    """Return the updates of a method on a model of its own."""
    model = make_model(model_name, task, processes.device, channels_last=True)
    if name == BY_HAND:
        return repeated(trades_by_hand(model, task.batch))
    return our_step(*METHODS[name], model, task, processes, channels_last=True)


if __name__ == "__main__":
    main()
