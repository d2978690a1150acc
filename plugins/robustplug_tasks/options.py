"""Options of the tasks, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from robustplug.api import (
    Bounds,
    Count,
    Decay,
    Finite,
    FractionText,
    Natural,
    Positive,
    Real,
    Size,
    Use,
    use,
)

Share = Annotated[float, Bounds(gt=0, lt=1), Finite(), FractionText()]
"""A fraction above 0 and below 1."""

BUNDLED = ("breast-cancer", "wine", "diabetes")
"""The sets that come with scikit-learn; their files are read where no file has such a name."""


@dataclass(frozen=True)
class SourceOptions:
    """Options of all tasks on tables.

    Attributes:
        data: "breast-cancer", "wine" or "diabetes" of scikit-learn, or a file: .csv, .tsv or .parquet.
        target: name of the column to predict; None for that of a bundled set.
        features: names of the columns that are inputs; by default all but the target.
        categorical: columns of numbers that stand for categories; columns of texts always do. Each becomes
            columns of 0 and 1, one for each category of the training rows.
        integers: columns whose values are whole numbers.
        units: unit of a column, for reports.
        bounds: lowest and highest valid value of a column; those of the others are measured.
        validation: file with validation rows, or the fraction of the rows held out.
        test: file with test rows, or the fraction held out.
        split_seed: seed of the split.
    """

    data: str = "breast-cancer"
    target: str | None = None
    features: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, tuple[Real, Real]] = field(default_factory=dict)
    validation: Share | str = 0.15
    test: Share | str = 0.25
    split_seed: int = 0

    def __post_init__(self) -> None:
        both = set(self.categorical) & (set(self.integers) | set(self.bounds))
        if both:
            raise ValueError(
                f"categorical: {min(both)!r} has categories, so it has no bounds and no integers"
            )
        for name, (low, high) in self.bounds.items():
            if not low < high:
                raise ValueError(f"bounds: {name!r} has [{low:g}, {high:g}]: the first must be the lower one")
        asked = [*self.features, self.target]
        if self.target is not None and self.target in self.features:
            raise ValueError(f"features: {self.target!r} is the target")
        twice = next((name for name in asked if asked.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"features: {twice!r} is named twice")


@dataclass(frozen=True)
class RegressionOptions(SourceOptions):
    """Options of `regression`.

    Attributes:
        data, target, features, categorical, integers, units, bounds, validation, test, split_seed: as in
            `table`.
        bound: largest absolute error of a prediction that counts as right, in the units of the target.
    """

    data: str = "diabetes"
    bound: Positive = field(kw_only=True)


@dataclass(frozen=True)
class OrdinalOptions(SourceOptions):
    """Options of `ordinal`: at most one of `order` and `cuts`.

    Attributes:
        data, target, features, categorical, integers, units, bounds, validation, test, split_seed: as in
            `table`.
        order: the classes, from the lowest to the highest; by default whole numbers in ascending order.
        cuts: values of a numeric target at which the next class begins, in ascending order.
        within: number of steps by which a prediction may be off and still count as right.
    """

    data: str = "diabetes"
    order: tuple[str, ...] = ()
    cuts: tuple[Real, ...] = ()
    within: Natural = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order and self.cuts:
            raise ValueError("order: cuts make classes of numbers, which have an order: give one of them")
        if list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError("cuts: they must be in ascending order")
        if len(set(self.order)) != len(self.order) or len(self.order) == 1:
            raise ValueError("order: name at least two classes, each once")


@dataclass(frozen=True)
class MultiLabelOptions(SourceOptions):
    """Options of `multi-label`.

    Attributes:
        data: a file, as in `table`; or "shapes": grey images with circles, squares and crosses, several or
            none, whose labels say which there are.
        targets: names of the columns of labels, each 0 or 1; of "shapes" they are known.
        success: "any" to count a sample as right if all its labels are; or the name of the one label that
            counts.
        target, features, categorical, integers, units, bounds, validation, test, split_seed: as in `table`.
        samples: number of drawn images.
        size: height and width of drawn images.
    """

    data: str = "shapes"
    targets: tuple[str, ...] = ()
    success: str = "any"
    samples: Count = 600
    size: Annotated[int, Bounds(ge=8, le=512)] = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            raise ValueError('target: this task has several labels: targets = ["NAME", …]')
        if self.data != "shapes" and len(self.targets) < 2:
            raise ValueError("targets: name at least two columns of labels")
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("targets: name each column of labels once")
        both = set(self.targets) & set(self.features)
        if both:
            raise ValueError(f"features: {min(both)!r} is a label")


@dataclass(frozen=True)
class SegmentationOptions:
    """Options of `segmentation`.

    Attributes:
        data: .npz file with images x (N, C, H, W) or (N, H, W) and pixel classes y (N, H, W), whole numbers
            from 0; 255 for pixels that do not count. uint8 images are divided by 255.
        classes: number of classes; None for one more than the largest label.
        class_names: names of the classes.
        bound: share of its pixels that must be right for an image to count as right.
        validation, test: fractions of the images held out.
        split_seed: seed of the split.
    """

    data: str = field(kw_only=True)
    classes: Annotated[int, Bounds(ge=2, le=254)] | None = None
    class_names: tuple[str, ...] = ()
    bound: Share = 0.8
    validation: Share = 0.1
    test: Share = 0.2
    split_seed: int = 0


@dataclass(frozen=True)
class ShapesOptions:
    """Options of `shapes`.

    Attributes:
        samples: number of images.
        size: their height and width.
        noise: standard deviation of the grey values.
        bound: share of its pixels that must be right for an image to count as right.
        validation, test: fractions of the images held out.
        split_seed: seed of the images and the split.
    """

    samples: Count = 600
    size: Annotated[int, Bounds(ge=8, le=512)] = 16
    noise: Annotated[float, Bounds(ge=0, le=1), Finite(), FractionText()] = 0.05
    bound: Share = 0.8
    validation: Share = 0.1
    test: Share = 0.2
    split_seed: int = 0


@dataclass(frozen=True)
class RegressorOptions:
    """Options of `regressor`.

    Attributes:
        hidden: number of units of each hidden layer; empty for a linear model.
        activation: function after each hidden layer.
        dropout: probability of dropping a unit after each hidden layer during training.
    """

    hidden: tuple[Size, ...] = (64, 64)
    activation: Literal["relu", "gelu", "tanh", "silu"] = "relu"
    dropout: Decay = 0.0


@dataclass(frozen=True)
class FcnOptions:
    """Options of `small-fcn`.

    Attributes:
        width: number of channels of the first convolution; the ones at half the size have twice as many.
    """

    width: Size = 16


@dataclass(frozen=True)
class TorchvisionSegmentationOptions:
    """Options of `torchvision-segmentation`.

    Attributes:
        name: name of one of torchvision's segmentation models, which starts untrained.
    """

    name: Literal[
        "fcn_resnet50",
        "fcn_resnet101",
        "deeplabv3_resnet50",
        "deeplabv3_resnet101",
        "deeplabv3_mobilenet_v3_large",
        "lraspp_mobilenet_v3_large",
    ] = "deeplabv3_mobilenet_v3_large"


@dataclass(frozen=True)
class WorstOptions:
    """Options of `worst`.

    Attributes:
        attack: the attack that is run to its end.
    """

    attack: Annotated[Use, "perturbation"] = use("apgd", steps=40)


@dataclass(frozen=True)
class SegPgdOptions:
    """Options of `seg-pgd`.

    Attributes:
        steps: number of gradient steps, each of 2.5 · radius / steps.
        restarts: number of random starts.
        batchnorm: mode of the model during the attack.
    """

    steps: Count = 20
    restarts: Count = 1
    batchnorm: Literal["eval", "train"] = "eval"


@dataclass(frozen=True)
class OtherRowsOptions:
    """Options of `other-rows`.

    Attributes:
        queries: largest number of forwards for each sample.
        pool: number of training samples to choose from, from the start of the split.
    """

    queries: Count = 200
    pool: Count = 2000
