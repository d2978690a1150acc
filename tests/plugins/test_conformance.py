from __future__ import annotations

import pytest

from robustplug.registry import registry
from robustplug.testing import Check
from robustplug.testing.kit import all_checks

# The reference code has no options to make it short.
LONG = {"autoattack"}

EVERY_CHECK = [
    pytest.param(
        check,
        id=f"{kind}-{component.name}-{check.name}",
        marks=pytest.mark.slow if component.name in LONG else [],
    )
    for kind, components in registry().by_kind().items()
    for component in components
    for check in all_checks(component.name, kind)
]


@pytest.mark.parametrize("check", EVERY_CHECK)
def test_installed_components_conform(check: Check) -> None:
    check()
