"""Build the rows of an evaluation from the references of a recipe or a suite."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..core.ensemble import Ensemble
from ..core.protocols import Stating
from ..errors import Refused
from ..plugin.component import Kind, Use, slots
from ..plugin.host import registry
from ..plugin.registry import GIVEN
from ..recipe.clashes import misfit, other_labels, threat_in
from ..recipe.convert import resolve
from ..recipe.errors import Problem, RecipeError
from ..recipe.options import as_mapping, default_of
from ..recipe.write import use_to_mapping
from ..subjects.assemble import build_part, build_vicinity
from .setting import Attack

if TYPE_CHECKING:
    from ..core.protocols import Perturbation
    from ..core.types import TaskInfo
    from ..recipe.suite import Suite, SuiteRow
    from ..subjects.subject import Source

_REQUIRED: Any = object()


def use_label(reference: Use, kind: Kind, shown: Sequence[str] = ()) -> str:
    """Return a component's name with the options that differ from their defaults, and those to show."""
    fields = dataclasses.fields(registry().get(kind, reference.name).options)
    required = [item.name for item in fields if default_of(item, _REQUIRED) is _REQUIRED]
    given = {name: getattr(reference.options, name) for name in required}
    try:
        default = as_mapping(resolve(Use(reference.name, given), kind).options)
    except RecipeError:  # options that are only valid together
        default = {}
    name, notes = reference.name, []
    for key, value in as_mapping(reference.options).items():
        if key == "name" and key in required:
            name = f"{name}:{value}"
        elif key in required or key in shown or value != default.get(key, _REQUIRED):
            notes.append(f"{key}={_shown(value)}")
    return f"{name} ({', '.join(notes)})" if notes else name


