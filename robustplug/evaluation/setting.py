"""What is evaluated: a model, its samples and threat model, and the attacks on it."""

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

if TYPE_CHECKING:
    from ..core.protocols import Loss, Perturbation, Vicinity
    from ..core.task import Task
    from ..subjects.subject import Source


@dataclass(frozen=True)
class Attack:
    """Name a row of an evaluation.

    Attributes:
        label: for the table, for example "pgd (steps=50, restarts=5)".
        options: resolved options, as a recipe would write them.
        perturbation: the attack; None for none.
        vicinity, threat: the threat model, and how a recipe would write it; None for the evaluation's.
        shift, shift_options: the distribution shift that comes first, and how a recipe would write it.
        chain: rows of one chain run on what those before left right; "" for a row of its own.
        source: the model that the examples are made on; None for the model itself.
        refused: why the row cannot be run; "" when it can.
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
    """Hold what is evaluated, and how.

    Attributes:
        model: plain module; evaluated in eval mode and float32, and put back as it was.
        task: gives the samples and scores outputs.
        vicinity: the threat model.
        loss: what attacks ascend unless they have a loss of their own.
        seed: of the attacks' noise.
        processes: batches are shared out over them.
        reporter: hears of progress.
        losses: also measure the loss of each sample.
        journal: file that notes what is done, so that a killed evaluation goes on; None for none.
        identity: what the journal's notes hold for; another identity starts anew.
        samples_digest: of the indices and labels of the samples that the last run was on.
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

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Put the model in eval mode, float32 and the faster layout for a block, and back afterwards."""
        with evaluating(self.model), in_float32(self.model), in_channels_last(self.model):
            yield
