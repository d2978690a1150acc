"""Recipes: TOML files, read into typed, checked and resolved options.

All but the errors are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import Problem, RecipeError

if TYPE_CHECKING:
    from .convert import resolve
    from .load import (
        bundled_recipes,
        bundled_studies,
        bundled_suites,
        find_recipe,
        find_study,
        find_suite,
        read_recipe,
        read_study,
        read_suite,
        recipe_from_mapping,
    )
    from .options import EvaluateOptions, Recipe, TrainOptions, ValidateOptions
    from .schema import recipe_schema
    from .study import Axis, Cell, Study
    from .suite import Suite, SuiteRow
    from .write import recipe_hash, recipe_to_mapping, use_to_mapping, write_recipe

__all__ = [
    "Axis",
    "Cell",
    "EvaluateOptions",
    "Problem",
    "Recipe",
    "RecipeError",
    "Study",
    "Suite",
    "SuiteRow",
    "TrainOptions",
    "ValidateOptions",
    "bundled_recipes",
    "bundled_studies",
    "bundled_suites",
    "find_recipe",
    "find_study",
    "find_suite",
    "read_recipe",
    "read_study",
    "read_suite",
    "recipe_from_mapping",
    "recipe_hash",
    "recipe_schema",
    "recipe_to_mapping",
    "resolve",
    "use_to_mapping",
    "write_recipe",
]

_MODULES = {
    "EvaluateOptions": "options",
    "Recipe": "options",
    "TrainOptions": "options",
    "ValidateOptions": "options",
    "Axis": "study",
    "Cell": "study",
    "Study": "study",
    "Suite": "suite",
    "SuiteRow": "suite",
    "resolve": "convert",
    "bundled_recipes": "load",
    "bundled_studies": "load",
    "bundled_suites": "load",
    "find_recipe": "load",
    "find_study": "load",
    "find_suite": "load",
    "read_study": "load",
    "read_suite": "load",
    "read_recipe": "load",
    "recipe_from_mapping": "load",
    "recipe_schema": "schema",
    "recipe_hash": "write",
    "recipe_to_mapping": "write",
    "use_to_mapping": "write",
    "write_recipe": "write",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
