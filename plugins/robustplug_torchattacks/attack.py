"""An attack of torchattacks as a perturbation."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from robustplug.api import Library, LibraryAttack, Refused, classes_in, scaled_step

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity, View


MISSING = (
    "torchattacks is not installed: pip install --no-deps torchattacks (it pins an old release of requests, "
    "and runs without)"
)
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


# Repeated in robustplug_art on purpose: each of the two names its library, and needs no other plugin.
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
    return classes_in(torchattacks, Attack)


LIBRARY = Library("torchattacks", "attack", attack_classes, RESERVED, lambda name, _: UNFIT.get(name))


class Torchattacks(LibraryAttack):
    """Run an attack of torchattacks.

    A step size (`alpha`) that is left out keeps the library's ratio to eps.
    """

    library = LIBRARY

    def refuse(self, step: Step, view: View) -> None:
        """Refuse everything but images with one class each."""
        if step.task.info.classes is None or view.y.dim() != 1 or view.origin.dim() != 4:
            raise Refused("torchattacks attacks classifiers of images with one label for each sample")

    def attacked(
        self, step: Step, model: nn.Module, x: Tensor, y: Tensor, vicinity: Vicinity, eps: float
    ) -> Tensor:
        """Return the examples that torchattacks finds."""
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
        attack = self.attack(model, **{**passed, **self.arguments})
        if self.name == "JSMA":  # its own target is the next of ten classes
            attack.set_mode_targeted_by_function(lambda _, labels: (labels + 1) % classes, quiet=True)
        found: Tensor = attack(x, y)
        return found
