"""Regression: numbers to predict, and predictions that may be off by so much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustplug.api import InMemory, Measure, Quantity, Refused, Split, TaskInfo, View, mlp, normalized

from .classes import numbers_of
from .encoding import TableInfo, read_table
from .options import RegressionOptions, RegressorOptions
from .sheets import Sheet


def predictions(output: Tensor) -> Tensor:
    """Return the outputs of a regression as (N,), from (N,) or (N, 1).

    Raises:
        Refused: they have another shape.
    """
    if output.ndim != 1 and tuple(output.shape[1:]) != (1,):
        raise Refused(
            f"a regression needs one number for each input, and the model returns {tuple(output.shape)}"
        )
    return output[:, 0] if output.ndim == 2 else output


class RegressionTask(InMemory):
    """Predict a number for each input; a prediction is right if it is off by at most a bound.

    Args:
        data: inputs of some splits, and their numbers (N,).
        bound: largest absolute error that counts as right, above 0, in the units of the numbers.
        default_model: name of a model component.
        more: as for `InMemory`.

    Raises:
        ValueError: as `InMemory`, or the bound is not above 0, or the labels are no finite numbers (N,).
    """

    like = "regression"
    score_name = "within-bound"

    def __init__(
        self, data: Mapping[Split, Any], *, bound: float, default_model: str = "regressor", **more: Any
    ) -> None:
        if not bound > 0 or not math.isfinite(bound):
            raise ValueError(f"bound: the largest error that counts as right must be above 0, not {bound:g}")
        self.bound, self.default_model = bound, default_model
        labels = {split: numbers(y, f"the {split} labels") for split, (_, y) in data.items()}
        known = labels.get("train", next(iter(labels.values()), torch.zeros(1)))
        std = float(known.double().std()) if len(known) > 1 else 0.0
        made = more.pop("info", TableInfo)
        described = partial(
            made, output_size=1, target_mean=float(known.double().mean()), target_std=std or 1.0
        )
        pairs = {split: (x, labels[split]) for split, (x, _) in data.items()}
        super().__init__(pairs, info=described, **more)

    @property
    def within(self) -> str:
        """Return the name of the share of predictions that are right."""
        return f"% within {self.bound:g}"

    @property
    def quantities(self) -> Sequence[Quantity]:
        """Describe the measures."""
        return (
            Quantity(self.within, "higher", share=True, headline=True),
            Quantity("MAE", "lower", headline=True),
            Quantity("RMSE", "lower", headline=True),
            Quantity("R²", "higher", headline=True),
        )

    def score(self, view: View, output: Tensor) -> Tensor:
        """Return for each sample whether its prediction is off by at most the bound: bool (N,)."""
        error: Tensor = predictions(output) - view.y
        return error.abs() <= self.bound

    def measure(self, view: View, output: Tensor) -> Mapping[str, Tensor]:
        """Return whether each prediction is within the bound (0 or 100), and its absolute error.

        A prediction that is no number is infinitely far off.
        """
        found = predictions(output).float().nan_to_num(torch.inf, torch.inf, -torch.inf)
        error = (found - view.y).abs()
        right = 100.0 * self.score(view, output)
        return {self.within: right, "MAE": error, "_number": view.y, "_prediction": found}

    def pool(self, values: Mapping[str, Tensor]) -> Mapping[str, Measure]:
        """Return RMSE and R² of all samples."""
        from sklearn.metrics import r2_score, root_mean_squared_error

        numbers, found = values["_number"], values["_prediction"]
        known = ~(numbers.isnan() | found.isnan())
        pair = numbers[known].double().numpy(), found[known].double().numpy()
        count = len(pair[0])
        if count < 2:
            return {}
        made = {"RMSE": math.inf, "R²": -math.inf}
        if bool(found[known].isfinite().all()):
            made = {"RMSE": root_mean_squared_error(*pair), "R²": r2_score(*pair)}
        return {name: Measure(float(value), math.nan, math.nan, count) for name, value in made.items()}

    def tell(self, view: View, output: Tensor) -> Sequence[str]:
        """Return number and prediction of each sample."""
        pairs = zip(view.y.tolist(), predictions(output).tolist(), strict=True)
        return [f"{number:.4g} predicted as {found:.4g}" for number, found in pairs]


def numbers(y: Any, name: str) -> Tensor:
    """Return labels as float32 (N,).

    Raises:
        ValueError: they have another shape, or some are not finite.
    """
    tensor = torch.as_tensor(y).detach().cpu().float()
    tensor = tensor[:, 0] if tensor.ndim == 2 and tensor.shape[1] == 1 else tensor
    if tensor.ndim != 1:
        raise ValueError(f"{name} have the shape {tuple(tensor.shape)}: give a number for each input, (N,)")
    if not bool(tensor.isfinite().all()):
        raise ValueError(
            f"{name} contain NaN or infinite values, the first at {int((~tensor.isfinite()).nonzero()[0])}"
        )
    return tensor


def regression(options: RegressionOptions, sheet: Sheet | None = None) -> RegressionTask:
    """Build the regression of a column of a table; see RegressionOptions.

    Args:
        options: the options.
        sheet: rows from Python in the place of `options.data`.

    Raises:
        DataMissing, BrokenData, ValueError: as `read_table`, or a value of the target is no number.
    """
    found = read_table(options, sheet=sheet)
    labels = {split: numbers_of(found, split) for split in found.x}
    data = found.split(labels, options.split_seed, classes=False)
    info = partial(TableInfo, columns=found.columns, target=found.names[0])
    return RegressionTask(data, bound=options.bound, bounds=found.bounds, info=info)


class Rescaled(nn.Module):
    """Return mean + std · f(x), so that the network itself works with numbers of usual size.

    Args:
        network: f, from inputs to (N, 1).
        mean, std: of the numbers to predict.
    """

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("target_mean", torch.tensor(mean))
        self.register_buffer("target_std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (N, 1), in the units of the target."""
        found: Tensor = self.target_mean + self.target_std * self.network(x)
        return found


def regressor(options: RegressorOptions, *, info: TaskInfo) -> nn.Module:
    """Build a multilayer perceptron whose inputs and outputs are standardised inside.

    Raises:
        ValueError: the inputs have no fixed shape, or the task has no single output.
    """
    if info.shape is None or info.outputs != 1:
        raise ValueError(
            f"regressor predicts one number, and the task has {info.outputs} outputs for {info.shape}"
        )
    network = mlp(math.prod(info.shape), 1, options.hidden, options.activation, options.dropout)
    scaled = normalized(network, info, True)
    if not isinstance(info, TableInfo):
        return scaled
    return Rescaled(scaled, info.target_mean, info.target_std)
