"""Draw statistics and rescalings of BatchNorm layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from .charts import Line, Panel, line_figure

Norm = nn.modules.batchnorm._BatchNorm


def first_batchnorm(model: nn.Module) -> tuple[str, Norm] | None:
    """Return name and module of the first BatchNorm layer that has running statistics, or None."""
    for name, module in model.named_modules():
        if isinstance(module, Norm) and module.running_mean is not None:
            return name, module
    return None


def batchnorm_figure(path: Path, title: str, models: Mapping[str, nn.Module]) -> bool:
    """Draw running mean, running variance and rescaling of the first BatchNorm layer: thesis Fig. 6.1.

    Args:
        path: path of the PNG; an SVG is written beside it.
        title: title of the figure.
        models: models by name; those whose layer differs in width from the first model's are left out.

    Returns:
        Whether there was anything to draw.

    Raises:
        RunError: a file cannot be written.
    """
    found = {label: layer for label, model in models.items() if (layer := first_batchnorm(model))}
    if not found:
        return False
    layers = {label: norm for label, (_, norm) in found.items()}
    width = next(iter(layers.values())).num_features
    layers = {label: norm for label, norm in layers.items() if norm.num_features == width}
    panels = []
    for name, key in (
        ("running mean", "running_mean"),
        ("running variance", "running_var"),
        ("rescaling γ", "weight"),
        ("shift β", "bias"),
    ):
        values: dict[str, Tensor | None] = {label: getattr(norm, key) for label, norm in layers.items()}
        lines = [
            Line(label if len(layers) > 1 else "", value.detach().float().cpu().tolist())
            for label, value in values.items()
            if value is not None
        ]
        if lines:
            panels.append(Panel("", lines, name))
    line_figure(path, title, list(range(width)), panels, "channel", "")
    return True
