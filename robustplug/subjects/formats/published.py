"""State dicts of published definitions: the same layers as in one of our networks, under other names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from ...core.protocols import KnownElsewhere
from ...errors import RunError
from .layouts import State

# In the files of some of RobustBench's Wide ResNets is a stage that the network never runs.
_UNUSED = "sub_block1."


def published_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a model under the names of the published definition of its network.

    That definition loads them: `definition.load_state_dict(published_state(model))`. A normalisation in front
    of the network is not among them: give its numbers to the definition.

    Args:
        model: a model such as `wide-resnet` or `preact-resnet18`, perhaps with a normalisation in front.

    Raises:
        RunError: no published definition of the network is known.
    """
    for prefix, names in _known(model):
        inside = {
            name.removeprefix(prefix): t for name, t in model.state_dict().items() if name.startswith(prefix)
        }
        return renamed(inside, names)
    raise RunError(f"no published definition of {type(model).__name__} is known")


def renamed(state: State, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return tensors under the new names of their layers; those of other layers are left out.

    Args:
        state: tensors, as "layer.weight".
        names: the new name of each layer.
    """
    parts = {name: name.rpartition(".") for name in state}
    return {
        f"{names[layer]}.{last}": state[name] for name, (layer, _, last) in parts.items() if layer in names
    }


def own_names(state: State, module: nn.Module) -> tuple[State, list[str]]:
    """Return the tensors of a file under our names, where they have those of a published definition.

    Args:
        state: tensors of the file, perhaps with a prefix before all names of the network.
        module: the module that is to load them.

    Returns:
        The tensors, and a note if they were renamed.
    """
    for _, names in _known(module):
        ours = {theirs: layer for layer, theirs in names.items()}
        stem = next(iter(ours))
        for name in state:
            prefix = name.removesuffix(f"{stem}.weight")
            if prefix == name or not all(f"{prefix}{theirs}.weight" in state for theirs in ours):
                continue
            inside = {key.removeprefix(prefix): key for key in state if key.startswith(prefix)}
            left = {
                key: state[key]
                for short, key in inside.items()
                if short.rpartition(".")[0] not in ours and not short.startswith(_UNUSED)
            }
            outside = {key: value for key, value in state.items() if not key.startswith(prefix)}
            here = renamed({short: state[key] for short, key in inside.items()}, ours)
            found = {f"{prefix}{key}": value for key, value in here.items()}
            return {**outside, **left, **found}, ["the layers in the file have the names of RobustBench"]
    return state, []


def _known(module: nn.Module) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the networks in a module that are known elsewhere, each with its prefix and its names."""
    for name, part in module.named_modules():
        if isinstance(part, KnownElsewhere):
            yield (f"{name}." if name else ""), part.names_elsewhere()
