"""Recognise how a state dict was wrapped: prefixes, copies, and a normalisation beside the network."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from ...runs.checkpoint import fixed_shape

State = Mapping[str, Tensor]

# Under these names wrapping modules and programs keep the network. Averages of the weights come last.
AVERAGES = ("averaged_model", "ema", "ema_model", "model_ema", "teacher")
WRAPPERS = (
    "module",
    "_orig_mod",
    "model",
    "net",
    "network",
    "backbone",
    "_model",
    "_module",
    "attacker",
    "base_model",
    "inner",
    "online_model",
    "student",
    "wrapped",
    *AVERAGES,
)
# Single numbers that averages of the weights add.
_COUNTERS = ("n_averaged", "num_updates", "initted", "step", "decay")
# The last part of the names of the two halves of a normalisation, and the parts before it.
_MEAN = re.compile(r"(?!.*(running|moving))(?P<before>.*?)(means?|mu)(?P<behind>(_cuda)?)")
_STD = ("std", "stds", "sd", "sds", "sigma", "sigmas")
_BESIDE = re.compile(r"norm|input|preproc|data_|transform|standard", re.IGNORECASE)


class Numbers(NamedTuple):
    """Hold a normalisation: (x − mean) / std, one number for each channel or one for all."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        return f"mean {_short(self.mean)}, std {_short(self.std)}"


