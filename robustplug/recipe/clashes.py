"""Find the components of a recipe that cannot be mixed, by the traits that they declare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import NamedTuple

from ..plugin.component import Component, Kind, MethodOptions, Use, WrapperOptions, slot_of, slots
from ..plugin.registry import GIVEN, Registry
from ..plugin.traits import SETS, TRAINED, Traits
from .errors import Finding, KeyPath
from .options import Recipe

# Traits of perturbations and vicinities that move no samples.
_STILL: dict[Kind, str] = {"perturbation": "stays", "vicinity": "plain"}
# Traits of what makes the targets of a loss rows of shares.
_ROWS = frozenset({"rows", "mixtures", "mixed-views", "predictions", "clean-outputs"})
# Traits of the set that parameters form.
_BOX = frozenset({"plain", "coordinates"})
_TARGETS = {"numbers": "class numbers", "rows": "rows of shares"}


class _Part(NamedTuple):
    path: KeyPath
    kind: Kind
    name: str
    traits: Traits
    # Of a loss within another one: the targets that it gets there, None for one in a slot of the method.
    targets: str | None = None

    def __str__(self) -> str:
        return f'{self.kind.replace("_", " ")} "{self.name}"'


def clashes(method: Use, registry: Registry) -> Iterator[Finding]:
    """Yield a finding for every trait that a resolved method lacks, and for every pair that clashes.

    Paths start at the method's table.
    """
    parts = list(_parts(method, "method", (), registry))
    seen: set[tuple[str, frozenset[KeyPath]]] = set()
    for part in parts:
        yield from _clashes(part, [other for other in parts if other is not part], seen)
        if part.kind == "loss":
            yield from _unfit(part, parts, method, registry)


def _unfit(part: _Part, parts: Sequence[_Part], method: Use, registry: Registry) -> Iterator[Finding]:
    """Yield a finding for a loss that cannot take the targets that it would get."""
    takes = registry.get("loss", part.name).takes
    if part.targets is not None:
        if part.targets and takes not in ("both", part.targets):
            yield Finding(
                part.path, f"{part} takes {_TARGETS[takes]}, and gets {_TARGETS[part.targets]} here"
            )
        return
    rows = [other for other in parts if other.traits.gives & _ROWS]
    numbers = [other for other in parts if "class-numbers" in other.traits.gives]
    if takes == "numbers" and rows:
        message = f"{part} takes class numbers, and {rows[0]} makes rows of shares of them"
        yield Finding(part.path, message, _place_for(part, method, registry))
    mixed = any("mixtures" in other.traits.gives for other in parts)
    if takes == "rows" and numbers and not mixed:
        yield Finding(part.path, f"{part} takes rows of shares, and {numbers[0]} returns class numbers")


def _place_for(part: _Part, method: Use, registry: Registry) -> str | None:
    """Return how to put a loss into a slot of the method's own loss; None if that has none for it."""
    defaults = {item.name: item for item in fields(registry.get("method", method.name).options)}
    default = defaults.get(str(part.path[-1])) if len(part.path) == 1 else None
    if default is None or not callable(default.default_factory):
        return None
    own = default.default_factory().name
    for slot in slots(registry.get("loss", own).options).values():
        if slot.kind == "loss" and slot.targets != "rows":
            whole = f'loss = {{ use = "{own}", {slot.name} = "{part.name}" }}'
            return f"as a part of the loss of this method: {whole}"
    return None


def model_clashes(model: Use, method: Use, registry: Registry) -> Iterator[Finding]:
    """Yield a finding for every trait that a model needs and its method lacks, and for every clash.

    A model that starts from trained weights has the trait `trained`.

    Paths start at the recipe. Only the slots themselves are checked, not the components inside them.
    """
    own = _Part(("model",), "model", model.name, traits_of("model", model, registry))
    parts = list(_parts(method, "method", (), registry))
    yield from _clashes(own, [part for part in parts if len(part.path) <= 1], set())
    for part in parts:
        reason = part.traits.excludes.get(TRAINED)
        if model.start is not None and reason:
            yield Finding(("model", "from"), f"{part} cannot be mixed with trained weights: {reason}")


def _clashes(
    part: _Part, others: Sequence[_Part], seen: set[tuple[str, frozenset[KeyPath]]]
) -> Iterator[Finding]:
    for trait, reason in part.traits.needs.items():
        if trait not in SETS and not any(trait in other.traits.gives for other in others):
            yield Finding(part.path, f"{part} makes no sense here: {reason}")
    for trait, reason in part.traits.excludes.items():
        for other in others if trait not in SETS else ():
            pair = (trait, frozenset({part.path, other.path}))
            if trait in other.traits.gives and pair not in seen:
                seen.add(pair)
                yield Finding(part.path, f"{part} cannot be mixed with {other}: {reason}")


