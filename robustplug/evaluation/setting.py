"""The setting of an evaluation: a model, its samples, its threat model, and the attacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..core.method import Objective
from ..core.modules import evaluating
from ..core.reporting import Reporter, Silent
from ..devices.precision import in_channels_last
from ..devices.processes import Processes, in_float32
from .examples import Keeper

if TYPE_CHECKING:
    from ..core.protocols import Loss, Perturbation, Vicinity
    from ..core.task import Task
    from ..subjects.subject import Source


@dataclass(frozen=True)
class Attack:
    """Describe a row of an evaluation.

    Attributes:
        label: label in the table, for example "pgd (steps=50, restarts=5)".
        options: resolved options, as a table of a recipe.
        perturbation: the attack; None for none.
        vicinity, threat: the threat model, and its table of a recipe; None for the evaluation's.
        shift, shift_options: the distribution shift before the attack, and its table of a recipe.
        chain: name of the chain; each of its rows runs on the samples that are correct after the previous
            ones. "" for a row outside chains.
        source: the surrogate model for the examples; None for the model itself.
        refused: why the row cannot be run; "" if it can.
    """

    label: str
    options: Mapping[str, Any]
    perturbation: Perturbation | None
    vicinity: Vicinity | None = None
    threat: Mapping[str, Any] = field(default_factory=dict)
    shift: Vicinity | None = None
    shift_options: Mapping[str, Any] = field(default_factory=dict)
    chain: str = "main"
    source: Source | None = None
    refused: str = ""


CLEAN = Attack("clean", {}, None, chain="")


def plain_objective(loss: Loss) -> Objective:
    """Return the objective of an evaluation: the model's own outputs against the true labels."""
    return Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)


@dataclass
class Setting:
    """Hold the model of an evaluation and its settings.

    Attributes:
        model: plain module; it is evaluated in eval mode and float32, and restored afterwards.
        task: the task that provides the samples and scores the outputs.
        vicinity: the threat model.
        loss: the loss that attacks ascend, unless they have their own.
        seed: seed of the attacks' random numbers.
        processes: the processes that share the batches.
        reporter: receives progress.
        losses: whether to measure the loss of each sample, too.
        journal: file that records the progress, so that a killed evaluation can resume; None for none.
        identity: the evaluation that the journal's records belong to; another identity starts anew.
        samples_digest: digest of the indices and labels of the samples in the last run.
        keeper: collects the adversarial examples; None to drop them.
        classes: of the last run, the samples of each class and the calibration; empty without classes.
    """

    model: nn.Module
    task: Task
    vicinity: Vicinity
    loss: Loss
    seed: int
    processes: Processes
    reporter: Reporter = field(default_factory=Silent)
    journal: Path | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    losses: bool = False
    samples_digest: str = ""
    keeper: Keeper | None = None
    classes: Mapping[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Put the model in eval mode, float32 and the faster layout for a block, then restore it."""
        with evaluating(self.model), in_float32(self.model), in_channels_last(self.model):
            yield
