"""Read state dicts from files and load them into modules."""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.modules import Normalized
from ...errors import RunError
from ...runs.manifest import refuse_changed
from ..target import TargetKind
from .adapter import Opened
from .contents import content_of, first_line
from .layouts import Numbers, Placed, State, numbers_of, place

# Where the weights are in the checkpoints of other programs, in order of preference; averages come last.
_PLACES = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
    "model_weights",
    "module",
    "params",
    "student",
    "ema",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "ema_model",
    "averaged_model",
    "shadow",
    "teacher",
)
# What else such a file holds.
_OTHERS = re.compile(r"optim|sched|scaler|sampler|rng|callback|loop|hyper", re.IGNORECASE)
_SHOWN = 3
# Names that are compared with one another to find the nearest.
_COMPARED = 100
# What the names of a checkpoint's tensors start with; see Session.capture.
_PARTS = ("model/", "ema/", "state/", "local/", "optimizer.")


def read_state(path: Path) -> tuple[State, list[str]]:
    """Read a state dict from a safetensors file or a torch.save file.

    Of a checkpoint of a run, these are the model's weights, or their average if the run has one.

    Returns:
        The tensors, and notes on their place in the file.

    Raises:
        RunError: the file contains something else, or is damaged.
    """
    content = content_of(path)
    if content == "safetensors":
        state = _read_safetensors(path)
        return next(((own, [note]) for own, note in _in_checkpoint(state)), (state, []))
    if content == "pickle":
        value, notes = _unpickle(path)
        state, places = _state_in(value, path)
        return state, [*places, *notes]
    raise RunError(
        f"{path} contains a whole program ({content}), not a state dict: evaluate it directly, without a "
        "model component or a torchvision name"
    )


