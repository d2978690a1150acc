"""Parts of a model by name: freeze them, group their parameters, and find the classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ..core.modules import Normalized
from ..plugin.registry import did_you_mean
from ..recipe.errors import Problem, RecipeError

if TYPE_CHECKING:
    from ..recipe.options import OptimizerGroup, OptimizerKeys

_SHOWN = 12


def parts_of(model: nn.Module, prefixes: Sequence[str], key: str) -> list[nn.Parameter | nn.Module]:
    """List the modules and parameters that names stand for; a module stands for everything in it.

    Names may leave out the normalisation layer around the network.

    Args:
        model: the model.
        prefixes: names of modules or parameters, such as "layer1" or "layer1.0.conv1.weight".
        key: key of the recipe that states the names.

    Raises:
        RecipeError: a name is neither that of a module nor of a parameter; the message has the nearest.
    """
    names = dict(_names(model))
    found: list[nn.Parameter | nn.Module] = []
    problems = []
    for number, prefix in enumerate(prefixes):
        if prefix in names:
            found.append(names[prefix])
            continue
        close = did_you_mean(prefix, names)
        children = [
            name for name, _ in (model.network if isinstance(model, Normalized) else model).named_children()
        ]
        known = ", ".join(children[:_SHOWN]) + (", …" if len(children) > _SHOWN else "")
        hint = f'did you mean "{close}"?' if close else f"its modules: {known}"
        why = f'"{prefix}" is neither a module nor a parameter of the model'
        problems.append(Problem(f"{key}.{number}", why, hint=hint))
    if problems:
        raise RecipeError(problems, "recipe")
    return found


def _names(model: nn.Module) -> Iterator[tuple[str, nn.Parameter | nn.Module]]:
    """Yield the names of all modules and parameters, also without the normalisation layer around them."""
    places = [(model, "")] + ([(model.network, "network.")] if isinstance(model, Normalized) else [])
    for module, _ in reversed(places):
        yield from ((name, part) for name, part in module.named_modules() if name)
        yield from module.named_parameters()


def _parameters(parts: Sequence[nn.Parameter | nn.Module]) -> Iterator[nn.Parameter]:
    for part in parts:
        yield from part.parameters() if isinstance(part, nn.Module) else (part,)


def freeze(model: nn.Module, prefixes: Sequence[str]) -> list[nn.Parameter]:
    """Return the parameters of parts of a model, and put the normalisation layers in them in eval mode.

    Their running statistics then stay as they are. Call it when the mode of the model has been set.

    Raises:
        RecipeError: see `parts_of`; or nothing is left to train.
    """
    parts = parts_of(model, prefixes, "model.freeze")
    for part in parts:
        for module in part.modules() if isinstance(part, nn.Module) else ():
            if isinstance(module, _NormBase) and module.track_running_stats:
                module.eval()
    frozen = list(_parameters(parts))
    if len({id(each) for each in frozen}) == len(list(model.parameters())):
        raise RecipeError([Problem("model.freeze", "leaves nothing of the model to train")], "recipe")
    return frozen


def grouped(model: nn.Module, keys: OptimizerKeys | None) -> list[tuple[OptimizerGroup, list[nn.Parameter]]]:
    """Return the parameters of each of an optimizer's groups; where groups overlap, the last one has them.

    Raises:
        RecipeError: see `parts_of`.
    """
    groups = () if keys is None else keys.groups
    chosen = [
        list(_parameters(parts_of(model, group.params, f"optimizer.groups.{number}.params")))
        for number, group in enumerate(groups)
    ]
    owner = {id(parameter): number for number, params in enumerate(chosen) for parameter in params}
    return [
        (group, [parameter for parameter in chosen[number] if owner[id(parameter)] == number])
        for number, group in enumerate(groups)
    ]


def classifier_of(model: nn.Module, classes: int) -> str | None:
    """Return the name of the last linear layer with an output for each class; else of the last convolution.

    None if there is no such layer.
    """
    linear = [name for name, part in model.named_modules() if _outputs(part, nn.Linear) == classes]
    convolutions = [name for name, part in model.named_modules() if _outputs(part, nn.Conv2d) == classes]
    return next(reversed(linear or convolutions), None)


def new_head(network: nn.Module, classes: int, wanted: int) -> None:
    """Replace the classifier of a network by a new one for another number of classes; see `classifier_of`.

    Raises:
        ValueError: the network has no such layer.
    """
    name = classifier_of(network, classes)
    if name is None:
        raise ValueError(f"the network has no linear layer with {classes} outputs that could be replaced")
    old = network.get_submodule(name)
    if isinstance(old, nn.Linear):
        network.set_submodule(name, nn.Linear(old.in_features, wanted, bias=old.bias is not None))
    elif isinstance(old, nn.Conv2d):
        geometry: dict[str, Any] = {key: getattr(old, key) for key in ("stride", "padding", "dilation")}
        size: Any = old.kernel_size
        new = nn.Conv2d(old.in_channels, wanted, size, bias=old.bias is not None, **geometry)
        network.set_submodule(name, new)


def _outputs(module: nn.Module, kind: type[nn.Module]) -> int | None:
    if not isinstance(module, kind):
        return None
    return module.out_features if isinstance(module, nn.Linear) else getattr(module, "out_channels", None)
