"""The schedulers of torch.optim.lr_scheduler by their names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from ...api import Library, LibraryOptions, Progress, Rate, Refused, classes_in
from .common import tried

if TYPE_CHECKING:
    from . import TorchScheduleOptions

_LENGTH = "is that of the run: train.epochs and train.batch_size"
RESERVED = {
    "optimizer": "is that of the run",
    "last_epoch": "is the position in the run",
    "total_steps": _LENGTH,
    "epochs": _LENGTH,
    "steps_per_epoch": _LENGTH,
    "scale_fn": "is a function, which a recipe cannot hold; choose a mode",
}
_FUNCTION = "takes a function, which a recipe cannot hold: offer a schedule in a plugin"
_JOINED = 'joins schedulers: use = "warm-up" puts a linear rise before another schedule'
UNFIT = {
    "LambdaLR": _FUNCTION,
    "MultiplicativeLR": _FUNCTION,
    "SequentialLR": _JOINED,
    "ChainedScheduler": _JOINED,
    "ReduceLROnPlateau": "needs a measured loss, and here the rate of an update follows from its position in "
    'the run alone, so that a resumed run repeats it: use "step" or "cosine"; train.select keeps the best '
    "epoch",
}
# torch's documentation steps these after each batch, and all others after each epoch.
BY_UPDATE = frozenset({"OneCycleLR", "CyclicLR"})


def scheduler_classes() -> dict[str, type[Any]]:
    """Return the schedulers of torch by name."""
    found = classes_in(lr_scheduler, lr_scheduler.LRScheduler)
    return {
        name: value for name, value in found.items() if not name.startswith("_") and name != "LRScheduler"
    }


LIBRARY = Library(
    "torch.optim.lr_scheduler",
    "scheduler",
    scheduler_classes,
    RESERVED,
    lambda name, _: UNFIT.get(name),
)


class Settings(torch.optim.Optimizer):
    """Hold the settings of an optimizer, for a scheduler to change; it trains nothing."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        kept = {name: settings[name] for name in ("lr", "momentum", "betas") if name in settings}
        super().__init__([nn.Parameter(torch.zeros(()))], kept)

    def step(self, closure: Any = None) -> Any:
        """Do nothing."""


def arguments_for(name: str, given: Mapping[str, Any], total: int, lr: float) -> dict[str, Any]:
    """Return the arguments of a scheduler, with those that follow from the run.

    Args:
        name: class name of the scheduler.
        given: arguments of the recipe.
        total: updates or epochs of the run, whichever the scheduler counts.
        lr: learning rate of the optimizer.
    """
    known = inspect.signature(scheduler_classes()[name].__init__).parameters
    filled = {"max_lr": lr, "T_max": total, "total_steps": total}
    if name == "PolynomialLR":  # which is 0 after torch's default of 5
        filled["total_iters"] = total
    return {**{key: value for key, value in filled.items() if key in known}, **given}


def checked(options: TorchScheduleOptions) -> dict[str, Any]:
    """Return the arguments of the recipe, converted.

    Raises:
        ValueError, ExceptionGroup: there is no such scheduler, or an argument is wrong.
    """
    name, known = options.name, scheduler_classes()
    given = dict(options.arguments)
    if name in known and name not in UNFIT:
        filled = arguments_for(name, given, 1, 0.1)
        given = {key: value for key, value in filled.items() if key in given or key not in RESERVED}
    converted = LIBRARY.checked(LibraryOptions(name, given))
    arguments = {key: value for key, value in converted.items() if key in options.arguments}

    def build(**chosen: Any) -> None:
        walk = Walk(name, chosen, 8, {"lr": 0.1, "momentum": 0.9})
        walk.advance(3)

    tried(build, arguments, known[name].__init__, f"torch's {name}")
    return arguments


class Walk:
    """Step a scheduler of torch through a run.

    Args:
        name: class name of the scheduler.
        arguments: arguments of the recipe.
        total: updates or epochs of the run, whichever the scheduler counts.
        settings: settings of the optimizer.
    """

    def __init__(
        self, name: str, arguments: Mapping[str, Any], total: int, settings: Mapping[str, Any]
    ) -> None:
        self.key = (total, dict(settings))
        self.base = float(settings["lr"])
        self.settings = Settings(settings)
        self.scheduler = scheduler_classes()[name](
            self.settings, **arguments_for(name, arguments, total, self.base)
        )
        # A scheduler warns if its optimizer has not been stepped before its own first step.
        self.settings.step()
        self.done = 0

    def advance(self, position: int) -> None:
        """Step to a position that is not behind the current one."""
        while self.done < position:
            self.scheduler.step()
            self.done += 1

    @property
    def rate(self) -> Rate:
        """Return the rate at the current position."""
        (entry,) = self.settings.param_groups
        momentum = None
        if getattr(self.scheduler, "cycle_momentum", False):
            momentum = float(entry["betas"][0] if "betas" in entry else entry["momentum"])
        return Rate(float(entry["lr"]) / self.base, momentum)


class TorchSchedule:
    """Follow a scheduler of torch, stepped once for each update or epoch of the run.

    Each position is computed from the first one by torch's own steps, so a resumed run repeats them: nothing
    is saved. Learning rates of the scheduler are those of a group without a rate of its own; all others are
    scaled alike.
    """

    def __init__(self, options: TorchScheduleOptions) -> None:
        self.name, self.arguments = options.name, checked(options)
        default = "update" if options.name in BY_UPDATE else "epoch"
        self.by_update = (options.interval or default) == "update"
        self._walk: Walk | None = None

    def update(self, progress: Progress, settings: Mapping[str, Any]) -> Rate:
        """Return the rate of an update.

        Raises:
            Refused: the scheduler does not fit the optimizer, or the length of the run.
        """
        total, position = (
            (progress.updates, progress.update) if self.by_update else (progress.epochs, progress.epoch)
        )
        if not settings["lr"] > 0:
            raise Refused("the optimizer's learning rate is 0, which no schedule can scale")
        kept = {name: settings[name] for name in ("lr", "momentum", "betas") if name in settings}
        walk = self._walk
        try:
            if walk is None or walk.key != (total, kept) or walk.done > position:
                walk = self._walk = Walk(self.name, self.arguments, total, kept)
            walk.advance(position)
        except (ValueError, ArithmeticError, TypeError) as error:
            unit = "updates" if self.by_update else "epochs"
            raise Refused(
                f"torch's {self.name} does not fit this optimizer and {total} {unit}: {error}"
            ) from error
        return walk.rate
