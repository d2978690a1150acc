"""Checks of training a method: gradients, memory, checkpoints, export."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from unittest import SkipTest

import torch
from torch import Tensor

from ..core.step import Step
from ..core.types import View
from ..runs.checkpoint import Checkpoint
from ..training.session import Session
from .bench import Bench, Subject, close, differing, leaves, require, rows_of, skip_unless
from .toys import toy_linear, toy_plain


def gradients_reach_the_declared_groups(subject: Subject) -> None:
    """Update only the parameters of a pass's groups, and give each group a gradient."""
    bench = Bench(subject)
    groups = {
        name: [p for entry in optim.param_groups for p in entry["params"]]
        for name, optim in bench.optimizers.by_name.items()
    }
    reached: set[str] = set()
    for step in bench.steps():
        unknown = set(step.pass_.update) - set(groups)
        require(
            not unknown,
            f'the pass "{step.pass_.name}" updates {sorted(unknown)}, which setup does not declare',
        )
        updated = {id(p) for name in step.pass_.update for p in groups[name]}
        watched = dict(bench.model.named_parameters(prefix="model"))
        state = bench.method.state.named_parameters(prefix="state")
        watched |= {name: p for name, p in state if p.requires_grad}
        outside = {name: p for name, p in watched.items() if id(p) not in updated}
        before = {name: p.detach().clone() for name, p in outside.items()}
        bench.update(step)
        moved = differing(before, {name: p.detach() for name, p in outside.items()})
        require(
            not moved, f'the pass "{step.pass_.name}" changes {", ".join(moved)}, which it does not declare'
        )
        for name in step.pass_.update:
            grads = [p.grad for p in groups[name] if p.grad is not None]
            require(
                all(bool(g.isfinite().all()) for g in grads), f'the group "{name}" has an infinite gradient'
            )
            if any(bool(g.any()) for g in grads):
                reached.add(name)
    left = sorted(set(groups) - reached)
    require(not left, f"no pass updates the declared groups {', '.join(left)} with a gradient")


def mechanism_is_measured(subject: Subject) -> None:
    """Measure by finite numbers of at least 0 whether the method is at work."""
    bench = Bench(subject)
    for step in bench.steps(1):
        views = bench.update(step)
        with torch.no_grad():
            found = bench.method.mechanism(step, views)
        for name, values in found.items():
            require(
                isinstance(values, Tensor) and values.is_floating_point() and values.numel() > 0,
                f'mechanism gives "{name}" as {type(values).__name__}: it must be a tensor of real numbers',
            )
            require(
                bool(values.isfinite().all()) and bool((values >= 0).all()),
                f'mechanism gives "{name}" values below 0 or not finite: 0 means that it was not at work',
            )


def memory_is_keyed_by_index(subject: Subject) -> None:
    """Write per-sample memory only at the batch's indices, and read it for the right samples."""
    bench = Bench(subject, toy_plain)
    memories = list(bench.method.state.memories())
    if not memories:
        raise SkipTest("the method has no per-sample memory")
    for step in bench.steps(1):
        before = [memory.values.clone() for memory in memories]
        bench.update(step)
        outside = torch.ones(len(memories[0].values), dtype=torch.bool)
        outside[step.batch.index] = False
        for memory, old in zip(memories, before, strict=True):
            same = torch.equal(memory.values[outside], old[outside])
            require(same, "a step writes the memory of samples outside its batch")
    plain, other_noise, permuted = (
        _memory_after(subject, *case) for case in ((0, False), (1, False), (0, True))
    )
    # If the memory depends on noise, another order of the rows draws other noise for each sample.
    if torch.equal(plain, other_noise):
        close = torch.allclose(plain, permuted, atol=1e-5)
        require(close, "another order of the same batch changes the memory of its samples")


def _memory_after(subject: Subject, noise: int, reverse: bool) -> Tensor:
    """Return all memories after a batch, starting from a different value for each sample."""
    bench = Bench(subject, toy_plain)
    bench.updates_done = noise
    for memory in bench.method.state.memories():
        size = len(memory.values)
        memory.write(torch.arange(size), torch.linspace(0.1, 0.9, size) * float(bench.method.vicinity.eps))
    batch = bench.batch()
    if reverse:
        batch = rows_of(batch, torch.arange(len(batch)).flip(0))
    for pass_ in bench.passes(bench.step(batch).progress):
        bench.update(bench.step(batch, pass_))
    return torch.stack([memory.values.clone() for memory in bench.method.state.memories()])


