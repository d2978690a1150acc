"""Checks of measurements, and of wrappers around the model under test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..core.batches import index_batches
from ..core.calling.meter import Meter
from ..core.guards.models import Kept
from ..core.method import Objective
from ..core.protocols import CERTIFIED_RADIUS, Certificate, Vicinity
from ..core.random import isolated, stream
from ..core.step import Step
from ..core.types import Batch, Feed, View
from ..errors import Refused
from ..plugin.build import build
from ..plugin.component import Use
from ..recipe.convert import resolve
from .bench import BATCH_SIZE, Subject, close, differing, require, rows_of, skip_unless
from .checks_views import global_rng_states
from .toys import ToyTask, toy_linear, toy_plain

_NORMS = {math.inf: "linf", 2.0: "l2"}
# Epochs after which the toy model is right on most samples.
_FITTED = 60


class _Measuring:
    """A measurement on the toy task, with a fitted model and a threat model of its norm."""

    def __init__(self, subject: Subject) -> None:
        own = subject.own_task()
        self.task: Any = own or ToyTask()
        self.measurement: Any = subject.build()
        norm = self.measurement.norm if isinstance(self.measurement, Certificate) else math.inf
        skip_unless(norm in _NORMS, f"the kit has no threat model of norm {norm}")
        self.vicinity: Any = build(resolve(Use(_NORMS[norm], {"eps": 0.05}), "vicinity"), "vicinity")
        loss = build(resolve(Use("ce"), "loss"), "loss")
        self.objective = Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)
        feed = Feed(batch_size=BATCH_SIZE)
        self.batch: Batch = next(iter(self.task.batches("train", feed)))
        self.model = self._fitted()

    def _fitted(self) -> nn.Module:
        """Return the first toy model that the measurement takes, fitted to the batch."""
        refused: Refused | None = None
        for architecture in (toy_plain, toy_linear):
            with isolated(0):
                model = architecture(self.task.info)
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            for _ in range(_FITTED):
                optimizer.zero_grad()
                torch.autograd.backward(nn.functional.cross_entropy(model(self.batch.x), self.batch.y))
                optimizer.step()
            optimizer.zero_grad()
            self.model = model.eval()
            try:
                self(self.batch)
                return self.model
            except Refused as why:
                refused = why
        assert refused is not None
        raise refused

    def step(self, batch: Batch) -> Step:
        step = Step(self.model, self.objective, self.task, batch, stream(0, "kit"), meter=Meter(), seed=7)
        step.evaluating = True
        return step

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        step = self.step(batch)
        with step.attack_mode():
            found: Mapping[str, Tensor] = self.measurement(step, View.of(batch), self.vicinity)
        return found


def measures_numbers_of_each_sample(subject: Subject) -> None:
    """Return named numbers, (N,) each, and of a certificate its radii, at least 0 or else -1."""
    bench = _Measuring(subject)
    found = bench(bench.batch)
    require(isinstance(found, Mapping) and found, "there must be a mapping with at least one measure")
    for name, values in found.items():
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        require(shape == (len(bench.batch),), f'"{name}" must have shape (N,), not {shape}')
    if isinstance(bench.measurement, Certificate):
        require(CERTIFIED_RADIUS in found, f'a certificate returns "{CERTIFIED_RADIUS}"')
        radius = found[CERTIFIED_RADIUS]
        require(bool(((radius >= 0) | (radius == -1)).all()), "a radius is at least 0, or else -1")


def measures_a_sample_in_any_batch(subject: Subject) -> None:
    """Measure the same of a sample in any batch, the same again, and without the global generators."""
    bench = _Measuring(subject)
    states = global_rng_states()
    whole, again = bench(bench.batch), bench(bench.batch)
    moved = [name for name, state in global_rng_states().items() if state != states[name]]
    require(not moved, f"the measurement uses the global generator of {', '.join(moved)}")
    rows = torch.tensor([5, 2])
    part = bench(rows_of(bench.batch, rows))
    for name, values in whole.items():
        known = torch.nan_to_num(values.double())
        require(torch.equal(known, torch.nan_to_num(again[name].double())), f'"{name}" is not repeatable')
        same = torch.allclose(torch.nan_to_num(part[name].double()), known[rows], rtol=1e-4, atol=1e-5)
        require(same, f'"{name}" of a sample depends on its batch')


def measurement_leaves_the_model(subject: Subject) -> None:
    """Leave the model, its gradients, and the samples as they were."""
    bench = _Measuring(subject)
    before, kept = bench.batch.x.clone(), Kept(bench.model)
    bench(bench.batch)
    changes = kept.put_back(values=True)
    require(not changes, f"the measurement changed {', '.join(changes)}")
    require(torch.equal(bench.batch.x, before), "the measurement changed the samples")


def certificate_withstands_attacks(subject: Subject) -> None:
    """Certify no sample that PGD breaks within its radius, nor one that is wrong already."""
    bench = _Measuring(subject)
    skip_unless(isinstance(bench.measurement, Certificate), "it is no certificate")
    skip_unless(not bench.measurement.about, f"it is about {bench.measurement.about}")
    radius = bench(bench.batch)[CERTIFIED_RADIUS].float()
    attack = build(resolve(Use("pgd", {"steps": 40, "restarts": 2}), "perturbation"), "perturbation")
    step = bench.step(bench.batch)
    view = View.of(bench.batch, "adv", radius=radius.clamp_min(0))
    vicinity: Vicinity = bench.vicinity
    moved = attack(step, view, vicinity)
    with torch.no_grad():
        right = step.score(moved, step.output(moved))
    wrong = ((radius >= 0) & ~right).nonzero()[:, 0].tolist()
    require(not wrong, f"samples {wrong} are certified and broken within their radius")


MEASUREMENT_CHECKS = (
    measures_numbers_of_each_sample,
    measures_a_sample_in_any_batch,
    measurement_leaves_the_model,
    certificate_withstands_attacks,
)

# --- wrappers


def _wrapped(subject: Subject) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a toy model, the wrapper around it, and some inputs."""
    task = ToyTask()
    with isolated(0):
        model = toy_plain(task.info).eval()
    with isolated(1):
        wrapper = subject.build(info=task.info, model=model)
    require(isinstance(wrapper, nn.Module), f"it must return a module, not a {type(wrapper).__name__}")
    (index, *_) = index_batches(task.info.sizes["train"], Feed(batch_size=BATCH_SIZE))
    x = next(iter(task.batches("train", Feed(batch_size=len(index))))).x
    return model, wrapper.eval(), x


