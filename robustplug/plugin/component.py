"""Components: what a plugin offers, and how a recipe or a method refers to one.

Importing this module does not import torch.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, get_args

from .options import Rest
from .traits import NO_TRAITS, Traits

Kind = Literal[
    "vicinity",
    "perturbation",
    "label_map",
    "output_map",
    "loss",
    "method",
    "task",
    "model",
    "optimizer",
    "schedule",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class NoOptions:
    """The options of a component that has none."""


@dataclass(frozen=True)
class Component:
    """Describe one component of a plugin.

    Attributes:
        name: kebab-case name, used in recipes.
        factory: "package.module:attribute" of the class or function that builds it; imported only
            when a component of this name is built. It is called with the options, then with one
            keyword argument for each slot of the options (see `use`), then with what its kind
            gets besides: models get `info` (a TaskInfo), optimizers `params`.
        options: frozen dataclass; its fields are exactly the component's TOML table.
        summary: one line for listings.
        paper: what to cite, if anything.
        trial: small options for the conformance kit, as a TOML table would give them.
        variants: options by name, such as those of the authors' code: a recipe's `variant = "official"`
            stands for that table, and what else the recipe says goes on top of it.
        traits: what it can be mixed with; a function of the options where it depends on them.
        tasks: names of the tasks that it is for; empty for all. A recipe that uses it on another task is
            refused, and the conformance kit tries it on the first of them.

    Raises:
        ValueError: the name is not kebab-case, the factory has no colon, or the options are not a
            frozen dataclass.
    """

    name: str
    factory: str
    options: type[Any] = NoOptions
    summary: str = ""
    paper: str = ""
    trial: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    traits: Traits | Callable[[Any], Traits] = NO_TRAITS
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f'component name "{self.name}" is not kebab-case, for example "my-method"')
        if self.factory.count(":") != 1:
            raise ValueError(f'factory "{self.factory}" of {self.name} is not "package.module:attribute"')
        params = getattr(self.options, "__dataclass_params__", None)
        if not isinstance(self.options, type) or params is None or not params.frozen:
            raise ValueError(f"options of {self.name} must be a frozen dataclass: @dataclass(frozen=True)")
        if self.variants and any(item.name == "variant" for item in dataclasses.fields(self.options)):
            raise ValueError(f"{self.name} has variants and an option of that name; rename the option")

    def load(self) -> Any:
        """Import the factory and return it.

        Raises:
            ImportError, AttributeError: it is not there.
        """
        module, _, attribute = self.factory.partition(":")
        return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))


@dataclass(frozen=True)
class Use:
    """Refer to a component by name, with options that differ from its defaults.

    `options` is the table as a recipe would write it until the reference is resolved against the registry
    (`robustplug.recipe.convert.resolve`); then it is an instance of the options dataclass. `start`, of a
    model, is the run folder or file whose weights it starts from: `from` in a recipe.
    """

    name: str
    options: Any = field(default_factory=dict)
    start: str | None = None


def use(name: str, /, **options: Any) -> Any:
    """Give a slot of an options dataclass its default component.

    The field's name is the kind of the slot (`perturbation: Use = use("pgd", steps=10)`); a field
    of another name says its kind in the annotation: `inner: Annotated[Use, "perturbation"]`.
    """
    return field(default_factory=functools.partial(Use, name, options))


@dataclass(frozen=True)
class MethodOptions:
    """The five slots of a method; a method's own options add to them and change their defaults.

    Attributes:
        vicinity: V, where virtual samples come from, and what a legal perturbation is.
        perturbation: which point of V is trained on.
        label_map: h, from labels to targets.
        output_map: g, from the model to outputs.
        loss: ℓ, of each sample.
    """

    vicinity: Use = use("linf")
    perturbation: Use = use("none")
    label_map: Use = use("one-hot")
    output_map: Use = use("identity")
    loss: Use = use("ce")


@dataclass(frozen=True)
class Slot:
    """One field of an options dataclass that holds a component, or several."""

    name: str
    kind: Kind
    many: bool
    optional: bool


def rest_name(options: type[Any]) -> str | None:
    """Return the field of an options dataclass that takes all other keys (see `options.Rest`)."""
    for name, hint in typing.get_type_hints(options, include_extras=True).items():
        if any(isinstance(note, Rest) for note in getattr(hint, "__metadata__", ())):
            return name
    return None


def slots(options: type[Any]) -> Mapping[str, Slot]:
    """List the slots of an options dataclass by field name.

    Raises:
        TypeError: the kind of a slot is neither its field's name nor in its annotation.
    """
    return {slot.name: slot for slot in _slots(options)}


def _slots(options: type[Any]) -> Iterator[Slot]:
    hints = typing.get_type_hints(options, include_extras=True)
    for item in dataclasses.fields(options):
        hint, kind, many, optional = hints[item.name], item.name, False, False
        if typing.get_origin(hint) is typing.Annotated:
            hint, *notes = get_args(hint)
            kind = next((note for note in notes if note in KINDS), kind)
        if typing.get_origin(hint) in (UnionType, typing.Union) and NoneType in get_args(hint):
            optional = True
            hint = next(arg for arg in get_args(hint) if arg is not NoneType)
        if typing.get_origin(hint) is tuple and get_args(hint) == (Use, ...):
            many, hint = True, Use
        if hint is not Use:
            continue
        if kind not in KINDS:
            raise TypeError(
                f"{options.__name__}.{item.name}: say the kind of this slot: "
                f'Annotated[Use, "perturbation"] (one of {", ".join(KINDS)})'
            )
        yield Slot(item.name, kind, many, optional)


def innermost(reference: Use, kind: Kind) -> Use:
    """Follow the slots of a resolved component that hold another of its kind, and return the last.

    A vicinity that draws its samples around another one's has the inner one's legal perturbations.
    """
    inner = [slot.name for slot in _slots(type(reference.options)) if slot.kind == kind and not slot.many]
    value = getattr(reference.options, inner[0]) if len(inner) == 1 else None
    return reference if value is None else innermost(value, kind)
