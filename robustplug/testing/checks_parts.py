"""Checks of tasks and models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, get_args
from unittest import SkipTest

import torch
from torch import Tensor, nn

from ..core.protocols import SelfTrained
from ..core.random import isolated, stream, uniform_like
from ..core.types import Batch, Feed, Split, TaskInfo, View, take
from ..errors import DataMissing
from ..plugin.build import build
from ..plugin.component import Use
from ..plugin.traits import Traits, self_trained
from ..recipe.convert import resolve
from .bench import Subject, close, differing, leaves, require
from .checks_views import global_rng_states

# --- tasks


def _task(subject: Subject) -> Any:
    try:
        return subject.build()
    except (DataMissing, FileNotFoundError) as error:
        raise SkipTest(f"the data is missing: {error}") from None


def _feed(task: Any, split: Split = "train", **changes: Any) -> Feed:
    """Return a feed of about five batches."""
    settings = {"batch_size": max(8, math.ceil(task.info.sizes[split] / 5)), "shuffle": True, "augment": True}
    return Feed(**{**settings, **changes})


def _indices(batches: Iterator[Batch]) -> list[int]:
    return [number for batch in batches for number in batch.index.tolist()]


def _equal(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    if len(first) != len(second):
        return False
    return all(
        _same(a.x, b.x) and _same(a.y, b.y) and torch.equal(a.index, b.index)
        for a, b in zip(first, second, strict=True)
    )


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    return bool(first == second)


def epochs_cover_every_sample_once(subject: Subject) -> None:
    """Yield every sample of every split once per epoch, under an index of its own.

    A training epoch that draws from a pool (`info.pool`) has as many samples of it as `info.sizes` says.
    """
    task = _task(subject)
    for split in get_args(Split):
        for shuffle in (True, False):
            if split == "train" and task.info.pool is not None:
                _draws_from_its_pool(task, shuffle)
                continue
            seen = _indices(task.batches(split, _feed(task, split, shuffle=shuffle, augment=False)))
            size = task.info.sizes[split]
            require(
                sorted(seen) == list(range(size)),
                f"{split}: the indices of an epoch are not 0 to {size - 1}, once each",
            )
            require(shuffle or seen == sorted(seen), f"{split}: without shuffling, the indices do not ascend")


def _draws_from_its_pool(task: Any, shuffle: bool) -> None:
    seen = _indices(task.batches("train", _feed(task, shuffle=shuffle, augment=False)))
    size, pool = task.info.sizes["train"], task.info.pool
    require(pool >= max(seen) + 1 and min(seen) >= 0, f"train: the indices are not in 0 to {pool - 1}")
    require(not shuffle or len(seen) == size, f"train: an epoch has {len(seen)} samples, not {size}")


def batches_depend_on_the_feed_alone(subject: Subject) -> None:
    """Repeat an epoch bit for bit, shuffle the next one differently, and use no global generator."""
    task = _task(subject)
    before = global_rng_states()
    first, again = (list(task.batches("train", _feed(task))) for _ in range(2))
    moved = [name for name, state in global_rng_states().items() if state != before[name]]
    require(not moved, f"the batches use the global generator of {', '.join(moved)}")
    require(_equal(first, again), "the same feed yields different batches the second time")
    other = _indices(task.batches("train", _feed(task, epoch=1)))
    require(_indices(iter(first)) != other, "the next epoch has the same order")


def feeds_skip_and_share_out(subject: Subject) -> None:
    """Continue after skipped batches, share each batch among processes, and stop after `samples`."""
    task = _task(subject)
    feed = _feed(task)
    whole = list(task.batches("train", feed))
    rest = list(task.batches("train", _feed(task, skip=1)))
    require(_equal(whole[1:], rest), "skip=1 does not yield the epoch without its first batch")
    ranks = [list(task.batches("train", _feed(task, world=2, rank=rank))) for rank in (0, 1)]
    for batch, *shares in zip(whole, *ranks, strict=False):
        same = all(torch.equal(batch.index[rank::2], share.index) for rank, share in enumerate(shares))
        if task.info.pool is not None:
            # A mixture may share out each of its parts.
            both = torch.cat([share.index for share in shares])
            same = torch.equal(both.sort().values, batch.index.sort().values)
        require(same, "two processes do not receive every other row of each batch")
    few = _indices(task.batches("train", _feed(task, shuffle=False, samples=3)))
    require(few == [0, 1, 2], f"samples=3 yields the samples {few[:8]}, not [0, 1, 2]")


def batches_fit_the_info(subject: Subject) -> None:
    """Yield inputs and labels as `info` describes them, and score outputs per sample."""
    task = _task(subject)
    info = task.info
    batch = next(iter(task.batches("train", _feed(task, batch_size=8))))
    require(batch.index.dtype == torch.int64 and batch.index.dim() == 1, "indices must be int64 (N,)")
    if info.shape is not None:
        require(
            tuple(batch.x.shape[1:]) == info.shape,
            f"inputs have shape {tuple(batch.x.shape[1:])}, not {info.shape}",
        )
        legal = batch.x.dtype == torch.float32 and bool(((batch.x >= 0) & (batch.x <= 1)).all())
        require(legal or len(info.shape) != 3, "images must be float32 in [0, 1]")
    if info.classes is None:
        return
    labels = batch.y if batch.y.dim() == 1 else batch.y.argmax(1)
    require(
        int(labels.min()) >= 0 and int(labels.max()) < info.classes,
        f"labels are not in 0 to {info.classes - 1}",
    )
    outputs = torch.nn.functional.one_hot(labels, info.classes).float()
    for name, output, expected in (("right", outputs, True), ("wrong", -outputs, False)):
        right = task.score(View.of(batch), output)
        shape = right.dtype == torch.bool and right.shape == (len(batch),)
        require(shape, f"score must return bool (N,), not {right.dtype} {tuple(right.shape)}")
        require(
            bool((right == expected).all()),
            f"score counts {name} outputs as {'wrong' if expected else 'right'}",
        )


def default_model_fits(subject: Subject) -> None:
    """Have a default model that accepts the task's inputs."""
    task = _task(subject)
    with isolated(0):
        model = build(resolve(Use(task.default_model), "model"), "model", info=task.info).eval()
    batch = next(iter(task.batches("test", _feed(task, "test", batch_size=2))))
    with torch.no_grad():
        outputs = model(batch.x)
    fits = task.info.outputs is None or outputs.shape == (len(batch), task.info.outputs)
    shapes = [tuple(leaf.shape) for leaf in leaves(outputs)]
    require(fits, f"{task.default_model} returns outputs of shape {shapes}")


