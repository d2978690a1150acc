"""Find and load plugins, and isolate their failures; one typed method per hook."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pluggy

from ..errors import RunError, ends_program
from . import hookspecs
from .component import Component, Kind
from .names import ALLOW_LIST, ENTRY_POINT_GROUP, allowed_plugins
from .registry import Registry, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from ..core.opened_run import OpenedRun
    from ..core.types import EpochReport, Result, RunInfo

BUILTIN = "builtin"
# Owner of components that this process has registered itself.
HERE = "this process"

REGISTRATION_HOOKS: dict[Kind, str] = {
    "vicinity": "robustplug_vicinities",
    "perturbation": "robustplug_perturbations",
    "label_map": "robustplug_label_maps",
    "output_map": "robustplug_output_maps",
    "loss": "robustplug_losses",
    "method": "robustplug_methods",
    "task": "robustplug_tasks",
    "model": "robustplug_models",
    "optimizer": "robustplug_optimizers",
    "schedule": "robustplug_schedules",
    "augmentation": "robustplug_augmentations",
    "measurement": "robustplug_measurements",
    "wrapper": "robustplug_wrappers",
}


OBSERVER_HOOKS = ("robustplug_run_start", "robustplug_epoch_end", "robustplug_run_end")


@dataclass(frozen=True)
class PluginReport:
    """Describe the outcome of loading one entry point.

    `status` is "loaded", "failed" or "not allowed"; `problem` states why it failed.
    """

    name: str
    distribution: str
    version: str
    module: str
    status: str
    problem: str = ""


class PluginHost:
    """Load the entry points of a group and call their hooks; a broken plugin is reported, not raised.

    Args:
        entry_points: (entry point, distribution name, version) of each plugin.
        allowed: names of the entry points that may load; None for all. The built-in components always load.
    """

    def __init__(
        self,
        entry_points: Iterable[tuple[metadata.EntryPoint, str, str]],
        allowed: frozenset[str] | None = None,
    ) -> None:
        self.manager = pluggy.PluginManager("robustplug")
        self.manager.add_hookspecs(hookspecs)
        self.reports: list[PluginReport] = []
        self.warnings: list[str] = []
        self._dropped: set[str] = set()
        points = sorted(entry_points, key=lambda item: (item[0].name != BUILTIN, item[0].name, item[1]))
        for point, distribution, version in points:
            self._load(point, distribution, version, allowed)
        for name in sorted((allowed or frozenset()) - {point.name for point, _, _ in points}):
            self.warnings.append(f'{ALLOW_LIST} names "{name}", but no such plugin is installed')

    def _load(
        self, point: metadata.EntryPoint, distribution: str, version: str, allowed: frozenset[str] | None
    ) -> None:
        status, problem = "loaded", ""
        if allowed is not None and point.name not in allowed and point.name != BUILTIN:
            status = "not allowed"
        else:
            taken = self.manager.has_plugin(point.name)
            try:
                plugin = point.load()
                self.manager.register(plugin, name=point.name)
                self.manager.check_pending()
            except BaseException as error:
                if ends_program(error):
                    raise
                if not taken and self.manager.has_plugin(point.name):
                    self.manager.unregister(name=point.name)
                status, problem = "failed", _one_line(error)
                self.warnings.append(
                    f'plugin "{point.name}" ({distribution} {version}) failed to load: {problem}'
                )
        self.reports.append(PluginReport(point.name, distribution, version, point.value, status, problem))

    def _impls(self, hook: str) -> list[pluggy.HookImpl]:
        impls: list[pluggy.HookImpl] = getattr(self.manager.hook, hook).get_hookimpls()
        return sorted(impls, key=lambda impl: (impl.plugin_name != BUILTIN, impl.plugin_name))

    def registry(self) -> Registry:
        """Collect the components of all plugins; a hook that raises is reported, not raised."""
        result = Registry(broken={r.name: r.problem for r in self.reports if r.status == "failed"})
        for kind, hook in REGISTRATION_HOOKS.items():
            for impl in self._impls(hook):
                owner = impl.plugin_name
                try:
                    offered: Iterable[object] = impl.function()  # type: ignore[assignment]
                    for component in offered:
                        if not isinstance(component, Component):
                            raise TypeError(f"{hook} must yield Component, not {type(component).__name__}")
                        result.add(kind, component, owner)
                except BaseException as error:
                    if ends_program(error):
                        raise
                    result.broken[owner] = problem = f"{hook}: {_one_line(error)}"
                    self.warnings.append(f'plugin "{owner}" failed in {problem}')
        self.warnings += result.duplicates.values()
        return result

    def commands(self, cli: click.Group) -> None:
        """Let every plugin add its commands."""
        for impl in self._impls("robustplug_commands"):
            try:
                impl.function(cli)
            except BaseException as error:
                if ends_program(error):
                    raise
                self.warnings.append(
                    f'plugin "{impl.plugin_name}" failed in robustplug_commands: {_one_line(error)}'
                )

    def observers(self) -> list[str]:
        """List the plugins that observe runs, except the built-in one."""
        names = {impl.plugin_name for hook in OBSERVER_HOOKS for impl in self._impls(hook)}
        return sorted(names - {BUILTIN})

    def figures(self, run: OpenedRun, folder: Path) -> list[tuple[str, str]]:
        """Let every plugin draw its figures of a run; return slower figures as (what it shows, command)."""
        more: list[tuple[str, str]] = []
        for impl in self._impls("robustplug_figures"):
            arguments = {"run": run, "folder": folder}
            try:
                offered: Any = impl.function(*(arguments[name] for name in impl.argnames))
                more += [(str(what), str(command)) for what, command in offered or ()]
            except BaseException as error:
                if ends_program(error):
                    raise
                self.warnings.append(
                    f'plugin "{impl.plugin_name}" failed in robustplug_figures: {_one_line(error)}'
                )
        return more

    def run_start(self, run: RunInfo) -> None:
        """Notify the observers of the start of a run."""
        self._observe("robustplug_run_start", run=run)

    def epoch_end(self, run: RunInfo, report: EpochReport) -> None:
        """Notify the observers of the report of an epoch."""
        self._observe("robustplug_epoch_end", run=run, report=report)

    def run_end(self, run: RunInfo, result: Result) -> None:
        """Notify the observers of the result of a run."""
        self._observe("robustplug_run_end", run=run, result=result)

    def _observe(self, hook: str, **arguments: Any) -> None:
        """Call the observers with copies; one that raises or changes the process is not called again."""
        # Whoever notifies observers trains, so torch is loaded.
        from ..core.guards import switches
        from ..core.random import generators_kept

        for impl in self._impls(hook):
            owner = impl.plugin_name
            if owner in self._dropped:
                continue
            before, given = switches.read(), copy.deepcopy(arguments)
            try:
                with generators_kept():
                    try:
                        impl.function(*(given[name] for name in impl.argnames))
                    finally:
                        changed = switches.put_back(before)
                if changed:
                    raise RuntimeError(f"it changed {', '.join(changed)}, which was put back")
            except BaseException as error:
                if ends_program(error):
                    raise
                self._dropped.add(owner)
                self.warnings.append(
                    f'observer "{owner}" failed in {hook} and is not called again: {_one_line(error)}'
                )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"


@functools.cache
def host() -> PluginHost:
    """Return the plugin host of this process, loaded at the first call."""
    # Name and version parse the metadata of the distribution at each access, and one may have many plugins.
    stated: dict[int, tuple[str, str]] = {}
    points = []
    for point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        if point.dist is not None and id(point.dist) not in stated:
            stated[id(point.dist)] = (point.dist.name, point.dist.version)
        points.append((point, *stated.get(id(point.dist), ("unknown", "unknown"))))
    return PluginHost(dict.fromkeys(points), allowed_plugins(os.environ.get(ALLOW_LIST)))


@functools.cache
def registry() -> Registry:
    """Return the registry of this process, filled from the installed plugins at the first call."""
    return host().registry()


def register(kind: Kind, component: Component) -> None:
    """Register a component within this process, until it ends, in place of an earlier one of its name.

    A notebook or a script thus uses a method, an attack or a task of its own without a plugin package. A
    recipe that names the component needs it to be registered in every process that reads the recipe.

    Args:
        kind: kind of the component.
        component: the component; its factory may be a class or a function.

    Raises:
        ValueError: a plugin offers a component of this kind and name.
    """
    known, key = registry(), (kind, component.name)
    if known.owners.get(key, HERE) != HERE:
        raise ValueError(
            f'{kind.replace("_", " ")} "{component.name}" is offered by the plugin {known.owners[key]}: '
            "choose another name"
        )
    known.components[key], known.owners[key] = component, HERE


@contextlib.contextmanager
def registered(kind: Kind, component: Component | None) -> Iterator[None]:
    """Register a component for a block; None for nothing."""
    if component is None:
        yield
        return
    known, key = registry(), (kind, component.name)
    before = known.components.get(key)
    register(kind, component)
    try:
        yield
    finally:
        if before is None:
            del known.components[key], known.owners[key]
        else:
            known.components[key] = before


def check_observers(names: Sequence[str]) -> None:
    """Refuse names of observers that are not installed; a run itself reports an observer that fails.

    Raises:
        RunError: an observer is not installed; the message names each of them, and the installed ones.
    """
    known = host().observers()
    broken = {report.name: report.problem for report in host().reports if report.status != "loaded"}
    problems = []
    for name in names:
        if name in known:
            continue
        close = did_you_mean(name, known)
        hint = f' Did you mean "{close}"?' if close else ""
        if name in broken:
            hint = f" The plugin of this name is not loaded: {broken[name] or 'it is not allowed'}."
        problems.append(f'there is no observer "{name}".{hint} Installed: {", ".join(known) or "none"}.')
    if problems:
        raise RunError("\n".join(problems))
