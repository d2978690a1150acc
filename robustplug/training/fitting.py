"""Train models that learn by themselves: collect the batches of an epoch, then call `fit` once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from ..core.guards.values import copied
from ..core.protocols import SelfTrained
from ..core.random import derive, isolated
from ..core.step import Step
from ..core.types import Batch, Progress, View
from ..errors import Refused, RunError
from ..recipe.convert import resolve
from ..recipe.errors import Problem, RecipeError
from ..recipe.options import Recipe, TrainOptions
from .loop import Loop, loss_of
from .watch import untouched

if TYPE_CHECKING:
    from ..core.types import ParamGroup
    from ..subjects.assemble import Parts

_SETTINGS = (
    *("clip_grad_norm", "ema_decay", "checkpoint_batches", "class_weights"),
    *("micro_batch", "sync_batch_norm", "checkpoint_activations", "attack_precision"),
)


def refuse_what_has_no_effect(parts: Parts, groups: Sequence[ParamGroup], processes: int) -> None:
    """Refuse settings that require gradients, for a model that learns by itself.

    Args:
        parts: the parts of the run.
        groups: the parameter groups that the method would train.
        processes: number of processes.

    Raises:
        RecipeError: the method trains parameters, or the recipe has settings of the optimizer's steps.
        RunError: there are several processes.
    """
    recipe, default = parts.recipe, TrainOptions()
    name = recipe.model.name if recipe.model else "model"
    why = f"has no effect: {name} learns by itself, without gradients; leave it out"
    learned = [group.name for group in groups if group.params]
    problems = [
        Problem("method", f"trains {', '.join(learned)}, but {name} has no gradients for this")
    ] * bool(learned)
    plain = Recipe(task=recipe.task, method=recipe.method)
    if recipe.optimizer != resolve(plain.optimizer, "optimizer"):
        problems.append(Problem("optimizer", why))
    if recipe.schedule != resolve(plain.schedule, "schedule"):
        problems.append(Problem("schedule", why))
    if parts.method.averaging() is not None:
        problems.append(Problem("method", f"averages weights, but {name} has none"))
    changed = [key for key in _SETTINGS if getattr(recipe.train, key) != getattr(default, key)]
    problems += [Problem(f"train.{key}", why) for key in changed]
    if recipe.train.fast not in (None, "auto", "off"):
        problems.append(Problem("train.fast", why))
    if recipe.train.precision == "bfloat16":
        problems.append(Problem("train.precision", why))
    if problems:
        raise RecipeError(problems, "recipe")
    if processes > 1:
        raise RunError(f"{name} learns by itself, from all samples at once: train it in one process")


class Fitting(Loop):
    """Train a model that learns by itself.

    No checkpoint is written within an epoch, and a signal takes effect at its end.
    """

    def epoch(
        self,
        epoch: int,
        first: int,
        batches: Iterable[Batch],
        batch_size: int,
        sample_count: int,
        after_batch: Callable[[Progress], None],
        kept: Callable[[], str],
    ) -> None:
        """Fit the model to the samples of an epoch, drawn by the vicinity and labelled by the label map.

        Raises:
            Refused: the method needs gradients, or more than one view of a sample.
        """
        assert isinstance(self.model, SelfTrained)
        device = self.processes.device
        self.watch.start()
        # A task may serve the same buffers again.
        drawn = [self._draw(epoch, number, copied(batch)) for number, batch in enumerate(batches)]
        x = torch.cat([view.x for _, view in drawn])
        y = torch.cat([step.target(view) for step, view in drawn])
        with isolated(derive(self.seed, "global fit", epoch), device), untouched(self.model):
            self.model.fit(x, y, derive(self.seed, "fit", epoch))
        with torch.no_grad():
            for step, view in drawn:
                loss = loss_of(step, [view])
                self.means.add({"loss": loss, **step.logged}, len(view), step.counted)
        after_batch(self._progress(epoch, self.batches, 1))

    def _draw(self, epoch: int, number: int, batch: Batch) -> tuple[Step, View]:
        """Return the step of a batch, and the view to train on."""
        progress, rng = self._progress(epoch, number, 1), self.rng(self.update)
        self.watch.update(batch, progress)
        (pass_, *more) = self.method.passes(progress)
        step = Step(self.model, self.method, self.task, batch, rng, progress, pass_, self.meter)
        with isolated(derive(self.seed, "global", self.processes.rank, self.update), self.processes.device):
            views = self.method.views(step, self.method.vicinity.sample(step, batch))
        self.watch.done()
        if more or pass_.input_grad or len(views) != 1:
            raise Refused(
                "a model that learns by itself needs a method with one pass and one view of each sample"
            )
        self.update += 1
        return step, views[0]
