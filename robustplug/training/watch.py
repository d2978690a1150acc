"""Watch what the components of a run change while it trains, without waiting for the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..core.guards import switches
from ..core.guards.calls import compared, limits, refusal
from ..core.guards.models import Kept
from ..core.guards.values import copied, same, version_of, versions
from ..core.wrapper import nested
from ..errors import RunError
from ..plugin.build import BUILT
from ..plugin.culprit import name_of

if TYPE_CHECKING:
    from ..core.method import Method
    from ..core.step import Step
    from ..core.types import Batch, Progress, View

# What a step consists of; the rest are counts and shared outputs.
_STEP = ("model", "method", "task", "batch", "rng", "progress", "pass_", "wrapped", "evaluating", "seed")


@contextlib.contextmanager
def untouched(part: object) -> Iterator[None]:
    """Put the switches of the process back after a call of a component that may change nothing but the model.

    Raises:
        RunError: the component changed some.
    """
    before = switches.read()
    try:
        yield
    finally:
        changes = switches.put_back(before)
    if changes:
        raise RunError(f"{refusal(name_of(part), changes)}. Mend it, or leave it out.")


class Watched:
    """A perturbation of a method whose calls are watched; in all else it is the perturbation.

    Args:
        part: the perturbation.
        watch: watches its calls.
    """

    def __init__(self, part: Any, watch: Watch) -> None:
        vars(self).update(part=part, watch=watch)

    def __call__(self, step: Step, view: View, vicinity: Any) -> View:
        """Call the perturbation; see `Watch.perturbed`."""
        watch: Watch = self.watch
        return watch.perturbed(self.part, step, view, vicinity)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(vars(self)["part"])

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["part"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.part, name, value)


class Watch:
    """Compare switches, modes, flags and version counters after each call of a component.

    A write through `.data` or NumPy leaves no trace in these. So in the first update of an epoch, all values
    that the perturbation is handed are compared, too.

    Args:
        model: the model that is trained.
        method: its method; its perturbations are replaced by ones that are watched.
        task: its task.
    """

    def __init__(self, model: nn.Module, method: Method[Any], task: object) -> None:
        self.model, self.method, self.task = model, method, task
        self._modules, self._parameters = list(model.modules()), list(model.parameters())
        self._where, self._deep, self._counted = "", True, True
        self._batch: Batch | None = None
        self._original: Batch | None = None
        for owner in nested(method):
            for name, part in list(vars(owner).items()):
                if type(part) is not Watched and (part is owner.perturbation or _is_perturbation(part)):
                    setattr(owner, name, Watched(part, self))

    @property
    def close(self) -> bool:
        """Return whether the next update is the first one since `start`: values are compared, too."""
        return self._deep

    def start(self) -> None:
        """Take the state of an epoch's start as the right one."""
        self._all = switches.read()
        self._quick, self._deep = switches.read(switches.QUICK), True
        self._modes = self._training_modes()
        self._flags = self._requires_grad()

    def update(self, batch: Batch, progress: Progress) -> None:
        """Begin an update: what precedes it is the task's, which serves the batch.

        Raises:
            Refused: the task, or an augmentation, changed a switch.
        """
        self._where = f"epoch {progress.epoch + 1}, batch {progress.batch + 1} of {progress.batches}"
        self._batch, self._versions = batch, self._batch_versions(batch)
        self._original = copied(batch) if self._deep else None
        self._refuse(self.task, switches.put_back(self._all))

    def after(self, part: object) -> None:
        """Check what a component changed.

        Raises:
            Refused: it changed a switch, the mode of a module, or the batch.
        """
        changes = switches.put_back(self._quick, switches.QUICK)
        if self._training_modes() != self._modes:
            for module, mode in zip(self._modules, self._modes, strict=True):
                module.training = mode
            changes.append("the model's training modes")
        if self._batch is not None and self._batch_versions(self._batch) != self._versions:
            changes.append("the batch")
        self._refuse(part, changes)

    def done(self) -> None:
        """Check at the end of an update what its method changed.

        Raises:
            Refused: it changed a switch, the mode or a flag of the model, or the batch.
        """
        self.after(self.method)
        changes = switches.put_back(self._all)
        if self._requires_grad() != self._flags:
            for parameter, flag in zip(self._parameters, self._flags, strict=True):
                parameter.requires_grad_(flag)
            changes.append("requires_grad")
        if self._original is not None and not same(self._batch, self._original):
            changes.append("the batch")
        self._refuse(self.method, changes)
        self._deep, self._batch, self._original = False, None, None

    def perturbed(self, part: Any, step: Step, view: View, vicinity: Any) -> View:
        """Call a perturbation and check what it changed.

        Raises:
            Refused: it changed a switch, the view, or the weights, modes, flags or gradients of the model.
        """
        before, deep = switches.read(), self._deep
        own, radius = [getattr(step, name) for name in _STEP], limits(vicinity)
        kept = Kept(self.model, buffers=False) if deep else None
        original = copied(view) if deep else None
        state, given = self._state(), self._view_versions(view)
        moved: View = part(step, view, vicinity)
        changes = switches.put_back(before)
        for name, value in zip(_STEP, own, strict=True):
            if getattr(step, name) is not value:
                setattr(step, name, value)
                changes.append("the step")
        if any(limits(vicinity)[name] is not value for name, value in radius.items()):
            vars(vicinity).update(radius)
            changes.append("the vicinity's limits")
        if kept is not None and original is not None:
            changes += kept.put_back(values=True)
            changes += [name for one, other, name in compared(view, original) if not same(one, other)]
            # A perturbation that moves the weights and puts them back counts as one that left them alone.
            self._counted = self._counted and self._state() == state
        elif self._counted:
            changes += [name for name, value in self._state().items() if value != state[name]]
        if self._view_versions(view) != given:
            changes.append("its inputs or labels")
        self._refuse(part, changes)
        return moved

    def _refuse(self, part: object, changes: list[str]) -> None:
        if changes:
            raise refusal(name_of(part), changes, self._where)

    def _training_modes(self) -> list[bool]:
        return [module.training for module in self._modules]

    def _requires_grad(self) -> list[bool]:
        return [parameter.requires_grad for parameter in self._parameters]

    def _state(self) -> dict[str, list[Any]]:
        gradients = [parameter.grad for parameter in self._parameters]
        return {
            "the model's weights": [version_of(parameter) for parameter in self._parameters],
            "the model's gradients": [None if g is None else (id(g), version_of(g)) for g in gradients],
            "the model's training modes": self._training_modes(),
            "requires_grad": self._requires_grad(),
        }

    def _batch_versions(self, batch: Batch) -> list[int]:
        return versions((batch.x, batch.y, batch.index))

    def _view_versions(self, view: View) -> list[int]:
        weight = view.weight if isinstance(view.weight, Tensor) else None  # it may be a function
        return versions((view.x, view.y, view.origin, view.index, view.radius, weight))


def _is_perturbation(part: Any) -> bool:
    try:
        known = BUILT.get(part)
    except TypeError:
        return False
    return known is not None and known[0] == "perturbation"
