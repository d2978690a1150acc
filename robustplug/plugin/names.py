"""Names of the plugin system that need no import of it."""

from __future__ import annotations

from collections.abc import Mapping

ENTRY_POINT_GROUP = "robustplug"
ALLOW_LIST = "ROBUSTPLUG_PLUGINS"
SCAFFOLDS: Mapping[str, str] = {
    "method": "method",
    "loss": "loss",
    "attack": "perturbation",
    "task": "task",
    "model": "model",
    "vicinity": "vicinity",
    "schedule": "schedule",
}
"""What `robustplug new-plugin` makes, by the word for it, and the kind of component that it is."""


def allowed_plugins(text: str | None) -> frozenset[str] | None:
    """Parse the names of the plugins that may load, "a, b"; None for all."""
    return None if text is None else frozenset(name.strip() for name in text.split(",") if name.strip())
