"""Remember a model as it was handed out, name what changed in it, and put it back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .values import same_bits, version_of

# A copy of the weights is kept up to this many bytes; of larger models, a checksum.
COPIED = 2 * 2**30
_BOOKS = frozenset(vars(nn.Module())) | {"forward", "__call__"}
_ABSENT = object()
_CALLED = {
    "training": "training modes",
    "_parameters": "parameters",
    "_buffers": "buffers",
    "_modules": "modules",
    "forward": "forward",
    "__call__": "forward",
}


class _Module:
    """One module: its class, its tables of parts and hooks, and its settings."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.kind, self.training = module, type(module), module.training
        own = vars(module)
        kinds = (bool, int, float, str, tuple) if type(module).__module__.startswith("torch.nn.") else ()
        self.tables: list[tuple[str, Any, dict[Any, Any], list[int]]] = [
            (key, table, dict(table), [*map(id, table.values())])
            for key, table in own.items()
            if key in _BOOKS and isinstance(table, dict)
        ]
        tables = {key for key, *_ in self.tables}
        self.others = [
            (key, own.get(key, _ABSENT))
            for key in {*_BOOKS, *(key for key, value in own.items() if isinstance(value, kinds))} - tables
        ]

    def changes(self) -> Iterator[str]:
        """Put the module back, and yield the names of what had changed."""
        module, own = self.module, vars(self.module)
        if type(module) is not self.kind:
            module.__class__ = self.kind
            yield "classes"
        for key, table, contents, parts in self.tables:
            if (
                id(own.get(key)) != id(table)
                or len(table) != len(parts)
                or [*map(id, table.values())] != parts
            ):
                table.clear()
                table.update(contents)
                own[key] = table
                yield _CALLED.get(key, "hooks")
        for key, value in self.others:
            now = own.get(key, _ABSENT)
            # Numbers are compared by value.
            if now is not value and not (type(now) is type(value) and key != "forward" and now == value):
                if value is _ABSENT:
                    del own[key]
                else:
                    own[key] = value
                yield _CALLED.get(key, "hooks" if "hook" in key else "settings")
        if module.training != self.training:  # the flag of a scripted module is no attribute
            module.training = self.training
            yield "training modes"


class _Tensor:
    """One parameter or buffer: its storage, its flags, its gradient, and perhaps a copy of its values."""

    def __init__(self, tensor: Tensor, what: str, copied: bool) -> None:
        self.tensor, self.what = tensor, what
        self.alias = tensor.detach()
        self.place = _place(self.alias)
        self.required, self.hooks = tensor.requires_grad, _hooks(tensor)
        self.gradient = tensor.grad if tensor.is_leaf else None
        self.copy = self.alias.clone() if copied else None
        self.sum = None if copied else _checksum(self.alias)
        self.gradient_copy = None if self.gradient is None else self.gradient.detach().clone()
        self.versions = self._versions()

    def _versions(self) -> tuple[int, int]:
        return version_of(self.tensor), -1 if self.gradient is None else version_of(self.gradient)

    def changes(self, values: bool) -> Iterator[str]:
        """Put the tensor back, and yield the names of what had changed; compare values only if asked."""
        tensor, moved = self.tensor, self._versions() != self.versions
        if _place(tensor) != self.place:
            tensor.data = self.alias
            yield self.what
        if (values or moved) and not self._sound():
            if self.copy is not None:
                with torch.no_grad():
                    self.alias.copy_(self.copy)
            yield self.what if self.copy is not None else f"{self.what} for good"
        if tensor.requires_grad != self.required:
            tensor.requires_grad_(self.required)
            yield "requires_grad"
        if _hooks(tensor) != self.hooks:
            tensor._backward_hooks = None
            for hook in self.hooks:
                tensor.register_hook(hook)  # type: ignore[no-untyped-call]
            yield "hooks"
        if tensor.is_leaf and tensor.grad is not self.gradient:
            tensor.grad = self.gradient
            yield "gradients"
        if self.gradient_copy is not None and (values or moved):
            assert self.gradient is not None
            if not same_bits(self.gradient.detach(), self.gradient_copy):
                with torch.no_grad():
                    self.gradient.copy_(self.gradient_copy)
                yield "gradients"
        self.versions = self._versions()

    def _sound(self) -> bool:
        if self.copy is not None:
            return same_bits(self.alias, self.copy)
        found = _checksum(self.alias)
        return found is None or self.sum is None or bool(found == self.sum)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    strided = tensor.layout is torch.strided
    return (
        tensor.dtype,
        tensor.device,
        tensor.shape,
        *((tensor.data_ptr(), tensor.stride()) if strided else ()),
    )


def _hooks(tensor: Tensor) -> list[Any]:
    hooks = tensor._backward_hooks
    return [] if hooks is None else list(hooks.values())


def _checksum(tensor: Tensor) -> Tensor | None:
    """Return a sum over the bits of a tensor that is too large to copy."""
    if tensor.layout is not torch.strided or tensor.element_size() not in (1, 2, 4, 8):
        return None
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(kinds[tensor.element_size()]).sum(dtype=torch.int64)


class Kept:
    """Remember a model: its parts, modes, hooks and `requires_grad` flags, its gradients and its tensors.

    Args:
        model: the model.
        buffers: whether to remember its buffers, too.
    """

    def __init__(self, model: nn.Module, buffers: bool = True) -> None:
        self.model = model
        self._classes = {type(module) for module in model.modules()}
        self._forwards = {kind: vars(kind).get("forward") for kind in self._classes}
        self._modules = [_Module(module) for module in model.modules()]
        tensors: dict[int, tuple[Tensor, str]] = {id(each): (each, "weights") for each in model.parameters()}
        if buffers:
            tensors |= {id(each): (each, "buffers") for each in model.buffers() if id(each) not in tensors}
        size = sum(each.numel() * each.element_size() for each, _ in tensors.values())
        self._tensors = [_Tensor(each, what, size <= COPIED) for each, what in tensors.values()]

    def put_back(self, values: bool = False) -> list[str]:
        """Put the model back as it was, and return the names of what had changed.

        Args:
            values: whether to compare the values of all tensors. Otherwise only those are compared whose
                version changed, which a write through `.data` or NumPy does not do.
        """
        found = []
        for kind, forward in self._forwards.items():
            if vars(kind).get("forward") is not forward:
                if forward is None:
                    del kind.forward
                else:
                    kind.forward = forward
                found.append("forward")
        found += [name for module in self._modules for name in module.changes()]
        found += [name for tensor in self._tensors for name in tensor.changes(values)]
        return list(dict.fromkeys(f"the model's {name}" for name in found))