def _shown(value: Any) -> str:
    if isinstance(value, Use):
        return value.name
    if isinstance(value, tuple | list):
        return "+".join(_shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def chain_of_attacks(references: Sequence[Use], threat: Use, key: str) -> list[Attack]:
    """Build the attacks of one chain in one threat model.

    Args:
        references: resolved references, in order.
        threat: the vicinity.
        key: path of the references in the recipe, for errors.
    """
    return [
        attack
        for number, use in enumerate(references)
        for attack in _spread(
            Attack(use_label(use, "perturbation"), use_to_mapping(use), None, threat=use_to_mapping(threat)),
            _built(use, f"{key}.{number}"),
        )
    ]


def measurement_rows(references: Sequence[Use], threat: Use, key: str) -> list[Attack]:
    """Build the rows that measure; each runs on all samples.

    Args:
        references: resolved references, in order.
        threat: the vicinity.
        key: path of the references in the recipe, for errors.
    """
    return [
        _measuring(
            Attack(use_label(use, "measurement"), {}, None, threat=use_to_mapping(threat)), use, f"{key}.{at}"
        )
        for at, use in enumerate(references)
    ]


def _measuring(row: Attack, reference: Use, key: str) -> Attack:
    built = _built(reference, key, "measurement")
    row = dataclasses.replace(row, options=use_to_mapping(reference), chain="")
    if isinstance(built, Refused):
        return dataclasses.replace(row, refused=str(built))
    return dataclasses.replace(row, measurement=built)


def suite_attacks(
    suite: Suite, threat: Use, sources: Sequence[Source], info: TaskInfo, labels: str | None = None
) -> list[Attack]:
    """Build the rows of a suite.

    Args:
        suite: the resolved suite.
        threat: the evaluation's vicinity; other vicinities appear in the label of their row.
        sources: surrogate models of transfer rows.
        info: the task's description.
        labels: see `labels_of`.

    Raises:
        RecipeError: a component refuses its options.
    """
    return [
        attack
        for number, row in enumerate(suite.row)
        for attack in _row_attacks(row, f"row.{number}", threat, sources, info, labels)
    ]


def _row_attacks(
    row: SuiteRow, key: str, threat: Use, sources: Sequence[Source], info: TaskInfo, labels: str | None
) -> Iterator[Attack]:
    try:
        vicinity = _scaled(row.vicinity or threat, row.scale, key)
    except RecipeError as error:
        if row.vicinity not in (None, threat):
            raise
        # The threat model is the evaluation's: the suite's other rows hold in it.
        yield _unscaled(row, threat, error.problems[0].message)
        return
    if row.measurement is not None:
        yield _measurement_of(row, row.measurement, vicinity, threat, key, info)
        return
    none = row.attack.name == "none"
    wrong = (
        ""
        if none
        else _misfit(vicinity, threat)
        or misfit(row.attack, vicinity, registry())
        or unfit(row.attack, "perturbation", info, labels)
    )
    parts = [] if none and row.shift else [row.label or use_label(row.attack, "perturbation", row.shown)]
    if row.shift is not None:
        parts.insert(0, row.label if none and row.label else use_label(row.shift, "vicinity", row.shown))
    if vicinity != threat and not none and row.label is None:
        parts.append(use_label(vicinity, "vicinity"))
    attack = Attack(
        " · ".join(parts),
        {} if none else use_to_mapping(row.attack),
        None,
        build_vicinity(vicinity, f"{key}.vicinity", info),
        {} if none else use_to_mapping(vicinity),
        None if row.shift is None else build_vicinity(row.shift, f"{key}.shift", info),
        {} if row.shift is None else use_to_mapping(row.shift),
        row.chain or "",
    )
    if none and row.needs:
        why = f"needs the plugin {row.needs}, which is not installed"
        yield dataclasses.replace(attack, refused=why)
        return
    if wrong:
        yield dataclasses.replace(attack, refused=wrong)
        return
    built = None if none else _built(row.attack, f"{key}.attack")
    if row.transfer and not sources:
        why = "needs a surrogate model to create the examples on: give --source RUN"
        yield dataclasses.replace(attack, label=f"{attack.label} from another model", refused=why)
    elif row.transfer:
        for source in sources:
            label = f"{attack.label} from {source.name}"
            yield from _spread(dataclasses.replace(attack, label=label, source=source), built)
    else:
        yield from _spread(attack, built)


def _unscaled(row: SuiteRow, threat: Use, why: str) -> Attack:
    """Return a row that is not run, as the evaluation's vicinity cannot be scaled."""
    measured = row.measurement is not None
    part = row.attack if row.measurement is None else row.measurement
    label = row.label or use_label(part, "measurement" if measured else "perturbation", row.shown)
    label = f"{label} · scale={row.scale:g}"
    return Attack(label, {}, None, threat=use_to_mapping(threat), chain=row.chain or "", refused=why)


def _measurement_of(
    row: SuiteRow, reference: Use, vicinity: Use, threat: Use, key: str, info: TaskInfo
) -> Attack:
    """Build the row of a suite that measures.

    Raises:
        RecipeError: the row also has an attack, a shift, a chain or a surrogate model.
    """
    if row.attack.name != "none" or row.shift is not None or row.chain is not None or row.transfer:
        why = "is measured of clean samples: give it a row without attack, shift, chain and transfer"
        raise RecipeError([Problem(f"{key}.measurement", why)], "suite")
    label = row.label or use_label(reference, "measurement", row.shown)
    if vicinity != threat and row.label is None:
        label = f"{label} · {use_label(vicinity, 'vicinity')}"
    built = build_vicinity(vicinity, f"{key}.vicinity", info)
    attack = Attack(label, {}, None, built, use_to_mapping(vicinity), refused=_misfit(vicinity, threat))
    return attack if attack.refused else _measuring(attack, reference, f"{key}.measurement")


def unfit(reference: Use, kind: Kind, info: TaskInfo, labels: str | None) -> str:
    """Return why an attack, or a loss in it, cannot be used with the labels of a task; "" if it can."""
    component = registry().get(kind, reference.name)
    if info.classes is None and component.for_labels == ("classes",):
        return f'{kind} "{reference.name}" is for classes, and the task has none'
    if why := other_labels(component, kind, labels):
        return why
    for slot in slots(component.options).values():
        value = getattr(reference.options, slot.name)
        for each in value if isinstance(value, tuple) else (value,):
            other = not isinstance(each, Use) or slot.kind not in ("loss", "perturbation")
            if not other and (why := unfit(each, slot.kind, info, labels)):
                return why
    return ""


def labels_of(task: Use) -> str | None:
    """Return the labels of a task; None for one that is given as an object, which may have any."""
    return None if task.name == GIVEN else registry().get("task", task.name).labels


def _misfit(vicinity: Use, threat: Use) -> str:
    """Return why a row's vicinity does not fit the samples; "" if it does, as the evaluation's own does."""
    own, samples = (
        registry().get("vicinity", threat_in(use, registry()).name).modality for use in (vicinity, threat)
    )
    return (
        "" if own == samples else f'vicinity "{vicinity.name}" perturbs {own}, and the samples are {samples}'
    )


def _scaled(vicinity: Use, scale: float, key: str) -> Use:
    if scale == 1:
        return vicinity
    inner = [slot.name for slot in slots(type(vicinity.options)).values() if slot.kind == "vicinity"]
    if not hasattr(vicinity.options, "eps") and len(inner) == 1:
        value = getattr(vicinity.options, inner[0])
        # Of a union, the radii keep their ratio.
        several = isinstance(value, tuple)
        inside = tuple(_scaled(e, scale, key) for e in value) if several else _scaled(value, scale, key)
        return Use(vicinity.name, dataclasses.replace(vicinity.options, **{inner[0]: inside}))
    if not hasattr(vicinity.options, "eps"):
        message = f"{vicinity.name} has no eps to scale"
        raise RecipeError([Problem(f"{key}.scale", message)], "suite")
    eps = vicinity.options.eps
    # A number of pixels stays a whole one.
    size = math.floor(eps * scale + 1e-9) if isinstance(eps, int) else eps * scale
    if eps and not size:
        why = f"leaves nothing of eps = {eps} of {vicinity.name}: whole numbers are rounded down"
        raise RecipeError([Problem(f"{key}.scale", why)], "suite")
    return Use(vicinity.name, dataclasses.replace(vicinity.options, eps=size))


def _built(reference: Use, key: str, kind: Kind = "perturbation") -> Any:
    """Build an attack or a measurement; one that cannot be run here is Refused, and affects only its row."""
    try:
        return build_part(reference, kind, key)
    except RecipeError as error:
        if isinstance(error.__cause__, Refused | ImportError):
            return Refused(str(error.__cause__))
        raise


def _spread(attack: Attack, built: Perturbation | Refused | None) -> Iterator[Attack]:
    """Yield an attack, or each part of an ensemble in a chain of its own."""
    if isinstance(built, Refused):
        yield dataclasses.replace(attack, refused=str(built))
    elif isinstance(built, Ensemble):
        chain = attack.chain or f"{attack.label} {attack.threat.get('eps', '')}"
        for name, part in built.parts:
            label = f"{attack.label} · {name}"
            yield dataclasses.replace(attack, label=label, perturbation=part, chain=chain)
    else:
        options = (
            {**attack.options, "facts": dict(built.facts())} if isinstance(built, Stating) else attack.options
        )
        yield dataclasses.replace(attack, options=options, perturbation=built)
