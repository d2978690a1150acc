"""Checks of the generation of views and of one update: for methods, and for slots in a plain method."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import SkipTest, mock

import numpy as np
import torch
from torch import Tensor, nn

from ..core.calling.meter import Meter
from ..core.random import isolated
from ..core.step import Step
from ..core.types import Cost
from ..training.loop import views_of
from .bench import Bench, Subject, differing, require, rows_of, skip_unless
from .checks_syncs import updates_need_no_host
from .toys import toy_plain

# So large that only the range of the inputs bounds a perturbation.
LARGE = 0.7


def views_stay_in_the_vicinity(subject: Subject) -> None:
    """Generate only legal views, each sample within its own radius and all pixels in [0, 1]."""
    for eps in (None, LARGE):
        bench = Bench(subject, eps=eps)
        for step in bench.steps():
            for view in bench.update(step):
                vicinity = bench.method.vicinity
                legal = vicinity.contains(view.x.detach(), view.origin, step.radii(view, vicinity))
                require(
                    legal.all(),
                    f'{int((~legal).sum())} of {len(view)} samples of the view "{view.role}" are outside '
                    f"the vicinity (eps {vicinity.eps:g}) in update {step.progress.update}",
                )


def radius_zero_changes_nothing(subject: Subject) -> None:
    """Leave samples of radius 0 exactly unchanged."""
    for eps in (None, 0.0):
        bench = Bench(subject, eps=eps)
        measured = not subject.tasks or bench.method.vicinity.norm is not None
        skip_unless(measured, "the vicinity has no norm")
        for step in bench.steps(1):
            for view in bench.update(step):
                still = step.radii(view, bench.method.vicinity) == 0
                same = torch.equal(view.x.detach()[still], view.origin[still])
                require(same, f'the view "{view.role}" changes samples of radius 0')


def inputs_are_left_alone(subject: Subject) -> None:
    """Leave the tensors of the batch unchanged."""
    bench = Bench(subject)
    for step in bench.steps(1):
        before = {"x": step.batch.x.clone(), "y": step.batch.y.clone(), "index": step.batch.index.clone()}
        bench.update(step)
        changed = differing(before, {"x": step.batch.x, "y": step.batch.y, "index": step.batch.index})
        require(not changed, f"an update changes batch.{', batch.'.join(changed)} in place")


@dataclass(frozen=True)
class _ModelState:
    flags: Mapping[str, bool]
    requires_grad: Mapping[str, bool]
    grads: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]

    @classmethod
    def of(cls, bench: Bench) -> _ModelState:
        parameters = dict(bench.model.named_parameters())
        return cls(
            {name: module.training for name, module in bench.model.named_modules()},
            {name: parameter.requires_grad for name, parameter in parameters.items()},
            {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None},
            {name: value.clone() for name, value in bench.model.state_dict().items()},
        )

    def require_same(self, now: _ModelState, when: str) -> None:
        changes = {
            "train flags": sorted(name for name in self.flags if self.flags[name] != now.flags.get(name)),
            "requires_grad": sorted(
                name for name in self.requires_grad if self.requires_grad[name] != now.requires_grad.get(name)
            ),
            ".grad": differing(self.grads, now.grads),
            "weights and buffers": differing(self.weights, now.weights),
        }
        text = "; ".join(
            f"{what} of {', '.join(name or 'the model' for name in names)}"
            for what, names in changes.items()
            if names
        )
        require(not text, f"{when}, these differ from before: {text}; use step.attack_mode and step.gradient")


def _unusual(bench: Bench) -> None:
    """Put the model in a state that no blanket train() or requires_grad_() restores."""
    leaves = [module for module in bench.model.modules() if not list(module.children())]
    for module in leaves[::2]:
        module.eval()
    first, *others = bench.model.parameters()
    first.requires_grad_(False)
    for parameter in others[::2]:
        parameter.grad = torch.full_like(parameter, 0.5)


def model_is_restored_after_views(subject: Subject) -> None:
    """Restore train flags, requires_grad, .grad, weights and buffers after generating the views."""
    bench = Bench(subject)
    _unusual(bench)
    before = _ModelState.of(bench)
    bench.views(bench.step(bench.batch()))
    before.require_same(_ModelState.of(bench), "after the views were generated")


class _Boom(RuntimeError):
    """The error that the model raises."""


def model_is_restored_after_an_error(subject: Subject) -> None:
    """Restore the model and propagate the error, at least as a cause, if the model raises in an attack."""
    for fail_at in _some(_count_forwards(subject)):
        bench = Bench(subject)
        _unusual(bench)
        seen = 0

        def fail(*_: Any, at: int = fail_at) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                raise _Boom(f"forward {at}")

        before = _ModelState.of(bench)
        handle = bench.model.register_forward_hook(fail)
        raised = False
        try:
            bench.views(bench.step(bench.batch()))
        except Exception as error:  # the attack may wrap the error
            raised = _caused_by_boom(error)
            if not raised:
                raise
        handle.remove()
        require(raised, f"an error of the model in forward {fail_at} is swallowed")
        before.require_same(_ModelState.of(bench), f"after an error in forward {fail_at}")


def _caused_by_boom(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, _Boom) or _caused_by_boom(error.__cause__))


def _count_forwards(subject: Subject) -> int:
    bench, count = Bench(subject), 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1

    bench.model.register_forward_hook(note)
    bench.views(bench.step(bench.batch()))
    return count


def _some(count: int) -> list[int]:
    if not count:
        raise SkipTest("the views are generated without a forward")
    return sorted({1, (count + 1) // 2, count})


def global_rng_states() -> dict[str, Any]:
    """Return the state of the global generators of torch, numpy and Python."""
    _, keys, position, *_ = np.random.get_state()
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": (np.asarray(keys).tolist(), position),
        "random": random.getstate(),
    }


def global_rng_is_untouched(subject: Subject) -> None:
    """Draw only from `step.rng`, never from the global generators."""
    bench = Bench(subject, toy_plain)
    for step in bench.steps(1):
        before = global_rng_states()
        bench.update(step)
        moved = [name for name, state in global_rng_states().items() if state != before[name]]
        require(not moved, f"an update uses the global generator of {', '.join(moved)}; draw from step.rng")


def same_seed_gives_the_same_bits(subject: Subject) -> None:
    """Repeat a run bit for bit, regardless of the state of the global generator."""
    runs = []
    for global_seed in (1, 2):
        bench, seen = Bench(subject, toy_plain), []
        with isolated(global_seed):
            for step in bench.steps(1):
                views = bench.update(step)
                seen.append([view.x.detach() for view in views])
        runs.append((seen, bench.tensors()))
    (first, weights), (second, again) = runs
    equal = all(len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in zip(first, second, strict=True))
    require(equal, "two runs with the same seed generate different views")
    changed = differing(weights, again)
    require(not changed, f"two runs with the same seed end with different {', '.join(changed)}")


def batches_of_any_size_work(subject: Subject) -> None:
    """Accept batches of one sample, of fewer samples than before, and of more."""
    bench = Bench(subject, toy_plain)
    batch = bench.batch()
    for size in (3, 1, 8, 5):
        part = rows_of(batch, torch.arange(size))
        for pass_ in bench.passes(bench.step(part).progress):
            step = bench.step(part, pass_)
            for view in bench.update(step):
                lengths = {len(view.x), len(view.y), len(view.index), len(view.origin)}
                require(
                    len(lengths) == 1,
                    f'the view "{view.role}" of a batch of {size} has fields of lengths {lengths}',
                )


def cost_is_as_declared(subject: Subject) -> None:
    """Use exactly the forwards and backwards per sample that the method declares for a batch."""
    bench = Bench(subject)
    declared = bench.method.cost()
    skip_unless(declared.known, "the cost depends on the data")
    spent: dict[tuple[int, int], Cost] = {}
    for step in bench.steps():
        bench.update(step)
        key, rows = (step.progress.epoch, step.progress.batch), len(step.batch)
        here = Cost(step.meter.forwards / rows, step.meter.backwards / rows)
        spent[key] = spent.get(key, Cost(0, 0)) + here
    # Some batches may cost less while a method warms up.
    real = Cost(max(c.forwards for c in spent.values()), max(c.backwards for c in spent.values()))
    require(
        abs(real.forwards - declared.forwards) < 1e-6 and abs(real.backwards - declared.backwards) < 1e-6,
        f"a batch costs {real.forwards:g} forwards and {real.backwards:g} backwards per sample, "
        f"but cost() returns {declared.forwards:g} and {declared.backwards:g}",
    )


def loss_cost_is_as_declared(subject: Subject) -> None:
    """Use exactly the forwards and backwards per sample that `loss_cost` declares for the loss of a pass."""
    bench = Bench(subject)
    skip_unless(bench.method.cost().known, "the cost depends on the data")
    most = Cost(0, 0)
    for step in bench.steps():
        views = views_of(bench.method, step)
        step.meter, rows = Meter(), len(step.batch)
        with bench.optimizers.updating(step.pass_.update), step.rehearsal():
            held = (*bench.model.parameters(), *bench.method.state.parameters())
            learned = [weight for weight in held if weight.requires_grad]
            step.weight_gradients(step.total(views), learned)
        # As for cost(): some may cost less while a method warms up.
        most = Cost(
            max(most.forwards, step.meter.forwards / rows), max(most.backwards, step.meter.backwards / rows)
        )
    spent, declared = most, bench.method.loss_cost()
    require(
        max(abs(a - b) for a, b in zip(spent, declared, strict=True)) < 1e-6,
        f"the loss costs {spent.forwards:g} forwards and {spent.backwards:g} backwards per sample, but "
        f"loss_cost() returns {declared.forwards:g} and {declared.backwards:g}",
    )


def calls_go_through_the_step(subject: Subject) -> None:
    """Call the model only through `step.forward`, so that every forward is counted."""
    bench, rows = Bench(subject, toy_plain), 0

    def note(_: nn.Module, args: tuple[Tensor, ...], __: Any) -> None:
        nonlocal rows
        rows += len(args[0])

    bench.model.register_forward_hook(note)
    for step in bench.steps(1):
        rows = 0
        with _rows_forwarded() as counted:
            bench.update(step)
        require(
            rows == counted(), f"the model received {rows} rows, but {counted()} of them through step.forward"
        )


@contextlib.contextmanager
def _rows_forwarded() -> Iterator[Callable[[], int]]:
    """Count the rows that steps, including a method's own, send through their model only."""
    forward, rows = Step.forward, 0

    def count(step: Step, x: Any, variant: Any = None, module: nn.Module | None = None) -> Any:
        nonlocal rows
        before = step.meter.forwards
        output = forward(step, x, variant, module)
        rows += step.meter.forwards - before if module is None or module is step.model else 0
        return output

    with mock.patch.object(Step, "forward", count):
        yield lambda: rows


UPDATE_CHECKS = (
    inputs_are_left_alone,
    global_rng_is_untouched,
    same_seed_gives_the_same_bits,
    batches_of_any_size_work,
    calls_go_through_the_step,
    updates_need_no_host,
)
VIEW_CHECKS = (
    views_stay_in_the_vicinity,
    radius_zero_changes_nothing,
    model_is_restored_after_views,
    model_is_restored_after_an_error,
    cost_is_as_declared,
    loss_cost_is_as_declared,
    *UPDATE_CHECKS,
)
