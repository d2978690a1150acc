"""A small trained model and its task, made once."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

import robustplug
from robustplug.api import Batch, Feed, Step, View, isolated, stream
from robustplug.core.method import Objective
from robustplug_seq2sick.models.lstm import Forced
from robustplug_seq2sick.models.training import token_loss
from robustplug_seq2sick.options import SyntheticOptions
from robustplug_seq2sick.task import TranslationTask
from robustplug_seq2sick.text.data import Pair
from robustplug_seq2sick.tokens import vocabularies

EPOCHS = 6
ANIMALS = ("ape", "bear", "crow", "deer", "eel", "fox", "goat", "hare")


@functools.cache
def small_task() -> Any:
    return robustplug.build("task", "synthetic-translation", sentences=96, keyword_above=1)


@functools.cache
def trained() -> tuple[Any, Any]:
    """Return a task of few words, each of which has one translation, and a model that has learned it."""
    rng = stream(0, "sentences")
    pairs = []
    for _ in range(700):
        drawn = torch.randint(len(ANIMALS), (int(torch.randint(3, 6, (), generator=rng)),), generator=rng)
        words = [ANIMALS[number] for number in drawn.tolist()]
        pairs.append(Pair(" ".join(words), " ".join(word[::-1] for word in words)))
    options = SyntheticOptions(stop_words=0)
    vocabulary = vocabularies(options, pairs)
    task = TranslationTask(
        options, {"train": pairs[:600], "validation": pairs[600:], "test": pairs[600:]}, *vocabulary
    )
    with isolated(0):
        model = robustplug.build(
            "model", "lstm-attention", word=16, hidden=32, dropout=0.0, init=0.5, info=task.info
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for epoch in range(EPOCHS):
        for batch in task.batches("train", Feed(batch_size=32, shuffle=True, epoch=epoch)):
            loss = token_loss(model(Forced(batch.x, batch.y)), batch.y).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return task, model.eval()


def first_batch(size: int, task: Any | None = None) -> Batch:
    task = trained()[0] if task is None else task
    batch: Batch = next(iter(task.batches("test", Feed(batch_size=size))))
    return batch


def step_of(batch: Batch, model: nn.Module | None = None) -> Step:
    task, own = trained()
    objective = Objective(
        lambda step, view: view.y,
        lambda step, view: step.forward(view.x),
        robustplug.build("loss", "translation"),
    )
    return Step(own if model is None else model, objective, task, batch, stream(0, "test"), evaluating=True)


def attacked(batch: Batch, attack: Any, eps: float = 1000.0) -> tuple[View, Tensor]:
    """Attack as an evaluation does, and return the view with its goal and what the model then says."""
    step = step_of(batch)
    vicinity = robustplug.build("vicinity", "word-replacement", eps=eps)
    view = View.of(batch, "adv")
    view = view.replace(info=attack.aim(step, view))
    moved = attack(step, view, vicinity)
    assert bool(vicinity.contains(moved.x, view.origin, step.radii(view, vicinity)).all())
    with torch.no_grad():
        words: Tensor = step.model(moved.x).words
    return view.replace(x=moved.x), words
