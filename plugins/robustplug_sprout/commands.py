"""robustplug sprout: what the paper shows of trained models."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def sprout() -> None:
    """Look at models trained with SPROUT as its paper does."""


@sprout.command()
@click.argument("run", type=click.Path(path_type=Path))
def correlogram(run: Path) -> None:
    """Draw the products of the learned β, the label correlation of Figure 8.

    They go to result.json of the run folder, as "beta", and to figures/beta.png.
    """
    from robustplug.api import matrix_figure, note_in_result, open_run

    from .analysis import products
    from .method import DirichletLabels

    opened = open_run(run)
    labels = opened.method.label_map
    if not isinstance(labels, DirichletLabels) or not labels.learns:
        raise click.UsageError(f"{run} has no β: its label map is not dirichlet, or its alpha is 0")
    beta = labels.beta.detach().cpu()
    matrix = products(beta).tolist()
    info = opened.task.info
    names = list(info.class_names) or [str(number) for number in range(len(beta))]
    note_in_result(run, "beta", {"classes": names, "values": beta.tolist(), "products": matrix})
    figure = run / "figures" / "beta.png"
    matrix_figure(figure, f"β_s · β_t of {opened.name}", names, names, matrix, "{:.3g}")
    for name, value in sorted(zip(names, beta.tolist(), strict=True), key=lambda pair: -pair[1]):
        click.echo(f"{name:>16}  {value:.4g}")
    click.echo(f"{figure}")


@sprout.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--samples", type=click.IntRange(min=1), help="Use only the first test samples.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("sprout-cosine"), show_default=True)
def cosine(runs: tuple[Path, ...], samples: int | None, out: Path) -> None:
    """Compare the input gradients of RUNS by their mean cosine, as Table 7 does.

    The matrix goes to result.json and cosine.png in the folder of --out.
    """
    from robustplug.api import Feed, matrix_figure, open_run, write_result

    from .analysis import mean_cosines

    if len(runs) < 2:
        raise click.UsageError("Name two runs or more: robustplug sprout cosine RUN RUN")
    opened = [open_run(run) for run in runs]
    task = opened[0].task
    for run, other in zip(runs, opened, strict=True):
        if other.recipe.task != opened[0].recipe.task:
            raise click.UsageError(f"{run} was trained on another task than {runs[0]}")
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
        click.echo(f"{name:>{width}}  " + "  ".join(f"{value:8.4f}" for value in row))
    click.echo(f"{out / 'cosine.png'}")
