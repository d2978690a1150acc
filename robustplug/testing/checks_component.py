"""Checks of what every plugin declares, for all kinds."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from dataclasses import MISSING
from unittest import SkipTest

from ..plugin.component import Use
from ..plugin.host import host, registry
from ..plugin.names import ALLOW_LIST
from ..recipe.convert import resolve
from ..recipe.write import use_to_mapping
from .bench import Subject, require

_NO_TORCH = (
    "import sys; from robustplug.plugin.host import host; host().registry(); "
    "print(*sorted({'torch', 'torchvision', 'pydantic'} & set(sys.modules)))"
)


def summary_is_one_line(subject: Subject) -> None:
    """Have a summary of one line."""
    summary = subject.component.summary
    require(summary.strip() and "\n" not in summary, f"the summary must be one line, not {summary!r}")


def factory_loads(subject: Subject) -> None:
    """Have a factory that can be imported and called, and such a function for trained weights, if any."""
    require(callable(subject.component.load()), f"{subject.component.factory} is not callable")
    offers, weights = subject.component.weights is not None, subject.component.load_weights()
    require(callable(weights) or not offers, f"{subject.component.weights} is not callable")


def options_resolve(subject: Subject) -> None:
    """Accept the trial options, and the default options if all of them have a default."""
    fields = dataclasses.fields(subject.component.options)
    if all(item.default is not MISSING or item.default_factory is not MISSING for item in fields):
        resolve(Use(subject.name), subject.kind)
    resolve(Use(subject.name, dict(subject.table)), subject.kind)


def options_round_trip(subject: Subject) -> None:
    """Write the options as a recipe and read the same ones back."""
    once = resolve(Use(subject.name, dict(subject.table)), subject.kind)
    table = use_to_mapping(once)
    again = resolve(Use(table.pop("use"), table), subject.kind)
    require(once == again, f"{once} becomes {again} after it is written and read back")


def declared_without_torch(subject: Subject) -> None:
    """Declare components without importing torch, torchvision or pydantic."""
    owner = registry().owners[subject.kind, subject.name]
    if owner not in {report.name for report in host().reports}:
        raise SkipTest(f"{owner} is not installed as a plugin")
    heavy = _imported_by(owner)
    require(
        not heavy, f"declaring the components of {owner} imports {heavy}; import it in the factory's module"
    )


@functools.cache
def _imported_by(owner: str) -> str:
    environment = {**os.environ, ALLOW_LIST: owner}
    command = [sys.executable, "-c", _NO_TORCH]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


CHECKS = (summary_is_one_line, factory_loads, options_resolve, options_round_trip, declared_without_torch)
