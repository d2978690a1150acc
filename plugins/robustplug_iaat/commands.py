"""robustplug iaat: the paper's figures of the radii."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustplug.api import echo

if TYPE_CHECKING:
    from torch import Tensor

    from robustplug.api import OpenedRun

    from .method import Iaat

# Units of the figures, as in the paper.
PIXEL = 255
SHOWN = 8


@click.group()
def iaat() -> None:
    """Inspect the radii that IAAT found."""


@iaat.command()
@click.argument("run", type=click.Path(path_type=Path))
def radii(run: Path) -> None:
    """Draw the radii that IAAT found.

    Mean and three samples over time, histograms, and extreme samples: Figures 7, 8 and 2 of the paper.

    Writes figures/radii-*.png in the run folder, and the numbers to its result.json, as "radii".
    """
    from robustplug.api import note_in_result, open_run

    opened = open_run(run, last=True)
    if not (run / "result.json").is_file():
        raise click.UsageError(f"{run} is not finished: finish it with robustplug train --resume {run}")
    body = draw_radii(opened, run / "figures")
    if body is None:
        raise click.UsageError(f"{run} was not trained with iaat")
    for problem in opened.problems:
        echo(problem, err=True)
    note_in_result(run, "radii", body)
    for epoch, mean in zip(body["epochs"], body["mean"], strict=True):
        echo(f"after epoch {epoch:4}: mean ε = {mean:.4f} = {PIXEL * mean:.2f}/255")
    echo(f"{run / 'figures'}")


def draw_radii(opened: OpenedRun, figures: Path) -> dict[str, Any] | None:
    """Draw the figures of `radii` into a folder and return the numbers; None for a run without radii."""
    from robustplug.api import Line, Panel, histogram_figure, line_figure

    from .method import Iaat

    method = opened.method
    if not isinstance(method, Iaat):
        return None
    last = method.eps.values.cpu()
    traces = _traces(len(last))
    epochs, values = _history(method, opened.epochs)
    means = values.mean(1).tolist()
    body = {
        "epochs": epochs,
        "mean": means,
        "samples": {str(index): values[:, index].tolist() for index in traces},
        "least": _extreme(last, largest=False),
        "most": _extreme(last, largest=True),
    }
    lines = [Line(f"sample {index}", (PIXEL * values[:, index]).tolist()) for index in traces]
    panels = [
        Panel("mean", [Line("all samples", [PIXEL * mean for mean in means])]),
        Panel("three samples", lines),
    ]
    line_figure(figures / "radii-progress.png", f"Radii of {opened.name}", epochs, panels, "epoch", "ε · 255")
    chosen = sorted({0, len(epochs) // 3, 2 * len(epochs) // 3, len(epochs) - 1})
    groups = {f"after epoch {epochs[at]}": (PIXEL * values[at]).tolist() for at in chosen}
    histogram_figure(figures / "radii-histograms.png", f"Radii of {opened.name}", groups, "ε · 255")
    _draw_extremes(opened, body, figures / "radii-samples.png")
    return body


def _history(method: Iaat, epochs: int) -> tuple[list[int], Tensor]:
    """Return the epochs and the radii after each, (M, N); the last row has the current radii."""
    import torch

    now = method.eps.values.cpu()[None]
    if not method.options.history:
        return [epochs], now
    at, values = method.history.snapshots()
    return [*at.tolist(), epochs], torch.cat([values.cpu(), now])


def _traces(size: int) -> list[int]:
    """Return the indices of three samples that are far apart."""
    return sorted({0, size // 3, 2 * size // 3})


def _extreme(values: Tensor, largest: bool) -> list[dict[str, Any]]:
    found = values.topk(min(SHOWN, len(values)), largest=largest)
    pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return [{"sample": index, "eps": eps} for index, eps in pairs]


def _draw_extremes(opened: OpenedRun, body: dict[str, Any], path: Path) -> None:
    """Draw the training samples with the smallest and the largest radii, if they are images."""
    from robustplug.api import Feed, image_figure

    if opened.task.info.shape is None or len(opened.task.info.shape) != 3:
        return
    wanted = {item["sample"]: None for key in ("least", "most") for item in body[key]}
    for batch in opened.task.batches("train", Feed(batch_size=512)):
        for place, index in enumerate(batch.index.tolist()):
            if index in wanted:
                wanted[index] = batch.x[place].cpu().numpy()
    rows = {
        title: [(f"{PIXEL * item['eps']:.1f}", wanted[item["sample"]]) for item in body[key]]
        for title, key in (("least ε", "least"), ("most ε", "most"))
    }
    image_figure(path, f"Training samples of {opened.name} and their ε · 255", rows)
