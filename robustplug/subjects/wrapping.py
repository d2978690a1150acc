"""The model under test: a model as it is, or within the wrapper that its evaluation names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..plugin.component import Kind, Use
from ..recipe.convert import resolve
from ..recipe.errors import Problem, RecipeError
from .opening import Opening, Reference
from .subject import Subject, as_table, open_subject

if TYPE_CHECKING:
    from .target import Model


def referred(reference: Reference, kind: Kind) -> Use:
    """Return a component that Python code refers to, resolved.

    Raises:
        RecipeError: it names no component, or an option is invalid.
    """
    table = as_table(reference)
    name = table.pop("use", None)
    if not isinstance(name, str):
        why = f'names no {kind}: write {{"use": "…"}}'
        raise RecipeError([Problem(kind, why, None, None)], kind)
    return resolve(Use(name, table), kind)


def open_tested(model: Model, opening: Opening, attacks: Sequence[Reference] | None = None) -> Subject:
    """Open a model as `open_subject` does, within the wrapper of its evaluation.

    Raises:
        RecipeError, RunError, TypeError: as for `open_subject`; or the wrapper cannot be built.
    """
    return under_test(open_subject(model, opening, attacks))


def under_test(subject: Subject) -> Subject:
    """Return an opened model within the wrapper of its evaluation; without one, the model itself.

    Raises:
        RecipeError: the wrapper refuses its options or the model, or is no module.
    """
    recipe, info = subject.parts.recipe, subject.parts.task.info
    around = recipe.evaluate.wrapper
    if around is None:
        return subject
    from torch import nn

    from ..core.random import derive, isolated
    from .assemble import build_part

    with isolated(derive(recipe.seed, "wrapper")):
        module = build_part(around, "wrapper", "evaluate.wrapper", info=info, model=subject.exported)
    if not isinstance(module, nn.Module):
        why = f"returns a {type(module).__name__}, not a module around the model"
        raise RecipeError([Problem("evaluate.wrapper", why, None, None)], f'wrapper "{around.name}"')
    return dataclasses.replace(subject, exported=module.to(subject.processes.device).eval())
