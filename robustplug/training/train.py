"""Train a recipe in a run folder: epochs, validation, checkpoints, and the evaluation at the end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..core.reporting import Reporter, Silent
from ..core.task import notes_of, score_name
from ..core.types import Cost, EpochReport, Progress, Result, RunInfo, View
from ..devices.determinism import deterministic
from ..devices.precision import fitting_threads
from ..devices.processes import Processes, start
from ..devices.signals import StopRequest, stop_requests
from ..errors import Interrupted
from ..evaluation.judge import refuse_illegal
from ..evaluation.kept.journal import discard
from ..evaluation.results import Asked, evaluate_subject
from ..plugin.host import host
from ..runs.environment import describe_environment
from ..runs.folder import JOURNAL, holds_run, refuse_occupied
from ..runs.heads import names
from ..runs.launch import LAUNCH, agent, begun_here
from ..runs.lock import locked
from ..runs.result_file import result_to_json, seal_result
from ..runs.stored import EXTENDED
from ..subjects.assemble import Parts, assemble, refuse_radii
from ..subjects.starting import load_networks, load_start
from ..subjects.subject import Subject
from ..subjects.wrapping import under_test
from .data import TrainingData
from .extend import check_extension, extend, note_on_extension
from .failures import Place, explained
from .loop import mechanism_of
from .making import make_session
from .running.layers import plain, undress
from .session import Session
from .store import Store
from .validate import agreement, collapsed, rounding, selection_score, validate

if TYPE_CHECKING:
    from ..recipe.options import Recipe

# Seconds between updates of the progress line: reading a mean waits for the device.
REFRESH = 0.2
# Batches between checks by several processes of whether one of them received a stop signal.
ASK_EVERY = 10


@dataclass(frozen=True)
class Trained:
    """The outcome of training.

    Attributes:
        folder: the run folder.
        model: the exported module of the selected checkpoint, in eval mode.
        result: the evaluation of the model.
        history: a report for each epoch.
        main: whether this process prints.
        parts: the recipe, the task and the method of the run.
    """

    folder: Path
    model: nn.Module
    result: Result
    history: Sequence[EpochReport]
    main: bool = True
    parts: Parts | None = None


class Training:
    """Train one recipe.

    Args:
        recipe: a validated recipe.
        folder: the run folder.
        resume: resume from the newest intact checkpoint instead of refusing a folder with a run. Where the
            recipe differs from the stored one in `train.epochs`, the run is extended.
        reporter: receives progress, on the main process.
        observers: names of the plugins that observe the run.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        resume: bool = False,
        reporter: Reporter | None = None,
        observers: Sequence[str] = (),
    ) -> None:
        self.folder, self.resume, self.observers = folder, resume, tuple(observers)
        self.reporter: Reporter = reporter or Silent()
        self.processes: Processes = start(
            recipe.train.device, "float32", "capture" in (recipe.train.fast or "")
        )
        if not self.processes.main:
            self.reporter = Silent()
        self.parts: Parts = assemble(recipe, self.processes.device)
        refuse_radii(self.parts)
        for note in notes_of(self.parts.task):
            self.reporter.warn(note)
        self.data = TrainingData(self.parts, self.processes)
        self.store = Store(folder, self.reporter)
        self._start: str | None = None
        self._place = Place()

    def run(self) -> Trained:
        """Train, select a checkpoint by validation, evaluate it on the recipe's split, and write the results.

        Raises:
            RunError: the run cannot continue; the last good checkpoint is kept.
            Interrupted: a stop signal was received, and a checkpoint was written.
        """
        if not self.processes.main:
            return self._run()
        if not self.resume:
            refuse_occupied(self.folder)  # also before the lock is written
        with locked(self.folder) as self.store.held:
            if self.resume and holds_run(self.folder):
                check_extension(self.folder, self.parts.recipe)
            else:
                refuse_occupied(self.folder)
            return self._run()

    def _run(self) -> Trained:
        place = self._place
        first = self.data.first()
        same_bits = deterministic(self.parts.recipe.train.deterministic is not False)
        with explained(place, self._kept, self.parts, self.folder), fitting_threads(first.x), same_bits:
            method = self.parts.method
            if any(method.perturbation.cost(Cost(0, 0))):  # the range is that of an attack
                radius = torch.full((len(first),), float(method.vicinity.eps), device=first.index.device)
                refuse_illegal(self.parts.task, View.of(first), method.vicinity, radius)
            return self._train()

    def _train(self) -> Trained:
        if self.resume:
            self.store.open()
        # A run that was killed before its first checkpoint starts again.
        restorable = self.resume and bool(self.processes.from_main(bool(names(self.store.checkpoints))))
        if not restorable:
            recipe, info = self.parts.recipe, self.parts.task.info
            assert recipe.model is not None
            self._start, notes = load_start(recipe.model, self.parts.model, info)
            notes += load_networks(self.parts.method, recipe.method, info)
            for note in notes:
                self.reporter.warn(note)
        session = self._place.session = self._session()
        recipe, method = self.parts.recipe, self.parts.method
        self.info = RunInfo(
            recipe.name,
            str(self.folder),
            recipe.method.name,
            recipe.task.name,
            recipe.model.name if recipe.model else "",
            recipe.train.epochs,
            observers=self.observers,
            score=score_name(self.parts.task),
        )
        agents = sorted(set(self.processes.gather_lines([agent()])) - {""})
        before = None
        if self.resume:
            self._restore(session, restorable)
            before = extend(self.store, recipe) if self.processes.main else None
        else:
            begun_here(self.folder)  # on each process, as any of them may be asked for it
            if self.processes.main:
                start: dict[str, Any] = {} if self._start is None else {"started_from": self._start}
                start |= {LAUNCH: agents} if agents else {}
                self.store.begin(recipe, describe_environment(self.processes) | start)
        if self.processes.main:
            host().run_start(self.info)
            self.reporter.begin(self.info, self._progress(session))
            if before is not None:
                self.reporter.warn(note_on_extension(recipe, session, before))
            self._pass_on_warnings()
        behind = bool(recipe.train.background_checkpoints)
        with stop_requests() as stop, self.store.behind(behind):
            while session.epoch < recipe.train.epochs:
                if recipe.train.stop_on_collapse and collapsed(session.decisive()):
                    break
                self._epoch(session, stop)
        self._place.evaluating = True
        self.store.check()
        self.store.restore_selected(session)
        if session.loop.wrapped is not None:
            self.processes.unwrap(session.loop.wrapped)
        undress(session.loop.model)
        undress(session.weights())
        exported = method.export(session.weights()).eval()
        training = self._training_cost(session)
        training |= rounding(self.parts, exported, self.processes, self.reporter.warn)
        training |= agreement(self.parts, exported, self.processes, self.reporter.warn)
        journal = self.folder / JOURNAL
        asked = Asked(journal=journal, training=training)
        subject = under_test(Subject(self.parts, exported, self.processes, self.reporter))
        result = evaluate_subject(subject, asked)
        if self.processes.main:
            self._write_end(exported, result, session)
            discard(journal)
        history = tuple(session.history)
        return Trained(self.folder, exported, result, history, self.processes.main, self.parts)

    def _session(self) -> Session:
        session = make_session(self.parts, self.data, self.processes, self.store, self.reporter.warn)
        self.processes = session.loop.processes
        return session

    def _progress(self, session: Session) -> Progress:
        recipe = self.parts.recipe
        return Progress(
            session.epoch, recipe.train.epochs, session.batch, session.loop.batches, session.loop.update, 0
        )

    def _restore(self, session: Session, restorable: bool) -> None:
        if not restorable:
            self.reporter.warn(f"{self.folder} holds no checkpoint: its training starts anew")
            self.store.rewrite(session)
            return
        self.store.restore(session)
        self.info = dataclasses.replace(self.info, resumed_at_epoch=session.epoch)

    def _epoch(self, session: Session, stop: StopRequest) -> None:
        recipe, loop = self.parts.recipe, session.loop
        began, shown = session.clock.seconds(), 0.0

        def after_batch(progress: Progress) -> None:
            nonlocal shown
            session.batch = progress.batch
            now = time.perf_counter()
            if self.processes.main and now - shown > REFRESH:
                shown = now
                self.reporter.batch(progress, loop.means.means())
            if progress.batch == progress.batches:
                return
            every = recipe.train.checkpoint_batches
            asked = self.processes.world == 1 or progress.batch % ASK_EVERY == 0
            if asked and self.processes.any(bool(stop.signal)):
                self._interrupt(session, stop)
            elif every and progress.batch % every == 0:
                loop.check_last_loss(self._kept)
                self._save(session)

        batches = self.data.batches(session.epoch, session.batch, raw=loop.ready is not None)
        size, rows = self.data.size, recipe.train.batch_size
        loop.epoch(session.epoch, session.batch, batches, rows, size, after_batch, self._kept)
        self._close_epoch(session, began)
        if self.processes.any(bool(stop.signal)):
            self._interrupt(session, stop, saved=True)

    def _close_epoch(self, session: Session, began: float) -> None:
        loop, recipe = session.loop, self.parts.recipe
        session.close_average(batch.x for batch in self.data.batches(session.epoch))
        self.processes.average_buffers(session.weights())
        totals = loop.means.totals()
        flat = self.processes.total([number for pair in totals.values() for number in pair])
        sums = {key: flat[2 * n : 2 * n + 2] for n, key in enumerate(totals)}
        train = {key: total / rows for key, (total, rows) in sums.items() if rows}
        with plain(loop.model, session.weights()):
            validation = validate(self.parts, session, self.processes, self._kept)
        session.epoch, session.batch = session.epoch + 1, 0
        loop.means = type(loop.means)()
        score = selection_score(recipe.train.select, session.epoch, validation)
        seconds, fell = session.clock.seconds() - began, collapsed(session.decisive())
        report = EpochReport(session.epoch - 1, train, validation, loop.lr, seconds, best=False)
        report = session.close_epoch(report, score)
        # Observers receive the epoch before the checkpoint is saved: after a kill in between they receive it
        # twice, which its number reveals; in the other order they would miss it.
        if self.processes.main:
            self.store.append(report)
            host().epoch_end(self.info, report)
        self._save(session)
        if self.processes.main:
            self.reporter.epoch(report, recipe.train.epochs)
            if collapsed(session.decisive()) and not fell:
                self.reporter.warn(
                    f"epoch {session.epoch}: catastrophic overfitting: robust validation accuracy collapsed "
                    f"to {validation['robust']:.1%} while robust training accuracy rose; the best checkpoint "
                    "is kept"
                )
            self._pass_on_warnings()

    def _kept(self) -> str:
        return self.store.kept()

    def _save(self, session: Session) -> None:
        self.store.wait()
        tensors, meta = session.capture()
        if self.processes.main:
            self.store.save(session, tensors, meta)

    def _interrupt(self, session: Session, stop: StopRequest, saved: bool = False) -> None:
        if not saved:
            session.loop.check_last_loss(self._kept)
            self._save(session)
        number = stop.signal or 15
        raise Interrupted(f"stopped; resume with: robustplug train --resume {self.folder}", 128 + number)

    def _pass_on_warnings(self) -> None:
        warnings = host().warnings
        while warnings:
            self.reporter.warn(warnings.pop(0))

    def _training_cost(self, session: Session) -> dict[str, Any]:
        passes = self.processes.total(
            [float(session.loop.meter.forwards), float(session.loop.meter.backwards)]
        )
        seen = max(1, len(session.history) * self.data.size)
        manifest = self.store.manifest
        extended = [] if manifest is None else [each.epochs for each in manifest.earlier]
        return {
            "epochs": len(session.history),
            "forwards_per_sample": passes[0] / seen,
            "backwards_per_sample": passes[1] / seen,
            "seconds": session.clock.seconds(),
            "selected": None if session.best is None else session.best[0],
            "mechanism": mechanism_of(session.history),
            **({EXTENDED: extended} if extended else {}),
        }

    def _write_end(self, exported: nn.Module, result: Result, session: Session) -> None:
        from safetensors.torch import save

        weights = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in exported.state_dict().items()}
        body = result_to_json(result, session.history)
        self.store.finish(save(weights), seal_result(body, "result", self.folder))
        host().run_end(self.info, result)
        self._pass_on_warnings()
