"""A model behind a transformation of kornia."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustplug.api import Library, TaskInfo, classes_in, derive, isolated, stream

if TYPE_CHECKING:
    from . import KorniaOptions

MISSING = 'this needs kornia: pip install "robustplug[kornia]"'
RESERVED = {"same_on_batch": "has no effect: draws are the same for every image"}
UNFIT = {
    "sequential": "joins transformations: put one model of kornia behind another, in its slot model",
    "dispather": "joins transformations: put one model of kornia behind another, in its slot model",
    "3d": "is for volumes",
    "base": "transforms nothing by itself",
}
MIXES = 'mixes samples: write [method.vicinity] use = "mixup" or "cutmix"'


def transformation_classes() -> dict[str, type[Any]]:
    """Return the transformations of kornia by name.

    Raises:
        ValueError: kornia is not installed.
    """
    try:
        from kornia import augmentation, enhance, filters
    except ImportError as error:
        raise ValueError(f"{MISSING} ({error})") from error
    # Both Normalize are the same function; that of enhance has no probability.
    return {
        name: value for part in (augmentation, filters, enhance) for name, value in _modules(part).items()
    }


def _modules(part: object) -> Mapping[str, type[Any]]:
    return classes_in(part, nn.Module)


def _unfit(name: str, found: type[Any]) -> str | None:
    if any(base.__name__ == "MixAugmentationBaseV2" for base in found.__mro__):
        return MIXES
    return next((why for word, why in UNFIT.items() if word in name.lower()), None)


LIBRARY = Library("kornia", "transformation", transformation_classes, RESERVED, _unfit)


def made(options: KorniaOptions) -> nn.Module:
    """Return the transformation, tried on colour images if it takes those.

    Raises:
        ValueError, ExceptionGroup: there is none of that name, an argument is wrong, or `draws` is stated for
            one that is not random, or missing for one that is.
    """
    arguments = {name: _tuples(value) for name, value in LIBRARY.checked(options).items()}
    owner = f"kornia's {options.name}"
    # Some draw when they are made.
    with isolated(derive(options.seed, "kornia")):
        try:
            module: nn.Module = transformation_classes()[options.name](**arguments)
        except Exception as error:  # what a library raises for a wrong value differs from one to the next
            raise ValueError(f"arguments: {owner} refuses {arguments}: {_line(error)}") from error
        try:
            random = draws_anew(module, torch.zeros(1, 3, 32, 32))
        except Exception:
            # It takes other images; those of the task are tried when the model is built.
            return module
    check_draws(options, random)
    return module


def check_draws(options: KorniaOptions, random: bool) -> None:
    """Raise ValueError if `draws` does not fit a transformation that is random, or is not."""
    if random and options.draws is None:
        raise ValueError(
            f"draws: kornia's {options.name} is random: state the number of draws, the same for every image, "
            "over which probabilities are averaged; a model that draws anew in every pass is one of your own"
        )
    if not random and options.draws is not None:
        raise ValueError(f"draws: kornia's {options.name} with these arguments is not random: leave it out")


def draws_anew(module: nn.Module, x: Tensor) -> bool:
    """Return whether a transformation draws from torch's generator."""
    before = torch.get_rng_state()
    with torch.no_grad():
        module(x.clone())
    return not torch.equal(before, torch.get_rng_state())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class Behind(nn.Module):
    """A model behind a transformation, whose gradient is kornia's.

    kornia's colours are in [0, 1]: images of another range are moved to it for the transformation, and back.
    Nothing is clipped that kornia does not clip.

    Args:
        options: the transformation.
        model: the model behind it.
        info: description of the task.

    Raises:
        ValueError: the task has no images, or the transformation fails on them, changes their shape, or
            treats an image differently in another batch.
    """

    def __init__(self, options: KorniaOptions, *, model: nn.Module, info: TaskInfo) -> None:
        super().__init__()
        self.name, shape = options.name, info.shape
        if shape is None or len(shape) != 3:
            raise ValueError(
                f"kornia's {self.name} is for images (C, H, W), but the task has inputs of shape {shape}"
            )
        self.model, self.transformation = model, made(options)
        self.classes, self.unit = info.classes, tuple(info.bounds) == (0.0, 1.0)
        low, high = (torch.as_tensor(side, dtype=torch.float32).view(-1, 1, 1) for side in info.bounds)
        self.low, self.width = nn.Buffer(low, persistent=False), nn.Buffer(high - low, persistent=False)
        self.draws: list[dict[str, Any]] = []
        self.passes_per_row = options.draws or 1
        probe = torch.rand(3, *shape, generator=stream(options.seed, "kornia", "probe"))
        with isolated(derive(options.seed, "kornia", "trial")):
            try:
                random = draws_anew(self.transformation, probe)
            except Exception as error:
                raise ValueError(self._fails(probe, _line(error))) from error
            check_draws(options, random)
        for number in range(options.draws or 0):
            with isolated(derive(options.seed, "kornia", number)):
                self.draws.append(self._drawn(shape))
        for draw in self._passes():
            self._check(probe, draw)

    def _passes(self) -> Sequence[dict[str, Any] | None]:
        """Return the draws, each a pass through the model; None for what is not random."""
        return self.draws or (None,)

    def _fails(self, probe: Tensor, why: str) -> str:
        return f"kornia's {self.name} fails on images of shape {tuple(probe.shape[1:])}: {why}"

    def _drawn(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the parameters of a draw for one image."""
        drawn: Any = getattr(self.transformation, "forward_parameters", None)
        if drawn is None:
            raise ValueError(f"kornia's {self.name} draws without parameters, so no draw can be kept")
        found: dict[str, Any] = drawn(torch.Size((1, *shape)))
        return found

    def _check(self, probe: Tensor, draw: dict[str, Any] | None) -> None:
        """Raise ValueError if the transformation changes the shape, or an image depends on its batch."""
        with torch.no_grad(), isolated(0):
            before = torch.get_rng_state()
            try:
                whole, one = (self.transformed(rows.clone(), draw) for rows in (probe, probe[1:2]))
            except Exception as error:
                raise ValueError(self._fails(probe, _line(error))) from error
            moved = not torch.equal(before, torch.get_rng_state())
        if not isinstance(whole, Tensor) or whole.shape != probe.shape:
            shape = tuple(whole.shape[1:]) if isinstance(whole, Tensor) else type(whole).__name__
            raise ValueError(self._fails(probe, f"it turns them into {shape}, and the model takes the same"))
        if moved or not torch.allclose(whole[1:2], one, atol=1e-4):
            raise ValueError(self._fails(probe, "what it makes of an image depends on its batch"))

    def transformed(self, x: Tensor, draw: dict[str, Any] | None = None) -> Tensor:
        """Return the images that the model sees, (N, C, H, W).

        Args:
            x: images in the task's range.
            draw: parameters of one image, which are those of all; None for what is not random.
        """
        rows = x if self.unit else (x - self.low) / self.width
        given = {} if draw is None else {"params": {key: _shared(v, len(x)) for key, v in draw.items()}}
        found: Tensor = self.transformation(rows, **given)
        return found if self.unit or not isinstance(found, Tensor) else found * self.width + self.low

    def forward(self, x: Tensor) -> Any:
        """Return the model's outputs; over several draws, the logarithm of mean probabilities (N, K).

        Outputs of a task without classes are averaged themselves.
        """
        outputs = [self.model(self.transformed(x, draw)) for draw in self._passes()]
        if len(outputs) == 1:
            return outputs[0]
        if self.classes is None:
            return torch.stack(outputs).mean(0)
        logs = torch.stack([output.log_softmax(1) for output in outputs])
        return torch.logsumexp(logs, 0) - math.log(len(outputs))


def _shared(value: Any, count: int) -> Any:
    """Return a parameter of one image for several; others, such as the shape of a batch, as they are."""
    rows = isinstance(value, Tensor) and value.dim() and len(value) == 1
    return value.expand(count, *value.shape[1:]) if rows else value
