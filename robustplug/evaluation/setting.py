"""The setting of an evaluation: a model, its samples, its threat model, and the attacks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..core.calling.outputs import AsLogits, Scale
from ..core.guards.calls import Given, compared, limits, unchanged
from ..core.guards.models import Kept
from ..core.guards.values import copied, same
from ..core.method import Objective
from ..core.modules import evaluating
from ..core.protocols import AimingPerturbation
from ..core.replaying.iterations import Iterations, iterations_on
from ..core.reporting import Reporter, Silent
from ..devices.precision import in_channels_last
from ..devices.processes import Processes, in_float32
from ..plugin.culprit import name_of
from .examples import Keeper

if TYPE_CHECKING:
    from ..core.protocols import Loss, Measurement, Perturbation, Vicinity
    from ..core.step import Step
    from ..core.task import Task
    from ..core.types import Batch, View
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
        stand_in: function from the model to the module that the attack runs on; its examples are judged on
            the model. None for the model itself.
        transfers: whether the stand-in is another model, so that its mistakes do not end the attack.
        after: name of the chain whose survivors the row starts from, without being part of it; "" for none.
        measurement: what the row measures of all samples, in the place of an attack; None for an attack.
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
    stand_in: Callable[[nn.Module], nn.Module] | None = None
    transfers: bool = False
    after: str = ""
    measurement: Measurement | None = None

    @property
    def part(self) -> object:
        """Return the component that the row runs; None for the clean row."""
        return self.perturbation or self.measurement or self.shift


@dataclass(frozen=True)
class Share:
    """Say which part of an evaluation a process has: of each row the batches `number`, `number` + `of`, ….

    The batches, their numbers and so their random numbers are those of one process, whoever attacks them.

    Attributes:
        number: number of the part, from 0.
        of: number of parts.
        folder: folder of the journals, which all processes see.
    """

    number: int
    of: int
    folder: Path

    def path(self, number: int) -> Path:
        """Return the journal of a part."""
        return self.folder / f"share-{number}.journal"


QUERIES = "queries"
"""Key of a view's info: how often an attack asked the model about each sample, int64 (N,)."""

# A row of which more than this share was discarded as outside the threat model states no accuracy.
REJECTED = 0.1
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
        table: table of the recipe that states the batch size, for errors.
        losses: whether to measure the loss of each sample, too.
        journal: file that records the progress, so that a killed evaluation can resume; None for none.
        share: the part of this process, if several share the evaluation through files; None for all of it.
        identity: the evaluation that the journal's records belong to; another identity starts anew.
        samples_digest: digest of the indices and labels of the samples in the last run.
        keeper: collects the adversarial examples; None to drop them.
        classes: of the last run, the samples of each class and the calibration; empty without classes.
        deadline: moment of `time.monotonic` after which no attack goes on; None for none.
        capture: whether iterations of attacks are captured, on a device that has graphs.
        kept: within `prepared`, the model as it must stay.
        iterations: within `iterating`, what runs the iterations of the attack.
    """

    model: nn.Module
    task: Task
    vicinity: Vicinity
    loss: Loss
    seed: int
    processes: Processes
    reporter: Reporter = field(default_factory=Silent)
    journal: Path | None = None
    share: Share | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    table: str = "evaluate"
    losses: bool = False
    samples_digest: str = ""
    keeper: Keeper | None = None
    classes: Mapping[str, Any] = field(default_factory=dict)
    deadline: float | None = None
    capture: bool = False
    kept: Kept | None = field(default=None, init=False, repr=False, compare=False)
    iterations: Iterations | None = field(default=None, init=False, repr=False, compare=False)
    _told: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def scale(self) -> Scale:
        """Return what the model's own outputs are; attacks get logits in any case."""
        return self.model.scale if isinstance(self.model, AsLogits) else "logits"

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Put the model in eval mode, float32 and the faster layout for a block, then restore it."""
        with evaluating(self.model), in_float32(self.model), in_channels_last(self.model):
            before, self.kept = self.kept, Kept(self.model)
            try:
                yield
            finally:
                self.kept.put_back(values=True)
                self.kept = before

    @contextlib.contextmanager
    def iterating(self, rows: int) -> Iterator[None]:
        """Prepare graphs for the iterations of an attack within a block, on a device that has them.

        Args:
            rows: rows of a whole batch.
        """
        self.iterations = iterations_on(self.processes.device, self.capture, rows, self._tell)
        try:
            with contextlib.nullcontext() if self.iterations is None else self.iterations.prepare():
                yield
        finally:
            self.iterations = None

    def _tell(self, message: str) -> None:
        """Warn of something once."""
        if message not in self._told:
            self._told.add(message)
            self.reporter.warn(message)

    @contextlib.contextmanager
    def guarding(self, part: object, batch: Batch, *given: Given, values: bool = False) -> Iterator[None]:
        """Refuse the result of a component if it changed the model, a switch, or what it is given.

        Args:
            part: the component that the block calls.
            batch: a batch; what the model itself changes when it is called on it is put back silently.
            given: what the component is given, and what it must still be equal to.
            values: whether to compare all values of the model's tensors; see `Kept.put_back`.

        Raises:
            Refused: something changed; all but what is given is put back.
        """

        def alone() -> None:
            with torch.no_grad():
                self.model(copied(batch.x))

        kept = self.kept or Kept(self.model)
        with unchanged(kept, lambda: name_of(part), *given, values=values, model_alone=alone):
            yield

    def attacked(
        self, step: Step, view: View, attack: Perturbation, vicinity: Vicinity, values: bool = True
    ) -> View:
        """Run an attack on copies of a view, and return the view with its x, and with its goal if it has one.

        If the attack counts its queries of each sample, they are in the info of the result.

        Args:
            step: a step for this attack alone.
            view: the clean samples.
            attack: the attack.
            vicinity: the threat model.
            values: as in `guarding`.

        Raises:
            Refused: the attack cannot be run, or it changed what it was handed.
        """
        batch, own = step.batch, getattr(vicinity, "__dict__", {})
        within = copied(limits(vicinity))
        step.batch, given = copied((batch, view))
        handed = [*compared(given, view), (own, within, "the vicinity's limits")]
        try:
            with self.guarding(attack, batch, *handed, values=values):
                if isinstance(attack, AimingPerturbation):
                    goal = attack.aim(step, given)
                    given = given.replace(info={**given.info, **goal})
                    view = view.replace(info={**view.info, **copied(goal)})
                found = attack(step, given, vicinity)
                asked = {name: found.info[name] for name in (QUERIES,) if name in found.info}
                return view.replace(x=found.x, info={**view.info, **asked})
        finally:
            if not same(own, within):
                own.update(within)
            step.batch = batch
