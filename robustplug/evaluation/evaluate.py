"""Evaluate a plain module under attacks; every result is checked before it counts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.calling.meter import Meter
from ..core.guards.calls import refusal
from ..core.protocols import AimingPerturbation
from ..core.random import derive, isolated, other_generators, stream
from ..core.types import AttackResult, Batch, Cost, Feed, Split
from ..errors import Refused, RunError, ends_program, out_of_memory
from ..plugin.culprit import UNKNOWN, culprit, failed, name_of, no_memory, one_line
from ..recipe.write import digest
from ..subjects.assemble import endless
from ..text.records import TextRecord
from .chunks import regroup, sample_lines, standing_batches
from .classes import BINS, Standing, by_class, calibration_error, confusion
from .judge import judge
from .kept.journal import Journal, Quiet, journal_of
from .kept.records import Chunk
from .kept.transfer import examples
from .measuring.around import passes_of
from .measuring.bounds import Reached, reached
from .measuring.measure import certified, means, measure, portion
from .setting import CLEAN, REJECTED, Attack, Setting

if TYPE_CHECKING:
    from ..core.protocols import Perturbation
    from ..subjects.subject import Source

# Name of the measure that counts what attacks had to leave out, in batches where they had to.
LOST = "lost gradient"


@dataclass
class Evaluation(Setting):
    """Run attacks one after the other, each on the samples that are still correct in its chain.

    A chain starts with the samples that are correct when clean. It starts with all samples if they are
    shifted first or if the attack has its own goal. An attack that is refused or fails affects only its row.

    Attributes:
        texts: of a task of texts, what each row of the last run did to each sample, in order.
        reached: for each row of the last run, how far the inputs are that broke a sample.
    """

    texts: dict[str, list[TextRecord]] = field(default_factory=dict)
    reached: list[Reached] = field(default_factory=list)

    def run(
        self, split: Split, attacks: Sequence[Attack], batch_size: int, samples: int | None = None
    ) -> tuple[AttackResult, ...]:
        """Run the attacks and return the results, "clean" first.

        Args:
            split: the split of the samples.
            attacks: attacks in order.
            batch_size: rows of one model call.
            samples: number of samples, taken from the start of the split; None for all.
        """
        info = self.task.info
        if split == "train" and info.pool is not None:
            raise RunError(
                "an epoch of this task draws from a pool of samples, so its training split cannot be "
                "evaluated: choose another split"
            )
        size = min(info.sizes[split], samples or info.sizes[split])
        feed = Feed(
            batch_size=batch_size,
            rank=self.processes.rank,
            world=self.processes.world,
            samples=samples,
            device=str(self.processes.device),
        )
        rows = [CLEAN, *attacks]
        journal = journal_of(self, split, rows, feed)
        everyone = clean = Standing.of(size)
        chains = dict[str, Standing]()
        self.texts, self.reached = {}, []
        results, standings = list[AttackResult](), list[Standing]()
        labels = None
        with self.prepared():
            for number, attack in enumerate(rows):
                own = attack.shift is not None or isinstance(attack.perturbation, AimingPerturbation)
                all_count = own or attack.measurement is not None
                start = chains.get(attack.after or attack.chain, everyone if all_count else clean)
                row = _Row(self, split, feed, attack, number, start, journal)
                result, standing = row.run()
                if result.bound == "none":
                    standing = clean
                    result = replace(result, broken=0, right=results[0].right, accuracy=results[0].accuracy)
                results.append(result)
                self.reached.append({} if own or number == 0 else reached(row.chunks, self.processes))
                if texts := row.texts():
                    self.texts[attack.label] = texts
                standings.append(standing)
                if number == 0:
                    clean = standing
                    self.samples_digest = digest(sorted(self.processes.gather_lines(row.seen)))
                    labels = row.labels()
                    self.classes = {} if labels is None else row.describe_classes(labels, standing)
                elif attack.chain and (result.invalid or not result.skipped):
                    chains[attack.chain] = standing
        journal.close()
        return tuple(results if labels is None else self._by_class(results, standings, labels))

    def _by_class(
        self, results: Sequence[AttackResult], standings: Sequence[Standing], labels: Tensor
    ) -> Iterator[AttackResult]:
        """Add to each row its numbers by class."""
        classes = self.task.info.classes
        last = {row.chain: number for number, row in enumerate(results) if not row.skipped}
        shown = {0, *(number for chain, number in last.items() if chain)}
        for number, (row, standing) in enumerate(zip(results, standings, strict=True)):
            if row.skipped:
                yield row
                continue
            table = confusion(standing.predicted, labels, classes) if number in shown else ()
            yield replace(row, by_class=by_class(standing.right, labels, classes), confusion=table)


@dataclass
class _Row:
    """One attack of an evaluation, on the samples of `start`."""

    evaluation: Evaluation
    split: Split
    feed: Feed
    attack: Attack
    number: int
    start: Standing
    journal: Journal | Quiet
    seen: list[str] = field(default_factory=list)
    classes: list[Tensor] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    order: list[int] = field(default_factory=list)

    def run(self) -> tuple[AttackResult, Standing]:
        """Return the result, and how the samples stand after the row."""
        began, size = time.perf_counter(), len(self.start.right)
        total = int(self.start.right.sum())
        processes = self.evaluation.processes
        reason = self.attack.refused or self._endless(total)
        chunks = self.chunks
        if not reason:
            try:
                with self._prepared():
                    chunks += self._chunks(total)
                self._check()
            except Refused as why:
                if not self.number:
                    raise RunError(str(why)) from why
                reason = str(why)
            except BaseException as error:  # one attack must not affect the results of the others
                if ends_program(error):
                    raise
                reason = self._failure(error)
                self.evaluation.reporter.warn(f"{self.attack.label} failed: {reason}")
        self.journal.end_of_attack()
        if processes.any(bool(reason)):
            self.chunks.clear()
            reason = reason or "refused on another process"
            return self._skipped(reason, time.perf_counter() - began), self.start
        right = torch.tensor([index for chunk in chunks for index in chunk.right], dtype=torch.int64)
        held = torch.zeros(size, dtype=torch.bool)
        held[processes.gather(right.to(processes.device)).cpu()] = True
        sums = processes.total([float(sum(c.counts[n] for c in chunks)) for n in range(4)])
        # Each process prepared the same attack, and each of its batches states the same cost.
        own = torch.tensor([chunk.prepared for chunk in chunks], dtype=torch.int64)
        prepared = int(torch.cat([own.new_zeros(1), processes.gather(own.to(processes.device)).cpu()]).max())
        measures = means(self.evaluation, chunks, self.attack.measurement)
        if LOST in measures:
            self.evaluation.reporter.warn(
                f"{self.attack.label}: {measures[LOST].mean:.1%} of the values of input gradients were no "
                "finite numbers, as the slope of a square root at 0 is none; they count as 0"
            )
        distances = torch.tensor([pair for chunk in chunks for pair in chunk.distances]).view(-1, 2)
        distances = processes.gather(distances.to(processes.device)).cpu()
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
            seconds=sum(chunk.seconds for chunk in chunks),
            threat=self.attack.threat,
            shift=self.attack.shift_options,
            chain=self.attack.chain,
            distance=_medians(distances) if self.attack.perturbation is not None else {},
            right=tuple(held.tolist()),
            measures=measures,
            example=self._example(chunks),
            prepared=prepared,
            **certified(self.attack.measurement, chunks, self.order, size, processes),
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
        pairs = [pair for c in self.chunks for pair in zip(c.index, c.predicted, strict=False)]
        found = torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
        index, values = self.evaluation.processes.gather(found.to(self._device)).cpu().unbind(1)
        predicted = self.start.predicted.clone()
        predicted[index] = values
        return predicted

    @property
    def _device(self) -> torch.device:
        return self.evaluation.processes.device

    def labels(self) -> Tensor | None:
        """Return the class of each sample, int64 (size,); None if the task or the model has no classes."""
        own = [index for chunk in self.chunks for index in chunk.index]
        pairs = torch.stack([torch.tensor(own), torch.cat(self.classes)], 1) if own else torch.empty(0, 2)
        found = self.evaluation.processes.gather(pairs.long().to(self._device)).cpu()
        if not len(found):
            return None
        labels = torch.zeros(len(self.start.right), dtype=torch.int64)
        labels[found[:, 0]] = found[:, 1]
        return labels

    def describe_classes(self, labels: Tensor, standing: Standing) -> dict[str, Any]:
        """Return the number of samples of each class, and how well the confidence is calibrated."""
        info, size = self.evaluation.task.info, len(labels)
        pairs = [pair for c in self.chunks for pair in zip(c.index, c.confidence, strict=False)]
        index = torch.tensor([index for index, _ in pairs], dtype=torch.int64)
        values = torch.tensor([value for _, value in pairs], dtype=torch.float32)
        index, values = (
            self.evaluation.processes.gather(part.to(self._device)).cpu() for part in (index, values)
        )
        confidence = torch.full((size,), torch.nan)
        confidence[index] = values
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
        own = [json.dumps(pair) for chunk in self.chunks for pair in chunk.texts]
        pairs = [json.loads(line) for line in self.evaluation.processes.gather_lines(own)]
        return [TextRecord(*record) for _, record in sorted(pairs, key=lambda pair: int(pair[0]))]

    def _example(self, chunks: Sequence[Chunk]) -> str:
        told = [json.dumps(chunk.told) for chunk in chunks if chunk.told is not None]
        known = [json.loads(line) for line in self.evaluation.processes.gather_lines(told)]
        return min(known, key=lambda said: (not said[0], said[1]))[2] if known else ""

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
        batches = standing_batches(evaluation.task.batches(self.split, feed), self.start.right)
        done = 0
        for number, batch in enumerate(regroup(batches, portion(attack.measurement, feed.batch_size))):
            if attack.measurement is not None:
                self.order += batch.index.tolist()
            if not self.number:
                self.seen += sample_lines(batch)
                if evaluation.task.info.classes is not None:
                    self.classes.append((batch.y if batch.y.dim() == 1 else batch.y.argmax(1)).cpu())
            chunk = self.journal.chunk(self.number, number, batch, evaluation.task.info.classes)
            if chunk is None:
                if self.number and evaluation.deadline is not None and time.monotonic() > evaluation.deadline:
                    raise Refused("the budget of time was spent before it ended")
                chunk = self._attacked(batch, attack, number)
                self.journal.add(self.number, number, chunk)
            done += len(batch)
            if evaluation.processes.main:
                evaluation.reporter.attack(self.attack.label, min(done * feed.world, total), total)
            yield chunk

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


def _medians(distances: Tensor) -> dict[str, float]:
    if not len(distances):
        return {}
    linf, l2 = distances.median(0).values.tolist()
    return {"linf": linf, "l2": l2}
