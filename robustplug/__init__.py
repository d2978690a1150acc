"""Robust training and honest robustness evaluation, where every method is a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import audit, build, compare, evaluate, study, train

__version__ = "0.1.0"
__all__ = ["audit", "build", "compare", "evaluate", "study", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import run

    return getattr(run, name)