@dataclass(frozen=True)
class Placed:
    """Hold the tensors of a file under the names of a module, and what is left over.

    Attributes:
        state: the tensors by the module's names.
        stripped: prefix that was removed from the names in the file.
        added: prefix that was added to them.
        numbers: normalisation in the file beside the network; None for none.
        divided: whether these numbers were for inputs in [0, 255] and are divided by 255.
        others: normalisations in the file with other numbers, which are not used.
        copies: prefixes of other copies of the network, such as an average of its weights.
        bare: whether the module has a normalisation of its own that the file lacks.
        unused: names of other tensors in the file that are not needed.
        missing: the module's tensors that the file lacks, by name.
        unexpected: tensors in the file that the module lacks, by name without the prefix.
        shapes: names of tensors whose shapes differ.
    """

    state: State
    stripped: str = ""
    added: str = ""
    numbers: Numbers | None = None
    divided: bool = False
    others: tuple[Numbers, ...] = ()
    copies: tuple[str, ...] = ()
    bare: bool = False
    unused: tuple[str, ...] = ()
    missing: State = field(default_factory=dict)
    unexpected: State = field(default_factory=dict)
    shapes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Return whether nothing that the module needs is missing, left over or of another shape."""
        return not (self.missing or self.unexpected or self.shapes)


def place(state: State, wanted: State, channels: int | None = None, skip: Collection[str] = ()) -> Placed:
    """Find the tensors of a module in a file, whatever wraps the network in the file or in the module.

    A wrapper counts only if all tensors of the module are found under it. What the file holds beside it must
    be a normalisation, a copy of the same network, a counter, or lie outside a wrapper that has a name.

    Args:
        state: the tensors of the file.
        wanted: the state dict of the module.
        channels: number of channels of the inputs; None if that is not known.
        skip: names of the module that are not looked for, and that the file may have in any shape.

    Returns:
        The first layout that fits, or else the one under which most tensors fit.
    """
    wanted = {name: value for name, value in wanted.items() if name not in skip}
    pairs = list(_pairs(state, channels))
    best, most = None, -1
    for target in _targets(wanted, channels):
        left_out = {name.removeprefix(target.added) for name in skip if name.startswith(target.added)}
        for prefix in _prefixes(state):
            found, matched = _under(prefix, state, target, pairs, left_out)
            if found.fits:
                return found
            if matched > most:
                best, most = found, matched
    assert best is not None
    return best


class _Target(NamedTuple):
    """A part of the module: its prefix, its tensors without it, and whether a normalisation is left out."""

    added: str
    names: State
    bare: bool


def _targets(wanted: State, channels: int | None) -> Iterator[_Target]:
    """Yield the module, then what is inside of it while everything but a normalisation is in one child."""
    yield _Target("", wanted, False)
    own = {name for pair in _pairs(wanted, channels) for name in pair}
    names = {name: value for name, value in wanted.items() if name not in own}
    added = ""
    while names and len({name.partition(".")[0] for name in names}) == 1:
        child, dot, _ = next(iter(names)).partition(".")
        if not dot:
            return
        added += f"{child}."
        names = {name.partition(".")[2]: value for name, value in names.items()}
        yield _Target(added, names, bool(own))


def _prefixes(state: State) -> list[str]:
    """List the prefixes of the names that wrappers and nn.Sequential make, the plainest first."""
    found = {""}
    for name in state:
        parts = name.split(".")[:-1]
        for count, part in enumerate(parts, 1):
            if part not in WRAPPERS and not part.isdecimal():
                break
            found.add(".".join(parts[:count]) + ".")

    def order(prefix: str) -> tuple[bool, bool, int, str]:
        parts = prefix.split(".")[:-1]
        return any(part in AVERAGES for part in parts), "attacker" in parts, len(parts), prefix

    return sorted(found, key=order)


def _under(
    prefix: str, state: State, target: _Target, pairs: list[tuple[str, str]], left_out: Collection[str]
) -> tuple[Placed, int]:
    """Place the tensors under a prefix; return the result, and how many tensors fit."""
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    names = target.names
    here = {name: value for name, value in inside.items() if name in names}
    wrong = tuple(name for name in here if fixed_shape(name, here[name]) != fixed_shape(name, names[name]))
    # BatchNorm creates this counter itself if an old file lacks it.
    missing = {
        name: value
        for name, value in names.items()
        if name not in here and not name.endswith("num_batches_tracked")
    }
    used = {prefix + name for name in here}
    copies = [copy for copy in _prefixes(state) if copy != prefix and _is_copy(copy, state, names)]
    known = used | {copy + name for copy in copies for name in names}
    beside = [pair for pair in pairs if not known.intersection(pair)]
    known |= {name for pair in beside for name in pair} | {prefix + name for name in left_out}
    known |= {name for name in state if _is_counter(name, state)}
    rest = [name for name in state if name not in known]
    outside = [name for name in rest if _worded(prefix) and not name.startswith(prefix)]
    unexpected = {name.removeprefix(prefix): state[name] for name in rest if name not in outside}
    found = {pair: numbers_of(state[pair[0]], state[pair[1]]) for pair in beside}
    first = min(found, key=lambda pair: (pair[0].count("."), pair[0]), default=None)
    numbers, divided = found[first] if first is not None else (None, False)
    return Placed(
        state={target.added + name: value for name, value in here.items()},
        stripped=prefix,
        added=target.added,
        numbers=numbers,
        divided=divided,
        others=tuple({each for each, _ in found.values()} - {numbers}),
        copies=tuple(copies),
        bare=target.bare and numbers is None,
        unused=tuple(outside),
        missing={target.added + name: value for name, value in missing.items()},
        unexpected=unexpected,
        shapes=tuple(target.added + name for name in wrong),
    ), len(here) - len(wrong)


def _is_copy(prefix: str, state: State, names: State) -> bool:
    return _worded(prefix) and bool(names) and all(prefix + name in state for name in names)


def _worded(prefix: str) -> bool:
    """Return whether a prefix is made of names of wrappers only, without places of an nn.Sequential."""
    return bool(prefix) and not any(part.isdecimal() for part in prefix.split("."))


def _is_counter(name: str, state: State) -> bool:
    return name.rpartition(".")[2] in _COUNTERS and state[name].numel() == 1


def _pairs(state: State, channels: int | None) -> Iterator[tuple[str, str]]:
    """Yield the names of the mean and the deviation of each normalisation of the inputs."""
    for name, mean in state.items():
        place, _, last = name.rpartition(".")
        match = _MEAN.fullmatch(last)
        if match is None or not all(_beside(part) for part in place.split(".")):
            continue
        stem = name[: len(name) - len(last)] + match["before"]
        names = [f"{stem}{word}{match['behind']}" for word in _STD]
        std = next((each for each in names if each in state), None)
        if std is not None and _is_pair(mean, state[std], channels):
            yield name, std


def _beside(part: str) -> bool:
    return not part or part.isdecimal() or part in WRAPPERS or bool(_BESIDE.search(part))


def _is_pair(mean: Tensor, std: Tensor, channels: int | None) -> bool:
    counts = (1, channels) if channels is not None else (1, 2, 3, 4)
    right = all(
        value.is_floating_point() and value.numel() in counts and value.numel() == max((1, *value.shape))
        for value in (mean, std)
    )
    return right and bool(mean.isfinite().all()) and bool((std.isfinite() & (std > 0)).all())


def numbers_of(mean: Tensor, std: Tensor) -> tuple[Numbers, bool]:
    """Return a normalisation for inputs in [0, 1], and whether it was stated for inputs in [0, 255]."""
    size = max(mean.numel(), std.numel())
    means, stds = (value.detach().double().flatten().expand(size) for value in (mean, std))
    divided = bool(means.abs().max() > 2) or bool(stds.max() > 2)
    scale = 255 if divided else 1
    both = [tuple(round(number / scale, 7) for number in value.tolist()) for value in (means, stds)]
    return Numbers(*both), divided


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
