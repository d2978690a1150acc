"""What a step costs without any framework: passes written by hand, and those of other packages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .device import Machine

EPS, SIZE = 8 / 255, 2 / 255


@dataclass(frozen=True)
class Images:
    """A batch of random images and labels; timing needs no real data."""

    x: Tensor
    y: Tensor

    @classmethod
    def random(cls, rows: int, machine: Machine) -> Images:
        """Return images in the layout that training uses."""
        rng = torch.Generator().manual_seed(0)
        side = machine.sizes.side
        x = torch.rand(rows, 3, side, side, generator=rng).to(machine.device)
        y = torch.randint(0, 10, (rows,), generator=rng).to(machine.device)
        return cls(x.contiguous(memory_format=torch.channels_last), y)


def network(machine: Machine) -> nn.Module:
    """Return a new network on the device, channels-last; it needs nothing but torch and pluggy."""
    from robustplug.builtin.models import ImageModel, SmallCnn
    from robustplug.builtin.models.resnet import resnet18
    from robustplug.builtin.models.small import small_cnn
    from robustplug.core.random import isolated
    from robustplug.core.types import TaskInfo

    side = machine.sizes.side
    info = TaskInfo({"train": 1}, (3, side, side), 10)
    with isolated(0):
        made = (
            small_cnn(SmallCnn(width=2, hidden=4), info=info)
            if machine.dry
            else resnet18(ImageModel(), info=info)
        )
    return made.to(machine.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload,no-any-return]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of all rows."""
    return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)


class Bare:
    """Write passes by hand, in bfloat16.

    Args:
        model: the network that is trained.
        called: what computes its outputs: the network itself, or the compiled one.
        images: the batch.
    """

    def __init__(self, model: nn.Module, called: nn.Module, images: Images) -> None:
        self.model, self.called, self.images = model, called, images
        self.optimizer = sgd(model)
        self.forwards = self.backwards = 0
        self._low = (images.x - EPS).clamp_min(0)
        self._high = (images.x + EPS).clamp_max(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float32."""
        self.forwards += 1
        with torch.autocast(x.device.type, torch.bfloat16):
            output: Tensor = self.called(x)
        return output.float()

    @contextlib.contextmanager
    def attacking(self, training: bool) -> Iterator[None]:
        """Freeze the parameters for a block, in the mode of the attack."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.model.train(training)
        yield
        self.model.train()
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)

    def attack(self, steps: int, training: bool = False) -> Tensor:
        """Return the result of PGD with a random start: as many passes, and the step after each."""
        if not steps:
            return self.images.x
        with self.attacking(training):
            x = self.images.x + torch.empty_like(self.images.x).uniform_(-EPS, EPS)
            x = torch.minimum(torch.maximum(x, self._low), self._high)
            for _ in range(steps):
                x.requires_grad_()
                self.backwards += 1
                loss = F.cross_entropy(self.forward(x), self.images.y, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, x)
                x = x.detach() + SIZE * gradient.sign()
                x = torch.minimum(torch.maximum(x, self._low), self._high)
        return x

    def look(self) -> None:
        """Compute outputs that are only read."""
        with self.attacking(False), torch.no_grad():
            self.forward(self.images.x)

    def train(self, x: Tensor, views: int = 1, input_grad: bool = False) -> None:
        """Make an update on the mean loss of some views."""
        self.optimizer.zero_grad()
        losses = []
        for _ in range(views):
            point = x.detach().requires_grad_(input_grad)
            losses.append(F.cross_entropy(self.forward(point), self.images.y))
            self.backwards += 1
        torch.autograd.backward(sum(losses[1:], losses[0]))
        self.optimizer.step()


@dataclass(frozen=True)
class Passes:
    """State the passes of a method's update; `ours.py` counts whether they are those that it makes.

    Attributes:
        attack: steps of the attack.
        training: whether the attack leaves BatchNorm in training mode.
        looks: forward passes whose outputs are only read.
        views: views of a training pass.
        updates: updates of a batch.
        input_grad: whether updates need the gradients of the inputs.
    """

    attack: int = 0
    training: bool = False
    looks: int = 0
    views: int = 1
    updates: int = 1
    input_grad: bool = False

    def step(self, bare: Bare) -> Callable[[], None]:
        """Return a function that makes these passes."""

        def work() -> None:
            for _ in range(self.looks):
                bare.look()
            x = bare.attack(self.attack, self.training)
            for _ in range(self.updates):
                bare.train(x, self.views, self.input_grad)

        return work

    @property
    def counted(self) -> tuple[int, int]:
        """Return the forward and backward passes of an update, a view being one of each."""
        both = self.attack + self.views * self.updates
        return both + self.looks, both


def torchattacks_step(machine: Machine, images: Images) -> Callable[[], Any]:
    """Return the usual loop of PGD adversarial training with torchattacks, in float32.

    Raises:
        ImportError: torchattacks is not installed.
    """
    import torchattacks

    model = network(machine).to(memory_format=torch.contiguous_format)
    attack = torchattacks.PGD(model, eps=EPS, alpha=SIZE, steps=machine.sizes.steps)
    optimizer = sgd(model)
    x = images.x.contiguous()

    def step() -> None:
        model.train()
        moved = attack(x, images.y)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(moved), images.y))
        optimizer.step()

    return step


def art_step(machine: Machine, images: Images) -> Callable[[], Any]:
    """Return a step of ART's AdversarialTrainerMadryPGD, in float32.

    Raises:
        ImportError: ART is not installed.
    """
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    model = network(machine).to(memory_format=torch.contiguous_format)
    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        tuple(images.x.shape[1:]),
        10,
        optimizer=sgd(model),
        clip_values=(0.0, 1.0),
        device_type="cpu" if machine.dry else "gpu",
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier,
        nb_epochs=1,
        batch_size=len(images.x),
        eps=EPS,
        eps_step=SIZE,
        max_iter=machine.sizes.steps,
    )
    # ART shows a progress bar for every attack; drawing it must not be timed.
    trainer.attack.set_params(verbose=False)
    x, y = images.x.contiguous().cpu().numpy(), images.y.cpu().numpy()
    return lambda: trainer.fit(x, y)
