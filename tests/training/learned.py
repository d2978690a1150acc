"""A method that learns a parameter of its own, outside the model, and draws noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from robustplug.core.method import Method
from robustplug.core.step import Step
from robustplug.core.task import Task
from robustplug.core.types import Batch, ParamGroup, Pass, Progress, View
from robustplug.plugin.component import Component, MethodOptions

# What each update drew, in order.
DRAWS: list[list[float]] = []


class Learned(Method[MethodOptions]):
    """Scale the logits of each class by a learned factor."""

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        scale = self.state.scale = nn.Parameter(torch.ones(task.info.classes or 1))

        def scaled(step: Step, view: View) -> Any:
            return step.forward(view.x) * scale

        self.output_map = scaled
        return [*super().setup(model, task), ParamGroup("scale", (scale,))]

    def passes(self, progress: Progress) -> Sequence[Pass]:
        return (Pass(update=frozenset({"model", "scale"})),)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        DRAWS.append(torch.rand(2, generator=step.rng).tolist())
        return super().views(step, point)


LEARNED = Component("learned", f"{__name__}:Learned", MethodOptions)
