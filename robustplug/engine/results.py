"""Evaluate the parts of a run as its recipe asks, and write results as JSON."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import nn

from ..recipe.write import recipe_hash, use_to_mapping
from ..types import EpochReport, Result
from .assemble import Parts, build_part
from .environment import describe_environment
from .evaluate import Attack, Evaluation, attack_label

if TYPE_CHECKING:
    from ..component import Use
    from .processes import Processes
    from .reporting import Reporter


def build_attacks(references: Sequence[Use]) -> list[Attack]:
    """Build the attacks of an evaluation, in order."""
    return [
        Attack(
            attack_label(use),
            use_to_mapping(use),
            build_part(use, "perturbation", f"evaluate.attack.{number}"),
        )
        for number, use in enumerate(references)
    ]


def evaluate_parts(
    parts: Parts,
    exported: nn.Module,
    processes: Processes,
    reporter: Reporter,
    training: Mapping[str, Any],
) -> Result:
    """Evaluate an exported model as the recipe's `evaluate` table says.

    Args:
        parts: of the run.
        exported: plain module.
        processes: share the batches.
        reporter: hears of progress.
        training: what training cost, for the report.
    """
    started, recipe = time.perf_counter(), parts.recipe
    options = recipe.evaluate
    if options.vicinity is None:
        threat, vicinity = method_threat(recipe.method), parts.method.vicinity
    else:
        threat = use_to_mapping(options.vicinity)
        vicinity = build_part(options.vicinity, "vicinity", "evaluate.vicinity")
    loss = build_part(options.loss, "loss", "evaluate.loss")
    evaluation = Evaluation(exported, parts.task, vicinity, loss, recipe.seed, processes, reporter)
    rows, survived = evaluation.run(
        options.split, build_attacks(options.attack), options.batch_size, options.samples
    )
    meta = {
        "name": recipe.name,
        "method": recipe.method.name,
        "task": recipe.task.name,
        "model": recipe.model.name if recipe.model else None,
        "recipe_hash": recipe_hash(recipe),
        "input_range": [0.0, 1.0],
        "normalisation": {"mean": list(parts.task.info.mean), "std": list(parts.task.info.std)},
        "training": dict(training),
        "environment": describe_environment(processes),
        "seconds": time.perf_counter() - started,
    }
    return Result(options.split, len(survived), threat, rows, survived, meta)


def method_threat(method: Use) -> dict[str, Any]:
    """Return the vicinity that a method trains in, as a recipe would write it."""
    return use_to_mapping(method.options.vicinity)


def result_to_json(result: Result, history: Sequence[EpochReport] = ()) -> dict[str, Any]:
    """Return a result as JSON; the outcome of each sample is one byte, in base64.

    Byte i tells how many rows of `attacks` sample i came through, at most 255.
    """
    body = asdict(result)
    body["survived"] = base64.b64encode(bytes(min(count, 255) for count in result.survived)).decode()
    return {"format": 1, **body, "history": [asdict(report) for report in history]}


def result_from_json(body: Mapping[str, Any]) -> Result:
    """Undo `result_to_json`.

    Raises:
        KeyError, TypeError, ValueError: it is no result.
    """
    from ..types import AttackResult

    return Result(
        body["split"],
        body["samples"],
        body["threat"],
        tuple(AttackResult(**row) for row in body["attacks"]),
        tuple(base64.b64decode(body["survived"], validate=True)),
        body["meta"],
    )
