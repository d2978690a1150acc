"""The hooks of robustplug: what a plugin may offer, and what it may observe.

Registration hooks are pure, must not import torch, and are called once. Observer hooks receive frozen
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

hookspec = pluggy.HookspecMarker("robustplug")
hookimpl = pluggy.HookimplMarker("robustplug")


@hookspec
def robustplug_vicinities() -> Iterable[Component]:
    """Offer vicinities V: the distribution of virtual samples, and the set of legal perturbations."""
    return ()


@hookspec
def robustplug_perturbations() -> Iterable[Component]:
    """Offer perturbation generators, which choose the point of the vicinity to train or test on."""
    return ()


@hookspec
def robustplug_label_maps() -> Iterable[Component]:
    """Offer label maps h, which map a view to the targets of its loss."""
    return ()


@hookspec
def robustplug_output_maps() -> Iterable[Component]:
    """Offer output maps g∘f, which map a view to the outputs of the model."""
    return ()


@hookspec
def robustplug_losses() -> Iterable[Component]:
    """Offer per-sample losses."""
    return ()


@hookspec
def robustplug_methods() -> Iterable[Component]:
    """Offer methods: the five slots filled, and their state."""
    return ()


@hookspec
def robustplug_tasks() -> Iterable[Component]:
    """Offer tasks: data with stable sample indices, and a score of outputs."""
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
def robustplug_augmentations() -> Iterable[Component]:
    """Offer augmentations: random changes of training inputs that keep their labels."""
    return ()


@hookspec
def robustplug_measurements() -> Iterable[Component]:
    """Offer measurements: numbers of each sample, such as a certified radius, in rows of an evaluation."""
    return ()


@hookspec
def robustplug_wrappers() -> Iterable[Component]:
    """Offer wrappers around the model under test, such as a smoothing."""
    return ()


@hookspec
def robustplug_commands(cli: click.Group) -> None:
    """Add commands to the command line."""


@hookspec
def robustplug_figures(run: OpenedRun, folder: Path) -> Iterable[tuple[str, str]]:
    """Draw the plugin's figures of a run into a folder, for the page of `robustplug report`.

    Called for every run, including runs of other methods. The page shows each PNG in the folder, or the SVG
    of the same name beside it, with the title and the description from its metadata. The figures of
    `robustplug.api` have such metadata. A figure with the name of one of the report's own figures replaces
    it. Draw only what takes seconds here. Put slower figures into a command, and return (what it shows, the
    command). The page also shows figures that a command has left in the run's `figures/` or
    `evaluations/figures/`.
    """
    return ()


@hookspec
def robustplug_run_start(run: RunInfo) -> None:
    """Receive the start of a run, or its continuation after a resume."""


@hookspec
def robustplug_epoch_end(run: RunInfo, report: EpochReport) -> None:
    """Receive the report of an epoch."""


@hookspec
def robustplug_run_end(run: RunInfo, result: Result) -> None:
    """Receive the evaluated result of a run."""
