"""Audit a model as it is asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...runs.result_file import AUDIT, note_in_result
from ...subjects.opening import Opening
from ...subjects.subject import open_sources
from ...subjects.wrapping import open_tested
from ..audit.audit import Audit, audit_subject
from ..results import Asked

if TYPE_CHECKING:
    from ...subjects.target import Model
    from ..setting import Share


def audit_model(
    model: Model,
    opening: Opening,
    out: str | Path | None,
    share: Share | None = None,
    *,
    sources: Sequence[str | Path] = (),
    budget: float | None = None,
) -> Audit:
    """Audit a model in this process; arguments and exceptions are those of `robustplug.audit`.

    Args:
        model: the model.
        opening: how the model and its data are opened.
        out: folder of the result; None for none.
        share: the part of this process, which needs `out`; None for the whole audit.
        sources, budget: what is asked for.

    Raises:
        RecipeError, RunError: as `robustplug.audit` does.
    """
    deadline = None if budget is None else time.monotonic() + 60 * budget
    subject = open_tested(model, opening)
    asked = Asked(sources=open_sources(sources, subject), deadline=deadline, share=share)
    with subject.computing():
        found = audit_subject(subject, asked, None if out is None else Path(out))
    noted = share is None and out is not None and found.result.meta["file"] == AUDIT
    if subject.folder is not None and noted and subject.processes.main:
        note_in_result(subject.folder, AUDIT, found.to_json())
    return found
