"""Fixtures for the tests of plugins; pytest loads this module wherever robustplug is installed.

Importing it imports neither torch nor the installed plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..plugin.component import Component, Kind


@pytest.fixture
def robustplug_register() -> Iterator[Callable[[Kind, Component], None]]:
    """Register components for one test, without installing a plugin.

    Call it with a kind and a Component; recipes, `build` and the checks can then use the name. An
    installed component of the same name is hidden until the test ends.
    """
    from ..plugin.host import registry

    known = registry()
    before = dict(known.components), dict(known.owners), dict(known.duplicates)

    def register(kind: Kind, component: Component) -> None:
        key = (kind, component.name)
        known.components[key], known.owners[key] = component, "this test"
        known.duplicates.pop(key, None)

    yield register
    known.components, known.owners, known.duplicates = before


@pytest.fixture
def robustplug_global_rng() -> Iterator[None]:
    """Fail the test if it uses the global generator of torch, numpy or Python."""
    from .checks_views import global_rng_states

    before = global_rng_states()
    yield
    moved = [name for name, state in global_rng_states().items() if state != before[name]]
    if moved:
        pytest.fail(f"the test uses the global generator of {', '.join(moved)}; pass a generator instead")
