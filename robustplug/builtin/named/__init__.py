"""What torch and torchvision offer, by their own names: `use = "torch:AdamW"`.

Importing this module imports neither of them: only a recipe that uses one of these components pays for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...api import Component, LibraryOptions

_HERE = "robustplug.builtin.named"


@dataclass(frozen=True)
class TorchOptimizerOptions(LibraryOptions):
    """Options of the optimizer `torch`.

    Attributes:
        name: name of an optimizer of torch.optim, for example "AdamW".
        arguments: arguments of its constructor, by torch's own names; the run passes the parameters and
            whether to maximize.
    """

    def __post_init__(self) -> None:
        from .optimizers import checked

        checked(self)


@dataclass(frozen=True)
class TorchScheduleOptions(LibraryOptions):
    """Options of the schedule `torch`.

    Attributes:
        name: name of a scheduler of torch.optim.lr_scheduler, for example "OneCycleLR".
        interval: what the scheduler counts; None for torch's custom, which is updates for OneCycleLR and
            CyclicLR, epochs for all others.
        arguments: arguments of its constructor, by torch's own names. The run passes the optimizer and the
            total; `max_lr` is by default the optimizer's rate, `T_max`, or PolynomialLR's `total_iters`, the
            length of the run.
    """

    interval: Literal["update", "epoch"] | None = None

    def __post_init__(self) -> None:
        from .schedules import checked

        checked(self)


@dataclass(frozen=True)
class TorchvisionAugmentationOptions(LibraryOptions):
    """Options of the augmentation `torchvision`.

    Attributes:
        name: name of a transform of torchvision.transforms.v2, for example "RandomErasing".
        arguments: arguments of its constructor, by torchvision's own names.
    """

    def __post_init__(self) -> None:
        from .augmentations import checked

        checked(self)


OPTIMIZER = Component(
    "torch",
    f"{_HERE}.optimizers:torch_optimizer",
    TorchOptimizerOptions,
    'an optimizer of torch.optim, by its name: use = "torch:NAME"',
    trial={"name": "RAdam"},
)
SCHEDULE = Component(
    "torch",
    f"{_HERE}.schedules:TorchSchedule",
    TorchScheduleOptions,
    'a scheduler of torch.optim.lr_scheduler, by its name: use = "torch:NAME"',
    trial={"name": "OneCycleLR", "pct_start": 0.4},
)
AUGMENTATION = Component(
    "torchvision",
    f"{_HERE}.augmentations:TorchvisionAugmentation",
    TorchvisionAugmentationOptions,
    'a transform of torchvision.transforms.v2, by its name: use = "torchvision:NAME"',
    trial={"name": "RandomErasing", "p": 1.0},
)