def strangers(recipe: Recipe, registry: Registry) -> Iterator[Finding]:
    """Yield a finding for every component of a resolved recipe that does not support its task."""
    places: list[tuple[KeyPath, Kind, Use | None]] = [
        (("model",), "model", recipe.model),
        (("validate", "attack"), "perturbation", recipe.validate.attack),
        (("evaluate", "vicinity"), "vicinity", recipe.evaluate.vicinity),
        (("evaluate", "loss"), "loss", recipe.evaluate.loss),
    ]
    places += [
        (("evaluate", "attack", n), "perturbation", use) for n, use in enumerate(recipe.evaluate.attack)
    ]
    named = [(path, kind, use.name) for path, kind, use in places if use is not None]
    parts = list(_parts(recipe.method, "method", ("method",), registry))
    named += [(part.path, part.kind, part.name) for part in parts]
    samples = registry.get("task", recipe.task.name)
    # A task that is given as an object may be any.
    labels = None if recipe.task.name == GIVEN and not samples.tasks else samples.labels
    for path, kind, use in places:
        if use is not None:
            yield from _unfit_labels(use, kind, path, registry, labels)
    for part in parts:
        if why := other_labels(registry.get(part.kind, part.name), part.kind, labels):
            yield Finding(part.path, why)
    for path, kind, name in named:
        tasks = registry.get(kind, name).tasks
        if tasks and {recipe.task.name, *samples.tasks}.isdisjoint(tasks):
            known = ", ".join(f'"{task}"' for task in tasks)
            message = f'{kind.replace("_", " ")} "{name}" is not for the task "{recipe.task.name}"'
            yield Finding(path, message, f"it is for {known}")
            continue
        modality, own = registry.get(kind, name).modality, samples.modality
        unknown = recipe.task.name == GIVEN and not samples.tasks
        if kind == "vicinity" and modality != own and not unknown:
            fitting = [other.name for other in registry.by_kind()["vicinity"] if other.modality == own]
            message = (
                f'vicinity "{name}" perturbs {modality}, and the samples of the task "{recipe.task.name}" '
                f"are {own}"
            )
            yield Finding(path, message, f"installed for {own}: {', '.join(fitting) or 'none'}")


def threat_in(vicinity: Use, registry: Registry) -> Use:
    """Return the vicinity whose legal perturbations a resolved vicinity has.

    A vicinity that draws samples around those of another has that one's; every other has its own.
    """
    component = registry.get("vicinity", vicinity.name)
    if "draws-around" not in traits_of("vicinity", vicinity, registry).gives:
        return vicinity
    inner = [slot.name for slot in slots(component.options).values() if slot.kind == "vicinity"]
    return threat_in(getattr(vicinity.options, inner[0]), registry) if len(inner) == 1 else vicinity


def misfit(attack: Use, vicinity: Use, registry: Registry) -> str:
    """Return why a resolved attack cannot keep to the legal perturbations of a vicinity; "" if it can."""
    threat = threat_in(vicinity, registry)
    gives = traits_of("vicinity", threat, registry).gives
    return _misfit(attack, gives, f'vicinity "{threat.name}"', registry)


def _misfit(attack: Use, gives: frozenset[str], where: str, registry: Registry) -> str:
    component, traits = registry.get("perturbation", attack.name), traits_of("perturbation", attack, registry)
    if why := _lacking(traits, gives):
        return f'perturbation "{attack.name}" cannot keep to {where}: {why}'
    if "over-parameters" in traits.gives:
        gives, where = _BOX, f"the parameters of {where}"
    inner = [each for _, each in _inside(attack, component, "perturbation")]
    return next((why for each in inner if (why := _misfit(each, gives, where, registry))), "")


def _lacking(traits: Traits, gives: frozenset[str]) -> str:
    """Return the reason of the first trait of a set that a component lacks or excludes; "" if none."""
    lacking = [why for trait, why in traits.needs.items() if trait in SETS and trait not in gives]
    barred = [why for trait, why in traits.excludes.items() if trait in SETS and trait in gives]
    return next(iter(lacking + barred), "")


def _inside(reference: Use, component: Component, kind: Kind) -> Iterator[tuple[KeyPath, Use]]:
    """Yield the components of a kind in the slots of another, with their paths."""
    for slot in slots(component.options).values():
        value = getattr(reference.options, slot.name) if slot.kind == kind else None
        for number, each in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(each, Use):
                yield ((slot.name, number) if slot.many else (slot.name,)), each


def misfits(recipe: Recipe, registry: Registry) -> Iterator[Finding]:
    """Yield a finding for every attack, and every vicinity around another, that cannot keep to its set."""
    if not isinstance(recipe.method.options, MethodOptions | WrapperOptions):
        return
    own = slot_of(recipe.method, "vicinity")
    asked = recipe.evaluate.vicinity
    threat = own if asked is None else asked
    places: list[tuple[KeyPath, Use, Use]] = [
        (("method", "perturbation"), slot_of(recipe.method, "perturbation"), own),
        (("validate", "attack"), recipe.validate.attack, own),
    ]
    places += [(("evaluate", "attack", n), use, threat) for n, use in enumerate(recipe.evaluate.attack)]
    for path, attack, vicinity in places:
        if why := misfit(attack, vicinity, registry):
            yield Finding(path, why)
    yield from mismatched(own, ("method", "vicinity"), registry)
    if asked is not None:
        yield from unfit_threat(asked, ("evaluate", "vicinity"), registry)


