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

from robustplug.api import Cost, Refused, attack_by_radius, check_arguments, did_you_mean, scaled_step

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity, View

    from . import ArtOptions

MISSING = 'ART is not installed: pip install "robustplug[art]"'
RESERVED = {
    "estimator": "is the model that is attacked",
    "classifier": "is the model that is attacked",
    "eps": "is the radius of the vicinity",
    "norm": "is that of the vicinity",
}
# What their signatures do not tell: they are for other data, or other frameworks.
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
# They take a single sample a call.
ONE_BY_ONE = {"ShadowAttack", "SimBA"}
# They want probabilities for outputs.
PROBABILITIES = {"SimBA", "VirtualAdversarialMethod"}


def attack_classes() -> dict[str, type[Any]]:
    """Return the evasion attacks of ART by name.

    Raises:
        ValueError: ART is not installed.
    """
    try:
        from art.attacks import EvasionAttack, evasion
    except ImportError as error:
        raise ValueError(f"{MISSING} ({error})") from error
    found = {name: value for name, value in vars(evasion).items() if inspect.isclass(value)}
    return {name: value for name, value in found.items() if issubclass(value, EvasionAttack)}


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


def constructor_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Check the arguments of an attack against its signature and return them converted.

    Raises:
        ValueError: no such attack, or it cannot be used here; or ART is not installed.
        ExceptionGroup: of ValueErrors, one for each wrong argument.
    """
    known = attack_classes()
    if name not in known:
        close = did_you_mean(name, known)
        hint = f'did you mean "{close}"?' if close else f"known: {', '.join(sorted(known))}"
        raise ValueError(f'name: ART has no evasion attack "{name}"; {hint}')
    why = unfit(name, known[name])
    if why is not None:
        raise ValueError(f"name: ART's {name} cannot be used here, since it {why}")
    return check_arguments(known[name].__init__, arguments, RESERVED, f"ART's {name}")


class Art:
    """Run an evasion attack of ART; its results are projected into the vicinity.

    Step sizes (`eps_step`) that are left out keep the library's ratio to eps; `batch_size` is that of the
    call. Rows of different radii are attacked apart.

    Args:
        options: see ArtOptions.
    """

    def __init__(self, options: ArtOptions) -> None:
        self.name = options.name
        self.arguments = constructor_arguments(options.name, options.arguments)
        self.attack = attack_classes()[options.name]

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the attacked point.

        Raises:
            Refused: the labels are no classes, the norm is not one of the attack, or the attack fails on
                this model and data.
        """
        if step.task.info.classes is None or view.y.dim() != 1:
            raise Refused("ART's attacks need a classification task with one label for each sample")

        def attack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
            return self._attacked(step, model, x, y, vicinity, eps)

        return attack_by_radius(step, view, vicinity, attack)

    def _attacked(
        self, step: Step, model: nn.Module, x: Tensor, y: Tensor, vicinity: Vicinity, eps: float
    ) -> Tensor:
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            nn.Sequential(model, nn.Softmax(1)) if self.name in PROBABILITIES else model,
            nn.CrossEntropyLoss(),
            tuple(x.shape[1:]),
            step.task.info.classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if x.device.type == "cuda" else "cpu",
        )
        inputs = x.detach().contiguous().cpu().numpy().astype(np.float32)
        try:
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                # Attacks inside of attacks show progress bars whatever `verbose` says.
                warnings.simplefilter("ignore")
                # Rows, since some attacks know no other labels.
                labels = np.eye(step.task.info.classes or 0, dtype=np.float32)[y.cpu().numpy()]
                found = self._generate(classifier, inputs, labels, vicinity, eps)
        except Refused:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise Refused(
                f"ART's {self.name} fails on this model and data ({type(error).__name__}: {said})"
            ) from error
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
            if vicinity.norm is None:
                raise Refused(f"ART's {self.name} needs an L∞ or L2 threat model")
            passed["norm"] = math.inf if vicinity.norm == math.inf else 2
        step_size = scaled_step(self.attack.__init__, "eps_step", "eps", eps)
        if step_size is not None:
            passed["eps_step"] = step_size
        passed = {name: value for name, value in passed.items() if name in known}
        return {**passed, **self.arguments}

    def cost(self, target: Cost) -> Cost:
        """Say that the cost is the library's affair."""
        return Cost.unknown()
