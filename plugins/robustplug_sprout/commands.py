"""robustplug sprout: the paper's analyses of trained models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustplug.api import echo

if TYPE_CHECKING:
    from robustplug.api import OpenedRun


@click.group()
def sprout() -> None:
    """Analyse models trained with SPROUT, as in its paper."""


@sprout.command()
@click.argument("run", type=click.Path(path_type=Path))
def correlogram(run: Path) -> None:
    """Draw the products of the learned β (Figure 8).

    Writes them to result.json of the run folder, as "beta", and to figures/beta.png.
    """
    from robustplug.api import note_in_result, open_run

    body = draw_beta(open_run(run), run / "figures")
    if body is None:
        raise click.UsageError(f"{run} has no β: its label map is not dirichlet, or its alpha is 0")
    note_in_result(run, "beta", body)
    for name, value in sorted(zip(body["classes"], body["values"], strict=True), key=lambda pair: -pair[1]):
        echo(f"{name:>16}  {value:.4g}")
    echo(f"{run / 'figures' / 'beta.png'}")


def draw_beta(opened: OpenedRun, folder: Path) -> dict[str, Any] | None:
    """Draw the products of the learned β into beta.png and return them; None for a run without β."""
    from robustplug.api import matrix_figure

    from .analysis import products
    from .method import DirichletLabels

    labels = opened.method.label_map
    if not isinstance(labels, DirichletLabels) or not labels.learns:
        return None
    beta = labels.beta.detach().cpu()
    matrix = products(beta).tolist()
    info = opened.task.info
    names = list(info.class_names) or [str(number) for number in range(len(beta))]
    matrix_figure(folder / "beta.png", f"β_s · β_t of {opened.name}", names, names, matrix, "{:.3g}")
    return {"classes": names, "values": beta.tolist(), "products": matrix}


@sprout.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--samples", type=click.IntRange(min=1), help="Use only the first N test samples.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("sprout-cosine"), show_default=True)
def cosine(runs: tuple[Path, ...], samples: int | None, out: Path) -> None:
    """Compare the input gradients of runs by their cosine (Table 7).

    Writes the matrix to result.json and cosine.png in the folder of --out.
    """
    from robustplug.api import Feed, matrix_figure, open_run, write_result

    from .analysis import mean_cosines

    if len(runs) < 2:
        raise click.UsageError("Name at least two runs: robustplug sprout cosine RUN RUN")
    opened = [open_run(run) for run in runs]
    task = opened[0].task
    for run, other in zip(runs, opened, strict=True):
        if other.recipe.task != opened[0].recipe.task:
            raise click.UsageError(f"{run} was trained on a different task from {runs[0]}")
    feed = Feed(batch_size=256, samples=samples, device=opened[0].device)
    means, counts = mean_cosines([run.model for run in opened], task.batches("test", feed))
    names = [run.name or str(run) for run in runs]
    body = {
        "runs": [str(run) for run in runs],
        "split": "test",
        "cosine": means.tolist(),
        "samples": counts.int().tolist(),
    }
    write_result(out / "result.json", body)
    matrix_figure(
        out / "cosine.png", "Mean cosine of input gradients", names, names, means.tolist(), "{:.4f}"
    )
    width = max(map(len, names))
    for name, row in zip(names, means.tolist(), strict=True):
        echo(f"{name:>{width}}  " + "  ".join(f"{value:8.4f}" for value in row))
    echo(f"{out / 'cosine.png'}")
