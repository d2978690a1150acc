"""A substitute network that is trained on a model's own answers (Papernot et al. 2017, arXiv:1602.02697)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.calling.operations import forward_operations
from ...core.modules import mlp
from ...core.random import derive, isolated
from ...devices.precision import choose_precision

if TYPE_CHECKING:
    from ...core.protocols import Vicinity

# Passes over the queries, and rows of an update.
EPOCHS, ROWS = 40, 64
# Copies of each input at random points of its ball, to learn the model around the inputs.
COPIES = 3


def network(shape: tuple[int, ...], classes: int, centre: Tensor, spread: Tensor) -> nn.Module:
    """Build a small network: convolutions for images of at least 6 × 6 pixels, else two hidden layers.

    Args:
        shape: shape of an input.
        classes: number of outputs.
        centre, spread: mean and standard deviation of the inputs, numbers.
    """
    if len(shape) != 3 or min(shape[1:]) < 6:
        size = 1
        for side in shape:
            size *= side
        body: nn.Module = mlp(size, classes, (256, 256))
    else:
        body = nn.Sequential(
            nn.Conv2d(shape[0], 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=1 if min(shape[1:]) < 16 else 2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(1024, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )
    # Convolutions take half the time in this layout, on a CPU and on a GPU.
    return nn.Sequential(_Standard(centre, spread), body).to(memory_format=torch.channels_last)


class _Standard(nn.Module):
    centre: Tensor
    spread: Tensor

    def __init__(self, centre: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = (x - self.centre) / self.spread
        return result


def train_substitute(
    answers: Callable[[Tensor], Tensor], x: Tensor, vicinity: Vicinity, radius: Tensor, seed: int
) -> nn.Module:
    """Train a substitute on a model's decisions and confidences on inputs and around them.

    Its updates are in bfloat16 where this pays, as those of a training; its attacks transfer as well.

    Args:
        answers: the model's logits (N, K) of inputs (N, …).
        x: inputs (M, …).
        vicinity: the ball from which points around the inputs are drawn.
        radius: radius of each input, (M,).
        seed: seed of the weights, the points and the order.

    Returns:
        A network in eval mode, on the device of x.
    """
    rng = torch.Generator(x.device).manual_seed(derive(seed, "substitute"))
    around = [vicinity.random_point(x, radius, rng).detach() for _ in range(COPIES)]
    inputs = torch.cat([x, *around])
    with torch.no_grad():
        wanted = torch.cat([_soft(answers(rows)) for rows in torch.split(inputs, 256)])
    spread = inputs.float().std().clamp_min(1e-6)
    with isolated(derive(seed, "substitute weights"), x.device):
        net = network(tuple(x.shape[1:]), wanted.shape[1], inputs.float().mean(), spread).to(x.device)
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        updates = EPOCHS * -(-len(x) // ROWS)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=updates)
        net.train()
        some = inputs[: 2 * ROWS].float()
        half = choose_precision("auto", net, some, lambda: forward_operations(net, some)) == "bfloat16"
        with torch.enable_grad():
            for _ in range(updates):
                rows = torch.randint(len(inputs), (2 * ROWS,), generator=rng, device=x.device)
                with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
                    loss = F.cross_entropy(net(inputs[rows].float()), wanted[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return net.eval().requires_grad_(False)


def _soft(logits: Tensor) -> Tensor:
    """Return targets that keep the decision and some of the order of the other classes."""
    logits = logits.float()
    spread = logits.std(1, keepdim=True).clamp_min(1e-12)
    return F.softmax(((logits - logits.mean(1, keepdim=True)) / spread * 3).nan_to_num(0.0), 1)
