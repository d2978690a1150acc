"""Time a training step against the forward and backward passes that it needs at least.

    python benchmarks/step_cost.py                      # ratios of this package
    python benchmarks/step_cost.py --peers              # also against torchattacks and ART

Epochs of our updates and as many bare passes run in turn, on the same model, batch, precision and layout; an
epoch has as many updates as take `--seconds`, so what is done once in an epoch counts as little as in a short
real one. Two ratios are reported: the median over the pairs, and that of the fastest runs, which other load
on the machine disturbs less. `--peers` needs `pip install -e ".[benchmark]"`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.api import Batch, Feed, Split, TaskInfo, Use, View, isolated, stream
from robustplug.core.method import prepare
from robustplug.devices.processes import Processes, start
from robustplug.recipe.convert import resolve
from robustplug.training.loop import Loop
from robustplug.training.optim import Optimizers

STEPS = 10
# Does a number of updates.
Work = Callable[[int], None]
METHODS: dict[str, dict[str, Any]] = {
    "erm": {},
    "pgd-at": {"perturbation": {"steps": STEPS}},
    "trades": {"perturbation": {"steps": STEPS}},
    "fast-at": {},
    "free-at": {"replays": 4},
    "cat": {"perturbation": {"steps": STEPS}},
    "sprout": {},
}


class RandomImages:
    """One batch of random images; timing needs no real data."""

    default_model = "small-cnn"

    def __init__(self, rows: int, shape: tuple[int, ...], device: torch.device) -> None:
        rng = stream(0, "images")
        self.info = TaskInfo({"train": rows, "validation": 0, "test": 0}, shape, 10)
        x = torch.rand(rows, *shape, generator=rng)
        y = torch.randint(0, 10, (rows,), generator=rng)
        self.batch = Batch(x.to(device), y.to(device), torch.arange(rows, device=device))

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        yield self.batch

    def score(self, view: View, output: Any) -> Tensor:
        labels = view.y if view.y.dim() == 1 else view.y.argmax(1)
        right: Tensor = output.argmax(1) == labels
        return right


def make_model(name: str, task: RandomImages, device: torch.device, channels_last: bool) -> nn.Module:
    with isolated(0):
        model: nn.Module = robustplug.build("model", name, info=task.info)
    model = model.to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model.train()


def our_step(
    name: str,
    options: dict[str, Any],
    model: nn.Module,
    task: RandomImages,
    processes: Processes,
    channels_last: bool,
) -> Work:
    """Return the engine's updates on one batch, as an epoch of so many."""
    method = robustplug.build("method", name, **options)
    groups = prepare(method, model, task)
    method.state.to(processes.device)
    optimizer = resolve(Use("sgd", {"lr": 1e-4}), "optimizer")
    optimizers = Optimizers(groups, optimizer, robustplug.build("schedule", "constant"))
    wrapped = processes.wrap(model)
    rows = len(task.batch)

    def epoch(updates: int) -> None:
        loop = Loop(
            model, wrapped, method, task, optimizers, processes, 0, 1, updates, channels_last, None, []
        )
        loop.epoch(0, 0, [task.batch] * updates, rows, rows * updates, lambda progress: None, lambda: "")

    return epoch


def repeated(step: Callable[[], None]) -> Work:
    """Return a piece of work that is as many of these steps as asked."""

    def work(updates: int) -> None:
        for _ in range(updates):
            step()

    return work


def bare_step(name: str, model: nn.Module, batch: Batch, autocast: Callable[[], Any]) -> Callable[[], None]:
    """Return only the passes that an update needs, in its order and modes."""
    parameters = list(model.parameters())
    x, y = batch.x, batch.y

    def forward(inputs: Tensor) -> Tensor:
        with autocast():
            output: Tensor = model(inputs)
        return output.float()

    def attack(steps: int, training: bool) -> None:
        for parameter in parameters:
            parameter.requires_grad_(False)
        model.train(training)
        for _ in range(steps):
            point = x.detach().requires_grad_()
            torch.autograd.grad(F.cross_entropy(forward(point), y, reduction="sum"), point)
        model.train()
        for parameter in parameters:
            parameter.requires_grad_(True)

    def look() -> None:
        model.eval()
        with torch.no_grad():
            forward(x)
        model.train()

    def train(views: int = 1, input_grad: bool = False) -> None:
        model.zero_grad(set_to_none=True)
        losses = []
        for _ in range(views):
            point = x.detach().requires_grad_(input_grad)
            losses.append(F.cross_entropy(forward(point), y))
        torch.autograd.backward(sum(losses[1:], losses[0]))

    def erm() -> None:
        train()

    def pgd_at() -> None:
        attack(STEPS, False)
        train()

    def trades() -> None:
        look()
        attack(STEPS, False)
        train(2)

    def fast_at() -> None:
        attack(1, True)
        train()

    def free_at() -> None:
        for _ in range(4):
            train(input_grad=True)

    def cat() -> None:
        attack(STEPS, False)
        look()
        train()

    def sprout() -> None:
        train()

    steps = (erm, pgd_at, trades, fast_at, free_at, cat, sprout)
    return {step.__name__.replace("_", "-"): step for step in steps}[name]


