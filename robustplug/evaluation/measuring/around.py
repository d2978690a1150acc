"""What stands around the model under test: the names of its results, its passes, and its gradient."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...core.types import Feed
from ...recipe.write import digest, use_to_mapping
from ...runs.choose import stored_recipe
from ..rows import use_label

if TYPE_CHECKING:
    from ...subjects.subject import Subject
    from ..setting import Setting

# Samples whose gradients are looked at.
_LOOKED_AT = 8


def file_name(title: str, subject: Subject) -> str:
    """Return the name of an evaluation's files: results of a model within several wrappers lie side by side.

    Args:
        title: name of the attacks; "" for those of the recipe.
        subject: the model under test; a wrapper of the run's own recipe is not in the name.
    """
    name, around = title or "evaluation", subject.parts.recipe.evaluate.wrapper
    own = None if subject.folder is None else stored_recipe(subject.folder).evaluate.wrapper
    if around is None or (own is not None and use_to_mapping(own) == use_to_mapping(around)):
        return name
    label = use_label(around, "wrapper")
    slug = re.sub(r"[^\w.=+-]+", "-", label).strip("-")
    if len(slug) > 60 or re.search(r"[^\w.=+(), -]", label):
        # Some options are not in the slug as they are, such as folders.
        slug = f"{slug[:50]}-{digest(use_to_mapping(around))[:8]}"
    return f"{name}-{slug}"


def passes_of(module: nn.Module) -> int:
    """Return how many passes through the model one call of the module under test takes.

    A wrapper states it as its attribute `passes_per_row`; of several, each multiplies the others.
    """
    total = 1
    for part in module.modules():
        stated: Any = getattr(part, "passes_per_row", 1)
        total *= stated if isinstance(stated, int) and stated > 0 else 1
    return total


def lost_gradient(evaluation: Setting, subject: Subject) -> str:
    """Return a warning if the wrapper takes the gradient from a model that could have one; "" otherwise.

    Args:
        evaluation: the evaluation, whose model is the wrapped one.
        subject: the model under test.
    """
    around, info = subject.parts.recipe.evaluate.wrapper, evaluation.task.info
    # Functions and fitted classifiers have no gradient in any case.
    known = subject.description.get("kind") not in ("classifier", "callable")
    if around is None or info.classes is None or not known:
        return ""
    options = subject.parts.recipe.evaluate
    feed = Feed(batch_size=_LOOKED_AT, samples=_LOOKED_AT, device=str(evaluation.processes.device))
    batch = next(iter(evaluation.task.batches(options.split, feed)))
    if not isinstance(batch.x, torch.Tensor) or not batch.x.is_floating_point():
        return ""
    with evaluation.prepared(), torch.enable_grad():
        x = batch.x.detach().clone().requires_grad_()
        best = evaluation.model(x).float().topk(2).values
        margin = (best[:, 0] - best[:, 1]).sum()
        found = torch.autograd.grad(margin, x, allow_unused=True)[0] if margin.requires_grad else None
    if found is not None and bool((found != 0).any()):
        return ""
    return (
        f"within the wrapper {around.name}, the outputs have no gradient with respect to the inputs: attacks "
        "that follow gradients say nothing; take a suite with adaptive = true, an attack without gradients, "
        "or robustplug audit"
    )
