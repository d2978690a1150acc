"""Evaluate the parts of a run as its recipe or a suite asks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.types import Result
from ..recipe.write import digest, options_to_mapping, recipe_hash, use_to_mapping
from ..runs.environment import describe_environment
from ..runs.folder import locked, write_json, writing
from ..runs.result_file import result_to_json
from ..subjects.assemble import build_part, threat_of
from ..subjects.formats.weights import weights_digest
from .evaluate import Evaluation
from .journal import discard
from .rows import chain_of_attacks, suite_attacks
from .setting import Attack
from .summary import ReferenceErrors, corruption_summary, worst_cases

if TYPE_CHECKING:
    from ..recipe.options import Recipe
    from ..recipe.suite import Suite
    from ..subjects.subject import Source, Subject


@dataclass(frozen=True)
class Asked:
    """Say what an evaluation runs besides what its recipe says.

    Attributes:
        suite: instead of the recipe's attacks.
        sources: models that transfer rows make their examples on.
        reference: what corruption errors are divided by.
        journal: file that notes what is done; None for none.
        training: what training cost.
    """

    suite: Suite | None = None
    sources: Sequence[Source] = ()
    reference: ReferenceErrors | None = None
    journal: Path | None = None
    training: Mapping[str, Any] = field(default_factory=dict)


def prepare_evaluation(subject: Subject, asked: Asked) -> Evaluation:
    """Return the evaluation of a model in its threat model."""
    parts, recipe, options = subject.parts, subject.parts.recipe, subject.parts.recipe.evaluate
    vicinity = build_part(parts.threat, "vicinity", "evaluate.vicinity")
    loss = asked.suite.loss if asked.suite is not None else options.loss
    identity = {
        "weights": weights_digest(subject.exported),
        "model": dict(subject.description),
        "data": use_to_mapping(recipe.task),
        "threat": use_to_mapping(parts.threat),
        "loss": use_to_mapping(loss),
        "sources": [source.identity for source in asked.sources],
    }
    built = build_part(loss, "loss", "evaluate.loss")
    return Evaluation(
        subject.exported,
        parts.task,
        vicinity,
        built,
        recipe.seed,
        subject.processes,
        subject.reporter,
        asked.journal,
        identity,
    )


def evaluate_subject(subject: Subject, asked: Asked) -> Result:
    """Evaluate a model as its recipe's `evaluate` table or a suite says.

    Args:
        subject: the model, its data and its recipe.
        asked: what is run besides.
    """
    started, parts = time.perf_counter(), subject.parts
    options, threat = parts.recipe.evaluate, parts.threat
    attacks: list[Attack]
    if asked.suite is None:
        attacks = chain_of_attacks(options.attack, threat, "evaluate.attack")
    else:
        attacks = suite_attacks(asked.suite, threat, asked.sources)
    evaluation = prepare_evaluation(subject, asked)
    rows = evaluation.run(options.split, attacks, options.batch_size, options.samples)
    meta = describe(subject, asked) | {
        "suite": None if asked.suite is None else asked.suite.name,
        "asked": {
            "rows": None if asked.suite is None else digest(options_to_mapping(asked.suite)),
            "evaluation": evaluation_digest(parts.recipe),
        },
        "samples_digest": evaluation.samples_digest,
        "worst_cases": worst_cases(rows),
        "corruptions": corruption_summary(rows, asked.reference),
        "seconds": time.perf_counter() - started,
    }
    return Result(options.split, len(rows[0].right), use_to_mapping(threat), rows, meta)


def evaluate_and_write(subject: Subject, asked: Asked, out: Path | None) -> Result:
    """Evaluate as `evaluate_subject` does, and keep notes and result in a folder.

    Args:
        subject, asked: as there.
        out: folder of NAME.json, where NAME is that of the suite or "evaluation"; None for none.

    Raises:
        RunError: the folder cannot be written, or another process evaluates in it.
    """
    if out is None:
        return evaluate_subject(subject, asked)
    name = "evaluation" if asked.suite is None else asked.suite.name
    # What is no module has no weights by which a journal could tell it from another.
    if subject.description.get("kind") not in ("classifier", "callable"):
        asked = replace(asked, journal=out / f"{name}.journal")
    with contextlib.ExitStack() as stack:
        if subject.processes.main:
            stack.enter_context(locked(out, f".{name}.lock"))
        result = evaluate_subject(subject, asked)
        if subject.processes.main:
            with writing(f"the result in {out}"):
                write_json(out / f"{name}.json", result_to_json(result))
            if asked.journal is not None:
                discard(asked.journal)
    return result


def describe(subject: Subject, asked: Asked) -> dict[str, Any]:
    """Return what a result says of its model, data and machine."""
    parts, recipe, info = subject.parts, subject.parts.recipe, subject.parts.task.info
    # Not every model has the layer; trees have none.
    layers = (dict(part.named_buffers(recurse=False)).keys() for part in parts.model.modules())
    inside = any({"mean", "std"} <= names for names in layers)
    return {
        "name": recipe.name,
        "method": recipe.method.name,
        "task": recipe.task.name,
        "model": recipe.model.name if recipe.model else None,
        "recipe_hash": recipe_hash(recipe),
        # Only images have a range that all tasks share.
        "input_range": [0.0, 1.0] if info.shape is not None else None,
        "normalisation": {"mean": list(info.mean), "std": list(info.std)} if inside else {},
        "training": dict(asked.training),
        "environment": describe_environment(subject.processes),
        **({"loaded": dict(subject.description)} if subject.description else {}),
    }


def evaluation_digest(recipe: Recipe) -> str:
    """Return what tells evaluations of a recipe's model apart, besides their rows."""
    options = recipe.evaluate
    table = {"split": options.split, "samples": options.samples, "seed": recipe.seed}
    return digest({**table, "threat": use_to_mapping(threat_of(recipe))})
