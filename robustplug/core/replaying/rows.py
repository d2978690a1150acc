"""Tensors with a row for each sample, copied to buffers of few sizes, which graphs read again and again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor


def layout(leaf: Any) -> Hashable:
    """Return the layout of a tensor: its shape, strides, type and device; of all else, what it is."""
    if isinstance(leaf, Tensor):
        strides = leaf.stride() if leaf.layout is torch.strided else None
        return (leaf.shape, strides, leaf.layout, leaf.dtype, leaf.device)
    try:
        hash(leaf)
    except TypeError:
        return id(leaf)
    return (type(leaf), leaf)


def padded_size(rows: int, most: int) -> int:
    """Return the number of rows that a batch of `rows` is padded to: a power of two, or `most`."""
    power = 1 << (rows - 1).bit_length()
    return min(power, most) if rows <= most else power


def has_rows(leaf: Any, rows: int) -> bool:
    """Return whether a value can be padded: a tensor with a row for each sample, or one number for all."""
    if isinstance(leaf, Tensor):
        dense = leaf.layout is torch.strided and not leaf.is_quantized
        return dense and (not leaf.dim() or len(leaf) == rows)
    return leaf is None or isinstance(leaf, bool | int | float | str)


def buffers(leaves: Sequence[Any], size: int) -> list[Any]:
    """Return tensors like these with `size` rows, contiguous or channels-last as they are, without values."""
    return [_buffer(leaf, size) if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def _buffer(leaf: Tensor, size: int) -> Tensor:
    # A batch of one image, or of one channel, has both layouts at once: then it counts as contiguous.
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    wanted = formats.get(leaf.dim(), torch.contiguous_format)
    if leaf.is_contiguous() or not leaf.is_contiguous(memory_format=wanted):
        wanted = torch.contiguous_format
    shape = (size, *leaf.shape[1:]) if leaf.dim() else ()
    return torch.empty(shape, dtype=leaf.dtype, device=leaf.device, memory_format=wanted)


def fill(buffers: Sequence[Any], leaves: Sequence[Any], rows: int) -> None:
    """Copy values into buffers; further rows get copies of the first one."""
    pairs = [(own, new.detach()) for own, new in zip(buffers, leaves, strict=True) if isinstance(own, Tensor)]
    ends = [(own[rows:], new[:1]) for own, new in pairs if own.dim() and rows < len(own)]
    with torch.no_grad():
        # All at once: a launch for each would take longer than the copies.
        torch._foreach_copy_(
            [own[:rows] if own.dim() else own for own, _ in pairs] + [end for end, _ in ends],
            [new for _, new in pairs] + [first.expand_as(end) for end, first in ends],
        )
