"""What an audit learns about a model before its attacks run, and the attacks that follow from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.calling.stand_ins import Averaged
from ...core.types import Batch, Feed
from ...recipe.write import use_to_mapping
from ..results import Asked, prepare_evaluation
from ..rows import labels_of, suite_attacks
from ..setting import Attack
from .binarisation import Power
from .binarisation import power as measure_power
from .inspection import Inspection, input_gradient, inspect
from .rows import adaptive, attacks_of, blind, reach, white_box
from .substitute import train_substitute

if TYPE_CHECKING:
    from ...core.protocols import Vicinity
    from ...subjects.subject import Source, Subject
    from ..evaluate import Evaluation

# Numbers of samples that are inspected, that the binarisation test needs, and that a substitute learns from.
INSPECTED, TESTED, LEARNED = 256, 64, 2000
# Largest size of the inputs that a substitute learns from.
BYTES = 2**27


@dataclass(frozen=True)
class Prepared:
    """Hold what an audit learns about a model before its attacks run.

    Attributes:
        subject: the model to attack: averaged over draws if it is random.
        found: what the inspection found.
        power: outcome of the binarisation test.
        substitute: a network that imitates the model; None for none.
        everything: radius at which every input is legal; None if there is none.
        pace: seconds that a forward and backward pass takes for a sample on this machine, for information.
    """

    subject: Subject
    found: Inspection
    power: Power
    substitute: nn.Module | None
    everything: float | None
    pace: float = 0.0

    def attacks(self, sources: Sequence[Source] = ()) -> list[Attack]:
        """Build the attacks."""
        parts = self.subject.parts
        rows = [*white_box(self.found.scale), *blind(self.found, self.substitute, self.everything)]
        return attacks_of(
            rows,
            use_to_mapping(parts.threat),
            parts.threat,
            sources,
            parts.task.info,
            labels_of(parts.recipe.task),
        )

    def told(self) -> str:
        """Return what attacks do about outputs or gradients that do not serve them; "" for nothing."""
        said = []
        if self.found.random:
            said.append(f"its outputs are random, so every pass averages {self.found.draws} draws (EOT)")
        if self.found.bridge is not None:
            said.append("parts of it have no gradient, so attacks lead gradients past them (BPDA)")
        return "; ".join(said)


def adapted(subject: Subject, asked: Asked) -> tuple[Subject, Asked]:
    """Return a model and its evaluation with the attacks that an inspection of the model finds necessary.

    Args:
        subject: the model, its data and its recipe.
        asked: settings with a suite, whose last chain these attacks continue.
    """
    assert asked.suite is not None
    prepared, parts, suite = prepare(subject), subject.parts, asked.suite
    chain = next((row.chain for row in reversed(suite.row) if row.chain), suite.name)
    labels = labels_of(parts.recipe.task)
    rows = adaptive(prepared.found, prepared.substitute, chain)
    attacks = [
        *suite_attacks(suite, parts.threat, asked.sources, parts.task.info, labels),
        *attacks_of(rows, use_to_mapping(parts.threat), parts.threat, (), parts.task.info, labels),
    ]
    if prepared.told():
        subject.reporter.warn(prepared.told())
    return prepared.subject, replace(asked, attacks=attacks, name=suite.name)


def prepare(subject: Subject) -> Prepared:
    """Inspect a model, test the power of attacks on it, and train a substitute."""
    options = subject.parts.recipe.evaluate
    evaluation = prepare_evaluation(subject, Asked())
    batch = _first(evaluation, options.split, min(INSPECTED, options.batch_size), options.samples)
    vicinity, info, seed = evaluation.vicinity, evaluation.task.info, evaluation.seed
    if info.classes is None or not isinstance(batch.x, Tensor) or not batch.x.is_floating_point():
        why = "it is no classifier of floating-point inputs"
        return Prepared(subject, Inspection(0, absent=why), Power(absent=why), None, None)
    radius = torch.full((len(batch),), float(vicinity.eps), device=batch.index.device)
    probabilities = evaluation.scale != "logits"
    with evaluation.prepared(), evaluation.guarding(evaluation.loss, batch, values=True):
        found = inspect(evaluation.model, batch, vicinity, radius, seed, probabilities)
        began = time.perf_counter()
        input_gradient(evaluation.model, batch.x, lambda output: output.sum(1))
        pace = (time.perf_counter() - began) / len(batch) * found.draws
        if found.random:
            subject = replace(subject, exported=Averaged(subject.exported, found.draws))
        tested = slice(0, TESTED)
        power = measure_power(
            evaluation.model, batch.x[tested], vicinity, radius[tested], seed, not found.absent
        )
        learned = _inputs(evaluation, options.split, options.samples)
        wide = torch.full((len(learned),), float(vicinity.eps), device=learned.device)
        substitute = train_substitute(evaluation.model, learned, vicinity, wide, seed)
    # A row changes the radius by the key eps, which a vicinity around another one does not have.
    wide_open = _everything(evaluation, batch) if hasattr(subject.parts.threat.options, "eps") else None
    return Prepared(subject, found, power, substitute, wide_open, pace)


def _first(evaluation: Evaluation, split: Any, size: int, samples: int | None) -> Batch:
    size = min(size, samples or size)
    feed = Feed(batch_size=size, samples=size, device=str(evaluation.processes.device))
    return next(iter(evaluation.task.batches(split, feed)))


def _inputs(evaluation: Evaluation, split: Any, samples: int | None) -> Tensor:
    """Return inputs for a substitute to learn from: of the training split, where there is one."""
    sizes = evaluation.task.info.sizes
    if sizes.get("train", 0) and evaluation.task.info.pool is None:
        split, samples = "train", None
    one = _first(evaluation, split, 1, None).x
    fit = max(1, BYTES // max(1, one.numel() * one.element_size()))
    x: Tensor = _first(evaluation, split, min(LEARNED, fit, sizes[split]), samples).x
    return x


def _everything(evaluation: Evaluation, batch: Batch) -> float | None:
    """Return a radius at which every input is legal, if the vicinity agrees that it is."""
    vicinity: Vicinity = evaluation.vicinity
    radius = reach(evaluation.task.info, vicinity.norm)
    if radius is None or len(batch) < 2:
        return None
    size = torch.full((len(batch),), radius, device=batch.index.device)
    low, high = (
        torch.as_tensor(side, dtype=batch.x.dtype, device=batch.x.device).view(
            1, -1, *(1,) * (batch.x.dim() - 2)
        )
        for side in evaluation.task.info.bounds
    )
    corners = [torch.zeros_like(batch.x) + side for side in (low, high)]
    reached = [vicinity.contains(x, batch.x, size) for x in (*corners, batch.x.roll(1, 0))]
    return radius if all(bool(each.all()) for each in reached) else None
