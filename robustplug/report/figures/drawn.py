"""Draw the figures of a run's page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.types import Result
from ..material import Material
from .charts import Line, Panel, line_figure
from .probe import Examples, Landscape
from .series import Axis, find_series

# Most series in one figure; the note lists the others.
_LINES = 8
_LABELS: Mapping[Axis, str] = {
    "eps": "ε",
    "steps": "attack steps",
    "restarts": "random restarts",
}
_NOTES: Mapping[Axis, str] = {
    "eps": "Accuracy must reach 0 as ε grows; otherwise gradients are masked.",
    "steps": "If a line still falls at its right end, more steps would break more samples.",
    "restarts": "If a line still falls at its right end, more restarts would break more samples.",
}

Drawn = Iterator[tuple[Path, str]]


def draw_sweeps(material: Material, folder: Path) -> Drawn:
    """Draw accuracy against eps, steps and restarts; yield each figure's path and note."""
    results, name = material.results, title_of(material)
    threat = material.result.threat if material.result is not None else {}
    for axis in _LABELS:
        series = find_series(results, axis)
        for norm in dict.fromkeys(each.threat for each in series):
            shown = [each for each in series if each.threat == norm]
            left = [each.label for each in shown[_LINES:]]
            shown = shown[:_LINES]
            x = sorted({value for each in shown for value in each.x})
            lines = []
            for each in shown:
                at = {value: number for number, value in enumerate(each.x)}
                known = [at.get(value) for value in x]
                y = [math.nan if number is None else 100 * each.accuracy[number] for number in known]
                none = (math.nan, math.nan)
                ends = [none if number is None else each.ends[number] for number in known]
                lines.append(Line(each.label, y, ends=[(100 * low, 100 * high) for low, high in ends]))
            label = _LABELS[axis]
            marks = None
            if axis == "eps":
                label = f"ε ({norm} radius{_range(results)})"
                # A radius of 1000 words, which is none, is far outside of the figure.
                same = threat.get("use") == norm and "eps" in threat and threat["eps"] <= x[-1]
                marks = {"ε of the evaluation": float(threat["eps"])} if same else None
            path = folder / f"accuracy-{axis}{'' if norm == threat.get('use', norm) else f'-{norm}'}.png"
            title = f"Accuracy against {'ε' if axis == 'eps' else axis}, {name}"
            line_figure(path, title, x, [Panel("", lines)], label, "accuracy (%)", (-2, 102), marks=marks)
            counts = " and ".join(dict.fromkeys(f"{each.samples}" for each in shown))
            note = f"{_NOTES[axis]} Bars are 95 % Wilson intervals, over {counts} samples."
            yield path, note + (f" Not drawn: {', '.join(left)}." if left else "")


def _range(results: Mapping[str, Result]) -> str:
    known = [result.meta["input_range"] for result in results.values() if result.meta.get("input_range")]
    return f", inputs in [{known[0][0]:g}, {known[0][1]:g}]" if known else ""


def title_of(material: Material) -> str:
    """Return the name of a run in figures: that of its recipe, or else of its folder."""
    own = material.folder.resolve().name
    return own if material.result is None else str(material.result.meta.get("name", own))


def draw_training(material: Material, folder: Path) -> Drawn:
    """Draw training over its epochs: accuracies, losses, learning rate, and other measures."""
    history, name = material.history, title_of(material)
    if len(history) < 2:
        return
    epochs = [float(each["epoch"]) + 1 for each in history]
    selected = _selected(material)
    marks = {} if selected is None else {"selected checkpoint": selected}
    accuracies: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    others: dict[str, list[float]] = {}
    for at, report in enumerate(history):
        for part, means in (("training", report["train"]), ("validation", report["validation"])):
            for key, value in means.items():
                kind, label = _kind(part, key)
                place = {"accuracy": accuracies, "loss": losses}.get(kind, others)
                line = place.setdefault(label, [math.nan] * len(history))
                if isinstance(value, int | float):
                    line[at] = 100 * value if kind == "accuracy" else value
    if accuracies:
        path = folder / "training-accuracy.png"
        title = f"Accuracy during training, {name}"
        line_figure(
            path, title, epochs, [_panel(accuracies)], "epoch", "accuracy (%)", (-2, 102), marks=marks
        )
        yield path, "Checkpoints are selected on the validation split, never on the test split."
    if losses:
        path = folder / "training-loss.png"
        title = f"Loss during training, {name}"
        line_figure(path, title, epochs, [_panel(losses)], "epoch", "loss", marks=marks)
        yield path, "Means over the samples of an epoch."
    rates = [float(each["lr"]) for each in history]
    path = folder / "training-rate.png"
    line_figure(
        path, f"Learning rate, {name}", epochs, [Panel("", [Line("", rates)])], "epoch", "learning rate"
    )
    yield path, ""
    if others:
        path = folder / "training-measures.png"
        panels = [Panel("", [Line("", values)], label) for label, values in others.items()]
        line_figure(path, f"Measured during training, {name}", epochs, panels, "epoch", "")
        yield path, ""


def _panel(lines: Mapping[str, Sequence[float]]) -> Panel:
    return Panel("", [Line(label, values) for label, values in lines.items()])


def _kind(part: str, key: str) -> tuple[str, str]:
    """Return the kind of a mean ("accuracy", "loss" or "other"), and its name in a legend."""
    if part == "validation" and key in ("clean", "robust"):
        return "accuracy", f"validation, {key}"
    kind, _, rest = key.partition("/")
    if kind in ("accuracy", "loss"):
        return kind, f"{part}, {rest}" if rest else part
    return "other", f"{part}: {key}"


def _selected(material: Material) -> float | None:
    """Return the number of epochs before the selected checkpoint, or None if unknown."""
    training: Mapping[str, Any] = {} if material.result is None else material.result.meta.get("training", {})
    parts = str(training.get("selected") or "").split("-")
    return float(parts[1]) if len(parts) > 1 and parts[0] == "epoch" and parts[1].isdigit() else None


def draw_landscape(found: Landscape, name: str, norm: str, folder: Path) -> Drawn:
    """Draw the loss around samples."""
    from .plots import surface_figure

    path = folder / "loss-landscape.png"
    labels = (f"along the gradient's sign ({norm} size)", f"along a Rademacher vector ({norm} size)", "loss")
    title = f"Loss around {found.samples} samples, {name}"
    surface_figure(path, title, found.along, found.losses, labels, found.radius)
    yield (
        path,
        f"Mean loss of {found.samples} correctly classified test samples that move together; the dashed "
        "square is ε. If the surface is rugged, or rises more along the random vector than along the "
        "gradient, this is a sign of gradient masking.",
    )


def draw_examples(found: Examples, attack: str, name: str, folder: Path) -> Drawn:
    """Draw samples before and after an attack, and the perturbation magnified."""
    from .charts import image_figure

    path = folder / "adversarial-examples.png"
    rows = {
        "original": found.original,
        "attacked": found.adversarial,
        f"perturbation × {found.magnified:g}": found.perturbation,
    }
    image_figure(path, f"Adversarial examples, {name}", rows)
    yield (
        path,
        f"{attack} breaks {found.broken} of the first {found.tried} correctly classified samples. Above the "
        "originals: their labels; above the attacked samples: the predictions. Below: the perturbation, "
        f"magnified {found.magnified:g} times (grey is zero), and its size.",
    )
