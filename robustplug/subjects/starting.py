"""The weights that training starts from: those of a run, of a file, or of a model's library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from ..core.method import Wrapper
from ..core.modules import Normalized
from ..errors import RunError
from ..files.reading import is_file, is_folder
from ..plugin.component import Use, slots
from ..plugin.host import registry
from ..recipe.errors import Problem, RecipeError
from ..runs.folder import MODEL
from .formats.contents import PREFIX, first_line
from .formats.layouts import Numbers, State
from .formats.weights import fit, numbers_in, read_state, set_numbers, weights_digest
from .tuning import classifier_of

if TYPE_CHECKING:
    from ..core.method import Method
    from ..core.types import TaskInfo


class Start(NamedTuple):
    """Hold initial weights: the tensors, their source, notes on it, and the normalisation that they need."""

    state: State
    source: str
    notes: list[str]
    numbers: Numbers | None = None


def load_networks(method: Method[Any], reference: Use, info: TaskInfo, key: str = "method") -> list[str]:
    """Load the weights that the networks of a method start from, and return notes for the reader.

    Args:
        method: the method as built, before its setup.
        reference: its reference, resolved.
        info: the task.
        key: key path of the method, for messages.

    Raises:
        RunError, RecipeError: as for `load_start`.
    """
    notes: list[str] = []
    for slot in slots(type(reference.options)).values():
        value, place = getattr(reference.options, slot.name), f"{key}.{slot.name}"
        if slot.kind == "method" and isinstance(method, Wrapper):
            notes += load_networks(method.inner, value, info, place)
        elif slot.kind == "model" and isinstance(value, Use):
            digest, found = load_start(value, getattr(method, slot.name), info, place)
            notes += [f"{place}: {note}" for note in found]
            if digest is None:
                notes.append(f'{place} has no trained weights: give it a run or a file, {place}.from = "…"')
    return notes


def load_start(
    reference: Use, model: nn.Module, info: TaskInfo, key: str = "model"
) -> tuple[str | None, list[str]]:
    """Load the weights that a model starts from.

    Args:
        reference: a reference to the model, which may have a `from`: a run folder, a file with a state dict,
            or a name of weights of the model's library, which may also offer some where there is no `from`.
        model: the model as built, before any method's setup.
        info: the task.
        key: key path of the model, for messages.

    Returns:
        The digest of the weights, None for an untrained start, and notes for the reader.

    Raises:
        RunError: the weights do not exist, cannot be had, or do not fit.
        RecipeError: the library has no weights of this name.
    """
    found = _start_of(reference, info, key)
    if found is None:
        return None, []
    skip: list[str] = []
    notes = list(found.notes)
    name = f'model "{reference.name}"'
    if reference.more is not None and reference.more.head == "new":
        head = classifier_of(model, info.classes or 0)
        if head is None:
            why = f'is "new", but {name} has no linear layer with {info.classes} outputs'
            raise RecipeError([Problem(f"{key}.head", why)], "recipe")
        skip = [key for key in model.state_dict() if key.rpartition(".")[0] == head]
        notes.append(f'the classifier, "{head}", starts anew, with {info.classes} outputs')
    mend = (
        "give the model the options that these weights were trained with; for another number of classes, set "
        f'{key}.head = "new"'
    )
    channels = info.shape[0] if info.shape else None
    fitted = fit(
        model,
        found.state,
        found.source,
        name,
        mend,
        channels=channels,
        numbers=found.numbers,
        keep=True,
        skip=skip,
    )
    if fitted.front is not None:
        set_in_front(model, fitted.front, found.source, key)
    return weights_digest(model), [*notes, *fitted.notes]


def _start_of(model: Use, info: TaskInfo, key: str) -> Start | None:
    path = None if model.start is None else Path(model.start)
    if path is not None and is_folder(path):
        path = path / MODEL
        if not is_file(path):
            raise RunError(f"{key}.from: {path.parent} contains no finished run: {MODEL} is missing")
    if path is not None and is_file(path):
        state, notes = read_state(path)
        return Start(state, str(path), notes, _of_torchvision(model, path))
    return library_weights(model, model.start, info, f"{key}.from")


def _of_torchvision(model: Use, path: Path) -> Numbers | None:
    """Return the normalisation of torchvision's own weights, if a file is a copy of them."""
    if model.name != PREFIX.rstrip(":"):
        return None
    from .formats.torchvision_net import own_weights  # slow to import

    found = own_weights(model.options.name, path)
    return None if found is None else Numbers(tuple(found.transforms().mean), tuple(found.transforms().std))


def library_weights(model: Use, name: str | None, info: TaskInfo, key: str = "model.from") -> Start | None:
    """Return the weights that a model's library offers under a name; None where it offers an untrained start.

    Args:
        model: reference to the component, resolved.
        name: name of the weights; None if none is given.
        info: the task.
        key: key or argument that states the name, for messages.

    Raises:
        RunError: there is no such file, and the library offers no weights, or they cannot be had.
        RecipeError: the library has no weights of this name.
    """
    offered = registry().get("model", model.name).load_weights()
    if offered is None and name is None:
        return None
    if offered is None:
        raise RunError(f"{key}: {name} does not exist")
    try:
        found = offered(model.options, name, info=info)
    except (ValueError, ImportError) as error:
        problem = Problem(key if name else key.removesuffix(".from"), str(error))
        raise RecipeError([problem], f'model "{model.name}"') from error
    except OSError as error:
        raise RunError(
            f"the weights of {model.name} cannot be had ({first_line(error)}): download them elsewhere, and "
            f"give the file: {key}=FILE"
        ) from error
    if found is None:
        return None
    numbers = Numbers(tuple(found.mean), tuple(found.std)) if found.mean else None
    return Start(found.state, found.source, [f"the weights are those of {found.source}"], numbers)


def set_in_front(model: nn.Module, outer: Numbers, source: str, key: str = "model") -> None:
    """Merge a normalisation that stood in front of a normalised network into that of the network.

    Raises:
        RunError: the model has no normalisation layer.
    """
    if not isinstance(model, Normalized):
        raise RunError(
            f"{source} holds weights behind a normalisation ({outer}), and the model has no layer for it: "
            f"set {key}.normalize = true"
        )
    inner = numbers_in(model)
    size = max(len(outer.mean), len(inner.mean))
    rows = [values * (size if len(values) == 1 else 1) for values in (*outer, *inner)]
    # ((x − m) / s − n) / t = (x − (m + s·n)) / (s·t)
    merged = [(m + s * n, s * t) for m, s, n, t in zip(*rows, strict=True)]
    set_numbers(model, Numbers(tuple(mean for mean, _ in merged), tuple(std for _, std in merged)))
