"""What components declare about themselves, so that a mix that makes no sense is refused when it is read.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TRAITS: Mapping[str, str] = {
    "radii": "the method's views have a separate radius for each sample",
    "memory": "the method stores something about each training sample",
    "clean-view": "the method trains a view at the origin, with the true labels, in addition to the others",
    "mixtures": "the vicinity mixes each sample from several, and its label is a row of shares",
    "mixed-views": "the method mixes each sample of its views from several",
    "stays": "the perturbation leaves the samples unchanged",
    "plain": "the vicinity draws no samples other than those of the task",
    "draws-around": "the vicinity draws samples around another one's, and what is legal there stays legal",
    "restricts": "the vicinity allows only some of the perturbations of the one inside it",
    "norm-ball": "legal is a whole ball of the norm that the vicinity states, within the valid range",
    "l1-ball": "that norm is L1",
    "coordinates": "a legal perturbation stays legal where some of its values are set back to the sample's",
    "discrete": "a point on the way to a legal one need not be legal: whole numbers, numbers of pixels",
    "few-pixels": "legal are any values of some pixels, or of a square of them",
    "parameters": "legal are images of parameters, such as angles; gradients of the inputs lead to none",
    "whole-parameters": "those parameters are whole numbers, without gradients",
    "over-parameters": "the perturbation runs the attacks inside it on the parameters, which form a box",
    "moves": "samples are moved or drawn; given by every perturbation and vicinity that declares no other",
    "draws-labels": "the label map draws a label at random",
    "ignores-target": "the loss uses the true label, whatever the label map returns",
    "starts-at-origin": "the perturbation takes the gradient of the method's own objective at the origin",
    "predictions": "the label map returns the model's own predictions for views that are not clean",
    "rows": "the label map returns rows of shares, not class numbers, at least for some views",
    "class-numbers": "the label map returns the labels themselves, which the vicinity may have mixed",
    "withstood": "the perturbation says how many of its steps each sample withstands",
    "teacher": "the method asks a network of its own for predictions",
    "clean-outputs": "the label map returns the outputs at the clean sample for views that are not clean",
    "masks": "the method puts masks into the model, which an output map switches",
    "switches-masks": "the output map switches the masks in the model",
    "log-g": "the output map returns log g itself, not logits",
    "single-view": "the method makes one update from one view of each sample, and stores nothing",
    "from-labels": "the label map uses the labels alone",
    "cross-entropy": "the loss is the cross entropy",
    "own-outputs": "the output map returns the model's own outputs",
    "trained": "the model starts from trained weights",
}
"""The traits that the components of robustplug use; a plugin may add its own."""

TRAINED = "trained"
SETS = frozenset(
    {"norm-ball", "l1-ball", "coordinates", "discrete", "few-pixels", "parameters", "whole-parameters"}
)
"""Traits of a set of legal perturbations. Attacks, and vicinities around another, need or exclude them of the
vicinity that they are used with, in training and in every evaluation, and of nothing else."""


@dataclass(frozen=True)
class Traits:
    """Declare what a component brings to a method, and what it requires or excludes.

    Attributes:
        gives: traits that the component brings.
        needs: traits that another component of the method must bring, each with the reason.
        excludes: traits that no other component of the method may bring, each with the reason.
    """

    gives: frozenset[str] = frozenset()
    needs: Mapping[str, str] = field(default_factory=dict)
    excludes: Mapping[str, str] = field(default_factory=dict)


NO_TRAITS = Traits()


def self_trained() -> Traits:
    """Return the traits of a model that learns by itself; see `robustplug.api.SelfTrained`."""
    return Traits(
        needs={
            "single-view": "it learns by itself, from one view of each sample: use method erm",
            "stays": "it learns by itself, and cannot be attacked before it has: leave out perturbation",
            "from-labels": "it learns by itself, from labels that need no model: leave out label_map",
            "cross-entropy": "it learns by itself, and it lowers the cross entropy: leave out loss",
            "own-outputs": "it learns by itself, with its own outputs: leave out output_map",
        }
    )
