"""A model that is opened for evaluation, for those who run its attacks themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.random import derive, stream
from ..core.step import Step
from ..core.types import Batch, Feed, Split, View
from ..devices.precision import fitting_threads
from ..errors import Refused, RunError
from ..recipe.load import read_suite
from ..recipe.write import use_to_mapping
from .chunks import regroup, standing_batches
from .evaluate import Evaluation
from .results import Asked, describe, prepare_evaluation
from .rows import chain_of_attacks, suite_attacks
from .setting import Attack, plain_objective

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.protocols import Vicinity
    from ..subjects.subject import Subject


@dataclass
class Clean:
    """Count the samples of an evaluation, and those of them that are right."""

    samples: int
    right: int


@dataclass
class OpenedEvaluation:
    """Hold a model, its data, and the attacks that were asked for.

    Attributes:
        name: of the run or the model.
        attacks: in order; those that were refused say why.
        threat: the threat model, as a recipe would write it.
        description: plain JSON values: what a result says of model, data and machine.
        evaluation: how they are run.
        split, batch_size, samples: which samples, and how many at once.
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

    @contextlib.contextmanager
    def running(self) -> Iterator[Clean]:
        """Prepare the model for a block, and find the samples that are right: attacks run on those."""
        if self.evaluation.processes.world > 1:
            raise RunError("this runs in one process: leave out torchrun")
        first = next(iter(self.evaluation.task.batches(self.split, self._feed())))
        with fitting_threads(first.x), self.evaluation.prepared():
            (clean,) = self.evaluation.run(self.split, [], self.batch_size, self.samples)
            standing = _flags(clean.right)
            batches = self.evaluation.task.batches(self.split, self._feed())
            self._batches = list(regroup(standing_batches(batches, standing), self.batch_size))
            yield Clean(len(clean.right), sum(clean.right))

    def steps(self, attack: Attack, number: int) -> Iterator[tuple[Step, View, Vicinity]]:
        """Yield what a row's perturbation is called with, for each batch of samples that are right.

        `step.evaluating` is False: searches go on after their first success.

        Args:
            attack: the row.
            number: of the row, for its random numbers.

        Raises:
            Refused: the row was refused, has a distribution shift, or makes its examples on another model.
        """
        if attack.refused or attack.shift is not None or attack.source is not None:
            raise Refused(attack.refused or "it has a shift or another model, which only evaluate can run")
        evaluation = self.evaluation
        objective = plain_objective(evaluation.loss)
        device = evaluation.processes.device
        for at, batch in enumerate(self._batches):
            rng = stream(evaluation.seed, "steps", number, at, device=device)
            step = Step(evaluation.model, objective, evaluation.task, batch, rng)
            step.seed = derive(evaluation.seed, "samples", number)
            yield step, View.of(batch, "adv"), attack.vicinity or evaluation.vicinity

    def _feed(self) -> Feed:
        device = str(self.evaluation.processes.device)
        return Feed(batch_size=self.batch_size, samples=self.samples, device=device)


def _flags(values: Sequence[bool]) -> Any:
    import torch

    return torch.tensor(values, dtype=torch.bool)


def open_attacks(subject: Subject, suite: str | Path | Mapping[str, Any] | None) -> OpenedEvaluation:
    """Open the attacks of a model: those of a suite, or else of its recipe.

    Raises:
        RecipeError: the suite is wrong.
    """
    parts, asked = subject.parts, Asked()
    options, threat = parts.recipe.evaluate, use_to_mapping(parts.threat)
    rows = (
        chain_of_attacks(options.attack, parts.threat, "evaluate.attack")
        if suite is None
        else suite_attacks(read_suite(suite, threat), parts.threat, ())
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
