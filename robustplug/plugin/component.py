"""Components: what a plugin offers, and how a recipe or a method refers to a component.

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
from typing import Annotated, Any, Literal, TypeVar, get_args

from .options import OfRun, Rest
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
    "augmentation",
    "measurement",
    "wrapper",
    "launcher",
]
Targets = Literal["numbers", "rows", "both"]
T = TypeVar("T")
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
        factory: "package.module:attribute" of the class or function that builds the component; imported
            only when a component of this name is built. The factory is called with the options, with one
            keyword argument for each slot of the options (see `use`), and with the arguments of its kind:
            `info` (a TaskInfo) for models, augmentations and wrappers, which also get `model`; `params`,
            `maximize` and perhaps `lr` for optimizers. A component that is registered within the
            process may give the class or function itself.
        options: frozen dataclass; its fields are exactly the component's TOML table.
        summary: one line for listings.
        paper: citation, if any.
        trial: small options for the conformance kit, as in a TOML table.
        variants: options by name, such as those of the authors' code. `variant = "official"` in a recipe
            stands for that table; the recipe's other options override it.
        traits: what the component can be mixed with; a function of the options if it depends on them.
        tasks: names of the tasks that the component supports; empty for all. A recipe that uses it on
            another task is refused. The conformance kit tests it on the first of them. Of a task that is
            given as an object, the names of the tasks that it may be.
        weights: for a model that its library also offers trained: "package.module:attribute" of a function
            `(options, name, *, info)` that returns `Weights`. `name` is what a recipe's `from` states if it
            is neither a file nor a folder; None if there is no `from`, where the function may return None for
            an untrained start. It raises ValueError for a name that does not exist, and OSError if the
            weights cannot be had.
        modality: of a task, what its samples are; of a vicinity, what it perturbs: "numbers" (images and
            tables), "text", "dialogue" or a plugin's own. A recipe or a suite that puts a vicinity on samples
            of another modality is refused.
        labels: of a task, what its labels are: "classes", "numbers", "label-sets", "pixels" or a plugin's
            own.
        for_labels: of others, the labels that they are defined for; empty for any. A recipe that uses one
            with other labels is refused.
        evaluate: of a task, defaults for the `evaluate` table of recipes: its `vicinity` also replaces a
            method's default that has another modality, and its `loss` one that is for other labels; `attack`
            holds only where a model has no recipe.
        takes: of a loss, the targets that it is defined for: "numbers" (classes, int64 (N,)), "rows" (shares,
            float (N, K)) or "both". A recipe in which it would get others is refused, and the conformance kit
            tries it on these alone.
        caption: of a vicinity, a function from its table to what tables and pages show in the place of its
            name, "eps = …" and its other options.
        task_options: of a model that reads a folder: "package.module:attribute" of a function from the
            model's table to the options that its task must have, such as the tokenizer of the folder; they
            hold where the task's table states none of them.

    Raises:
        ValueError: the name is not kebab-case, the factory has no colon, the options are not a frozen
            dataclass, or `takes` is something else.
    """

    name: str
    factory: str | Callable[..., Any]
    options: type[Any] = NoOptions
    summary: str = ""
    paper: str = ""
    trial: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    traits: Traits | Callable[[Any], Traits] = NO_TRAITS
    tasks: tuple[str, ...] = ()
    weights: str | Callable[..., Any] | None = None
    modality: str = "numbers"
    labels: str = "classes"
    for_labels: tuple[str, ...] = ()
    evaluate: Mapping[str, Any] = field(default_factory=dict)
    takes: Targets = "both"
    task_options: str | Callable[..., Any] | None = None
    caption: Callable[[Mapping[str, Any]], str] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f'component name "{self.name}" is not kebab-case, for example "my-method"')
        if isinstance(self.factory, str) and self.factory.count(":") != 1:
            raise ValueError(f'factory "{self.factory}" of {self.name} is not "package.module:attribute"')
        params = getattr(self.options, "__dataclass_params__", None)
        if not isinstance(self.options, type) or params is None or not params.frozen:
            raise ValueError(f"options of {self.name} must be a frozen dataclass: @dataclass(frozen=True)")
        if self.takes not in get_args(Targets):
            raise ValueError(f'takes of {self.name} is "numbers", "rows" or "both", not {self.takes!r}')
        if self.variants and any(item.name == "variant" for item in dataclasses.fields(self.options)):
            raise ValueError(f"{self.name} has variants and an option of that name; rename the option")

    def load(self) -> Any:
        """Import the factory and return it.

        Raises:
            ImportError, AttributeError: the module or the attribute does not exist.
        """
        return _loaded(self.factory)

    def load_weights(self) -> Any:
        """Import the function that returns trained weights and return it; None for none.

        Raises:
            ImportError, AttributeError: the module or the attribute does not exist.
        """
        return None if self.weights is None else _loaded(self.weights)

    def options_of_task(self, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options that the task of a model must have; see `task_options`."""
        found: Mapping[str, Any] = {} if self.task_options is None else _loaded(self.task_options)(table)
        return found


def _loaded(place: str | Callable[..., Any]) -> Any:
    if not isinstance(place, str):
        return place
    module, _, attribute = place.partition(":")
    return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))


@dataclass(frozen=True)
class Use:
    """Refer to a component by name, with options that differ from its defaults.

    `options` is a table as in a recipe until the reference is resolved against the registry
    (`robustplug.recipe.convert.resolve`); then it is an instance of the options dataclass. `start` is for
    models: the run folder, file or name of the initial weights, `from` in a recipe. `more` holds the other
    keys that every component of a kind has (`robustplug.recipe.options.COMMON`); None if none is given.
    """

    name: str
    options: Any = field(default_factory=dict)
    start: str | None = None
    more: Any = None


def use(name: str, /, **options: Any) -> Any:
    """Give a slot of an options dataclass its default component.

    The field's name is the kind of the slot (`perturbation: Use = use("pgd", steps=10)`). A field with
    another name states the kind in its annotation: `inner: Annotated[Use, "perturbation"]`. Within the
    options, another `use(…)` names the component of a slot. A loss within a loss may state the targets that
    it gets there, too: `divergence: Annotated[Use, "loss", "rows"]`.
    """
    return field(default_factory=functools.partial(Use, name, _named(options)))


def _named(value: Any) -> Any:
    """Return options in which fields with a default component are that component."""
    if isinstance(value, dataclasses.Field):
        return value.default_factory() if value.default_factory is not dataclasses.MISSING else value
    if isinstance(value, Mapping):
        return {key: _named(item) for key, item in value.items()}
    return [_named(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class MethodOptions:
    """The five slots of a method; a method's own options add to them and change their defaults.

    Attributes:
        vicinity: V, the distribution of virtual samples, and the set of legal perturbations.
        perturbation: chooses the point of V to train on.
        label_map: h, from labels to targets.
        output_map: g, from the model to outputs.
        loss: ℓ, the loss of each sample.
    """

    vicinity: Use = use("linf")
    perturbation: Use = use("none")
    label_map: Use = use("one-hot")
    output_map: Use = use("identity")
    loss: Use = use("ce")


@dataclass(frozen=True)
class WrapperOptions:
    """The options of a method around another method; its own options add to them.

    Attributes:
        inner: the method around which it stands; what the wrapper does not state is that method's.
    """

    inner: Annotated[Use, "method"]


@dataclass(frozen=True)
class Slot:
    """Describe a field of an options dataclass that holds a component, or several.

    `targets` is what a loss gets there, "" where that is not stated.
    """

    name: str
    kind: Kind
    many: bool
    optional: bool
    targets: str = ""


def _once_for_each(function: Callable[[type[Any]], T]) -> Callable[[type[Any]], T]:
    # The type of `functools.cache` accepts no `type[Any]`.
    return typing.cast(Callable[[type[Any]], T], functools.cache(function))


@_once_for_each
def rest_name(options: type[Any]) -> str | None:
    """Return the field of an options dataclass that takes all other keys (see `options.Rest`)."""
    for name, hint in typing.get_type_hints(options, include_extras=True).items():
        if any(isinstance(note, Rest) for note in getattr(hint, "__metadata__", ())):
            return name
    return None


@_once_for_each
def run_folders(options: type[Any]) -> tuple[str, ...]:
    """List the fields of an options dataclass that name folders of runs (see `options.RunFolder`)."""
    hints = typing.get_type_hints(options, include_extras=True)
    return tuple(name for name, hint in hints.items() if _is_run_folder(hint))


def _is_run_folder(hint: Any) -> bool:
    if typing.get_origin(hint) in (UnionType, typing.Union, tuple):
        return any(_is_run_folder(arg) for arg in get_args(hint))
    return any(isinstance(note, OfRun) for note in getattr(hint, "__metadata__", ()))


@_once_for_each
def slots(options: type[Any]) -> Mapping[str, Slot]:
    """List the slots of an options dataclass by field name.

    Raises:
        TypeError: the kind of a slot is neither the field's name nor in its annotation.
    """
    return {slot.name: slot for slot in _slots(options)}


def _slots(options: type[Any]) -> Iterator[Slot]:
    hints = typing.get_type_hints(options, include_extras=True)
    for item in dataclasses.fields(options):
        hint, kind, many, optional, targets = hints[item.name], item.name, False, False, ""
        if typing.get_origin(hint) is typing.Annotated:
            hint, *notes = get_args(hint)
            kind = next((note for note in notes if note in KINDS), kind)
            targets = next((note for note in notes if note in get_args(Targets)), "")
        if typing.get_origin(hint) in (UnionType, typing.Union) and NoneType in get_args(hint):
            optional = True
            hint = next(arg for arg in get_args(hint) if arg is not NoneType)
        if typing.get_origin(hint) is tuple and get_args(hint) == (Use, ...):
            many, hint = True, Use
        if hint is not Use:
            continue
        if kind not in KINDS:
            raise TypeError(
                f"{options.__name__}.{item.name}: the kind of this slot is not stated; annotate the field: "
                f'Annotated[Use, "perturbation"] (one of {", ".join(KINDS)})'
            )
        yield Slot(item.name, kind, many, optional, targets)


def slot_of(method: Use, name: str) -> Use:
    """Return the component in a slot of a resolved method: its own, or that of the method inside it."""
    options = method.options
    while not hasattr(options, name):
        options = options.inner.options
    found: Use = getattr(options, name)
    return found
