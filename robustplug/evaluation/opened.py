"""A model that is opened for evaluation, for code that runs its attacks itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.guards.calls import compared
from ..core.guards.values import copied
from ..core.random import derive, isolated, stream
from ..core.step import Step
from ..core.types import Batch, Feed, Split, View
from ..devices.precision import fitting_threads
from ..errors import Refused, RunError
from ..recipe.load import read_suite
from ..recipe.write import use_to_mapping
from .chunks import regroup, standing_batches
from .evaluate import Evaluation
from .judge import refuse_illegal
from .results import Asked, describe, prepare_evaluation
from .rows import chain_of_attacks, labels_of, suite_attacks
from .setting import Attack, plain_objective

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.protocols import Vicinity
    from ..subjects.subject import Subject


@dataclass
class Clean:
    """Count the samples of an evaluation, and the correct ones among them."""

    samples: int
    right: int


@dataclass
class OpenedEvaluation:
    """Hold a model, its data, and the requested attacks.

    Attributes:
        name: name of the run or the model.
        attacks: attacks in order; refused ones have a reason.
        threat: the threat model, as a table of a recipe.
        description: plain JSON values on model, data and machine, as in a result.
        evaluation: the evaluation that runs the attacks.
        split, batch_size, samples: which samples, and how many in a batch.
    """

    name: str
    attacks: Sequence[Attack]
    threat: Mapping[str, Any]
    description: Mapping[str, Any]
    evaluation: Evaluation
    split: Split
    batch_size: int
    samples: int | None
    _batches: list[Batch] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Return the shape of an input."""
        return self.evaluation.task.info.shape

    @property
    def typical_input(self) -> Any:
        """Return the inputs of a batch, to choose the number of threads by."""
        return next(iter(self.evaluation.task.batches(self.split, self.feed()))).x

    @contextlib.contextmanager
    def running(self) -> Iterator[Clean]:
        """Prepare the model for a block, and find the correct samples, on which attacks run."""
        if self.evaluation.processes.world > 1:
            raise RunError("this runs in one process: leave out torchrun")
        with fitting_threads(self.typical_input), self.evaluation.prepared():
            (clean,) = self.evaluation.run(self.split, [], self.batch_size, self.samples)
            standing = torch.tensor(clean.right, dtype=torch.bool)
            batches = self.evaluation.task.batches(self.split, self.feed())
            self._batches = list(regroup(standing_batches(batches, standing), self.batch_size))
            yield Clean(len(clean.right), sum(clean.right))

    def steps(self, attack: Attack, number: int) -> Iterator[tuple[Step, View, Vicinity]]:
        """Yield the arguments of a row's perturbation for each batch of correct samples.

        `step.evaluating` is False: searches continue after their first success.

        Args:
            attack: the row.
            number: number of the row, for its random numbers.

        Raises:
            Refused: the row was refused, has a distribution shift, or uses a surrogate model.
        """
        if attack.refused or attack.shift is not None or attack.source is not None:
            raise Refused(attack.refused or "only evaluate can run rows with a shift or a surrogate model")
        evaluation = self.evaluation
        objective = plain_objective(evaluation.loss)
        device = evaluation.processes.device
        for at, batch in enumerate(self._batches):
            rng = stream(evaluation.seed, "steps", number, at, device=device)
            given = copied(batch)
            step = Step(evaluation.model, objective, evaluation.task, given, rng)
            step.seed = derive(evaluation.seed, "samples", number)
            view, vicinity = View.of(given, "adv"), attack.vicinity or evaluation.vicinity
            refuse_illegal(evaluation.task, view, vicinity, step.radii(view, vicinity))
            with evaluation.guarding(attack.perturbation, batch, *compared(given, batch)):
                yield step, view, vicinity

    def feed(self) -> Feed:
        """Return which batches are evaluated."""
        device = str(self.evaluation.processes.device)
        return Feed(batch_size=self.batch_size, samples=self.samples, device=device)


def open_attacks(subject: Subject, suite: str | Path | Mapping[str, Any] | None) -> OpenedEvaluation:
    """Open the attacks on a model: those of a suite, or else of its recipe.

    Raises:
        RecipeError: the suite is invalid.
    """
    parts, asked = subject.parts, Asked()
    options, threat = parts.recipe.evaluate, use_to_mapping(parts.threat)
    rows = (
        chain_of_attacks(options.attack, parts.threat, "evaluate.attack")
        if suite is None
        else suite_attacks(
            read_suite(suite, threat), parts.threat, (), parts.task.info, labels_of(parts.recipe.task)
        )
    )
    return OpenedEvaluation(
        parts.recipe.name,
        rows,
        threat,
        describe(subject, asked) | {"split": options.split, "threat": threat},
        prepare_evaluation(subject, asked),
        options.split,
        options.batch_size,
        options.samples,
    )


def adversarial_examples(opened: OpenedEvaluation) -> Tensor:
    """Return an adversarial example for each sample of the only row, in the order of the samples.

    Raises:
        Refused: the row cannot be run.
    """
    (row,) = opened.attacks
    if row.refused or row.perturbation is None:
        raise Refused(row.refused or "it is no attack")
    evaluation, found = opened.evaluation, []
    device = evaluation.processes.device
    with evaluation.prepared(), evaluation.iterating(opened.batch_size):
        for number, batch in enumerate(evaluation.task.batches(opened.split, opened.feed())):
            with isolated(derive(evaluation.seed, "attack", number, "global"), device):
                rng = stream(evaluation.seed, "attack", number, device=device)
                step = Step(evaluation.model, plain_objective(evaluation.loss), evaluation.task, batch, rng)
                step.evaluating, step.seed = True, derive(evaluation.seed, "samples", 1)
                step.iterations = evaluation.iterations
                view, vicinity = View.of(batch, "adv"), row.vicinity or evaluation.vicinity
                refuse_illegal(evaluation.task, view, vicinity, step.radii(view, vicinity))
                x = evaluation.attacked(step, view, row.perturbation, vicinity).x
                legal = evaluation.vicinity.contains(x, batch.x, step.radii(view, evaluation.vicinity))
            found.append(take_where(legal, x, batch.x).detach().cpu())
    return torch.cat(found)


def take_where(keep: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return the rows of one tensor where keep (N,) is true, and of the other elsewhere."""
    return torch.where(keep.view(-1, *(1,) * (one.dim() - 1)), one, other)