def wrapper_returns_logits(subject: Subject) -> None:
    """Return finite logits (N, K), and put the model within the module, so that its weights are known."""
    model, wrapper, x = _wrapped(subject)
    with torch.no_grad():
        outputs, own = wrapper(x), model(x)
    require(outputs.shape == own.shape, f"the outputs have shape {tuple(outputs.shape)}")
    require(bool(outputs.isfinite().all()), "the outputs are not finite")
    inside = {id(parameter) for parameter in wrapper.parameters()}
    require(all(id(p) in inside for p in model.parameters()), "the model's weights are not in the module")


def wrapper_is_a_function(subject: Subject) -> None:
    """Return the same outputs for a sample again and in any batch, without the global generators."""
    _, wrapper, x = _wrapped(subject)
    states = global_rng_states()
    with torch.no_grad():
        whole, again, part = wrapper(x), wrapper(x), wrapper(x[[5, 2]])
    moved = [name for name, state in global_rng_states().items() if state != states[name]]
    require(not moved, f"the wrapper uses the global generator of {', '.join(moved)}")
    require(torch.equal(whole, again), "the same inputs have other outputs the second time")
    require(close(part, whole[[5, 2]], 1e-4), "the outputs of a sample depend on its batch")


def wrapper_leaves_the_model(subject: Subject) -> None:
    """Leave the model's weights and buffers as they were."""
    task = ToyTask()
    with isolated(0):
        before = toy_plain(task.info).state_dict()
    model, wrapper, x = _wrapped(subject)
    with torch.no_grad():
        wrapper(x)
    changed = differing(before, model.state_dict())
    require(not changed, f"the wrapper changed {', '.join(changed)}")


WRAPPER_CHECKS = (wrapper_returns_logits, wrapper_is_a_function, wrapper_leaves_the_model)
