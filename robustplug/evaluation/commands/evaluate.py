"""Evaluate a model as it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...recipe.load import read_suite
from ...recipe.write import use_to_mapping
from ...subjects.opening import Opening, Reference, rows_asked_for
from ...subjects.subject import open_sources
from ...subjects.wrapping import open_tested, referred
from ..audit.preparation import adapted
from ..results import Asked, evaluate_and_write
from ..summary import read_reference

if TYPE_CHECKING:
    from ...core.types import Result
    from ...subjects.target import Model
    from ..setting import Share


def evaluate_model(
    model: Model,
    opening: Opening,
    out: str | Path | None,
    share: Share | None = None,
    *,
    suite: str | Path | Mapping[str, Any] | None = None,
    attacks: str | Sequence[Reference] | None = None,
    measurements: Sequence[Reference] | None = None,
    sources: Sequence[str | Path] = (),
    reference: str | Path | None = None,
    keep_examples: bool = False,
    images: str | None = None,
    name: str = "",
) -> Result:
    """Evaluate a model in this process; arguments and exceptions are those of `robustplug.evaluate`.

    Args:
        model: the model.
        opening: how the model and its data are opened.
        out: folder of the result; None for none.
        share: the part of this process, which needs `out`; None for the whole evaluation.
        suite, attacks, measurements, sources, reference, keep_examples, images, name: what is asked for.

    Raises:
        RecipeError, RunError: as `robustplug.evaluate` does.
    """
    suite, chosen = rows_asked_for(suite, attacks)
    subject = open_tested(model, opening, chosen)
    if measurements is None and chosen is not None:
        measurements = ()
    asked = Asked(
        suite=None if suite is None else read_suite(suite, use_to_mapping(subject.parts.threat)),
        sources=open_sources(sources, subject),
        reference=None if reference is None else read_reference(reference),
        keep_examples=keep_examples,
        pictures=images is not None,
        name=name,
        measurements=None if measurements is None else [referred(m, "measurement") for m in measurements],
        share=share,
    )
    with subject.computing():
        if asked.suite is not None and asked.suite.adaptive:
            subject, asked = adapted(subject, asked)
        return evaluate_and_write(subject, asked, None if out is None else Path(out))
