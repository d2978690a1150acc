"""Validate the model between epochs, and score its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..core.random import derive
from ..core.task import score_name
from ..core.types import Cost, EpochReport
from ..devices.precision import HALVES, HalfPrecision
from ..errors import RunError
from ..evaluation.evaluate import Evaluation
from ..evaluation.readable import readable
from ..evaluation.setting import Attack
from ..subjects.assemble import build_part

if TYPE_CHECKING:
    from ..devices.processes import Processes
    from ..subjects.assemble import Parts
    from .session import Session

# Wong et al. 2020 stop Fast AT when the robust accuracy of an epoch falls by more than 0.2.
DROP = 0.2
# Share of samples on which attacks in half precision must agree with those in float32.
AGREES = 0.99
# Clean validation accuracy that training in bfloat16 may cost.
POINT = 0.01


def selection_score(select: str, epoch: int, validation: Mapping[str, float]) -> float | None:
    """Return the score of a checkpoint, of which the highest is selected; None if it was not measured.

    Args:
        select: value of `train.select`.
        epoch: number of finished epochs.
        validation: validation results of this epoch.
    """
    if select == "last":
        return float(epoch)
    # The shares of a task without accuracy have the name of its score before them.
    found = next((value for name, value in validation.items() if name.rpartition("/")[2] == select), None)
    return -found if found is not None and select == "loss" else found


def validate(
    parts: Parts, session: Session, processes: Processes, kept: Callable[[], str]
) -> dict[str, float]:
    """Measure accuracy and the task's other measures on the validation split, if validation is due.

    Args:
        parts: the parts of the run.
        session: the session at the end of an epoch.
        processes: the processes that share the batches.
        kept: returns a sentence on the last good checkpoint, for errors.

    Returns:
        The results as in EpochReport; empty if validation is not due.

    Raises:
        RunError: the attack cannot be run.
    """
    options, epochs = parts.recipe.validate, parts.recipe.train.epochs
    last = session.epoch + 1 == epochs
    if not parts.task.info.sizes["validation"] or not (last or (session.epoch + 1) % options.every == 0):
        return {}
    attack = build_part(options.attack, "perturbation", "validate.attack")
    exported = parts.method.export(session.weights())
    evaluation = Evaluation(
        readable(exported, parts.task, "validation", processes.device).model,
        parts.task,
        parts.method.vicinity,
        build_part(parts.recipe.evaluate.loss, "loss", "evaluate.loss"),
        derive(parts.recipe.seed, "validate", session.epoch),
        processes,
        table="validate",
        losses=parts.recipe.train.select == "loss",
    )
    attacks = [Attack(options.attack.name, {}, attack)]
    rows = evaluation.run("validation", attacks, options.batch_size, options.samples)
    if rows[1].skipped:
        raise RunError(
            f'validate.attack cannot be run: {rows[1].skipped}; choose another, or "none". {kept()}'
        )
    score = score_name(parts.task)
    prefix = "" if score == "accuracy" else f"{score}/"
    found = {f"{prefix}clean": rows[0].accuracy, f"{prefix}robust": rows[1].accuracy}
    if evaluation.losses:
        found["loss"] = rows[0].measures["loss"].mean
    # Means over only the samples that are correct when clean would be too favourable.
    whole = rows if rows[1].attempted == rows[0].attempted else rows[:1]
    measured = {name: measure for row in whole for name, measure in row.measures.items()}
    return {**{name: measure.mean for name, measure in measured.items() if measure.count}, **found}


def collapsed(history: Sequence[EpochReport]) -> bool:
    """Return whether the last epoch shows catastrophic overfitting.

    Its robust validation accuracy is more than 0.2 below the best earlier one, while the robust training
    accuracy ("accuracy/adv") is higher than in that best epoch. (Wong et al. 2020, arXiv:2001.03994 §5.4.)
    """
    measured = [r for r in history if "robust" in r.validation and "accuracy/adv" in r.train]
    if len(measured) < 2 or measured[-1] is not history[-1]:
        return False
    *before, last = measured
    best = max(before, key=lambda report: report.validation["robust"])
    fell = best.validation["robust"] - last.validation["robust"]
    return fell > DROP and last.train["accuracy/adv"] > best.train["accuracy/adv"]


def rounding(
    parts: Parts, exported: nn.Module, processes: Processes, warn: Callable[[str], None]
) -> dict[str, Any]:
    """Measure what bfloat16 costs a run that was trained in it, and warn if it is more than a point.

    Args:
        parts: the parts of the run.
        exported: the module that the run leaves, which is evaluated in float32.
        processes: the processes that share the batches.
        warn: receives the warning.

    Returns:
        Clean accuracy, or the task's score, on the validation split in each precision, under
        "validation_accuracy"; empty for a run in float32, and without a validation split.
    """
    if parts.recipe.train.precision != "bfloat16" or not parts.task.info.sizes["validation"]:
        return {}
    model = readable(exported, parts.task, "validation", processes.device).model
    loss = build_part(parts.recipe.evaluate.loss, "loss", "evaluate.loss")
    shared = (parts.task, parts.method.vicinity, loss, parts.recipe.seed, processes)
    found = {
        name: Evaluation(module, *shared, table="validate")
        .run("validation", [], parts.recipe.validate.batch_size)[0]
        .accuracy
        for name, module in {"float32": model, "bfloat16": HalfPrecision(model, torch.bfloat16)}.items()
    }
    lost = found["float32"] - found["bfloat16"]
    if lost > POINT:
        warn(
            f"bfloat16, in which the model was trained, costs {100 * lost:.1f} points of clean "
            f'{score_name(parts.task)} on the validation split: set train.precision = "float32"'
        )
    return {"validation_accuracy": found}


def agreement(
    parts: Parts, exported: nn.Module, processes: Processes, warn: Callable[[str], None]
) -> dict[str, Any]:
    """Compare what the attack of validation finds in the precision of the training's attacks and in float32.

    Args:
        parts: the parts of the run.
        exported: the module that the run leaves.
        processes: the processes that share the batches.
        warn: receives a warning if the attacks agree on less than 99 % of the samples.

    Returns:
        The share of samples with the same verdict, by precision, under "attack_agreement"; empty if attacks
        were in float32, and without an attack in validation or a validation split.
    """
    precision, options = parts.recipe.train.attack_precision, parts.recipe.validate
    if precision is None or precision not in HALVES or not parts.task.info.sizes["validation"]:
        return {}
    model = readable(exported, parts.task, "validation", processes.device).model
    loss = build_part(parts.recipe.evaluate.loss, "loss", "evaluate.loss")
    shared = (parts.task, parts.method.vicinity, loss, parts.recipe.seed, processes)
    attack = build_part(options.attack, "perturbation", "validate.attack")
    if not any(attack.cost(Cost(0, 0))):
        return {}
    dtype = HALVES[precision]
    rows = [
        Evaluation(model, *shared, table="validate").run(
            "validation",
            [Attack(options.attack.name, {}, attack, stand_in=stand_in, transfers=stand_in is not None)],
            options.batch_size,
            options.samples,
        )[1]
        for stand_in in (None, lambda model: HalfPrecision(model, dtype))
    ]
    if any(row.skipped or not row.right for row in rows):
        return {}
    same = sum(one == other for one, other in zip(rows[0].right, rows[1].right, strict=True))
    share = same / len(rows[0].right)
    if share < AGREES:
        warn(
            f"attacks in {precision} agree with those in float32 on {share:.1%} of the validation samples "
            "only: leave out train.attack_precision"
        )
    return {"attack_agreement": {precision: share}}
