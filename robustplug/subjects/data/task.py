"""A classification task of arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ...core.types import Split, TaskInfo, View
from .arrays import UNIT, Bounds, as_inputs, as_labels
from .memory import Augment, InMemory
from .statistics import classification_score


class ArrayTask(InMemory):
    """Classify inputs in memory.

    Args:
        data: inputs and labels of some splits; see `as_inputs` and `as_labels`. Training needs "train",
            "validation" and "test", an evaluation one of them.
        classes: number of classes; None for one more than the largest label.
        class_names: a name for every class; empty for none.
        default_model: name of a model component; None for one that suits the shape.
        augmentation: changes training batches.
        bounds: (low, high), numbers or one for each channel or feature.
        notes: what the user should read about the data.

    Raises:
        ValueError: a split is empty or is not as above, or its inputs leave the bounds.
    """

    def __init__(
        self,
        data: Mapping[Split, tuple[Any, Any]],
        *,
        classes: int | None = None,
        class_names: Sequence[str] = (),
        default_model: str | None = None,
        augmentation: Augment | None = None,
        bounds: Bounds = UNIT,
        notes: Sequence[str] = (),
        info: type[TaskInfo] | partial[Any] = TaskInfo,
    ) -> None:
        self.notes = tuple(notes)
        found: dict[Split, tuple[Tensor, Tensor]] = {}
        for split, (inputs, labels) in data.items():
            x = as_inputs(inputs, f"the {split} inputs")
            found[split] = x, as_labels(labels, len(x), f"the {split} labels")
        count = classes or len(class_names) or 1 + max((int(y.max()) for _, y in found.values()), default=0)
        described = partial(info, classes=count, class_names=tuple(class_names))
        super().__init__(found, info=described, bounds=bounds, augmentation=augmentation)
        for split, (_, y) in found.items():
            if int(y.max()) >= count:
                raise ValueError(
                    f"the {split} labels must lie in 0 to {count - 1}: {int(y.min())} to {int(y.max())}"
                )
        images = len(self.info.shape or ()) == 3
        self.default_model = default_model or ("small-cnn" if images else "mlp")

    def score(self, view: View, output: Tensor) -> Tensor:
        """Return for each sample whether the largest output is at the label: bool (N,)."""
        return classification_score(view, output)

    def labels(self, split: Split) -> Tensor:
        """Return the labels of a split, int64 (N,)."""
        return self._data[split][1]