def torchattacks_step(model: nn.Module, batch: Batch) -> Callable[[], None]:
    """Return a hand-written step of PGD adversarial training with torchattacks."""
    import torchattacks

    attack = torchattacks.PGD(model, eps=8 / 255, alpha=2 / 255, steps=STEPS)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        model.train()
        x = attack(batch.x, batch.y)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x), batch.y))
        optimizer.step()

    return step


def art_step(model: nn.Module, batch: Batch) -> Callable[[], None]:
    """Return a step of ART's AdversarialTrainerMadryPGD."""
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        tuple(batch.x.shape[1:]),
        10,
        optimizer=optimizer,
        clip_values=(0.0, 1.0),
        device_type="cpu" if batch.x.device.type == "cpu" else "gpu",
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier, nb_epochs=1, batch_size=len(batch), eps=8 / 255, eps_step=2 / 255, max_iter=STEPS
    )
    # ART shows a progress bar for every attack; drawing it must not be timed.
    trainer.attack.set_params(verbose=False)
    x, y = batch.x.contiguous().cpu().numpy(), batch.y.cpu().numpy()

    def step() -> None:
        trainer.fit(x, y)

    return step


class Paired(NamedTuple):
    """Median seconds of an update of both, the median of the ratios, and the ratio of the fastest runs."""

    ours: float
    other: float
    ratio: float
    fastest: float

    def text(self, other: str) -> str:
        times = f"{self.ours * 1e3:9.1f} ms, {other} {self.other * 1e3:9.1f} ms"
        return f"{times}, ratio {self.ratio:.3f}, of the fastest {self.fastest:.3f}"


def paired(first: Work, second: Work, rounds: int, device: torch.device, least: float = 1.0) -> Paired:
    """Time two pieces of work in turn, after a warm-up.

    Args:
        first: our work.
        second: the other work.
        rounds: how often each is timed.
        device: where they run.
        least: about how many seconds of the second to time at once.
    """

    def seconds(work: Work, updates: int) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        work(updates)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / updates

    seconds(first, 1), seconds(second, 1)
    updates = math.ceil(least / min(seconds(second, 1) for _ in range(3)))
    seconds(first, updates)
    pairs = []
    for number in range(rounds):  # whoever comes second may find a machine that another load has slowed
        works = (first, second) if number % 2 else (second, first)
        found = {work: seconds(work, updates) for work in works}
        pairs.append((found[first], found[second]))
    firsts, seconds_ = zip(*pairs, strict=True)
    return Paired(
        statistics.median(firsts),
        statistics.median(seconds_),
        statistics.median(a / b for a, b in pairs),
        min(firsts) / min(seconds_),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="small-cnn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="height and width of the RGB images")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--seconds", type=float, default=0.5, help="how long an epoch lasts at least")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument(
        "--contiguous", action="store_true", help="use the contiguous layout, not channels-last"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--peers", action="store_true", help="compare with torchattacks and ART, in float32")
    options = parser.parse_args()

    layout = "contiguous" if options.contiguous else "channels-last"
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, {options.model}, {options.precision}, {layout}")
    rows: list[dict[str, Any]] = []
    for name in options.methods:
        processes = start(options.device, options.precision)
        device = processes.device
        task = RandomImages(options.batch, (3, options.size, options.size), device)
        last = not options.contiguous
        model = make_model(options.model, task, device, last)
        ours = our_step(name, METHODS[name], model, task, processes, last)
        batch = task.batch
        if last:
            batch = Batch(batch.x.contiguous(memory_format=torch.channels_last), batch.y, batch.index)

        def autocast(device: torch.device = device) -> Any:
            return torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16")

        times = paired(
            ours, repeated(bare_step(name, model, batch, autocast)), options.rounds, device, options.seconds
        )
        rows.append({"step": name, **times._asdict()})
        print(f"{name:8} {times.text('bare passes')}", flush=True)
    if options.peers:
        for peer in (torchattacks_step, art_step):
            processes = start(options.device, "float32")
            device = processes.device
            task = RandomImages(options.batch, (3, options.size, options.size), device)
            model = make_model(options.model, task, device, True)
            ours = our_step("pgd-at", METHODS["pgd-at"], model, task, processes, True)
            theirs = repeated(peer(make_model(options.model, task, device, False), task.batch))
            times = paired(ours, theirs, options.rounds, device, options.seconds)
            rows.append({"step": f"pgd-at against {peer.__name__}", **times._asdict()})
            print(f"pgd-at   {times.text(peer.__name__)}", flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
