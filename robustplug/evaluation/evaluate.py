"""Evaluate a plain module under attacks; every result is checked before it counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ..core.protocols import AimingPerturbation, Certificate
from ..core.types import AttackResult, Feed, Split
from ..errors import RunError
from ..recipe.write import digest
from ..text.records import TextRecord
from .classes import Standing, by_class, confusion
from .kept.share import journal_of
from .measuring.bounds import Reached
from .running.row import Row
from .setting import CLEAN, Attack, Setting


@dataclass
class Evaluation(Setting):
    """Run attacks one after the other, each on the samples that are still correct in its chain.

    A chain starts with the samples that are correct when clean. It starts with all samples if they are
    shifted first or if the attack has its own goal. An attack that is refused or fails affects only its row.

    Attributes:
        texts: of a task of texts, what each row of the last run did to each sample, in order.
        reached: for each row of the last run, how far the inputs are that broke a sample; nothing without a
            certificate.
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
        # Only a certificate can contradict them.
        opposed = any(isinstance(attack.measurement, Certificate) for attack in attacks)
        with self.prepared():
            for number, attack in enumerate(rows):
                own = attack.shift is not None or isinstance(attack.perturbation, AimingPerturbation)
                all_count = own or attack.measurement is not None
                start = chains.get(attack.after or attack.chain, everyone if all_count else clean)
                row = Row(self, split, feed, attack, number, start, journal)
                result, standing = row.run()
                if result.bound == "none":
                    standing = clean
                    result = replace(result, broken=0, right=results[0].right, accuracy=results[0].accuracy)
                results.append(result)
                far = row.outcomes.how_far(self.processes) if opposed and number and not own else {}
                self.reached.append(far)
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