def unfit_threat(vicinity: Use, path: KeyPath, registry: Registry) -> Iterator[Finding]:
    """Yield a finding for a resolved vicinity that is no threat model of an evaluation."""
    if _draws(vicinity, registry) and (legal := threat_in(vicinity, registry)) != vicinity:
        message = f'vicinity "{vicinity.name}" draws samples, and an evaluation attacks those of the task'
        hint = f'name what is legal around them instead, "{legal.name}"; a shift is a row of a suite'
        yield Finding(path, message, hint)
    yield from mismatched(vicinity, path, registry)


def mismatched(vicinity: Use, path: KeyPath, registry: Registry) -> Iterator[Finding]:
    """Yield a finding for every vicinity inside a resolved one that the outer one cannot work with."""
    component = registry.get("vicinity", vicinity.name)
    for place, inner in _inside(vicinity, component, "vicinity"):
        gives = traits_of("vicinity", threat_in(inner, registry), registry).gives
        why = _lacking(traits_of("vicinity", vicinity, registry), gives)
        if not why and len(place) > 1 and _draws(inner, registry):
            why = "it draws samples, and of several vicinities none may"
        if why:
            yield Finding(
                (*path, *place), f'vicinity "{vicinity.name}" does not go around "{inner.name}": {why}'
            )
        yield from mismatched(inner, (*path, *place), registry)


def _draws(vicinity: Use, registry: Registry) -> bool:
    """Return whether a resolved vicinity, or one inside it, draws samples other than those of the task."""
    component = registry.get("vicinity", vicinity.name)
    own = "plain" not in traits_of("vicinity", vicinity, registry).gives
    return own or any(_draws(inner, registry) for _, inner in _inside(vicinity, component, "vicinity"))


def other_labels(component: Component, kind: Kind, labels: str | None) -> str:
    """Return that a component is defined for other labels than those of the task; "" if it is not."""
    own = component.for_labels
    if not own or labels is None or labels in own:
        return ""
    message = f'{kind.replace("_", " ")} "{component.name}" is for {" or ".join(own)}'
    return f"{message}, and the labels of the task are {labels}"


def _unfit_labels(
    reference: Use, kind: Kind, path: KeyPath, registry: Registry, labels: str | None
) -> Iterator[Finding]:
    """Yield a finding for every part of an evaluation that cannot take the labels of the task."""
    component = registry.get(kind, reference.name)
    if why := other_labels(component, kind, labels):
        yield Finding(path, why)
    # Where there are classes, an evaluation has their numbers.
    if kind == "loss" and component.takes == "rows":
        yield Finding(
            path, f'loss "{component.name}" takes rows of shares, and labels are class numbers here'
        )
    for slot in slots(component.options).values() if kind == "perturbation" else ():
        value = getattr(reference.options, slot.name)
        for number, inner in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(inner, Use) and slot.kind in ("loss", "perturbation"):
                place = (*path, slot.name, number) if slot.many else (*path, slot.name)
                yield from _unfit_labels(inner, slot.kind, place, registry, labels)


def _parts(
    reference: Use, kind: Kind, path: KeyPath, registry: Registry, targets: str | None = None
) -> Iterator[_Part]:
    """Yield a component, the slots of a method, and within those the slots of their own kind.

    The components inside an attack, such as a loss of its own, declare nothing about the method.
    """
    component = registry.get(kind, reference.name)
    traits = traits_of(kind, reference, registry)
    if targets is not None:
        # The loss around it speaks for it, but for whether it uses its target.
        traits = Traits(gives=traits.gives if targets == "rows" else frozenset())
    yield _Part(path, kind, reference.name, traits, targets)
    for slot in slots(component.options).values():
        # Within a perturbation, several are an ensemble, which speaks for its parts.
        if kind not in ("method", slot.kind) or (slot.many and kind == "perturbation"):
            continue
        within = slot.targets if kind == "loss" else None
        for place, inner in _inside(reference, component, slot.kind):
            if place[0] == slot.name:
                yield from _parts(inner, slot.kind, (*path, *place), registry, within)


def traits_of(kind: Kind, reference: Use, registry: Registry) -> Traits:
    """Return what a resolved component declares, in the way in which it is used."""
    traits = registry.get(kind, reference.name).traits
    found = traits if isinstance(traits, Traits) else traits(reference.options)
    still = _STILL.get(kind)
    if still is None or still in found.gives:
        return found
    return replace(found, gives=found.gives | {"moves"})
