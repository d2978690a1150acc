"""Run a row of an evaluation: an attack, or a measurement, batch by batch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.calling.meter import Meter
from ...core.guards.calls import refusal
from ...core.random import derive, isolated, other_generators, stream
from ...core.types import AttackResult, Batch, Cost, Feed, Split
from ...errors import Refused, RunError, ends_program, out_of_memory
from ...plugin.culprit import UNKNOWN, culprit, failed, name_of, no_memory, one_line
from ...subjects.assemble import endless
from ...text.records import TextRecord
from ..chunks import regroup, sample_lines, standing_batches
from ..classes import BINS, Standing, by_class, calibration_error
from ..judge import judge
from ..kept.records import Chunk
from ..kept.transfer import examples
from ..measuring.around import passes_of
from ..measuring.measure import certified, means, measure, portion
from ..setting import CLEAN, REJECTED, Attack, Setting
from .outcomes import Outcomes

if TYPE_CHECKING:
    from ...core.protocols import Perturbation
    from ...subjects.subject import Source
    from ..kept.journal import Quiet

# Name of the measure that counts what attacks had to leave out, in batches where they had to.
LOST = "lost gradient"


@dataclass
class Row:
    """One attack of an evaluation, on the samples of `start`."""

    evaluation: Setting
    split: Split
    feed: Feed
    attack: Attack
    number: int
    start: Standing
    journal: Quiet
    seen: list[str] = field(default_factory=list)
    outcomes: Outcomes = field(default_factory=Outcomes)
    # Index and class of each sample of the clean row; index of each that is measured.
    _labelled: array[int] = field(default_factory=lambda: array("q"))
    _order: array[int] = field(default_factory=lambda: array("q"))

    def run(self) -> tuple[AttackResult, Standing]:
        """Return the result, and how the samples stand after the row."""
        began, size = time.perf_counter(), len(self.start.right)
        total = int(self.start.right.sum())
        processes = self.evaluation.processes
        reason = self.attack.refused or self._endless(total)
        outcomes = self.outcomes
        if not reason:
            try:
                with self._prepared():
                    for chunk in self._chunks(total):
                        outcomes.add(chunk)
                self._check()
            except Refused as why:
                if not self.number:
                    raise RunError(str(why)) from why
                reason = str(why)
            except BaseException as error:  # one attack must not affect the results of the others
                # A part that lacks memory must not go on without the row, which others may finish.
                if ends_program(error) or (self.evaluation.share is not None and out_of_memory(error)):
                    raise
                reason = self._failure(error)
                self.evaluation.reporter.warn(f"{self.attack.label} failed: {reason}")
        self.journal.end_of_attack()
        if processes.any(bool(reason)):
            self.outcomes = Outcomes()
            reason = reason or "refused on another process"
            return self._skipped(reason, time.perf_counter() - began), self.start
        held = torch.zeros(size, dtype=torch.bool)
        held[processes.gather_numbers(outcomes.right)] = True
        sums = processes.total([float(count) for count in outcomes.counts])
        # Each process prepared the same attack, and each of its batches states the same cost.
        prepared = int(processes.gather_numbers(array("q", [outcomes.prepared])).max())
        measures = means(self.evaluation, outcomes.measures, self.attack.measurement)
        if LOST in measures:
            self.evaluation.reporter.warn(
                f"{self.attack.label}: {measures[LOST].mean:.1%} of the values of input gradients were no "
                "finite numbers, as the slope of a square root at 0 is none; they count as 0"
            )
        count, passes = int(held.sum()), passes_of(self.evaluation.model)
        result = AttackResult(
            name=self.attack.label,
            options=self.attack.options,
            accuracy=count / size,
            broken=int(sums[0]) - count,
            attempted=int(sums[0]),
            rejected=int(sums[1]),
            forwards=passes * (sums[2] + prepared) / size,
            backwards=passes * sums[3] / size,
            seconds=outcomes.seconds,
            threat=self.attack.threat,
            shift=self.attack.shift_options,
            chain=self.attack.chain,
            distance=outcomes.medians(processes) if self.attack.perturbation is not None else {},
            right=tuple(held.tolist()),
            measures=measures,
            example=outcomes.example(processes),
            prepared=prepared,
            **certified(self.attack.measurement, outcomes.measures, self._order, size, processes),
        )
        return self._valid(result), Standing(held, self._predicted())

    def _valid(self, result: AttackResult) -> AttackResult:
        """Take the accuracy from a row whose results were mostly discarded: they are no successes."""
        if result.rejected <= REJECTED * result.attempted:
            return result
        reason = (
            f"{result.rejected} of {result.attempted} results broke the rules of the threat model "
            f"{result.threat.get('use', '')} and were discarded, so the row says nothing about the model: "
            "change the attack or the options of the threat model"
        )
        self.evaluation.reporter.warn(f"{result.name} is invalid: {reason}")
        return replace(result, accuracy=math.nan, right=(), skipped=reason)

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """Prepare generators and, for an attack, graphs."""
        iterating = self.evaluation.iterating(self.feed.batch_size)
        with (
            other_generators(derive(self.evaluation.seed, "evaluate", self.number) % 2**32),
            contextlib.nullcontext() if self.attack.perturbation is None else iterating,
        ):
            yield

    def _check(self) -> None:
        """Compare all weights: a write through `.data` or NumPy leaves no other trace.

        Raises:
            Refused: the row changed some; they are put back.
        """
        changes = self.evaluation.kept.put_back(values=True) if self.evaluation.kept else []
        if changes:
            raise refusal(name_of(self.attack.part), changes)

    def _predicted(self) -> Tensor:
        """Return the class that each sample is taken for after the row, int64 (size,)."""
        predicted, gather = self.start.predicted.clone(), self.evaluation.processes.gather_numbers
        predicted[gather(self.outcomes.index)] = gather(self.outcomes.predicted)
        return predicted

    def labels(self) -> Tensor | None:
        """Return the class of each sample, int64 (size,); None if the task or the model has no classes."""
        found = self.evaluation.processes.gather_numbers(self._labelled).view(-1, 2)
        if not len(found) or not self.evaluation.processes.any(bool(self.outcomes.index)):
            return None
        labels = torch.zeros(len(self.start.right), dtype=torch.int64)
        labels[found[:, 0]] = found[:, 1]
        return labels

    def describe_classes(self, labels: Tensor, standing: Standing) -> dict[str, Any]:
        """Return the number of samples of each class, and how well the confidence is calibrated."""
        info, size = self.evaluation.task.info, len(labels)
        confidence, gather = torch.full((size,), torch.nan), self.evaluation.processes.gather_numbers
        confidence[gather(self.outcomes.sure)] = gather(self.outcomes.confidence).float()
        error = calibration_error(confidence, standing.right)
        mean = float(confidence.double().mean())
        calibration = {"row": CLEAN.label, "bins": BINS, "error": error, "confidence": mean}
        counts = by_class(torch.ones(size, dtype=torch.bool), labels, info.classes)
        return {
            "classes": {"names": list(info.class_names) if counts else [], "samples": list(counts)},
            **({} if math.isnan(error) else {"calibration": calibration}),
        }

    def texts(self) -> list[TextRecord]:
        """Return what the row did to each sample, in order; nothing for a task without texts."""
        own = [json.dumps(pair) for pair in self.outcomes.texts]
        pairs = [json.loads(line) for line in self.evaluation.processes.gather_lines(own)]
        return [TextRecord(*record) for _, record in sorted(pairs, key=lambda pair: int(pair[0]))]

    def _endless(self, total: int) -> str:
        attack = self.attack.perturbation
        why = "" if attack is None else endless(lambda: attack.cost(Cost(0, 0)), total)
        return f"it {why}: lower its steps" if why else ""

    def _failure(self, error: BaseException) -> str:
        """Describe the exception that an attack raised.

        Raises:
            RunError: the model failed on clean samples, so that there is nothing to attack.
        """
        where = "" if self.number else "the clean row"
        if out_of_memory(error):
            key = f"{self.evaluation.table}.batch_size"
            rows = min(self.feed.batch_size, len(self.start.right))
            reason = no_memory(error, key, rows, where)
            if where:
                raise RunError(reason) from error
            return reason
        if where:
            raise error if isinstance(error, RunError) else failed(error, where) from error
        who = culprit(error)
        return one_line(error) if who == UNKNOWN else f"{who.name}: {one_line(error)}"

    def _skipped(self, reason: str, seconds: float) -> AttackResult:
        attack = self.attack
        said = (attack.threat, attack.shift_options, attack.chain, reason)
        return AttackResult(attack.label, attack.options, float("nan"), 0, 0, 0, 0.0, 0.0, seconds, *said)

    def _chunks(self, total: int) -> Iterator[Chunk]:
        evaluation, feed = self.evaluation, self.feed
        attack = self.attack
        if attack.source is not None:
            attack = dataclasses.replace(attack, perturbation=self._transferred(attack, attack.source))
        if attack.stand_in is not None:
            # The same module for all batches: its graphs serve them all.
            module = attack.stand_in(evaluation.model)
            attack = dataclasses.replace(attack, stand_in=lambda _: module)
        done = 0
        for number, batch in enumerate(self._batches()):
            self._note(batch)
            chunk = self.journal.chunk(self.number, number, batch, evaluation.task.info.classes)
            if chunk is None and self.journal.mine(number):
                chunk = self._made(batch, attack, number)
            done += len(batch)
            if evaluation.processes.main:
                evaluation.reporter.attack(self.attack.label, min(done * feed.world, total), total)
            if chunk is not None and self.journal.alone:
                yield chunk

        def again(wanted: Callable[[int], bool]) -> None:
            for number, batch in enumerate(self._batches()):
                if wanted(number):
                    self._made(batch, attack, number)

        yield from self.journal.shared(self.number, again)

    def _batches(self) -> Iterator[Batch]:
        """Yield the batches of the samples that the row is run on."""
        batches = self.evaluation.task.batches(self.split, self.feed)
        rows = portion(self.attack.measurement, self.feed.batch_size)
        return regroup(standing_batches(batches, self.start.right), rows)

    def _note(self, batch: Batch) -> None:
        """Note which samples a batch holds."""
        if self.attack.measurement is not None:
            self._order.extend(batch.index.tolist())
        if not self.number:
            self.seen += sample_lines(batch)
            if self.evaluation.task.info.classes is not None:
                labels = batch.y if batch.y.dim() == 1 else batch.y.argmax(1)
                self._labelled.extend(torch.stack([batch.index, labels], 1).flatten().tolist())

    def _made(self, batch: Batch, attack: Attack, number: int) -> Chunk:
        """Attack a batch, and record the outcome."""
        evaluation = self.evaluation
        if self.number and evaluation.deadline is not None and time.monotonic() > evaluation.deadline:
            raise Refused("the budget of time was spent before it ended")
        chunk = self._attacked(batch, attack, number)
        self.journal.add(self.number, number, chunk)
        return chunk

    def _transferred(self, attack: Attack, source: Source) -> Perturbation:
        return examples(self.evaluation, attack, source, self.split, self.feed)

    def _attacked(self, batch: Batch, attack: Attack, number: int) -> Chunk:
        began, meter, evaluation = time.perf_counter(), Meter(), self.evaluation
        path = ("evaluate", self.number, number, self.feed.rank)
        device = evaluation.processes.device
        with isolated(derive(evaluation.seed, *path, "global"), device):
            rng = stream(evaluation.seed, *path, device=device)
            seed = derive(evaluation.seed, "samples", self.number)
            run = judge if attack.measurement is None else measure
            found = run(evaluation, batch, attack, rng, meter, seed, self.number, number == 0)
        rejected = int((~found.legal).sum())
        measures = {name: values.tolist() for name, values in found.measures.items()}
        if lost := int(meter.lost):
            measures[LOST] = [lost / meter.slopes] * len(batch)
        return Chunk(
            right=batch.index[found.right].tolist(),
            counts=(len(batch), rejected, meter.forwards, meter.backwards),
            distances=found.distances,
            seconds=time.perf_counter() - began,
            measures=measures,
            told=found.told,
            index=[] if found.predicted is None else batch.index.tolist(),
            predicted=[] if found.predicted is None else found.predicted.tolist(),
            confidence=[] if found.confidence is None else found.confidence.tolist(),
            texts=list(zip(batch.index.tolist() if found.texts else (), found.texts, strict=True)),
            prepared=meter.prepared,
        )
