"""Optimizers of a method's parameter groups, and their learning rates and momenta over updates."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.protocols import Rate, Schedule, UpdateSchedule, rate_at
from ..core.types import Progress
from ..errors import Refused
from ..plugin.component import Use
from ..plugin.host import registry
from ..recipe.errors import Problem, RecipeError

if TYPE_CHECKING:
    from ..core.types import ParamGroup, Pass
    from ..recipe.options import OptimizerGroup


# The optimizers whose steps graphs can hold, since they take learning rates from tensors; a class that is
# derived from one of them may do anything else.
CAPTURABLE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


def progress_at(moment: float, epochs: int, batches: int) -> Progress:
    """Return the last update before a moment, in a run with one update for each batch."""
    update = max(0, min(int(moment * batches), epochs * batches - 1))
    epoch, batch = divmod(update, batches)
    return Progress(epoch, epochs, batch, batches, update, epochs * batches)


class Optimizers:
    """Hold one torch optimizer for each parameter group of a method.

    Args:
        groups: parameter groups from the method's setup. A parameter in several groups belongs to the last
            one. Hence parameters that a method adds inside the model leave the model's group.
        optimizer: resolved reference to the recipe's optimizer.
        schedule: factor of every learning rate, and perhaps the momentum.
        clip_grad_norm: largest gradient norm of an update; None for no bound.
        parts: parts of the model with a learning rate or a weight decay of their own, whatever group they
            are in; see `subjects.tuning.grouped`.

    Raises:
        ValueError: two groups share a name.
        RecipeError: the optimizer cannot train the parameters, a part has none that is trained, or the
            optimizer has no weight decay.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        optimizer: Use,
        schedule: Schedule | UpdateSchedule,
        clip_grad_norm: float | None = None,
        parts: Sequence[tuple[OptimizerGroup, Sequence[nn.Parameter]]] = (),
    ) -> None:
        names = [group.name for group in groups]
        if len(set(names)) != len(names):
            raise ValueError(f"parameter groups must have different names, not {', '.join(names)}")
        owner = {parameter: group.name for group in groups for parameter in group.params}
        factory = registry().get("optimizer", optimizer.name).load()
        self._built = functools.partial(factory, optimizer.options)
        self.schedule, self.clip_grad_norm = schedule, clip_grad_norm
        self._momentum_is_set = False
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
                continue
            try:
                self.by_name[group.name] = self._built(params=params, **changes)
            except Refused as reason:
                raise RecipeError([Problem("optimizer", str(reason))], "recipe") from reason
        for number, (part, chosen) in enumerate(parts):
            if not any(divide(optim, part, chosen, number) for optim in self.by_name.values()):
                why = "names no parameter that is trained"
                raise RecipeError([Problem(f"optimizer.groups.{number}.params", why)], "recipe")
        for optim in self.by_name.values():
            optim.param_groups[:] = [entry for entry in optim.param_groups if entry["params"]]
        self.base_lr = {
            name: [entry["lr"] for entry in optim.param_groups] for name, optim in self.by_name.items()
        }

    def parameters(self) -> Iterable[nn.Parameter]:
        """Yield all parameters of all groups."""
        for optim in self.by_name.values():
            for entry in optim.param_groups:
                yield from entry["params"]

    @functools.cached_property
    def settings(self) -> Mapping[str, Any]:
        """Return the settings of the recipe's optimizer, such as "lr" and "momentum"."""
        (entry,) = self._built(params=[nn.Parameter(torch.zeros(1, 1))], maximize=False).param_groups
        return {name: value for name, value in entry.items() if name != "params"}

    def rate(self, progress: Progress) -> Rate:
        """Return the rate of an update.

        Raises:
            Refused: the schedule does not fit the optimizer.
        """
        settings = self.settings if isinstance(self.schedule, UpdateSchedule) else {}
        rate = rate_at(self.schedule, progress, settings)
        if rate.momentum is not None and not {"betas", "momentum"} & settings.keys():
            raise Refused("the schedule sets the momentum, but the optimizer has none: choose another one")
        return rate

    def factor(self, moment: float, epochs: int, batches: int) -> float:
        """Return the factor of the learning rate at a moment of a run with one update for each batch."""
        if isinstance(self.schedule, UpdateSchedule):
            return self.rate(progress_at(moment, epochs, batches)).factor
        return self.schedule(moment, epochs)

    def set_rates(self, progress: Progress) -> float:
        """Set all learning rates and momenta for an update, and return the first learning rate.

        A group with an optimizer of its own that has no momentum keeps its settings.

        Raises:
            Refused: the schedule does not fit the optimizer.
        """
        rate = self.rate(progress)
        self._momentum_is_set = rate.momentum is not None
        for name, optim in self.by_name.items():
            for entry, base in zip(optim.param_groups, self.base_lr[name], strict=True):
                if isinstance(entry["lr"], Tensor):
                    entry["lr"].fill_(base * rate.factor)
                else:
                    entry["lr"] = base * rate.factor
                if rate.momentum is not None and "betas" in entry:
                    entry["betas"] = (rate.momentum, *entry["betas"][1:])
                elif rate.momentum is not None and "momentum" in entry:
                    entry["momentum"] = rate.momentum
        return float(next(iter(self.base_lr.values()))[0] * rate.factor)

    def rates_on(self, device: torch.device, dtype: torch.dtype) -> None:
        """Keep learning rates in tensors, where a graph of an update reads them anew in every replay.

        Those of optimizers that cannot take them from there stay numbers. On CUDA every run uses such
        tensors, captured or not, since its kernels round them to float32.

        Args:
            device: device of the parameters.
            dtype: type of the rates, float64 where they must stay what they are.
        """
        for optim in self.by_name.values():
            for entry in optim.param_groups:
                if device.type == "cuda":
                    make_capturable(optim, entry)
                if type(optim) in CAPTURABLE and (entry["fused"] or entry.get("capturable")):
                    entry["lr"] = torch.tensor(float(entry["lr"]), dtype=dtype, device=device)

    @property
    def in_graphs(self) -> bool:
        """Return whether a graph of an update may hold `step`: it reads what changes from tensors."""
        entries = [entry for optim in self.by_name.values() for entry in optim.param_groups]
        return not self._momentum_is_set and all(isinstance(entry["lr"], Tensor) for entry in entries)

    def numbers(self) -> tuple[tuple[str, Hashable], ...]:
        """Return what a graph that holds `step` takes from Python, and not from tensors."""
        return tuple(
            (key, tuple(value) if isinstance(value, list) else value)
            for optim in self.by_name.values()
            for entry in optim.param_groups
            for key, value in entry.items()
            if key != "params" and not isinstance(value, Tensor)
        )

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
        """Restore what `state` returned; each tensor takes its parameter's layout.

        Raises:
            ValueError: it is the state of other optimizers.
        """
        for name, optim in self.by_name.items():
            params = [p for entry in optim.param_groups for p in entry["params"]]
            if not state.get(name, {-1: {}}).keys() <= set(range(len(params))):
                raise ValueError(f'it holds no state of the optimizer "{name}", or that of other parameters')
            _check_alike(state[name].values())
            loaded = {
                number: {key: _like(value, params[number]) for key, value in entry.items()}
                for number, entry in state[name].items()
            }
            optim.load_state_dict({**optim.state_dict(), "state": loaded})


