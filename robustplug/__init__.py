"""Robust training and honest robustness evaluation, where every method is a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .report.tables.comparison import compare
    from .run import attack, audit, build, evaluate, export, study, train, tune

__all__ = ["attack", "audit", "build", "compare", "evaluate", "export", "study", "train", "tune"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("robustplug")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "compare":
        from .report.tables.comparison import compare

        return compare
    from . import run

    return getattr(run, name)
