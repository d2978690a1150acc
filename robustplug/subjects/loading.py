"""Open a model of any kind, normalise its inputs, and try it."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from ..core.modules import Normalized
from ..core.protocols import Stating
from ..core.random import isolated
from ..core.types import TaskInfo
from ..errors import RunError
from ..files.reading import is_folder
from ..plugin.component import Use
from ..plugin.host import registry
from ..recipe.convert import resolve
from ..recipe.write import use_to_mapping
from ..runs.folder import holds_run
from .assemble import build_part
from .data.arrays import extremes
from .formats.adapter import Adapter, Opened, manageable
from .formats.boosters import open_lightgbm, open_xgboost
from .formats.classifiers import is_classifier, open_classifier
from .formats.contents import PREFIX, content_of, digest
from .formats.programs import open_export, open_program, open_script
from .formats.trial import Shape, check_logits, find_logits, why_no_gradients
from .formats.weights import fit, read_state
from .named import component_in, open_named
from .target import Model, Target, TargetKind

Numbers = Sequence[float] | None

# Kinds that have no gradients by nature.
_BLACK_BOXES: frozenset[TargetKind] = frozenset({"onnx", "lightgbm", "xgboost", "classifier"})


def load_target(
    source: Model,
    info: TaskInfo,
    *,
    model: Use | None = None,
    weights: str | None = None,
    mean: Numbers = None,
    std: Numbers = None,
    device: torch.device | str = "cpu",
) -> Target:
    """Load a model and try it on a few images.

    The content of a file determines its format; the suffix does not matter. Only tensors are unpickled
    (`weights_only=True`), and torch.export files that need more are refused; docs/models.md lists what else
    loading executes. Modules are moved to the device and otherwise left unchanged. Modules that are created
    here are in eval mode.

    Args:
        source: a module, a fitted classifier of flat images, a function, a file, "torchvision:NAME", or the
            name of another component of models by name, such as "timm:NAME".
        info: image shape and number of classes of the task.
        model: the model component that a state dict belongs to.
        weights: weights of a model by name: a name such as "DEFAULT", or a file with a state dict.
        mean, std: one number for each channel; (x − mean) / std is added in front of the model.
        device: device of the model.

    Raises:
        RunError: the model cannot be loaded or does not fit the task; the message names the file, the
            problem and the remedy.
        RecipeError: the component or one of its options is invalid.
    """
    normalisation = mean, std
    if isinstance(source, str | Path) and is_folder(source):
        source, model = _from_folder(Path(source), model, info), None
    if info.shape is None or info.classes is None:
        if isinstance(source, str) and component_in(source) is not None:
            source = _by_name(source, model, info)
        return _as_it_is(source, normalisation, weights, device)
    device, shape = torch.device(device), Shape(info.shape, info.classes, info.bounds)
    opened = _open(source, info, shape, model, weights, device)
    # Checked before the trial: a hint about the outputs would mislead.
    front = _in_front(opened, normalisation, shape.image[0])
    adapter = Adapter(opened.function, opened.sizes)
    found = find_logits(adapter, opened.name, shape, device)
    adapter.key, adapter.decisions = found.key, shape.classes if found.decisions else None
    module = _with_front(adapter, front).to(device)
    notes = [*opened.notes, *found.notes, *check_logits(module, opened.name, shape, device)]
    why_not = why_no_gradients(module, shape, device)
    if why_not and not found.decisions and opened.kind not in _BLACK_BOXES:
        notes.append(f"the model has no gradients, so only black-box attacks can be run: {why_not}")
    adapter.gradients = gradients = not why_not
    if isinstance(adapter.function, nn.Module) and adapter.plain:
        module = _with_front(adapter.function, front).to(device)
    stated = _normalisation(opened, front)
    if opened.kind == "torchvision" and front is None:
        notes.append(
            "no normalisation was stated, so the model receives unchanged images in [0, 1]; most torchvision "
            "models are trained on normalised images: give mean and std"
        )
    batch = {"least": opened.sizes.least, "most": opened.sizes.most}
    description = {
        "source": opened.name,
        "kind": opened.kind,
        "gradients": gradients,
        "input_range": extremes(info.bounds),
        "normalisation": stated,
        **opened.facts,
        **({"decisions": True} if found.decisions else {}),
        **({"batch": batch} if batch != {"least": 1, "most": None} else {}),
        "notes": notes,
    }
    return Target(module, opened.kind, gradients, description)


def _from_folder(folder: Path, model: Use | None, info: TaskInfo) -> nn.Module:
    """Build a model component that reads a folder, such as a Hugging Face model.

    Raises:
        RunError: no such component is named.
        RecipeError: the component cannot read the folder, or does not fit the task.
    """
    fields = () if model is None else dataclasses.fields(registry().get("model", model.name).options)
    if model is None or not any(item.name == "folder" for item in fields):
        named = "" if model is None else f'; "{model.name}" does not'
        raise RunError(f"{folder} is a folder: use --model with a model component that reads folders{named}")
    if isinstance(model.options, Mapping):
        model = resolve(Use(model.name, {"folder": str(folder), **model.options}), "model")
    with isolated(0):
        module: nn.Module = build_part(model, "model", "model", info=info)
    return module.eval()


def _by_name(source: str, model: Use | None, info: TaskInfo) -> nn.Module:
    """Build the model component that "component:name" refers to, with its other options.

    Raises:
        RecipeError: the component refuses its options, the name or the task.
    """
    with isolated(0):
        module: nn.Module = build_part(resolve(model or Use(source), "model"), "model", "model", info=info)
    return module.eval()


def _as_it_is(
    source: Model, normalisation: tuple[Numbers, Numbers], weights: str | None, device: torch.device | str
) -> Target:
    """Return a module without a trial, for a task without images of one size, which defines the outputs.

    Raises:
        RunError: the source is not a module, or options were given that only image models have.
    """
    if not isinstance(source, nn.Module) or normalisation != (None, None) or weights is not None:
        raise RunError(
            "the task has no images of one size, so only a run folder or a module can be evaluated on it, "
            "without normalisation or torchvision weights"
        )
    name = str(getattr(source, "__name__", type(source).__name__))
    facts = dict(source.facts()) if isinstance(source, Stating) else {}
    notes = list(facts.pop("notes", ()))
    description: dict[str, Any] = {"source": name, "kind": "module", **facts, "notes": notes}
    return Target(source.to(device), "module", False, description)


def _open(
    source: Model, info: TaskInfo, shape: Shape, model: Use | None, weights: str | None, device: torch.device
) -> Opened:
    component = component_in(source)
    if weights is not None and component is None:
        raise RunError(f'weights are only for models by name, such as "{PREFIX}resnet50": leave them out')
    if isinstance(source, str) and source.startswith(PREFIX):
        from .formats.torchvision_net import open_torchvision  # slow to import

        _refuse_component(model, str(source))
        return open_torchvision(source.removeprefix(PREFIX), weights, shape.image, shape.classes)
    if isinstance(source, str) and component is not None:
        return open_named(source, weights, info, model)
    if isinstance(source, str | Path):
        return _open_file(Path(source), info, shape, model, device)
    _refuse_component(model, "other models")
    if isinstance(source, ExportedProgram):
        return open_program(source, "the exported program", shape.image, device)
    name = str(getattr(source, "__name__", type(source).__name__))
    if isinstance(source, nn.Module):
        if any(each.is_inference() for each in (*source.parameters(), *source.buffers())):
            # Autograd refuses tensors of inference mode; those of a copy are ordinary.
            source = copy.deepcopy(source)
        return Opened(manageable(source.to(device)), "module", name)
    if is_classifier(source):
        return open_classifier(source, shape)
    if not callable(source):
        hint = "; a classifier must be fitted and have classes_" if hasattr(source, "predict") else ""
        raise RunError(
            f"a model must be a module, a classifier, a function or the path of a file, not {name}{hint}"
        )
    return Opened(source, "callable", name)


def _refuse_component(model: Use | None, what: str) -> None:
    if model is not None:
        raise RunError(
            f'the model component "{model.name}" belongs to a state dict, not to {what}: leave out --model'
        )


def _open_file(path: Path, info: TaskInfo, shape: Shape, model: Use | None, device: torch.device) -> Opened:
    content = content_of(path)
    if content in ("safetensors", "pickle"):
        opened = _open_state(path, info, model)
    else:
        _refuse_component(model, f"{path} ({content})")
        if content == "torchscript":
            opened = open_script(path, device)
        elif content == "export":
            opened = open_export(path, shape.image, device)
        elif content == "lightgbm":
            opened = open_lightgbm(path, shape)
        elif content == "xgboost":
            opened = open_xgboost(path, shape)
        else:
            from .formats.onnx_file import open_onnx

            opened = open_onnx(path, shape.image, device)
    opened.facts = {"sha256": digest(path), **opened.facts}
    return opened


def _open_state(path: Path, info: TaskInfo, model: Use | None) -> Opened:
    if model is None:
        folder = path.parent
        run = f"; or evaluate the run itself: robustplug evaluate {folder}" if holds_run(folder) else ""
        raise RunError(
            f"{path} contains only weights: name their model component with --model and the options that it "
            f"was trained with (installed: {', '.join(registry().names('model'))}){run}"
        )
    state, notes = read_state(path)
    reference = resolve(model, "model")
    with isolated(0):
        network: nn.Module = build_part(reference, "model", "model", info=info)
    mend = (
        "choose the component and the options that the weights were trained with: --model NAME "
        "--set model.OPTION=VALUE"
    )
    found = fit(
        network,
        state,
        path,
        f'model "{model.name}"',
        mend,
        channels=info.shape[0] if info.shape else None,
        keep=getattr(reference.options, "mean", None) is not None,
    )
    facts: dict[str, Any] = {"model": use_to_mapping(reference)}
    return found.opened(network, "state-dict", str(path), facts, notes)


def _in_front(
    opened: Opened, given: tuple[Numbers, Numbers], channels: int
) -> tuple[list[float], list[float]] | None:
    """Return the mean and std to add in front of a model: the given ones, or those of its weights.

    Raises:
        RunError: they do not fit each other or the images, or the model already normalises its inputs.
    """
    mean, std = given
    if mean is None and std is None:
        return (list(opened.mean), list(opened.std)) if opened.mean else None
    if mean is None or std is None:
        raise RunError("mean and std belong together: give both, or neither")
    if len(mean) != len(std) or len(mean) not in (1, channels):
        raise RunError(
            f"mean has length {len(mean)} and std has length {len(std)}, but the images have {channels} "
            "channels: give one number for each channel, or one for all"
        )
    if not all(map(math.isfinite, [*mean, *std])) or min(std) <= 0:
        raise RunError(f"mean {list(mean)} and std {list(std)} must be finite, and std above 0")
    if max(mean) > 1:
        raise RunError(
            f"mean {list(mean)} is for images in [0, 255], but the images are in [0, 1]: divide mean and "
            "std by 255"
        )
    if _inside(opened) is not None:
        raise RunError(
            f"{opened.name} already normalises its inputs: leave out mean and std, or build it without its "
            "normalisation layer (--set model.normalize=false)"
        )
    return list(map(float, mean)), list(map(float, std))


def _inside(opened: Opened) -> Normalized | None:
    modules = opened.function.modules() if isinstance(opened.function, nn.Module) else iter(())
    return next((part for part in modules if isinstance(part, Normalized)), None)


def _with_front(module: nn.Module, front: tuple[list[float], list[float]] | None) -> nn.Module:
    if front is None:
        return module
    normalized = Normalized(module, *front)
    normalized.training = module.training  # train() would also switch the modules inside
    return normalized


def _normalisation(opened: Opened, front: tuple[list[float], list[float]] | None) -> dict[str, Any]:
    if front is not None:
        return {"mean": front[0], "std": front[1], "where": "in front"}
    inside = _inside(opened)
    if inside is None:
        return {"mean": None, "std": None, "where": "none stated"}
    numbers = [[round(value, 6) for value in part.flatten().tolist()] for part in (inside.mean, inside.std)]
    return {"mean": numbers[0], "std": numbers[1], "where": "inside the model"}
