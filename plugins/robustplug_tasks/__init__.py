"""Tasks beyond one class of an image: tables, numbers, several labels, ordered classes, pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from robustplug.api import Component, Traits, hookimpl

from .options import (
    FcnOptions,
    MultiLabelOptions,
    OrdinalOptions,
    OtherRowsOptions,
    RegressionOptions,
    RegressorOptions,
    SegmentationOptions,
    SegPgdOptions,
    ShapesOptions,
    SourceOptions,
    TorchvisionSegmentationOptions,
    WorstOptions,
)

if TYPE_CHECKING:
    from pathlib import Path

    from robustplug.api import OpenedRun

_HERE = "robustplug_tasks"
_GU = "Gu et al. 2022, SegPGD, arXiv:2207.12391"
# What an evaluation does by default, by the labels of the task.
_ERRORS: dict[str, Any] = {"loss": {"use": "absolute"}, "attack": [{"use": "apgd"}]}
_LABELS: dict[str, Any] = {"loss": {"use": "label-margin"}, "attack": [{"use": "apgd"}]}
_PIXELS: dict[str, Any] = {
    "loss": {"use": "pixel-ce"},
    "attack": [{"use": "worst", "attack": {"use": "seg-pgd"}}],
}


@hookimpl
def robustplug_tasks() -> Iterable[Component]:
    """Offer the tasks."""
    yield Component(
        "table",
        f"{_HERE}.classes:table",
        SourceOptions,
        "classes of the rows of a table: numbers, whole numbers and categories, in their own units",
    )
    yield Component(
        "ordinal",
        f"{_HERE}.classes:ordinal",
        OrdinalOptions,
        "ordered classes of the rows of a table; right is what is off by few enough steps",
        trial={"cuts": [100, 200]},
        evaluate={"loss": {"use": "ordinal-margin"}, "attack": [{"use": "apgd"}]},
    )
    yield Component(
        "regression",
        f"{_HERE}.regression:regression",
        RegressionOptions,
        "a number for each row of a table; right is what is off by at most a bound",
        trial={"bound": 50.0},
        labels="numbers",
        evaluate=_ERRORS,
    )
    yield Component(
        "multi-label",
        f"{_HERE}.labels:multi_label",
        MultiLabelOptions,
        "several labels of each row of a table, or of drawn images",
        trial={"samples": 60},
        labels="label-sets",
        evaluate=_LABELS,
    )
    yield Component(
        "shapes",
        f"{_HERE}.segmentation:shapes",
        ShapesOptions,
        "a class for each pixel of images with drawn circles, squares and crosses; nothing to download",
        trial={"samples": 60},
        labels="pixels",
        evaluate=_PIXELS,
    )
    yield Component(
        "segmentation",
        f"{_HERE}.segmentation:segmentation",
        SegmentationOptions,
        "a class for each pixel, from a .npz file of images and masks",
        trial={"data": "./masks.npz"},
        labels="pixels",
        evaluate=_PIXELS,
    )


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer models for them."""
    yield Component(
        "regressor",
        f"{_HERE}.regression:regressor",
        RegressorOptions,
        "multilayer perceptron for a number, with inputs and outputs standardised inside",
        trial={"hidden": [16]},
        for_labels=("numbers",),
    )
    yield Component(
        "small-fcn",
        f"{_HERE}.networks:small_fcn",
        FcnOptions,
        "small fully convolutional network for pixels, for images of at least 4x4",
        "after Long et al. 2015, Fully Convolutional Networks for Semantic Segmentation, arXiv:1411.4038",
        {"width": 4},
        for_labels=("pixels",),
    )
    yield Component(
        "torchvision-segmentation",
        f"{_HERE}.networks:torchvision_segmentation",
        TorchvisionSegmentationOptions,
        "a segmentation model of torchvision, untrained",
        trial={"name": "lraspp_mobilenet_v3_large"},
        for_labels=("pixels",),
    )


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer losses for them."""
    ignores = Traits(gives=frozenset({"ignores-target"}))
    numbers, sets, pixels = ("numbers",), ("label-sets",), ("pixels",)
    here = f"{_HERE}.losses"
    yield Component("absolute", f"{here}:Absolute", summary="absolute error, L1", for_labels=numbers)
    yield Component("squared", f"{here}:Squared", summary="squared error, L2", for_labels=numbers)
    yield Component(
        "bce",
        f"{here}:BinaryCrossEntropy",
        summary="binary cross entropy, averaged over labels",
        for_labels=sets,
    )
    yield Component(
        "label-margin",
        f"{here}:LabelMargin",
        summary="margin of the label that is nearest to being wrong",
        traits=ignores,
        for_labels=sets,
    )
    yield Component("steps", f"{here}:Steps", summary="expected number of steps between ordered classes")
    yield Component(
        "ordinal-margin",
        f"{here}:OrdinalMargin",
        summary="margin of the ordered classes that are off by too many steps",
        traits=ignores,
    )
    yield Component(
        "pixel-ce",
        f"{here}:PixelCrossEntropy",
        summary="cross entropy, averaged over pixels",
        for_labels=pixels,
    )


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer attacks for them."""
    yield Component(
        "worst",
        f"{_HERE}.attacks:Worst",
        WorstOptions,
        "another attack, run to its end on all samples, for the largest mean error",
        trial={"attack": {"use": "fgsm"}},
    )
    yield Component(
        "seg-pgd",
        f"{_HERE}.attacks:SegPgd",
        SegPgdOptions,
        "gradient ascent on pixels that turns from the right ones to all",
        _GU,
        {"steps": 3},
        for_labels=("pixels",),
    )
    yield Component(
        "other-rows",
        f"{_HERE}.attacks:OtherRows",
        OtherRowsOptions,
        "towards training samples with other labels, from decisions only, in any set",
        trial={"queries": 6},
    )


@hookimpl
def robustplug_figures(run: OpenedRun, folder: Path) -> Iterable[tuple[str, str]]:
    """Draw which columns of a table the attacks move, where that is cheap."""
    from .encoding import TableInfo

    if not isinstance(run.task.info, TableInfo) or any((run.folder / "figures").glob("moves-*.png")):
        return ()
    from robustplug.api import open_evaluation

    from .moves import cheap, draw, found_moves

    opened = open_evaluation(run.folder, device=run.device)
    if not cheap(opened):
        return [("which columns the attacks move", f"robustplug moves {run.folder}")]
    draw(found_moves(opened), folder, run.name)
    return ()
