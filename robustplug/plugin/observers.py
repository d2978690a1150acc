"""Observers that watch a run only on request, with `--observe NAME`. Importing this does not import torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .hookspecs import hookimpl

if TYPE_CHECKING:
    from ..core.types import EpochReport, Result, RunInfo

Hooks = tuple[Callable[..., None], Callable[..., None], Callable[..., None]]


def observer_on_request(name: str, module: str) -> Hooks:
    """Return the three observer hooks of a plugin that observes a run only on request.

    Assign them in the plugin's module to `robustplug_run_start`, `robustplug_epoch_end` and
    `robustplug_run_end`. They call `start(run)`, `epoch(run, report)` and `end(run, result)` of a module
    that is imported at the first of these calls.

    Args:
        name: name of the observer, as in `--observe NAME`.
        module: dotted name of the module.
    """

    def call(run: RunInfo, function: str, *report: Any) -> None:
        if name in run.observers:
            getattr(importlib.import_module(module), function)(run, *report)

    @hookimpl(specname="robustplug_run_start")
    def start(run: RunInfo) -> None:
        call(run, "start")

    @hookimpl(specname="robustplug_epoch_end")
    def epoch(run: RunInfo, report: EpochReport) -> None:
        call(run, "epoch", report)

    @hookimpl(specname="robustplug_run_end")
    def end(run: RunInfo, result: Result) -> None:
        call(run, "end", result)

    return start, epoch, end
