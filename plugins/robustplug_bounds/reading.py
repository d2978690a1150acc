"""Read a module as a graph, by torch.fx; what cannot be bounded is named."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from robustplug.api import Refused

from . import affine
from .affine import Affine, Map, nothing
from .graph import Graph, Node, activation
from .operations import ACTIVATIONS, AVERAGES, KNOWN, PRODUCTS, RESHAPES, SAME, SAME_METHODS, SUMS, WIDE
from .tracing import trace


@dataclass(frozen=True)
class _At:
    """A value that depends on the input: the position of its node."""

    position: int


@dataclass(frozen=True)
class _Held:
    """A tensor that does not depend on the input; asked for each time, as it may follow from weights."""

    now: Callable[[], Tensor]


def read_graph(model: nn.Module, x: Tensor, fixed: bool = True) -> Graph:
    """Return a module, as it is in eval mode, as a graph.

    Args:
        model: the module, from inputs (N, …) to outputs (N, …).
        x: some inputs, of the type of the module's parameters; their number must not be 1.
        fixed: whether to refuse a module in training mode, which is another function than the graph.

    Raises:
        Refused: a layer or an operation is not supported, or the module cannot be traced.
    """
    root, traced = trace(model, x.dim())
    reader = _Reader(root, traced, x, fixed)
    with torch.no_grad():
        return reader.read()


class _Reader:
    """Follow a traced module once, on sample inputs, and note what each operation is."""

    def __init__(self, root: nn.Module, traced: fx.Graph, x: Tensor, fixed: bool) -> None:
        self.root, self.traced, self.x, self.fixed = root, traced, x, fixed
        self.modules = dict(root.named_modules())
        self.nodes: list[Node] = []
        self.values: list[Tensor] = []

    def read(self) -> Graph:
        known: dict[fx.Node, Any] = {}
        for node in self.traced.nodes:
            if node.op == "placeholder":
                if self.nodes:
                    continue
                known[node] = self._add(Node("input", "input", (), None, tuple(self.x.shape[1:])), self.x)
            elif node.op == "get_attr":
                known[node] = self._evaluated(partial(self._attribute, str(node.target)))
            elif node.op == "output":
                return self._output(fx.node.map_arg(node.args[0], known.__getitem__))
            else:
                args, kwargs = (fx.node.map_arg(part, known.__getitem__) for part in (node.args, node.kwargs))
                known[node] = self._operation(node, list(args), dict(kwargs))
        raise Refused("the module has no output")

    def _output(self, found: Any) -> Graph:
        if not isinstance(found, _At):
            raise Refused("the output is no tensor that depends on the input")
        return Graph(tuple(self.nodes[: found.position + 1]))

    def _attribute(self, target: str) -> Any:
        found: Any = self.root
        for name in target.split("."):
            found = getattr(found, name)
        return found

    def _add(self, node: Node, value: Tensor) -> _At:
        self.nodes.append(node)
        self.values.append(value)
        return _At(len(self.nodes) - 1)

    def _operation(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        parts: list[Any] = []
        fx.node.map_aggregate((args, kwargs), parts.append)
        moving = [each for each in parts if isinstance(each, _At)]
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        what: Any = type(module) if module is not None else node.target
        if module is not None and module.training and self.fixed:
            self._refuse_training(module, self._name(node))
        if module is not None and "weight" in vars(module):
            raise Refused(
                f"{self._name(node)} has a weight that a hook computes, which bounds do not follow: use "
                "torch.nn.utils.parametrizations, or make it permanent"
            )
        if not moving:
            return self._evaluated(partial(self._called, node, args, kwargs))
        if what in ("size", "dim") or what is getattr:
            fact = self._called(node, args, kwargs)
            # A tensor would be that of the sample inputs.
            if not isinstance(fact, Tensor):
                return fact
        found = self._supported(node, what, module, args, kwargs)
        if found is None:
            name = self._name(node)
            said = args[1] if what is getattr else getattr(what, "__name__", str(what))
            raise Refused(f"{name} ({said}) is not supported: bounds know {KNOWN}")
        return found

    def _name(self, node: fx.Node) -> str:
        """Return the name of a layer or an operation within the module."""
        return str(node.target).removeprefix("0.") if node.op == "call_module" else node.name

    def _refuse_training(self, module: nn.Module, name: str) -> None:
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
            raise Refused(f"{name} is in training mode, so that it is no fixed function: call eval()")

    def _now(self, each: Any) -> Any:
        """Return what stands for a value: of those that depend on the input, that of the sample inputs."""
        if isinstance(each, _At):
            return self.values[each.position]
        return each.now() if isinstance(each, _Held) else each

    def _called(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Return what an operation makes of values."""
        given: Any = fx.node.map_aggregate(tuple(args), self._now)
        named: Any = fx.node.map_aggregate(kwargs, self._now)
        if node.op == "call_method":
            return getattr(given[0], str(node.target))(*given[1:], **named)
        target: Any = self.modules[str(node.target)] if node.op == "call_module" else node.target
        return target(*given, **named)

    def _evaluated(self, now: Callable[[], Any]) -> Any:
        """Return a value that does not depend on the input."""
        value = now()
        return _Held(now) if isinstance(value, Tensor) else value

    def _supported(
        self, node: fx.Node, what: Any, module: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> _At | None:
        first: Any = args[0] if args else None
        one = isinstance(first, _At) and not any(isinstance(each, _At | _Held) for each in args[1:])
        name, given = self._name(node), (*args, *kwargs.values())
        if isinstance(module, nn.Linear):
            return self._affine(name, [first], affine.linear(module))
        if isinstance(module, nn.Conv1d | nn.Conv2d) and module.padding_mode == "zeros":
            return self._affine(name, [first], affine.convolution(module))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            return self._affine(name, [first], affine.batchnorm(module))
        if what == "to" and any(isinstance(each, torch.dtype) and each not in WIDE for each in given):
            return None
        if one and (what in SAME or what in SAME_METHODS or what is nn.functional.dropout):
            return _At(first.position)
        if one and what in ACTIVATIONS:
            return self._activation(name, what, module, first, args, kwargs)
        if one and what in (nn.MaxPool2d, nn.functional.max_pool2d):
            return self._max(name, module, first, args, kwargs)
        if one and what in AVERAGES:
            return self._average(node, name, module, first, args, kwargs)
        if one and (what in RESHAPES or what in (nn.Flatten, torch.flatten)):
            value = self._value(node, module, args, kwargs)
            shape = tuple(value.shape[1:])
            if len(value) != len(self.x):
                return None
            return self._affine(name, [first], affine.reshaping(shape))
        if what in SUMS and not kwargs and len(args) == 2:
            return self._sum(name, args, SUMS[what])
        if what in PRODUCTS and not kwargs and len(args) == 2:
            return self._product(name, args, PRODUCTS[what])
        if one and what in (operator.neg, torch.neg, "neg"):
            return self._affine(name, [first], Affine(operator.neg, lambda x: x, 0, offset=nothing))
        return None

    def _affine(self, name: str, inputs: list[Any], of: Affine) -> _At:
        value = of.apply(*(self.values[each.position] for each in inputs))
        at = tuple(each.position for each in inputs)
        shape = tuple(value.shape[1:])
        return self._add(Node(name, "affine", at, of.apply, shape, *of[1:]), value)

    def _value(self, node: fx.Node, module: Any, args: list[Any], kwargs: dict[str, Any]) -> Tensor:
        found = self._called(node, args, kwargs)
        assert isinstance(found, Tensor)
        return found

    def _activation(
        self, name: str, what: Any, module: Any, first: _At, args: list[Any], kwargs: dict[str, Any]
    ) -> _At | None:
        function, slope = ACTIVATIONS[what], 0.0
        if function == "leaky":
            stated = args[1] if len(args) > 1 else kwargs.get("negative_slope", 0.01)
            slope = float(module.negative_slope if module is not None else stated)
            if not 0 <= slope <= 1:
                return None
        apply = activation(function, slope)
        value = apply(self.values[first.position])
        at, shape = (first.position,), tuple(value.shape[1:])
        return self._add(Node(name, "activation", at, apply, shape, function=function, slope=slope), value)

    def _max(self, name: str, module: Any, first: _At, args: list[Any], kwargs: dict[str, Any]) -> _At | None:
        if module is not None:
            said = (module.kernel_size, module.stride, module.padding, module.dilation)
            odd = module.ceil_mode or module.return_indices
        else:
            names = ("kernel_size", "stride", "padding", "dilation")
            given = dict(zip(names, args[1:], strict=False)) | kwargs
            said = tuple(given.get(n, d) for n, d in zip(names, (2, None, 0, 1), strict=True))  # type: ignore[assignment]
            odd = bool(given.get("ceil_mode")) or bool(given.get("return_indices"))
        if odd:
            return None
        window = (said[0], said[0] if said[1] is None else said[1], said[2], said[3])

        def apply(x: Tensor) -> Tensor:
            return nn.functional.max_pool2d(x, *window)

        value = apply(self.values[first.position])
        shape = tuple(value.shape[1:])
        return self._add(Node(name, "max", (first.position,), apply, shape, window=window), value)

    def _average(
        self, node: fx.Node, name: str, module: Any, first: _At, args: list[Any], kwargs: dict[str, Any]
    ) -> _At | None:
        rest = args[1:]
        if module is not None:
            apply: Map = module
        elif node.op == "call_method":
            apply = lambda x: getattr(x, str(node.target))(*rest, **kwargs)  # noqa: E731
        else:
            target: Any = node.target
            apply = lambda x: target(x, *rest, **kwargs)  # noqa: E731
        value = apply(self.values[first.position])
        if value.dim() == 0 or len(value) != len(self.x):
            return None
        size = self.values[first.position][0].numel()
        return self._affine(name, [first], Affine(apply, apply, size, offset=nothing))

    def _sum(self, name: str, args: list[Any], sign: int) -> _At | None:
        one, other = args
        if isinstance(one, _At) and isinstance(other, _At):
            return self._affine(name, args, affine.adding(sign))
        if isinstance(one, _At):
            return self._affine(name, [one], affine.shifting(self._constant(name, other, one), sign))
        return self._affine(name, [other], affine.shifting(self._constant(name, one, other), own=sign))

    def _product(self, name: str, args: list[Any], divides: bool) -> _At | None:
        one, other = args
        if isinstance(one, _At) == isinstance(other, _At) or (divides and isinstance(other, _At)):
            return None
        moving, factor = (one, other) if isinstance(one, _At) else (other, one)
        return self._affine(name, [moving], affine.scaling(self._constant(name, factor, moving), divides))

    def _constant(self, name: str, of: Any, beside: Any) -> Callable[[], Any]:
        """Return what gives a constant that is the same for every sample.

        Raises:
            Refused: it has a row for each sample.
        """
        value, dimensions = self._now(of), self.values[beside.position].dim()
        if isinstance(value, Tensor) and value.dim() >= dimensions and value.shape[-dimensions] != 1:
            raise Refused(f"{name} has a constant with a row for each sample, which bounds do not know")
        return partial(self._now, of)
