"""The tensors that graphs read their batches from."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...core.replaying.rows import layout
from ...core.types import Batch
from ...devices.graphs import Uncapturable


def layout_of(batch: Batch) -> Hashable:
    """Return the layout of a batch: the shapes, strides, types and devices of its tensors, and all else."""
    leaves, tree = pytree.tree_flatten((batch.x, batch.y, batch.index, dict(batch.info)))
    return (tree, *(layout(leaf) for leaf in leaves))


class StaticBatch:
    """Hold a batch whose tensors stay the same and get new values.

    Args:
        batch: a batch; its tensors are copied.

    Raises:
        Uncapturable: a tensor of it has a layout that cannot be copied.
    """

    def __init__(self, batch: Batch) -> None:
        leaves, tree = pytree.tree_flatten((batch.x, batch.y, batch.index, dict(batch.info)))
        own = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        if [*map(layout, own)] != [*map(layout, leaves)]:
            raise Uncapturable("the rows of the batch share memory")
        self._tensors = [leaf for leaf in own if isinstance(leaf, Tensor)]
        x, y, index, info = pytree.tree_unflatten(own, tree)
        self.batch = replace(batch, x=x, y=y, index=index, info=info)

    def fill(self, batch: Batch) -> None:
        """Copy the values of another batch of the same layout."""
        leaves = pytree.tree_leaves((batch.x, batch.y, batch.index, dict(batch.info)))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        with torch.no_grad():
            for own, new in zip(self._tensors, tensors, strict=True):
                own.copy_(new, non_blocking=True)