TASK_CHECKS = (
    epochs_cover_every_sample_once,
    batches_depend_on_the_feed_alone,
    feeds_skip_and_share_out,
    batches_fit_the_info,
    default_model_fits,
)

# --- models

_INFO = TaskInfo(
    sizes={"train": 8, "validation": 8, "test": 8},
    shape=(3, 32, 32),
    classes=10,
    mean=(0.5, 0.4, 0.3),
    std=(0.25, 0.2, 0.3),
)


def _model(subject: Subject, seed: int = 0) -> nn.Module:
    task = subject.own_task()
    try:
        with isolated(seed):
            model: nn.Module = subject.build(info=_INFO if task is None else task.info)
    except ImportError as error:
        raise SkipTest(f"a library is missing: {error}") from None
    return model


def _inputs(subject: Subject, size: int) -> Any:
    """Return inputs of the model's first task, or images."""
    task = subject.own_task()
    return _images(size) if task is None else next(iter(task.batches("train", Feed(batch_size=size)))).x


def _trained_model(subject: Subject, seed: int = 0) -> nn.Module:
    """Return a model as `_model` does; a self-trained one is fitted to classes of different brightness."""
    model = _model(subject, seed)
    if isinstance(model, SelfTrained):
        with isolated(seed):
            model.fit(*_bright_images(), seed)
    return model


def _bright_images() -> tuple[Tensor, Tensor]:
    y = torch.arange(200) % 10
    noise = uniform_like(torch.empty(len(y), 3, 32, 32), stream(0, "bright images"))
    return (y.view(-1, 1, 1, 1) + 0.5 + 0.4 * noise) / 10, y


def _images(size: int) -> Tensor:
    return torch.linspace(0, 1, size * 3 * 32 * 32).view(size, 3, 32, 32)


