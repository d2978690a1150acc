"""Adapters for the classes of other libraries, attacks above all. Importing this does not import torch."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from ..core.types import Cost
from ..errors import Refused
from .options import Rest
from .registry import did_you_mean
from .signatures import check_arguments

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..core.protocols import Vicinity
    from ..core.step import Step
    from ..core.types import View


@dataclass(frozen=True)
class LibraryOptions:
    """Options of a class of another library, such as an attack.

    Attributes:
        name: name of the class.
        arguments: arguments of its constructor, by the library's own names.
    """

    name: str
    arguments: Annotated[Mapping[str, Any], Rest()] = field(default_factory=dict)


@dataclass(frozen=True)
class Library:
    """Describe a library, of attacks for example.

    Attributes:
        name: name of the library, for messages.
        kind: the library's term for an attack, or what else it offers, for messages.
        classes: function that returns the classes by name; raises ValueError if the library is not
            installed.
        reserved: arguments that the adapter passes, each with the reason.
        unfit: function of (name, class) that returns why a class cannot be used, or None.
    """

    name: str
    kind: str
    classes: Callable[[], Mapping[str, type[Any]]]
    reserved: Mapping[str, str]
    unfit: Callable[[str, type[Any]], str | None]

    @property
    def owner(self) -> str:
        """Return the library's name as an owner: "ART's", "torchattacks'"."""
        return f"{self.name}'" if self.name.endswith("s") else f"{self.name}'s"

    def checked(self, options: LibraryOptions) -> dict[str, Any]:
        """Check the arguments of a class against its signature and return them converted.

        Raises:
            ValueError: the class does not exist or cannot be used here, or the library is not installed.
            ExceptionGroup: ValueErrors, one for each wrong argument.
        """
        known, name = self.classes(), options.name
        if name not in known:
            close = did_you_mean(name, known)
            hint = f'did you mean "{close}"?' if close else f"known: {', '.join(sorted(known))}"
            raise ValueError(f'name: {self.name} has no {self.kind} "{name}"; {hint}')
        why = self.unfit(name, known[name])
        if why is not None:
            raise ValueError(f"name: {self.owner} {name} cannot be used here, since it {why}")
        return check_arguments(known[name].__init__, options.arguments, self.reserved, f"{self.owner} {name}")


def classes_in(namespace: object, base: type[Any]) -> dict[str, type[Any]]:
    """Return the subclasses of a class that a module offers, by name."""
    found = {name: value for name, value in vars(namespace).items() if inspect.isclass(value)}
    return {name: value for name, value in found.items() if issubclass(value, base)}


class LibraryAttack(ABC):
    """Run an attack of another library as a perturbation; its results are projected into the vicinity.

    Samples of different radii are attacked separately. An exception of the library becomes Refused, which
    affects only its own row of an evaluation.

    Args:
        options: the attack and its arguments.
    """

    # Libraries read values as they like, and the radii are read to group the samples.
    needs_sync = True

    library: ClassVar[Library]

    def __init__(self, options: LibraryOptions) -> None:
        self.name = options.name
        self.arguments = self.library.checked(options)
        self.attack = self.library.classes()[options.name]

    @abstractmethod
    def refuse(self, step: Step, view: View) -> None:
        """Raise Refused if the library cannot attack this task."""

    @abstractmethod
    def attacked(
        self, step: Step, model: nn.Module, x: Tensor, y: Tensor, vicinity: Vicinity, eps: float
    ) -> Tensor:
        """Return adversarial examples of samples that share a radius.

        Args:
            step: the step of this batch.
            model: from inputs in [0, 1] to logits (N, K); its calls are counted.
            x: clean inputs (N, …).
            y: labels, int64 (N,).
            vicinity: the threat model.
            eps: the radius.
        """

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the attacked point.

        Raises:
            Refused: the library cannot attack this task, or the attack fails on this model and data.
        """
        from ..core.guards.libraries import attack_by_radius

        self.refuse(step, view)

        def attack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
            try:
                return self.attacked(step, model, x, y, vicinity, eps)
            except Refused:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                raise Refused(
                    f"{self.library.owner} {self.name} fails on this model and data ({reason})"
                ) from error

        return attack_by_radius(step, view, vicinity, attack)

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost, since it depends on the library."""
        return Cost.unknown()