def _checkpoint(session: Session) -> Checkpoint:
    """Take a checkpoint and pass it through the bytes of its files."""
    from safetensors.torch import load, save

    tensors, meta = session.capture()
    return Checkpoint(session.name, load(save(tensors)), json.loads(json.dumps(meta)))


def state_round_trips(subject: Subject) -> None:
    """Capture everything in a checkpoint and restore it into fresh objects."""
    bench = Bench(subject)
    session = bench.session()
    bench.run(session, lambda: None)
    saved = _checkpoint(session)
    fresh = Bench(subject)
    other = fresh.session()
    other.restore(saved)
    again = _checkpoint(other)
    changed = differing(saved.tensors, again.tensors)
    require(not changed, f"a checkpoint does not restore {', '.join(changed)}")
    keys = [key for key in saved.meta if key != "seconds" and saved.meta[key] != again.meta.get(key)]
    require(not keys, f"a checkpoint does not restore {', '.join(keys)}")


def resume_is_bitwise(subject: Subject) -> None:
    """Resume after any batch and end with the same bits as an uninterrupted run."""
    whole = Bench(subject)
    session, checkpoints = whole.session(), []
    whole.run(session, lambda: checkpoints.append(_checkpoint(session)))
    *before, last = checkpoints
    for saved in before:
        bench = Bench(subject)
        resumed = bench.session()
        resumed.restore(saved)
        bench.run(resumed, lambda: None)
        changed = differing(last.tensors, _checkpoint(resumed).tensors)
        require(not changed, f"resumed from {saved.name}, the run ends with different {', '.join(changed)}")


def export_agrees_with_g(subject: Subject) -> None:
    """Export a plain module that returns the outputs of clean views, and leave the model unchanged."""
    bench = Bench(subject)
    for step in bench.steps():
        bench.update(step)
    model, x = bench.model, bench.batch().x
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    copied = bench.method.export(copy.deepcopy(model)).eval()
    exported = bench.method.export(model)
    changed = differing(before, model.state_dict())
    require(not changed, f"export changes {', '.join(changed)} of the model")
    same = flags == [module.training for module in model.modules()]
    require(same, "export changes the train flags of the model")
    with torch.no_grad():
        outputs = exported.eval()(x)
        model.eval()
        step = bench.step(bench.batch())
        g = step.output(View.of(step.batch))
        from_copy = copied(x)
    shapes = [leaf.shape for leaf in leaves(g)]
    require(
        shapes and [leaf.shape for leaf in leaves(outputs)] == shapes,
        "the exported module returns outputs of another shape than g",
    )
    require(close(outputs, g, 1e-5), "the exported module and g return different outputs for clean views")
    require(close(from_copy, g, 1e-5), "the export of a copy of the model returns other outputs")


def views_do_not_lower_the_objective(subject: Subject) -> None:
    """Generate views whose loss is not below that of their origins."""
    skip_unless(not subject.tasks, "only for images is it defined which sample is stronger")
    bench = Bench(subject, toy_linear)
    step = bench.step(bench.batch())
    views = bench.views(step)
    before = step.rng.get_state()
    attacked = _total(step, views)
    step.rng.set_state(before)
    clean = _total(step, [view.replace(x=view.origin) for view in views])
    require(
        attacked >= clean - 0.01 * (1 + abs(clean)),
        f"the loss of the views is {attacked:.4g}, but {clean:.4g} at their origins",
    )


def _total(step: Step, views: Sequence[View]) -> float:
    with torch.no_grad():
        return float(step.total(views))


TRAINING_CHECKS = (state_round_trips, resume_is_bitwise)
METHOD_CHECKS = (
    gradients_reach_the_declared_groups,
    mechanism_is_measured,
    memory_is_keyed_by_index,
    *TRAINING_CHECKS,
    export_agrees_with_g,
    views_do_not_lower_the_objective,
)