def _in_checkpoint(state: State) -> Iterator[tuple[State, str]]:
    """Yield what a checkpoint of a run holds of the model, the average first."""
    if all(name.startswith(_PARTS) for name in state):
        for part, what in (("ema/module.", "the averaged weights"), ("model/", "the weights")):
            own = {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
            # An average of no weights yet is that of the initial ones.
            if own and (part == "model/" or bool(state.get("ema/n_averaged", True))):
                yield own, f"the file is a checkpoint of a run: {what} of the model are used"


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_changed(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged: {first_line(error)}; download or save it again") from error


def _unpickle(path: Path) -> tuple[Any, list[str]]:
    """Unpickle tensors and plain values; return them, and a note on the objects that were left out."""
    try:
        return _load(path), []
    except Exception as error:  # pickle, zip and torch each have their own
        if type(error).__name__ != "UnpicklingError":
            raise RunError(
                f"{path} cannot be read: {first_line(error)}; it is damaged, cut off or not a torch.save "
                "file: download or save it again"
            ) from error
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
        with torch.serialization.safe_globals([(_LeftOut, name) for name in names]):
            value = _load(path)
        if isinstance(value, Mapping) and any(_tables(value)):
            some = _some(names)
            return value, [f"the file also contains Python objects, which were not read: {some}"]
    except Exception:  # the file is not a zip, or its objects are of kinds that cannot be left out
        pass
    raise RunError(
        f"{path} contains pickled Python objects, not only tensors, and unpickling them could run any code. "
        "If you trust the file, load it where it was created and save only the weights: "
        f'safetensors.torch.save_file(model.state_dict(), "{path.stem}.safetensors")'
    )


class _LeftOut:
    """Stand in for every class and function that a file names: nothing of the file is imported or called."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the pickle protocol
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(table: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {k: v for k, v in table.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _tables(value: Mapping[Any, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], State]]:
    """Yield the state dicts in nested tables, each with its place; () for the whole file."""
    own = _tensors(value)
    inner = [
        found
        for name, table in value.items()
        if len(place) < 3  # a pickle may hold itself
        if isinstance(name, str) and isinstance(table, Mapping) and not _OTHERS.search(name)
        for found in _tables(table, (*place, name))
    ]
    # A table of tables may have a tensor of its own, such as the number of the epoch.
    if own and (not inner or any("." in name for name in own)):
        yield place, own
    else:
        yield from inner


def _state_in(value: Any, path: Path) -> tuple[State, list[str]]:
    if not isinstance(value, Mapping):
        raise RunError(f"{path} contains a {type(value).__name__}, not a state dict: save model.state_dict()")
    found = dict(_tables(value))
    ranks = {place: rank for place in found if (rank := _rank(place)) is not None}
    if len(found) == 1 and not ranks:
        ranks = dict.fromkeys(found, 0)
    if not ranks:
        names = (
            ", ".join(".".join(place) for place in found) or ", ".join(map(str, list(value)[:8])) or "none"
        )
        raise RunError(f"{path} contains no state dict (keys: {names}): save only model.state_dict()")
    # The file may also contain optimizers and averaged weights, so the order of the usual names is fixed.
    best = min(ranks, key=lambda place: ranks[place])
    if not best:
        plain = [str(name) for name in value if name not in found[best]]
        return found[best], [f"not used of the file: {_some(plain)}"] if plain else []
    others = [".".join(place) for place in found if place != best]
    besides = f"; not used: {', '.join(others)}" if others else ""
    return found[best], [f'the weights are those under "{".".join(best)}" in the file{besides}']


def _rank(place: tuple[str, ...]) -> int | None:
    """Return the rank of a place in a file, the worst of its parts; None for a name that is not known."""
    ranks = [_PLACES.index(part) for part in place if part in _PLACES]
    return max(ranks) if ranks else (0 if not place else None)


@dataclass(frozen=True)
class Fit:
    """Tell how a state dict was loaded into a module.

    Attributes:
        prefix: prefix that was removed from the names in the file.
        front: normalisation in the file that the module lacks, to be put in front of it; None for none.
        notes: what was stripped, found and left out, for the reader.
    """

    prefix: str
    front: Numbers | None
    notes: Sequence[str]

    def opened(
        self, network: nn.Module, kind: TargetKind, name: str, facts: dict[str, Any], notes: Sequence[str]
    ) -> Opened:
        """Return the module, in eval mode, for its trial; see Opened.

        Args:
            network: the module that was loaded.
            kind, name, facts: of the source.
            notes: earlier notes, on the place of the weights in the file.
        """
        facts |= {"prefix": self.prefix} if self.prefix else {}
        mean, std = self.front or ((), ())
        return Opened(network.eval(), kind, name, facts, mean=mean, std=std, notes=[*notes, *self.notes])


def fit(
    module: nn.Module,
    state: State,
    path: Path | str,
    name: str,
    mend: str,
    *,
    channels: int | None = None,
    numbers: Numbers | None = None,
    keep: bool = False,
    skip: Collection[str] = (),
) -> Fit:
    """Load a state dict into a module, whatever wrapped the network where it was saved; see `place`.

    Args:
        module: the module whose weights are replaced. A normalisation that the file holds beside the network
            replaces the numbers of the module's own.
        state: the tensors.
        path, name: file path and module name, for messages.
        mend: advice on how to choose another module.
        channels: number of channels of the inputs; None if that is not known.
        numbers: normalisation that belongs to the weights, if the file does not hold one.
        keep: whether a module keeps its own normalisation if the file has none.
        skip: names of the module's tensors that are not loaded.

    Raises:
        RunError: they do not fit; the message lists tensors that are missing, unexpected or of another shape.
    """
    wanted = module.state_dict()
    placed = place(state, wanted, channels, skip)
    if placed.numbers is None and numbers is not None:
        placed = replace(placed, numbers=numbers, bare=False)
    if not placed.fits or (placed.bare and not keep):
        raise RunError("\n  ".join([f"{path} does not fit {name}:", *_misfits(placed, wanted, mend)]))
    try:
        module.load_state_dict({**wanted, **placed.state})
    except RuntimeError as error:
        raise RunError(f"{path} does not fit {name}: {first_line(error)}") from error
    if not isinstance(module, Normalized) or not placed.added:
        return Fit(placed.stripped, placed.numbers, list(_told(placed)))
    own = numbers_in(module)
    notes = list(_told(placed, own))
    if placed.numbers is not None:
        set_numbers(module, placed.numbers)
    return Fit(placed.stripped, None, notes)


def numbers_in(module: Normalized) -> Numbers:
    """Return the normalisation of a module."""
    return numbers_of(module.mean, module.std)[0]


def set_numbers(module: Normalized, numbers: Numbers) -> None:
    """Replace the normalisation of a module."""
    with torch.no_grad():
        for buffer, values in ((module.mean, numbers.mean), (module.std, numbers.std)):
            buffer.copy_(torch.tensor(values).view(1, -1, 1, 1).expand_as(buffer))


def _near(first: Numbers, second: Numbers) -> bool:
    pairs = [*zip(first.mean, second.mean, strict=False), *zip(first.std, second.std, strict=False)]
    return all(math.isclose(one, other, abs_tol=2e-3) for one, other in pairs)


def _told(placed: Placed, own: Numbers | None = None) -> Iterator[str]:
    """Yield a note for everything that was done to the names, and for what was left out.

    Args:
        placed: the tensors as they were placed.
        own: normalisation of the model, if the weights are those of the network behind it.
    """
    if placed.stripped:
        yield f'the names in the file begin with "{placed.stripped}", which was removed'
    if placed.bare and own is not None:
        yield f"the file states no normalisation; the model keeps its own: {own}"
    if placed.numbers is not None:
        what = f"the normalisation that belongs to the weights ({placed.numbers})"
        if placed.divided:
            what += ", stated for inputs in [0, 255] and divided by 255,"
        if own is None:
            yield f"{what} is kept in front of the model"
        elif _near(own, placed.numbers):
            yield f"{what} is the one of the model"
        else:
            yield f"{what} replaces the one that the model was built with ({own})"
    if placed.others:
        yield f"not used: another normalisation in the file ({placed.others[0]})"
    if placed.copies:
        yield f"not used: other copies of the network in the file, under {_some(placed.copies)}"
    if placed.unused:
        yield f"not used of the file: {_some(placed.unused)}"


def _misfits(placed: Placed, wanted: State, mend: str) -> Iterator[str]:
    """Yield a line for each way in which tensors differ, and advice."""
    if placed.stripped:
        yield f'(without "{placed.stripped}" in front of the names of the file)'
    if placed.missing:
        yield f"{len(placed.missing)} missing: {_nearest(placed)}"
    if placed.unexpected:
        named = [f"{name} {tuple(value.shape)}" for name, value in placed.unexpected.items()]
        yield f"{len(named)} unexpected: {_some(named)}"
    if placed.shapes:
        shapes = [
            f"{name} ({tuple(there.shape)} in the file, {tuple(wanted[name].shape)} in the model)"
            for name, there in placed.state.items()
            if name in placed.shapes
        ]
        yield f"{len(shapes)} of another shape: {_some(shapes)}"
    if placed.fits:
        yield (
            "the file has no normalisation, and the model has one of its own, whose numbers may be others: "
            "--set model.normalize=false, and --mean and --std"
        )
    else:
        yield mend


def _nearest(placed: Placed) -> str:
    """List missing tensors, those first that resemble an unexpected one, by name and shape."""
    left = list(placed.unexpected)[:_COMPARED]
    rows: list[tuple[float, str]] = []
    for name, value in list(placed.missing.items())[:_COMPARED]:
        same = [other for other in left if placed.unexpected[other].shape == value.shape]
        close = difflib.get_close_matches(name, same, 1) or (same if len(same) == 1 else [])
        close = close or difflib.get_close_matches(name, left, 1, 0.9)
        near = f" (in the file: {close[0]} {tuple(placed.unexpected[close[0]].shape)})" if close else ""
        likeness = difflib.SequenceMatcher(None, close[0], name).ratio() if close else 0.0
        rows.append((-likeness, f"{name} {tuple(value.shape)}{near}"))
    return _some([text for _, text in sorted(rows, key=lambda row: row[0])], len(placed.missing))


def _some(names: Sequence[str], count: int = 0) -> str:
    more = ", …" if max(len(names), count) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's parameters and buffers, names and shapes included."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
