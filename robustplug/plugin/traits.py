"""What components say of themselves, so that a mix that makes no sense is refused when it is read.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TRAITS: Mapping[str, str] = {
    "radii": "the method's views carry a radius of their own for each sample",
    "memory": "the method remembers something about each training sample",
    "clean-view": "the method trains a view at the origin, with the true labels, beside the others",
    "mixtures": "the vicinity makes each sample of several, and its label is a row of shares",
    "mixed-views": "the method makes each sample of its views of several",
    "stays": "the perturbation leaves the samples where they are",
    "plain": "the vicinity draws no other samples than the task gave",
    "moves": "samples are moved or drawn; of every perturbation and vicinity that does not say otherwise",
    "draws-labels": "the label map draws a label at random",
    "ignores-target": "the loss looks at the true label, whatever the label map answers",
    "starts-at-origin": "the perturbation takes the gradient of the method's own objective at the origin",
    "predictions": "the label map answers with the model's own predictions for views that are not clean",
    "masks": "the method puts masks into the model, which an output map switches",
    "switches-masks": "the output map switches the masks in the model",
    "log-g": "the output map gives log g as it stands, not logits",
    "single-view": "the method makes one update from one view of each sample, and remembers nothing",
    "from-labels": "the label map answers from the labels alone",
    "cross-entropy": "the loss is the cross entropy",
    "own-outputs": "the output map answers with the model's own outputs",
}
"""The traits that the components of robustplug use; a plugin may add its own."""


@dataclass(frozen=True)
class Traits:
    """Say what a component brings to a method, and what it cannot do with or without.

    Attributes:
        gives: traits that it brings.
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
            "stays": "it learns by itself, and nothing can be attacked before it has: leave out perturbation",
            "from-labels": "it learns by itself, from labels that need no model: leave out label_map",
            "cross-entropy": "it learns by itself, and what it lowers is the cross entropy: leave out loss",
            "own-outputs": "it learns by itself, with its own outputs: leave out output_map",
        }
    )
