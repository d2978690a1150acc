"""The registry: every component that the loaded plugins offer, by kind and name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .component import KINDS, Component, Kind

# Name of components that are Python objects; they exist only in the process that was given them.
GIVEN = "given"


class UnknownComponent(LookupError):
    """No component of this kind has this name."""

    def __init__(self, kind: Kind, name: str, known: Iterable[str], broken: str = "") -> None:
        close = did_you_mean(name, known)
        hint = f' Did you mean "{close}"?' if close else ""
        if name == GIVEN:
            argument = {"task": "data", "model": "model"}.get(kind, kind)
            hint = (
                f" The run used a {kind} that a Python script gave it: resume it from Python with the same "
                f"object (robustplug.train(resume=…, {argument}=…)), and evaluate the trained module with "
                "your data."
            )
        known_names = ", ".join(sorted(known)) or "none"
        super().__init__(f'no {kind} is named "{name}".{hint} Installed: {known_names}.{broken}')
        self.kind, self.name, self.suggestion = kind, name, close


class DuplicateComponent(ValueError):
    """Two plugins offer a component of the same kind and name."""


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the closest known name, or None when nothing is close."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


@dataclass
class Registry:
    """Hold components by kind and name, with the plugin that offers each.

    A name that two plugins claim is an error only where that name is used; the message names both plugins.
    Every other component keeps working.
    """

    components: dict[tuple[Kind, str], Component] = field(default_factory=dict)
    owners: dict[tuple[Kind, str], str] = field(default_factory=dict)
    duplicates: dict[tuple[Kind, str], str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, kind: Kind, component: Component, owner: str) -> None:
        """Register a component of a plugin; a second claim to a name is noted in `duplicates`."""
        key = (kind, component.name)
        if key in self.components:
            self.duplicates[key] = (
                f'{kind} "{component.name}" is offered by {self.owners[key]} and by {owner}: '
                "uninstall one of them, or list the plugins to load in ROBUSTPLUG_PLUGINS"
            )
            return
        self.components[key], self.owners[key] = component, owner

    def get(self, kind: Kind, name: str) -> Component:
        """Return a component.

        Raises:
            UnknownComponent: no component has this name; the message contains the closest known name.
            DuplicateComponent: two plugins offer it; the message names both.
        """
        if (kind, name) in self.duplicates:
            raise DuplicateComponent(self.duplicates[kind, name])
        try:
            return self.components[kind, name]
        except KeyError:
            failed = "; ".join(f"{plugin}: {why}" for plugin, why in self.broken.items())
            note = f" Plugins that failed to load: {failed}." if failed else ""
            raise UnknownComponent(kind, name, self.names(kind), note) from None

    def names(self, kind: Kind) -> list[str]:
        """List the names of one kind, sorted."""
        return sorted(name for known, name in self.components if known == kind)

    def by_kind(self) -> Mapping[Kind, list[Component]]:
        """List all components, kinds in their usual order, names sorted."""
        return {kind: [self.components[kind, name] for name in self.names(kind)] for kind in KINDS}
