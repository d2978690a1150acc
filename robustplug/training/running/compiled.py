"""Run updates with a compiled model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...core.random import isolated
from .update import Outcome, Runner, Update

# Where a module keeps its compiled call.
_CALL = "_compiled_call_impl"


class Compiled:
    """Let another runner run updates with the model compiled; those of batches of another size without.

    Outside the block of `prepare` the model is as it was: it is validated and exported as it is written.

    Args:
        inner: what runs the updates.
        model: the model.
        call: its compiled call, from `compiled_call`.
    """

    def __init__(self, inner: Runner, model: nn.Module, call: Callable[..., Any]) -> None:
        self.inner, self._model, self._call = inner, model, call

    @contextlib.contextmanager
    def prepare(self) -> Iterator[None]:
        """Prepare the other runner, and call the compiled model in a block."""
        with self.inner.prepare(), called_by(self._model, self._call):
            yield

    def run(self, update: Update) -> Outcome:
        """Run an update."""
        if update.whole:
            return self.inner.run(update)
        with called_by(self._model, None):
            return self.inner.run(update)


@contextlib.contextmanager
def called_by(model: nn.Module, call: Callable[..., Any] | None) -> Iterator[None]:
    """Call a model by its compiled call, or by its own, within a block."""
    before = getattr(model, _CALL)
    setattr(model, _CALL, call)
    try:
        yield
    finally:
        setattr(model, _CALL, before)


def compiled_call(model: nn.Module, x: Tensor, seed: int) -> tuple[Callable[..., Any], float]:
    """Compile a model as an update calls it, and return its compiled call and the seconds that this took.

    Training mode with gradients of the weights, and eval mode with those of the inputs, as in an attack,
    are compiled here; weights, statistics, gradients, modes and generators stay as they are.

    Args:
        model: the model on its device.
        x: a batch, float (N, …).
        seed: seed of the global generator meanwhile.

    Raises:
        Exception: the model cannot be compiled.
    """
    began = time.perf_counter()
    flags = [(part, part.training) for part in model.modules()]
    saved = [(value, value.detach().clone()) for value in model.buffers()]
    trained = [value for value in model.parameters() if value.requires_grad]
    gradients = [value.grad for value in trained]
    for parameter in trained:
        parameter.grad = None
    model.compile(dynamic=False)
    call: Callable[..., Any] = getattr(model, _CALL)
    try:
        with isolated(seed, x.device), torch.enable_grad():
            for training in (True, False):
                model.train(training)
                for value in trained:
                    value.requires_grad_(training)
                output = model(x.detach().clone().requires_grad_(not training))
                if isinstance(output, Tensor) and output.requires_grad:
                    output.float().sum().backward()  # type: ignore[no-untyped-call]
    finally:
        setattr(model, _CALL, None)
        for part, mode in flags:
            part.training = mode
        with torch.no_grad():
            for buffer, before in saved:
                buffer.copy_(before)
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.requires_grad_(True)
            parameter.grad = gradient
    return call, time.perf_counter() - began
