"""Denoised smoothing: a denoiser in front of a classifier that was not trained with noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustplug.api import (
    Batch,
    Cost,
    Method,
    ParamGroup,
    Pass,
    Progress,
    Refused,
    RunError,
    Step,
    Task,
    TaskInfo,
    View,
    cross_entropy,
    isolated,
    normal_like,
    open_run,
)

from . import DenoisedOptions, DenoiserOptions


class DnCnn(nn.Module):
    """Subtract the noise that a stack of 3x3 convolutions sees, as DnCNN, but without its BatchNorm.

    Args:
        channels: channels of an image.
        depth: number of convolutions.
        width: channels between them.
    """

    def __init__(self, channels: int, depth: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        last = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        nn.init.zeros_(last.weight)
        self.noise = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) of the same shape."""
        found: Tensor = x - self.noise(x)
        return found


class Denoised(nn.Module):
    """Classify what a denoiser makes of the inputs: f(D(x)).

    Args:
        denoiser: D.
        model: f.
    """

    def __init__(self, denoiser: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.model = denoiser, model

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K)."""
        outputs: Tensor = self.model(self.denoiser(x))
        return outputs


def denoised(options: DenoisedOptions, *, model: nn.Module, info: TaskInfo) -> nn.Module:
    """Return the model behind the denoiser of a run of `denoiser`.

    Raises:
        ValueError: there is no such run, it holds no denoiser, or one for other images.
    """
    try:
        found = open_run(options.run).model
    except RunError as why:
        raise ValueError(f"run: {why}") from why
    if not isinstance(found, Denoised):
        raise ValueError(f'run: {options.run} holds no denoiser: train one by the method "denoiser"')
    own = next(found.denoiser.parameters()).shape[1]
    if info.shape is None or len(info.shape) != 3 or info.shape[0] != own:
        raise ValueError(f"run: the denoiser is for images of {own} channels, and the task has {info.shape}")
    return Denoised(found.denoiser, model)


class BehindDenoiser:
    """g∘f: the model behind the denoiser of the method; the model alone for other methods."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View) -> Any:
        """Return logits (N, K)."""
        denoiser = getattr(step.method, "denoiser", None)
        return step.forward(view.x if denoiser is None else step.forward(view.x, module=denoiser))


class Denoiser(Method[DenoiserOptions]):
    """Train a denoiser in front of the model, which stays as it is: Salman et al. 2020.

    "mse": ‖D(x + δ) − x‖², the mean over its values; "stability": the cross entropy between f(D(x + δ)) and
    the class of f(x). The run exports f∘D.
    """

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Freeze the model, and build the denoiser.

        Raises:
            Refused: the inputs are no images.
        """
        shape = task.info.shape
        if shape is None or len(shape) != 3:
            raise Refused("denoiser is for images")
        model.requires_grad_(False).eval()
        # The global generator seeds the weights, as it does those of models.
        with isolated(int(torch.randint(2**31, ()))):
            self.denoiser = DnCnn(shape[0], self.options.depth, self.options.width)
        self.denoiser.to(next(model.parameters()).device)
        self.state.hold("denoiser", self.denoiser)
        return [ParamGroup("denoiser", tuple(self.denoiser.parameters()))]

    def passes(self, progress: Progress) -> Sequence[Pass]:
        """Return one update of the denoiser."""
        return (Pass("denoiser", frozenset({"denoiser"})),)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the samples with their noise."""
        noise = self.options.sigma * normal_like(point.x, step.rng)
        return [View.of(point, "noisy", info={**point.info, "noise": noise}, penalty=self._loss)]

    def _loss(self, step: Step, view: View) -> Tensor:
        noisy = view.replace(x=view.x + view.info["noise"])
        if self.options.objective == "mse":
            clean: Tensor = step.forward(noisy.x, module=self.denoiser)
            squares: Tensor = (clean - view.x).square()
            return squares.flatten(1).mean(1)
        with torch.no_grad():
            target = step.forward(view.x).argmax(1)
        losses: Tensor = cross_entropy(step.output(noisy), target)
        return losses

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the largest change of a value by the denoiser."""
        (view,) = views
        noisy = view.x + view.info["noise"]
        return {"denoised": (self.denoiser(noisy) - noisy).abs().flatten(1).amax(1)}

    def export(self, model: nn.Module) -> nn.Module:
        """Return the model behind the denoiser."""
        return Denoised(self.denoiser, model)

    def loss_cost(self) -> Cost:
        """Count the passes of the denoiser, and for "stability" those of the model."""
        return Cost(1, 1) if self.options.objective == "mse" else Cost(3, 2)
