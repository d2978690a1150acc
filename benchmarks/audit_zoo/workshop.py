"""Where the models of the zoo are made: data, training through the Python API, and stored weights."""

from __future__ import annotations

import functools
import hashlib
import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import robustplug
from robustplug.api import Feed, isolated
from robustplug.recipe.toml.files import bundled_recipes

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Attributes:
        net: makes the network, untrained.
        recipe: name of a bundled recipe, whose method is used.
        eps: radius of training; the innermost vicinity gets it.
        norm: the norm of the radius.
        epochs, lr, seed: settings of the training.
        method: further options of the method, which replace those of the recipe.
        data: "digits" or "mnist".
    """

    net: Callable[[], nn.Module]
    recipe: str = "erm"
    eps: float = 0.1
    norm: str = "linf"
    epochs: int = 15
    lr: float = 0.1
    seed: int = 0
    method: Mapping[str, Any] = field(default_factory=dict)
    data: str = "digits"

    def table(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe; the task is given as a table."""
        bundled = tomllib.loads(bundled_recipes()[self.recipe].read_text(encoding="utf-8"))
        method = bundled["method"] | self.method
        vicinity = method["vicinity"]
        while "inner" in vicinity:
            vicinity = vicinity["inner"]
        vicinity |= {"use": self.norm, "eps": self.eps}
        return {
            "schema": 1,
            "name": "zoo",
            "seed": self.seed,
            "task": dict(task),
            "method": method,
            "optimizer": {"use": "sgd", "lr": self.lr},
            "schedule": {"use": "cosine"},
            "train": {
                "epochs": self.epochs,
                "batch_size": 64,
                "device": "cpu",
                "precision": "float32",
                "select": "last",
            },
            "validate": {"every": 1000, "samples": 8, "attack": {"use": "none"}},
            "evaluate": {"samples": 8, "attack": []},
        }


def behaviour(model: Callable[[Tensor], Tensor], x: Tensor) -> list[list[float]]:
    """Return a model's outputs, rounded, by which a later process recognises that it is the same."""
    if isinstance(model, nn.Module):
        model.eval()
    with isolated(0), torch.no_grad():
        found: list[list[float]] = (100 * model(x)).round().tolist()
    return found


class Workshop:
    """Make networks, or load those that were made before.

    Args:
        cache: folder for trained weights; None to train each network once in this process.
        mnist: folder that torchvision reads MNIST from; None to do without.
    """

    def __init__(self, cache: Path | None = None, mnist: Path | None = None) -> None:
        self.cache, self.mnist = cache, mnist
        self._made: dict[str, dict[str, Tensor]] = {}
        self.samples = functools.cache(self._samples)

    def task(self, name: str) -> dict[str, Any]:
        """Return the table of a task."""
        if name == "digits":
            return {"use": "digits"}
        return {"use": "mnist", "root": str(self.mnist), "train_samples": 4000}

    def _samples(self, name: str, split: str) -> Pair:
        """Return inputs and labels of a split, in the order of the task."""
        options = self.task(name)
        task = robustplug.build("task", options.pop("use"), **options)
        batches = list(task.batches(split, Feed(batch_size=1000, samples=2000)))
        return torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches])

    def trained(self, plan: Plan) -> nn.Module:
        """Return the network of a plan in eval mode, a new object in each call."""
        table = plan.table(self.task(plan.data))
        with isolated(plan.seed):
            net = plan.net()

        def train() -> nn.Module:
            with TemporaryDirectory() as folder:
                return robustplug.train(table, model=net, out=Path(folder) / "run").model

        x, _ = self.samples(plan.data, "test")
        return self._stored(net, [table | {"task": plan.data}, behaviour(net, x[:16])], train)

    def fitted(self, net: nn.Module, loss: Callable[[nn.Module], Tensor], steps: int) -> nn.Module:
        """Return a network after some steps of Adam on a loss of its own."""

        def fit() -> nn.Module:
            with torch.enable_grad():
                optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
                for _ in range(steps):
                    optimizer.zero_grad()
                    loss(net).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
            return net

        x, _ = self.samples("digits", "test")
        return self._stored(net, [inspect.getsource(loss), steps, behaviour(net, x[:16])], fit)

    def _stored(self, net: nn.Module, facts: Any, make: Callable[[], nn.Module]) -> nn.Module:
        # An untrained BatchNorm does nothing, so outputs alone do not tell networks apart.
        key = hashlib.sha256(repr([*facts, str(net)]).encode()).hexdigest()[:20]
        path = None if self.cache is None else self.cache / f"{key}.safetensors"
        if key not in self._made:
            if path is not None and path.exists():
                self._made[key] = load_file(path)
            else:
                found = make().state_dict().items()
                state = {name: value.detach().contiguous().clone() for name, value in found}
                self._made[key] = state
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    part = path.with_suffix(".part")
                    save_file(state, part)
                    part.rename(path)
        net.load_state_dict(self._made[key])
        return net.eval().requires_grad_(False)