def make_capturable(optim: torch.optim.Optimizer, entry: dict[str, Any]) -> None:
    """Let an optimizer's update be captured in a CUDA graph, where torch offers that."""
    if type(optim) is torch.optim.SGD:
        fusable = not entry["differentiable"] and all(p.is_floating_point() for p in entry["params"])
        entry["fused"] = entry["fused"] or fusable
        entry["foreach"] = None if entry["fused"] else entry["foreach"]
    elif type(optim) in CAPTURABLE:
        entry["capturable"] = True
        # torch warns of what is meant here: the updates without a graph.
        vars(optim)["_warned_capturable_if_run_uncaptured"] = True


def divide(
    optim: torch.optim.Optimizer, part: OptimizerGroup, params: Sequence[nn.Parameter], number: int
) -> bool:
    """Give some parameters of an optimizer options of their own; return whether it has any of them.

    Raises:
        RecipeError: the optimizer has no weight decay.
    """
    chosen = {id(parameter) for parameter in params}
    # Later groups are already apart: the first entry has what no earlier part took.
    first = optim.param_groups[0]
    mine = [parameter for parameter in first["params"] if id(parameter) in chosen]
    if not mine:
        return False
    if part.weight_decay is not None and "weight_decay" not in first:
        why = f"{type(optim).__name__} has no weight decay: leave it out"
        raise RecipeError([Problem(f"optimizer.groups.{number}.weight_decay", why)], "recipe")
    own = {"lr": part.lr, "weight_decay": part.weight_decay}
    first["params"] = [parameter for parameter in first["params"] if id(parameter) not in chosen]
    changes = {key: value for key, value in own.items() if value is not None}
    optim.add_param_group({**first, **changes, "params": mine})
    return True


def _check_alike(entries: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a state in which an entry of one parameter is a tensor, and that of another is not.

    Raises:
        ValueError: it is such a state, or holds something else than tensors and numbers.
    """
    tensors: dict[str, bool] = {}
    for key, value in (item for entry in entries for item in entry.items()):
        if value is None:
            continue
        if not isinstance(value, Tensor | int | float):
            raise ValueError(f"the optimizer's {key} is no tensor and no number")
        if tensors.setdefault(key, isinstance(value, Tensor)) != isinstance(value, Tensor):
            raise ValueError(f"the optimizer's {key} is a tensor for one parameter, and none for another")


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
