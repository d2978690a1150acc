"""An attack of torchattacks as a perturbation."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from robustplug.api import Cost, Refused, attack_by_radius, check_arguments, did_you_mean, scaled_step

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity, View

    from . import TorchattacksOptions

MISSING = 'torchattacks is not installed: pip install "robustplug[torchattacks]"'
RADII = ("eps", "max_epsilon")
RESERVED = {
    "model": "is the model that is attacked",
    "eps": "is the radius of the vicinity",
    "max_epsilon": "is the radius of the vicinity",
    "norm": "is that of the vicinity",
    "n_classes": "is that of the task",
}
# They need more than a model and a batch.
UNFIT = {
    "LGV": "trains models of its own on a data loader",
    "MultiAttack": 'joins attacks: write several rows, or use = "ensemble"',
}
NORMS = {math.inf: "Linf", 2.0: "L2"}


def attack_classes() -> dict[str, type[Any]]:
    """Return the attacks of torchattacks by name.

    Raises:
        ValueError: torchattacks is not installed.
    """
    try:
        import torchattacks
        from torchattacks.attack import Attack
    except ImportError as error:
        raise ValueError(f"{MISSING} ({error})") from error
    found = {name: value for name, value in vars(torchattacks).items() if inspect.isclass(value)}
    return {name: value for name, value in found.items() if issubclass(value, Attack)}


def constructor_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Check the arguments of an attack against its signature and return them converted.

    Raises:
        ValueError: no such attack, or it cannot be used here; or torchattacks is not installed.
        ExceptionGroup: of ValueErrors, one for each wrong argument.
    """
    known = attack_classes()
    if name not in known:
        close = did_you_mean(name, known)
        hint = f'did you mean "{close}"?' if close else f"known: {', '.join(sorted(known))}"
        raise ValueError(f'name: torchattacks has no attack "{name}"; {hint}')
    if name in UNFIT:
        raise ValueError(f"name: torchattacks' {name} cannot be used here, since it {UNFIT[name]}")
    return check_arguments(known[name].__init__, arguments, RESERVED, f"torchattacks' {name}")


class Torchattacks:
    """Run an attack of torchattacks; its results are projected into the vicinity.

    Step sizes (`alpha`) that are left out keep the library's ratio to eps. Rows of different radii are
    attacked apart.

    Args:
        options: see TorchattacksOptions.
    """

    def __init__(self, options: TorchattacksOptions) -> None:
        self.name = options.name
        self.arguments = constructor_arguments(options.name, options.arguments)
        self.attack = attack_classes()[options.name]

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the attacked point.

        Raises:
            Refused: the labels are no classes, the norm is not one of the attack, or the attack fails on
                this model and data.
        """
        if step.task.info.classes is None or view.y.dim() != 1 or view.origin.dim() != 4:
            raise Refused("torchattacks attacks classifiers of images with one label for each sample")

        def attack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
            return self._attacked(step, model, x, y, vicinity, eps)

        return attack_by_radius(step, view, vicinity, attack)

    def _attacked(
        self, step: Step, model: nn.Module, x: Tensor, y: Tensor, vicinity: Vicinity, eps: float
    ) -> Tensor:
        classes = step.task.info.classes or 0
        passed: dict[str, Any] = {**dict.fromkeys(RADII, eps), "n_classes": classes}
        passed["norm"] = NORMS.get(vicinity.norm or 0.0)
        known = inspect.signature(self.attack.__init__).parameters
        passed = {name: value for name, value in passed.items() if name in known}
        if "norm" in passed and passed["norm"] is None:
            raise Refused(f"torchattacks' {self.name} needs an L∞ or L2 threat model")
        alpha = scaled_step(self.attack.__init__, "alpha", "eps", eps)
        if alpha is not None:
            passed["alpha"] = alpha
        if self.name in ("APGDT", "AutoAttack") and classes < 4:
            raise Refused(f"torchattacks' {self.name} needs at least 4 classes, and there are {classes}")
        try:
            found: Tensor = self.attack(model, **{**passed, **self.arguments})(x, y)
        except Refused:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise Refused(
                f"torchattacks' {self.name} fails on this model and data ({type(error).__name__}: {said})"
            ) from error
        return found

    def cost(self, target: Cost) -> Cost:
        """Say that the cost is the library's affair."""
        return Cost.unknown()
