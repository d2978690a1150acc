"""Optimizers of a method's parameter groups, and the learning rate over updates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..plugin.component import Use
from ..plugin.host import registry

if TYPE_CHECKING:
    from ..core.protocols import Schedule
    from ..core.types import ParamGroup, Pass


class Optimizers:
    """Hold one torch optimizer for each parameter group of a method.

    Args:
        groups: parameter groups from the method's setup. A parameter in several groups belongs to the last
            one. Hence parameters that a method adds inside the model leave the model's group.
        optimizer: resolved reference to the recipe's optimizer.
        schedule: factor of every learning rate.
        clip_grad_norm: largest gradient norm of an update; None for no bound.

    Raises:
        ValueError: two groups share a name.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        optimizer: Use,
        schedule: Schedule,
        clip_grad_norm: float | None = None,
    ) -> None:
        names = [group.name for group in groups]
        if len(set(names)) != len(names):
            raise ValueError(f"parameter groups must have different names, not {', '.join(names)}")
        owner = {parameter: group.name for group in groups for parameter in group.params}
        factory = registry().get("optimizer", optimizer.name).load()
        self.schedule, self.clip_grad_norm = schedule, clip_grad_norm
        self.always = frozenset(group.name for group in groups if group.always)
        self.by_name: dict[str, torch.optim.Optimizer] = {}
        for group in groups:
            params = [p for p in group.params if owner[p] == group.name]
            changes: dict[str, Any] = {"maximize": group.maximize}
            if group.lr is not None:
                changes["lr"] = group.lr
            if not params:
                raise ValueError(f'parameter group "{group.name}" is empty')
            if group.optimizer is not None:
                self.by_name[group.name] = group.optimizer(params, **changes)
            else:
                self.by_name[group.name] = factory(optimizer.options, params=params, **changes)
        self.base_lr = {
            name: [entry["lr"] for entry in optim.param_groups] for name, optim in self.by_name.items()
        }

    def parameters(self) -> Iterable[nn.Parameter]:
        """Yield all parameters of all groups."""
        for optim in self.by_name.values():
            for entry in optim.param_groups:
                yield from entry["params"]

    def set_lr(self, epoch: float, epochs: int) -> float:
        """Set all learning rates for a (fractional) epoch and return the first."""
        factor = self.schedule(epoch, epochs)
        for name, optim in self.by_name.items():
            for entry, base in zip(optim.param_groups, self.base_lr[name], strict=True):
                entry["lr"] = base * factor
        return next(iter(self.by_name.values())).param_groups[0]["lr"]  # type: ignore[no-any-return]

    def complete(self, passes: Sequence[Pass]) -> Sequence[Pass]:
        """Add to each pass the groups that are updated without being named; see ParamGroup.always."""
        named = frozenset[str]().union(*(pass_.update for pass_ in passes))
        extra = self.always - named
        if not extra:
            return passes
        return [replace(pass_, update=pass_.update | extra) for pass_ in passes]

    @contextlib.contextmanager
    def updating(self, update: Iterable[str]) -> Iterator[None]:
        """Freeze all parameters outside the named groups for a block: their gradients would cost time."""
        others = [optim for name, optim in self.by_name.items() if name not in set(update)]
        frozen = [
            parameter
            for optim in others
            for entry in optim.param_groups
            for parameter in entry["params"]
            if parameter.requires_grad
        ]
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def zero_grad(self) -> None:
        """Discard all gradients."""
        for optim in self.by_name.values():
            optim.zero_grad(set_to_none=True)

    def step(self, update: Iterable[str]) -> None:
        """Update the named groups, in the order of their declaration.

        Raises:
            KeyError: a name is not that of a group.
        """
        chosen = [optim for name, optim in self.by_name.items() if name in set(update)]
        if unknown := set(update) - set(self.by_name):
            raise KeyError(f"a pass updates {sorted(unknown)}, but the groups are {sorted(self.by_name)}")
        for optim in chosen:
            if self.clip_grad_norm is not None:
                params = [p for entry in optim.param_groups for p in entry["params"]]
                torch.nn.utils.clip_grad_norm_(params, self.clip_grad_norm)
            start_momentum(optim)
            optim.step()

    def state(self) -> dict[str, Any]:
        """Return the state of all optimizers, without the hyperparameters that the recipe sets."""
        return {name: optim.state_dict()["state"] for name, optim in self.by_name.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned; each tensor takes its parameter's layout."""
        for name, optim in self.by_name.items():
            params = [p for entry in optim.param_groups for p in entry["params"]]
            loaded = {
                number: {key: _like(value, params[number]) for key, value in entry.items()}
                for number, entry in state[name].items()
            }
            optim.load_state_dict({**optim.state_dict(), "state": loaded})


def _like(value: Any, parameter: Tensor) -> Any:
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return value


def start_momentum(optim: torch.optim.Optimizer) -> None:
    """Start with momentum 0 for SGD parameters that receive their first gradient later than others.

    Passes of one group may reach different parameters. torch's fused SGD needs all momenta or none.
    """
    if not isinstance(optim, torch.optim.SGD):
        return
    for entry in optim.param_groups:
        moved = [p for p in entry["params"] if p.grad is not None]
        new = [p for p in moved if optim.state.get(p, {}).get("momentum_buffer") is None]
        if entry["momentum"] and 0 < len(new) < len(moved):
            for parameter in new:
                optim.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
