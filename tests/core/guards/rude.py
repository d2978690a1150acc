"""Attacks that change what they are handed, and everything else that they can reach."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustplug.core.step import Step
from robustplug.core.types import Cost, View

Change = Callable[[Step, View, Any], None]
HELD: list[Any] = []


def write_x(step: Step, view: View, vicinity: Any) -> None:
    view.x.add_(0.01)


def write_x_data(step: Step, view: View, vicinity: Any) -> None:
    view.x.data += 0.01


def write_x_numpy(step: Step, view: View, vicinity: Any) -> None:
    np.add(view.x.numpy(), 0.01, out=view.x.numpy())


def write_origin(step: Step, view: View, vicinity: Any) -> None:
    view.origin.mul_(0.5)


def write_labels(step: Step, view: View, vicinity: Any) -> None:
    view.y.zero_()


def write_labels_numpy(step: Step, view: View, vicinity: Any) -> None:
    view.y.numpy()[:] = 0


def write_batch(step: Step, view: View, vicinity: Any) -> None:
    step.batch.y.zero_()


def write_index(step: Step, view: View, vicinity: Any) -> None:
    view.index.add_(1)


def widen(step: Step, view: View, vicinity: Any) -> None:
    vicinity.eps = 10.0


def write_weights(step: Step, view: View, vicinity: Any) -> None:
    with torch.no_grad():
        next(step.model.parameters()).mul_(0.5)


def write_weights_data(step: Step, view: View, vicinity: Any) -> None:
    for parameter in step.model.parameters():
        parameter.data.mul_(0.5)


def write_weights_numpy(step: Step, view: View, vicinity: Any) -> None:
    next(step.model.parameters()).detach().numpy()[:] = 0


def exchange_data(step: Step, view: View, vicinity: Any) -> None:
    parameter = next(step.model.parameters())
    parameter.data = torch.zeros_like(parameter)


def write_buffers(step: Step, view: View, vicinity: Any) -> None:
    for buffer in step.model.buffers():
        buffer.data.zero_()


def thaw_and_freeze(step: Step, view: View, vicinity: Any) -> None:
    for parameter in step.model.parameters():
        parameter.requires_grad_(not parameter.requires_grad)


def leave_gradients(step: Step, view: View, vicinity: Any) -> None:
    for parameter in step.model.parameters():
        parameter.grad = torch.ones_like(parameter)


def train_mode(step: Step, view: View, vicinity: Any) -> None:
    step.model.train(not step.model.training)


def part_in_other_mode(step: Step, view: View, vicinity: Any) -> None:
    last = list(step.model.modules())[-1]
    last.training = not last.training


def no_gradients(step: Step, view: View, vicinity: Any) -> None:
    torch.set_grad_enabled(False)


def inference(step: Step, view: View, vicinity: Any) -> None:
    HELD.append(torch.inference_mode())
    HELD[-1].__enter__()


def deterministic(step: Step, view: View, vicinity: Any) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)


def cudnn(step: Step, view: View, vicinity: Any) -> None:
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark


def tf32(step: Step, view: View, vicinity: Any) -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def threads(step: Step, view: View, vicinity: Any) -> None:
    torch.set_num_threads(torch.get_num_threads() + 1)


def double_by_default(step: Step, view: View, vicinity: Any) -> None:
    torch.set_default_dtype(torch.float64)


def meta_by_default(step: Step, view: View, vicinity: Any) -> None:
    torch.set_default_device("meta")


def autocast(step: Step, view: View, vicinity: Any) -> None:
    HELD.append(torch.autocast("cpu", dtype=torch.bfloat16))
    HELD[-1].__enter__()


def anomaly(step: Step, view: View, vicinity: Any) -> None:
    torch.autograd.set_detect_anomaly(True)


def denormals(step: Step, view: View, vicinity: Any) -> None:
    torch.set_flush_denormal(True)


def numpy_errors(step: Step, view: View, vicinity: Any) -> None:
    np.seterr(all="raise")


def working_folder(step: Step, view: View, vicinity: Any) -> None:
    os.chdir("/")


def handlers(step: Step, view: View, vicinity: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def double_model(step: Step, view: View, vicinity: Any) -> None:
    step.model.double()


def other_parameter(step: Step, view: View, vicinity: Any) -> None:
    for module in step.model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.zeros_like(parameter)))


def other_part(step: Step, view: View, vicinity: Any) -> None:
    step.model.extra = nn.Linear(1, 1)


def hook(step: Step, view: View, vicinity: Any) -> None:
    step.model.register_forward_hook(lambda module, inputs, output: output * 0)


def hook_everywhere(step: Step, view: View, vicinity: Any) -> None:
    torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)


def hook_weights(step: Step, view: View, vicinity: Any) -> None:
    for parameter in step.model.parameters():
        required = parameter.requires_grad
        parameter.requires_grad_(True).register_hook(lambda gradient: gradient * 0)  # type: ignore[no-untyped-call]
        parameter.requires_grad_(required)


def other_forward(step: Step, view: View, vicinity: Any) -> None:
    step.model.forward = lambda x: torch.zeros(len(x), 2)


def other_forward_of_the_class(step: Step, view: View, vicinity: Any) -> None:
    setattr(type(step.model), "forward", lambda self, x: torch.zeros(len(x), 2))  # noqa: B010


def no_dropout_rate(step: Step, view: View, vicinity: Any) -> None:
    for module in step.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eps = 1.0


RUDE: list[Change] = [
    write_x,
    write_x_data,
    write_x_numpy,
    write_origin,
    write_labels,
    write_labels_numpy,
    write_batch,
    write_index,
    widen,
    write_weights,
    write_weights_data,
    write_weights_numpy,
    exchange_data,
    write_buffers,
    thaw_and_freeze,
    leave_gradients,
    train_mode,
    part_in_other_mode,
    no_gradients,
    inference,
    deterministic,
    cudnn,
    tf32,
    threads,
    double_by_default,
    meta_by_default,
    autocast,
    anomaly,
    denormals,
    numpy_errors,
    working_folder,
    handlers,
    double_model,
    other_parameter,
    other_part,
    hook,
    hook_everywhere,
    hook_weights,
    other_forward,
    other_forward_of_the_class,
    no_dropout_rate,
]


def seed_torch(step: Step, view: View, vicinity: Any) -> None:
    getattr(torch, "manual_seed")(7)  # noqa: B009


def seed_numpy(step: Step, view: View, vicinity: Any) -> None:
    getattr(np.random, "seed")(7)  # noqa: B009


def seed_python(step: Step, view: View, vicinity: Any) -> None:
    getattr(random, "seed")(7)  # noqa: B009


def poison_cache(step: Step, view: View, vicinity: Any) -> None:
    step.forward(view.x).detach().zero_()


def other_step(step: Step, view: View, vicinity: Any) -> None:
    step.evaluating, step.seed = False, 3
    step.model = nn.Identity()
    step.rng.manual_seed(0)


HARMLESS: list[Change] = [seed_torch, seed_numpy, seed_python, poison_cache, other_step]


class RudeAttack:
    """Change something, and then return the inputs, raise an error, or end the program."""

    def __init__(self, change: Change, error: BaseException | None = None) -> None:
        self.change, self.error = change, error

    def __call__(self, step: Step, view: View, vicinity: Any) -> View:
        x = view.x.clone()
        self.change(step, view, vicinity)
        if self.error is not None:
            raise self.error
        return view.replace(x=x)

    def cost(self, target: Cost) -> Cost:
        return Cost(0, 0)


def bits(tensor: Tensor) -> Any:
    return tensor.detach().numpy().tobytes()
