"""Evaluate a model with the settings of its recipe or of a suite."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..core.protocols import DescribedVicinity, Stating
from ..core.task import quantities_of, score_name
from ..core.types import AttackResult, Result, TaskInfo
from ..errors import RunError
from ..plugin.host import registry
from ..recipe.toml.started import methods_of_runs
from ..recipe.write import digest, options_to_mapping, recipe_hash, use_to_mapping
from ..runs.environment import describe_environment
from ..runs.folder import remove_temporary
from ..runs.lock import locked
from ..runs.result_file import make_room, result_to_json, write_result
from ..subjects.assemble import build_part, build_vicinity, note_on_radius, threat_of
from ..subjects.data.arrays import extremes
from ..subjects.formats.weights import weights_digest
from .batches import rows_of_batch
from .evaluate import Evaluation
from .examples import Examples, Keeper, refuse_other_examples
from .judge import survivors
from .kept.journal import discard
from .kept.texts import write_texts
from .measuring.around import file_name, lost_gradient
from .measuring.bounds import both_sides, contradiction_text, contradictions
from .measuring.measure import doubts
from .readable import readable
from .rows import chain_of_attacks, labels_of, measurement_rows, suite_attacks, unfit
from .setting import Attack, Share
from .summary import ReferenceErrors, corruption_summary, worst_cases

if TYPE_CHECKING:
    from ..core.protocols import Vicinity
    from ..plugin.component import Use
    from ..recipe.options import Recipe
    from ..recipe.suite import Suite
    from ..subjects.subject import Source, Subject


@dataclass(frozen=True)
class Asked:
    """Hold the settings of an evaluation that are not in its recipe.

    Attributes:
        suite: suite that replaces the recipe's attacks.
        sources: surrogate models of transfer rows.
        reference: errors that divide the corruption errors.
        journal: file that records the progress; None for none.
        training: cost of the training.
        keep_examples: keep the adversarial examples, and write them beside the result.
        pictures: also write them as PNG.
        attacks: attacks that replace those of the suite and the recipe; None for those.
        name: name of such attacks, in results.
        deadline: moment of `time.monotonic` after which no further attack starts; None for none.
        measurements: what to measure after the attacks; None for what the recipe says, if its attacks run.
        share: the part of this process; None for the whole evaluation.
    """

    suite: Suite | None = None
    sources: Sequence[Source] = ()
    reference: ReferenceErrors | None = None
    journal: Path | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    keep_examples: bool = False
    pictures: bool = False
    attacks: Sequence[Attack] | None = None
    name: str = ""
    deadline: float | None = None
    measurements: Sequence[Use] | None = None
    share: Share | None = None

    @property
    def title(self) -> str:
        """Return the name of the attacks, "" for those of the recipe."""
        return self.name or ("" if self.suite is None else self.suite.name)


def prepare_evaluation(subject: Subject, asked: Asked) -> Evaluation:
    """Return the evaluation of a model in its threat model."""
    parts, recipe, options = subject.parts, subject.parts.recipe, subject.parts.recipe.evaluate
    vicinity = build_vicinity(parts.threat, "evaluate.vicinity", parts.task.info)
    loss = options.loss
    # A suite's own is for classes, if it states none.
    if asked.suite is not None:
        own = asked.suite.loss
        loss = loss if unfit(own, "loss", parts.task.info, labels_of(recipe.task)) else own
    identity = {
        "weights": weights_digest(subject.exported),
        "model": dict(subject.description),
        "data": use_to_mapping(recipe.task),
        "threat": use_to_mapping(parts.threat) | _facts(vicinity),
        "loss": use_to_mapping(loss),
        "sources": [source.identity for source in asked.sources],
        **_wrapper(recipe),
    }
    built = build_part(loss, "loss", "evaluate.loss")
    note = note_on_radius(vicinity, parts.task.info)
    if note:
        subject.reporter.warn(note)
    read = readable(subject.exported, parts.task, options.split, subject.processes.device)
    for line in read.notes:
        subject.reporter.warn(line)
    return Evaluation(
        read.model,
        parts.task,
        vicinity,
        built,
        recipe.seed,
        subject.processes,
        subject.reporter,
        asked.journal,
        asked.share,
        identity,
        capture=recipe.train.fast in (None, "auto", "capture", "compile+capture"),
    )


def _facts(vicinity: Vicinity) -> dict[str, Any]:
    """Return what a vicinity states besides its options."""
    return {"facts": dict(vicinity.facts())} if isinstance(vicinity, Stating) else {}


def evaluate_subject(subject: Subject, asked: Asked) -> Result:
    """Evaluate a model with the `evaluate` table of its recipe or with a suite.

    Args:
        subject: the model, its data and its recipe.
        asked: the settings that are not in the recipe.
    """
    started, parts = time.perf_counter(), subject.parts
    options, threat = parts.recipe.evaluate, parts.threat
    attacks: Sequence[Attack]
    if asked.attacks is not None:
        attacks = asked.attacks
    elif asked.suite is None:
        attacks = chain_of_attacks(options.attack, threat, "evaluate.attack")
    else:
        attacks = suite_attacks(
            asked.suite, threat, asked.sources, parts.task.info, labels_of(parts.recipe.task)
        )
    measuring = asked.measurements
    if measuring is None and asked.suite is None and asked.attacks is None:
        measuring = options.measurement
    attacks = [*attacks, *measurement_rows(measuring or (), threat, "evaluate.measurement")]
    evaluation = prepare_evaluation(subject, asked)
    # An audit, and a suite with `adaptive`, look at the gradients themselves.
    if asked.attacks is None and any(attack.perturbation is not None for attack in attacks):
        lost = lost_gradient(evaluation, subject)
        if lost:
            subject.reporter.warn(lost)
    examples = None
    if asked.keep_examples:
        if subject.processes.world > 1:
            raise RunError("examples are kept in one process: leave out torchrun")
        # The journal does not hold the examples: a killed evaluation that keeps them starts anew.
        evaluation.keeper, evaluation.journal = Keeper(parts.task.info.classes), None
    evaluation.deadline = asked.deadline
    size = rows_of_batch(evaluation, options.split, options.batch_size, options.samples)
    rows = evaluation.run(options.split, attacks, size, options.samples)
    if evaluation.keeper is not None:
        examples = _examples(evaluation, attacks, rows, parts.task.info)
    said = quantities_of(parts.task)
    measured = any(quantity.headline for quantity in said)
    meta = describe(subject, asked) | {
        "suite": asked.title or None,
        "asked": {
            "rows": None if asked.suite is None else digest(options_to_mapping(asked.suite)),
            "evaluation": evaluation_digest(parts.recipe, subject.data),
        },
        "samples_digest": evaluation.samples_digest,
        **({} if (score := score_name(parts.task)) == "accuracy" else {"score": score}),
        **({} if not said else {"quantities": [asdict(each) for each in said]}),
        **({} if size == options.batch_size else {"batch_size": size}),
        **evaluation.classes,
        **({"outputs": scale} if (scale := evaluation.scale) != "logits" else {}),
        **(
            {"threat_described": evaluation.vicinity.described()}
            if isinstance(evaluation.vicinity, DescribedVicinity)
            else {}
        ),
        **_both_sides(evaluation, rows),
        **({"doubts": found} if (found := doubts(attacks, rows, _trained_by(subject))) else {}),
        # Both are summaries of accuracies.
        "worst_cases": [] if measured else worst_cases(rows),
        "corruptions": {} if measured else corruption_summary(rows, asked.reference),
        **({} if examples is None else {"examples": examples.summary()}),
        "seconds": time.perf_counter() - started,
    }
    size = len(rows[0].right)
    return Result(options.split, size, use_to_mapping(threat), rows, meta, examples, evaluation.texts)


def _examples(
    evaluation: Evaluation, attacks: Sequence[Attack], rows: Sequence[AttackResult], info: TaskInfo
) -> Examples | None:
    """Return the examples that an evaluation kept; those that are images are checked as 8-bit pictures."""
    assert evaluation.keeper is not None
    found = evaluation.keeper.examples([row.name for row in rows])
    if found is None or info.shape is None or len(info.shape) != 3:
        return found
    with evaluation.prepared():
        return replace(found, survives=survivors(found, evaluation, attacks, info.bounds))


def evaluate_and_write(subject: Subject, asked: Asked, out: Path | None) -> Result:
    """Evaluate as `evaluate_subject` does, and keep the journal and the result in a folder.

    Args:
        subject, asked: as for `evaluate_subject`.
        out: folder of NAME.json, where NAME is the name of the suite or "evaluation", followed by the
            wrapper if it is not the run's own; None for none.

    Raises:
        RunError: the folder cannot be written, or another process evaluates in it.
    """
    if out is None:
        return evaluate_subject(subject, asked)
    name = file_name(asked.title, subject)
    # Without a module there are no weights by which a journal could identify the model.
    if asked.share is None and subject.description.get("kind") not in ("classifier", "callable"):
        asked = replace(asked, journal=out / f"{name}.journal")
    with contextlib.ExitStack() as stack:
        if subject.processes.main:
            stack.enter_context(locked(out, f".{name}.lock"))
            make_room(out / f"{name}.json")
            # The lock is held: no living process writes these.
            remove_temporary(out, re.compile(rf"\.{re.escape(name)}\.(json|journal)\.\d+\.tmp"))
            if asked.keep_examples:
                refuse_other_examples(out)
        result = evaluate_subject(subject, asked)
        result = replace(result, meta={**result.meta, "file": name})
        if subject.processes.main:
            write_result(out / f"{name}.json", result_to_json(result), subject.folder)
            if result.examples is not None:
                result.examples.write(out)
                if asked.pictures:
                    result.examples.write_pictures(out, subject.parts.task.info.bounds)
            write_texts(result, out / f"{name}-texts")
            if asked.journal is not None:
                discard(asked.journal)
    return result


def describe(subject: Subject, asked: Asked) -> dict[str, Any]:
    """Return the description of model, data and machine for a result."""
    parts, recipe, info = subject.parts, subject.parts.recipe, subject.parts.task.info
    # Not every model has a normalisation layer; trees have none.
    layers = (dict(part.named_buffers(recurse=False)) for part in parts.model.modules())
    inside = next((layer for layer in layers if {"mean", "std"} <= layer.keys()), {})
    numbers = {key: [round(value, 7) for value in layer.flatten().tolist()] for key, layer in inside.items()}
    return {
        "name": recipe.name,
        "method": recipe.method.name,
        "task": recipe.task.name,
        # A task that was given as an object says nothing: the threat model fits it.
        "modality": registry().get("vicinity", threat_of(recipe).name).modality,
        "model": recipe.model.name if recipe.model else None,
        "recipe_hash": recipe_hash(recipe),
        # Only images have a range that all tasks share.
        "input_range": extremes(info.bounds) if info.shape is not None else None,
        "input_shape": None if info.shape is None else list(info.shape),
        "normalisation": {key: numbers[key] for key in ("mean", "std")} if inside else {},
        "training": dict(asked.training),
        "environment": describe_environment(subject.processes),
        **({"loaded": dict(subject.description)} if subject.description else {}),
        **({"data": dict(subject.data)} if subject.data else {}),
        **_wrapper(recipe),
    }


def evaluation_digest(recipe: Recipe, data: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Return a digest of the settings, besides the rows, that distinguish evaluations of a model.

    Args:
        recipe: the recipe of the evaluation.
        data: settings of the task that differ from those of the run.
    """
    options = recipe.evaluate
    table = {"split": options.split, "samples": options.samples, "seed": recipe.seed, **data}
    return digest({**table, "threat": use_to_mapping(threat_of(recipe)), **_wrapper(recipe)})


def _wrapper(recipe: Recipe) -> dict[str, Any]:
    """Return what stands around the model under test; nothing for the model itself."""
    around = recipe.evaluate.wrapper
    return {} if around is None else {"wrapper": use_to_mapping(around)}


def _trained_by(subject: Subject) -> dict[str, Any] | None:
    """Return the table of the method that trained the model of a run; None for other models.

    It also has those of the runs that its wrapper names, such as that of a denoiser.
    """
    recipe = subject.parts.recipe
    around = recipe.evaluate.wrapper
    others = {} if around is None else {"wrapper": methods_of_runs(around)}
    return None if subject.folder is None else {**use_to_mapping(recipe.method), **others}


def _both_sides(evaluation: Evaluation, rows: Sequence[AttackResult]) -> dict[str, Any]:
    """Return the bounds from both sides where there is a certificate; warn if they contradict each other."""
    reach = max(map(abs, extremes(evaluation.task.info.bounds)))
    opposed = contradictions(rows, evaluation.reached, reach)
    for each in opposed[:3]:
        evaluation.reporter.warn(contradiction_text(each))
    sides = {"bounds": both_sides(rows), "contradictions": opposed}
    return {key: value for key, value in sides.items() if value}
