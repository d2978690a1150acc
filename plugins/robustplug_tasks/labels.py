"""Several labels of each input, each of which is there or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robustplug.api import InMemory, Measure, Quantity, Refused, Split, View, did_you_mean

from .classes import numbers_of
from .encoding import TableInfo, read_table
from .options import MultiLabelOptions
from .sheets import Sheet


class MultiLabelTask(InMemory):
    """Say which of several labels an input has; a logit above 0 says that it has this one.

    Args:
        data: inputs of some splits, and their labels (N, L), 0 or 1.
        names: names of the labels.
        success: "any" to count a sample as right if all its labels are, or the name of the one that counts.
        default_model: name of a model component; None for one that suits the shape.
        more: as for `InMemory`.

    Raises:
        ValueError: as `InMemory`, or labels have another shape or other values, or there is no such label.
    """

    like = "multi-label"

    def __init__(
        self,
        data: Mapping[Split, Any],
        *,
        names: Sequence[str],
        success: str = "any",
        default_model: str | None = None,
        **more: Any,
    ) -> None:
        if success != "any" and success not in names:
            close = did_you_mean(success, names)
            hint = f'did you mean "{close}"?' if close else f'"any", or one of {", ".join(names)}'
            raise ValueError(f"success: there is no label {success!r}; {hint}")
        self.names = tuple(names)
        self.counting = None if success == "any" else self.names.index(success)
        self.score_name = "all-labels" if success == "any" else success
        pairs = {split: (x, zeros_and_ones(y, names, split)) for split, (x, y) in data.items()}
        made = partial(more.pop("info", TableInfo), output_size=len(names))
        super().__init__(pairs, info=made, **more)
        self.default_model = default_model or ("small-cnn" if len(self.info.shape or ()) == 3 else "mlp")

    @property
    def quantities(self) -> Sequence[Quantity]:
        """Describe the measures."""
        return (
            Quantity("all labels", "higher", share=True, headline=True),
            Quantity("labels", "higher", headline=True),
            Quantity("F1", "higher", headline=True),
            Quantity("AUROC", "higher"),
            *(Quantity(f"label {name}", "higher", share=True) for name in self.names),
        )

    def right(self, view: View, output: Tensor) -> Tensor:
        """Return for each label of each sample whether it is predicted correctly: bool (N, L).

        A logit that is no number predicts nothing, also not that a label is absent.

        Raises:
            Refused: the outputs are not one logit for each label.
        """
        if output.shape != view.y.shape:
            raise Refused(
                f"{len(self.names)} labels need a logit each, (N, {len(self.names)}), and the model returns "
                f"{tuple(output.shape)}"
            )
        there: Tensor = view.y > 0.5
        return ((output > 0) == there) & ~output.isnan()

    def score(self, view: View, output: Tensor) -> Tensor:
        """Return for each sample whether all its labels are correct, or the one that counts: bool (N,)."""
        right = self.right(view, output)
        return right.all(1) if self.counting is None else right[:, self.counting]

    def measure(self, view: View, output: Tensor) -> Mapping[str, Tensor]:
        """Return for each sample whether all and each of its labels are right (0 or 100), and their share."""
        right = self.right(view, output)
        # A logit that is no number is as wrong as can be.
        logits = torch.where(output.isnan(), torch.inf * (1 - 2 * view.y), output.float())
        found = {"all labels": 100.0 * right.all(1), "labels": 100.0 * right.float().mean(1)}
        for number, name in enumerate(self.names):
            found[f"label {name}"] = 100.0 * right[:, number]
            found[f"_label {name}"], found[f"_logit {name}"] = view.y[:, number], logits[:, number]
        return found

    def pool(self, values: Mapping[str, Tensor]) -> Mapping[str, Measure]:
        """Return macro F1, and the macro area under the ROC curve if each label is there and is not."""
        from sklearn.metrics import f1_score, roc_auc_score

        labels, logits = (
            torch.stack([values[f"_{what} {name}"] for name in self.names], 1) for what in ("label", "logit")
        )
        known = ~(labels.isnan() | logits.isnan()).any(1)
        # The area under the curve takes finite numbers.
        y, scores = labels[known].numpy(), logits[known].nan_to_num().numpy()
        if not len(y):
            return {}
        found = {"F1": f1_score(y, scores > 0, average="macro", zero_division=0)}
        if all(0 < column.sum() < len(column) for column in y.T):
            found["AUROC"] = roc_auc_score(y, scores, average="macro")
        return {
            name: Measure(100 * float(value), math.nan, math.nan, len(y)) for name, value in found.items()
        }


def zeros_and_ones(y: Any, names: Sequence[str], split: str) -> Tensor:
    """Return labels as float32 (N, L).

    Raises:
        ValueError: they have another shape, or another value than 0 and 1.
    """
    tensor = torch.as_tensor(y).detach().cpu().float()
    if tensor.ndim != 2 or tensor.shape[1] != len(names):
        raise ValueError(
            f"the {split} labels have the shape {tuple(tensor.shape)}: give 0 or 1 for each of "
            f"{len(names)} labels, "
            f"(N, {len(names)})"
        )
    wrong = ~((tensor == 0) | (tensor == 1))
    if bool(wrong.any()):
        row, column = (int(at) for at in wrong.nonzero()[0])
        raise ValueError(
            f"the {split} labels: row {row} has {float(tensor[row, column]):g} for {names[column]!r}; "
            "labels are 0 or 1"
        )
    return tensor


def multi_label(options: MultiLabelOptions, sheet: Sheet | None = None) -> MultiLabelTask:
    """Build the task; see MultiLabelOptions.

    Args:
        options: the options.
        sheet: rows from Python in the place of `options.data`.

    Raises:
        DataMissing, BrokenData, ValueError: as `read_table`, or a label is neither 0 nor 1.
    """
    if options.data == "shapes" and sheet is None:
        from .shapes import KINDS, drawn, split_images

        x, _, present = drawn(options.samples, options.size, 0.05, options.split_seed)
        shares: dict[Split, Any] = {"validation": options.validation, "test": options.test}
        data = split_images(x, present, shares, options.split_seed)
        return MultiLabelTask(data, names=KINDS, success=options.success)
    found = read_table(options, options.targets, sheet)
    labels = {}
    for split in found.x:
        parts = [numbers_of(found, split, name) for name in found.names]
        for name, part in zip(found.names, parts, strict=True):
            wrong = ((part != 0) & (part != 1)).nonzero()[:, 0]
            if len(wrong):
                row = int(wrong[0])
                where = found.sheets[split].at(row)
                raise ValueError(
                    f"targets: {where}: the column {name!r} holds {float(part[row]):g}, not 0 or 1"
                )
        labels[split] = torch.stack(parts, 1)
    data = found.split(labels, options.split_seed, classes=False)
    info = partial(TableInfo, columns=found.columns, target=", ".join(found.names))
    return MultiLabelTask(data, names=found.names, success=options.success, bounds=found.bounds, info=info)
