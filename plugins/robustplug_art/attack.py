"""An evasion attack of ART as a perturbation."""

from __future__ import annotations

import contextlib
import inspect
import io
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from robustplug.api import Library, LibraryAttack, Refused, classes_in, scaled_step

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity, View


MISSING = "ART cannot be imported: pip install adversarial-robustness-toolbox"
RESERVED = {
    "estimator": "is the model that is attacked",
    "classifier": "is the model that is attacked",
    "eps": "is the radius of the vicinity",
    "norm": "is that of the vicinity",
}
# For other data or other frameworks, which their signatures do not show.
UNFIT = {
    "AdversarialPatch": "gives a patch, not an example for each sample",
    "AdversarialPatchNumpy": "gives a patch, not an example for each sample",
    "AdversarialPatchPyTorch": "gives a patch, not an example for each sample",
    "LaserAttack": "needs a generator of laser beams as a Python object",
    "OverTheAirFlickeringPyTorch": "is for videos",
    "OverloadPyTorch": "is for object detectors",
    "SNAL": "is for object detectors",
    "FrameSaliencyAttack": "is for videos, and needs another attack as a Python object",
    "GRAPHITEBlackbox": "needs masks and a target image for each sample",
    "GRAPHITEWhiteboxPyTorch": "needs masks and a target image for each sample",
    "FeatureAdversariesNumpy": "needs a guide image for each sample",
    "FeatureAdversariesPyTorch": "needs a guide image for each sample",
    "MalwareGDTensorFlow": "is for TensorFlow and byte sequences",
    "LowProFool": "is for tables",
    "TargetedUniversalPerturbation": "needs a class to be reached for each sample",
}
# One sample a call.
ONE_BY_ONE = {"ShadowAttack", "SimBA"}
# They walk towards the label that they are given: here the most likely wrong one.
NEED_TARGETS = {"SaliencyMapMethod"}
NORMS = {math.inf: math.inf, 2.0: 2, 1.0: 1}
# They expect probabilities instead of logits.
PROBABILITIES = {"SimBA", "VirtualAdversarialMethod"}


# Repeated in robustplug_torchattacks on purpose: each of the two names its library and needs no other plugin.
def attack_classes() -> dict[str, type[Any]]:
    """Return the evasion attacks of ART by name.

    Raises:
        ValueError: ART is not installed.
    """
    try:
        from art.attacks import EvasionAttack, evasion
    except ImportError as error:
        raise ValueError(f"{MISSING} ({error})") from error
    return classes_in(evasion, EvasionAttack)


def unfit(name: str, attack: type[Any]) -> str | None:
    """Return why an attack cannot be run on a PyTorch image classifier, or None."""
    from art.estimators.classification import PyTorchClassifier

    if "TensorFlow" in name:
        return "is for TensorFlow"
    if name in UNFIT:
        return UNFIT[name]
    lacking = [
        getattr(each, "__name__", str(each))
        for each in attack._estimator_requirements
        if not (inspect.isclass(each) and issubclass(PyTorchClassifier, each))
    ]
    return f"needs a {' and a '.join(lacking)}, not an image classifier" if lacking else None


def refuse_targets(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse `targeted = true`, also for an attack inside another.

    Raises:
        ValueError: a targeted attack is asked for.
    """
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            refuse_targets(name, value)
        elif key == "targeted" and value:
            raise ValueError(
                f"targeted: ART's {name} would need a class to be reached for each sample, and would take "
                "the true one: a row counts any wrong class, so leave it out"
            )


LIBRARY = Library("ART", "evasion attack", attack_classes, RESERVED, unfit)


class Art(LibraryAttack):
    """Run an evasion attack of ART.

    A step size (`eps_step`) that is left out keeps the library's ratio to eps; `batch_size` is that of the
    call.
    """

    library = LIBRARY

    def refuse(self, step: Step, view: View) -> None:
        """Refuse tasks without one class for each sample."""
        if step.task.info.classes is None or view.y.dim() != 1:
            raise Refused("ART's attacks need a classification task with one label for each sample")

    def attacked(
        self, step: Step, model: nn.Module, x: Tensor, y: Tensor, vicinity: Vicinity, eps: float
    ) -> Tensor:
        """Return the examples that ART generates."""
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            nn.Sequential(model, nn.Softmax(1)) if self.name in PROBABILITIES else model,
            nn.CrossEntropyLoss(),
            tuple(x.shape[1:]),
            step.task.info.classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if x.device.type == "cuda" else "cpu",
        )
        if self.name in NEED_TARGETS:
            with torch.no_grad():
                y = model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
        inputs = x.detach().contiguous().cpu().numpy().astype(np.float32)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            # Attacks inside attacks show progress bars whatever `verbose` is.
            warnings.simplefilter("ignore")
            # One-hot rows: some attacks accept no other labels.
            labels = np.eye(step.task.info.classes or 0, dtype=np.float32)[y.cpu().numpy()]
            found = self._generate(classifier, inputs, labels, vicinity, eps)
        result = torch.from_numpy(np.asarray(found, dtype=np.float32))
        if result.shape != x.shape:
            raise Refused(f"ART's {self.name} gives no example for each sample, but {tuple(result.shape)}")
        return result

    def _generate(
        self, classifier: Any, x: np.ndarray, y: np.ndarray, vicinity: Vicinity, eps: float
    ) -> np.ndarray:
        size = 1 if self.name in ONE_BY_ONE else len(x)
        attack = self.attack(classifier, **self._passed(vicinity, eps, size))
        parts = [attack.generate(x=x[at : at + size], y=y[at : at + size]) for at in range(0, len(x), size)]
        return np.concatenate(parts)

    def _passed(self, vicinity: Vicinity, eps: float, rows: int) -> dict[str, Any]:
        known = inspect.signature(self.attack.__init__).parameters
        passed: dict[str, Any] = {"eps": eps, "batch_size": rows, "verbose": False, "targeted": False}
        if "norm" in known and isinstance(known["norm"].default, int | float):
            if vicinity.norm not in NORMS:
                raise Refused(f"ART's {self.name} needs an L∞, L2 or L1 threat model")
            passed["norm"] = NORMS[vicinity.norm]
        step_size = scaled_step(self.attack.__init__, "eps_step", "eps", eps)
        if step_size is not None:
            passed["eps_step"] = step_size
        passed = {name: value for name, value in passed.items() if name in known}
        return {**passed, **self.arguments}
