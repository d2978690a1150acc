"""A small task of text, embeddings of its words, and a trained model, made once."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

import robustplug
from robustplug.api import Feed, Step, View, isolated, stream
from robustplug.core.method import Objective
from robustplug_text.data import reviews
from robustplug_text.data.passages import Passage, written

GROUPS = (
    reviews.PRAISE + reviews.BLAME,
    reviews.LIKES + reviews.DISLIKES,
    reviews.THINGS,
    reviews.PEOPLE,
    reviews.LINKS,
    reviews.WAYS,
)


def vectors(folder: Path) -> Path:
    """Write embeddings in which the words of a group have cosines of about 0.8, others about 0."""
    rng, lines = stream(0, "vectors"), []
    for number, group in enumerate(GROUPS):
        for word in group:
            own = 0.5 * torch.randn(12, generator=rng) / math.sqrt(12)
            own[number] += 1
            lines.append(" ".join([word, *(f"{value:.5f}" for value in own.tolist())]))
    path = folder / "vectors.txt"
    path.write_text(f"{len(lines)} 12\n" + "\n".join(lines) + "\n")
    return path


@functools.cache
def small_task() -> Any:
    return robustplug.build("task", "text", data="synthetic", reviews=160)


@functools.cache
def trained() -> nn.Module:
    """Return a word-cnn that has learned the task."""
    task = small_task()
    with isolated(0):
        model: nn.Module = robustplug.build("model", "word-cnn", width=12, filters=8, info=task.info)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for epoch in range(6):
            for batch in task.batches("train", Feed(epoch=epoch, batch_size=32, shuffle=True)):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(batch.x), batch.y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return model.eval()


def attacked(
    model: nn.Module, attack: Any, vicinity: Any, rows: slice, task: Any = None
) -> tuple[View, Step]:
    """Run an attack on some test samples, and return its view and its step."""
    task = task or small_task()
    (batch,) = task.batches("test", Feed(batch_size=1000))
    view = View.of(batch, "adv").rows(torch.arange(len(batch))[rows])
    objective = Objective(lambda _, v: v.y, lambda s, v: s.forward(v.x), lambda *_: torch.zeros(()))
    step = Step(model, objective, task, batch, stream(0, "attack"), evaluating=True)
    return attack(step, view, vicinity), step


def rows_of(*texts: str, width: int = 60) -> torch.Tensor:
    return written([Passage(text) for text in texts], width)