def model_gives_logits(subject: Subject) -> None:
    """Return finite outputs, for images logits (N, K), that do not depend on the batch in eval mode."""
    model, x = _trained_model(subject).eval(), _inputs(subject, 3)
    images = not subject.tasks
    outputs = model(x.requires_grad_() if images else x)
    require(leaves(outputs), "the outputs contain no tensor")
    require(all(bool(leaf.isfinite().all()) for leaf in leaves(outputs)), "the outputs are not finite")
    if images:
        shape = tuple(outputs.shape)
        require(shape == (3, 10), f"3 images in 10 classes produce outputs of shape {shape}")
    if images and not isinstance(model, SelfTrained):
        (gradient,) = torch.autograd.grad(outputs.sum(), x)
        require(bool(gradient.any()), "no gradient reaches the inputs")
    with torch.no_grad():
        one = model(x[1:2])
    # The outputs of an untrained network may have any magnitude.
    near = 1e-4 * max(float(leaf.detach().abs().max()) for leaf in leaves(outputs))
    same = close(one, take(outputs, torch.tensor([1])), near)
    require(same, "in eval mode, the output of a sample depends on its batch")


def model_can_train(subject: Subject) -> None:
    """Give every parameter a gradient in training mode, or train itself; follow train() and eval()."""
    model = _model(subject)
    require(model.training, "a new model must be in training mode")
    if isinstance(model, SelfTrained):
        _learns(subject, model)
    else:
        with isolated(0):
            outputs = leaves(model(_inputs(subject, 4)))
            torch.autograd.backward(sum((leaf.square().sum() for leaf in outputs), torch.zeros(())))
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        require(not missing, f"no gradient reaches {', '.join(missing)}")
    model.eval()
    left = [name for name, module in model.named_modules() if module.training]
    require(not left, f"eval() leaves {', '.join(left)} in training mode")


def _learns(subject: Subject, model: nn.Module) -> None:
    assert isinstance(model, SelfTrained)
    traits = subject.component.traits
    if not isinstance(traits, Traits):
        traits = traits(resolve(Use(subject.name, dict(subject.table)), "model").options)
    missing = self_trained().needs.keys() - traits.needs.keys()
    require(not missing, "the model trains itself: declare the component with traits=self_trained()")
    x, y = _bright_images()
    rows = torch.nn.functional.one_hot(y, 10).float()
    before = global_rng_states()
    for labels, what in ((rows, "rows (N, K)"), (y, "class numbers (N,)")):
        model.fit(x, labels, 0)
        share = float((model(x).argmax(1) == y).float().mean())
        require(
            share > 0.5,
            f"after fit with labels as {what}, only {share:.0%} of the samples of 10 easy classes are right",
        )
    moved = [name for name, state in global_rng_states().items() if state != before[name]]
    require(not moved, f"fit uses the global generator of {', '.join(moved)}")


def same_seed_gives_the_same_weights(subject: Subject) -> None:
    """Draw initial weights only from the global generator, which the caller seeds."""
    model = _trained_model(subject)
    first, second = model.state_dict(), _trained_model(subject).state_dict()
    changed = differing(first, second)
    require(not changed, f"two models with the same seed differ in {', '.join(changed)}")
    # A self-trained model may draw nothing.
    other = isinstance(model, SelfTrained) or differing(first, _model(subject, 1).state_dict())
    require(other, "another seed produces the same weights")


def weights_round_trip(subject: Subject) -> None:
    """Save the weights as safetensors and load them into a new model."""
    from safetensors.torch import load, save

    model = _trained_model(subject).eval()
    own = model.state_dict()
    data = save({key: value.detach().clone().contiguous() for key, value in own.items()})
    other = _model(subject, 1).eval()
    other.load_state_dict(load(data))
    changed = differing(own, other.state_dict())
    require(not changed, f"safetensors do not restore {', '.join(changed)}")
    inputs = _inputs(subject, 3)
    with torch.no_grad():
        pairs = zip(leaves(model(inputs)), leaves(other(inputs)), strict=True)
        same = all(torch.equal(*pair) for pair in pairs)
    require(same, "after saving and loading, the model returns other outputs")


MODEL_CHECKS = (model_gives_logits, model_can_train, same_seed_gives_the_same_weights, weights_round_trip)
