"""The hooks of robustplug: what a plugin may offer, and what it may listen to.

Registration hooks are pure, must not import torch, and are called once. Observer hooks get frozen
reports of plain Python values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from ..core.opened_run import OpenedRun
    from ..core.types import EpochReport, Result, RunInfo
    from .component import Component

ENTRY_POINT_GROUP = "robustplug"

hookspec = pluggy.HookspecMarker("robustplug")
hookimpl = pluggy.HookimplMarker("robustplug")


@hookspec
def robustplug_vicinities() -> Iterable[Component]:
    """Offer vicinities V: where virtual samples come from, and what a legal perturbation is."""
    return ()


@hookspec
def robustplug_perturbations() -> Iterable[Component]:
    """Offer perturbation generators: which point of the vicinity is trained or tested on."""
    return ()


@hookspec
def robustplug_label_maps() -> Iterable[Component]:
    """Offer label maps h: from a view to the targets of its loss."""
    return ()


@hookspec
def robustplug_output_maps() -> Iterable[Component]:
    """Offer output maps g∘f: from a view to the outputs of the model."""
    return ()


@hookspec
def robustplug_losses() -> Iterable[Component]:
    """Offer per-sample losses."""
    return ()


@hookspec
def robustplug_methods() -> Iterable[Component]:
    """Offer methods: the five slots filled, and the state that goes with them."""
    return ()


@hookspec
def robustplug_tasks() -> Iterable[Component]:
    """Offer tasks: data with stable sample indices, and how an output is scored."""
    return ()


@hookspec
def robustplug_models() -> Iterable[Component]:
    """Offer models."""
    return ()


@hookspec
def robustplug_optimizers() -> Iterable[Component]:
    """Offer optimizers."""
    return ()


@hookspec
def robustplug_schedules() -> Iterable[Component]:
    """Offer learning-rate schedules."""
    return ()


@hookspec
def robustplug_commands(cli: click.Group) -> None:
    """Add commands to the command line."""


@hookspec
def robustplug_figures(run: OpenedRun, folder: Path) -> Iterable[tuple[str, str]]:
    """Draw what the plugin knows of a run into a folder, for the page of `robustplug report`.

    Called for every run, also of other methods. Each PNG in the folder, or the SVG of the same name beside
    it, is shown with the title and the description in its metadata, which the figures of `robustplug.api`
    have. One that is named like a figure of the report itself takes its place. This is for what takes
    seconds: what takes longer belongs into a command, and is returned as (what it shows, the command).
    Figures that a command has left in the run's `figures/` or `evaluations/figures/` are on the page, too.
    """
    return ()


@hookspec
def robustplug_run_start(run: RunInfo) -> None:
    """Hear that a run starts, or goes on after a resume."""


@hookspec
def robustplug_epoch_end(run: RunInfo, report: EpochReport) -> None:
    """Hear what an epoch brought."""


@hookspec
def robustplug_run_end(run: RunInfo, result: Result) -> None:
    """Hear the evaluated result of a run."""
