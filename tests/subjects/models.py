"""A small digits model, images for it, and the ONNX graph of it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.random import isolated, stream
from robustplug.core.step import Step
from robustplug.core.types import Batch, Feed, TaskInfo, View
from robustplug.evaluation.setting import plain_objective
from robustplug.plugin.component import Use

TASK = robustplug.build("task", "digits")
INFO: TaskInfo = TASK.info
SMALL = Use("small-cnn", {"width": 4, "hidden": 16})
BARE = Use("small-cnn", {"width": 4, "hidden": 16, "normalize": False})
RAGGED = (1, 3, 7)


def images(rows: int, shape: tuple[int, ...] = (1, 8, 8)) -> Tensor:
    return torch.rand(rows, *shape, generator=stream(0, "images", rows))


def small(**options: Any) -> nn.Module:
    """Return a small CNN in eval mode whose BatchNorm statistics are not those of the start."""
    with isolated(0):
        model: nn.Module = robustplug.build(
            "model", "small-cnn", width=4, hidden=16, info=INFO, **options
        ).train()
    with torch.no_grad():
        for _ in range(5):
            model(images(32))
    return model.eval()


def bare() -> nn.Module:
    return small(normalize=False)


def close(ours: nn.Module, theirs: nn.Module) -> None:
    """Compare outputs in batches of several sizes."""
    for rows in RAGGED:
        x = images(rows)
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def attacked(model: nn.Module, attack: str, rows: int = 7, **options: Any) -> tuple[View, View]:
    """Run an attack as an evaluation does; return the view before and after."""
    (batch, *_) = TASK.batches("test", Feed(batch_size=rows))
    assert isinstance(batch, Batch)
    vicinity = robustplug.build("vicinity", "linf", eps=0.2)
    objective = plain_objective(robustplug.build("loss", "ce"))
    step = Step(model, objective, TASK, batch, stream(0, "attack"), evaluating=True)
    view = View.of(batch, "adv")
    with torch.no_grad():
        before = model(view.x)
    flags = [(part, part.training) for part in model.modules()]
    moved = robustplug.build("perturbation", attack, **options)(step, view, vicinity)
    assert all(part.training is training for part, training in flags)
    assert bool(vicinity.contains(moved.x, view.origin, step.radii(view, vicinity)).all())
    with torch.no_grad():
        torch.testing.assert_close(model(view.x), before)
    return view, moved


def losses(model: nn.Module, view: View) -> Tensor:
    with torch.no_grad():
        return nn.functional.cross_entropy(model(view.x), view.y, reduction="none")


def write_onnx(
    path: Path,
    network: nn.Module,
    rows: int | str = "N",
    dtype: str = "FLOAT",
    softmax: bool = False,
    last: Sequence[int | str | None] | None = None,
) -> Path:
    """Write the ONNX graph of a small CNN (an nn.Sequential) by hand; `last`: its sizes (H, W, C)."""
    onnx: Any = importlib.import_module("onnx")
    helper, kind = onnx.helper, getattr(onnx.TensorProto, dtype)
    nodes: list[Any] = []
    constants: list[Any] = []
    value = "images"

    def add(operation: str, *values: Tensor, **attributes: Any) -> None:
        nonlocal value
        names = [f"{operation}{len(nodes)}_{number}" for number in range(len(values))]
        for name, tensor in zip(names, values, strict=True):
            array = tensor.detach().numpy().astype(helper.tensor_dtype_to_np_dtype(kind))
            constants.append(onnx.numpy_helper.from_array(array, name))
        out = f"value{len(nodes)}"
        nodes.append(helper.make_node(operation, [value, *names], [out], **attributes))
        value = out

    if last is not None:
        add("Transpose", perm=[0, 3, 1, 2])
    for layer in network.children():
        if isinstance(layer, nn.Conv2d):
            add("Conv", *(v for v in (layer.weight, layer.bias) if v is not None), pads=[1, 1, 1, 1])
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            statistics = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            add("BatchNormalization", *statistics, epsilon=layer.eps)
        elif isinstance(layer, nn.ReLU):
            add("Relu")
        elif isinstance(layer, nn.MaxPool2d):
            add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        elif isinstance(layer, nn.Flatten):
            add("Flatten")
        else:
            assert isinstance(layer, nn.Linear)
            add("Gemm", layer.weight, layer.bias, transB=1)
    if softmax:
        add("Softmax", axis=1)
    graph = helper.make_graph(
        nodes,
        "small-cnn",
        [helper.make_tensor_value_info("images", kind, [rows, *(last or (1, 8, 8))])],
        [helper.make_tensor_value_info(value, kind, [rows, 10])],
        constants,
    )
    # An old version of the format, which every onnxruntime reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path
