"""Boundary and HopSkipJump of the Adversarial Robustness Toolbox, run through our oracle."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import math
import warnings
from collections.abc import Callable

import numpy as np
import torch

from robustplug.api import Cost, Refused, Step, Vicinity, View, guarded

from . import PeerOptions
from .attack import nearest, norm_of
from .oracle import Wanted, make_oracle, make_samples
from .pool import Array, Oracle, Sample, failed

# Enough iterations that only the query budget ends an attack.
ENDLESS = 10**6


class Spent(BaseException):
    """Signal that a sample's budget is spent; as a BaseException, it passes ART's exception handlers."""


class Peer:
    """Run a decision-based attack of ART, one sample at a time, with a query budget.

    Args:
        name: name of the attack, for messages.
        attack: name of the class in art.attacks.evasion.
        norms: norms of the supported threat models.
        options: see PeerOptions.
    """

    # ART attacks each sample in NumPy.
    needs_sync = True

    def __init__(self, name: str, attack: str, norms: tuple[float, ...], options: PeerOptions) -> None:
        self.name, self.norms, self.queries, self.starts = name, norms, options.queries, options.starts
        try:
            self.attack = getattr(importlib.import_module("art.attacks.evasion"), attack)
        except ImportError as error:
            raise Refused(
                f"ART cannot be imported: pip install adversarial-robustness-toolbox ({error})"
            ) from error

    @classmethod
    def boundary(cls, options: PeerOptions) -> Peer:
        """Build the Boundary attack."""
        return cls("boundary", "BoundaryAttack", (2.0,), options)

    @classmethod
    def hop_skip_jump(cls, options: PeerOptions) -> Peer:
        """Build HopSkipJump."""
        return cls("hop-skip-jump", "HopSkipJump", (2.0, math.inf), options)

    def samples(self, step: Step, view: View, vicinity: Vicinity, keep: bool = False) -> list[Sample]:
        """Run the search of each sample of a view, and return the samples; see HardLabel.samples."""
        norm = norm_of(self.name, vicinity, self.norms)
        found = make_samples(step, view, vicinity, norm, Wanted(self.queries, scores=True, keep=keep))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number, sample in enumerate(found):
                # ART draws from NumPy's global generator, which is seeded for each sample here.
                rng = torch.Generator().manual_seed(int(sample.rng.integers(2**62)))
                own = dataclasses.replace(step, rng=rng)
                oracle = make_oracle(own, view, found, scores=False)
                # Attacks nested in others show progress bars whatever `verbose` is.
                with guarded(own), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
                    try:
                        self._search(own, view, oracle, number, sample)
                    except Spent:
                        continue
                    except Exception as error:
                        raise failed(error, found) from error
        return found

    def _search(self, step: Step, view: View, oracle: Oracle, number: int, sample: Sample) -> None:
        from art.estimators.classification import BlackBoxClassifier

        shape, classes = tuple(view.origin.shape[1:]), step.task.info.classes or 0
        other = (sample.label + 1) % classes

        def predict(x: Array) -> Array:
            points = np.ascontiguousarray(x, dtype=np.float32).reshape(len(x), -1).clip(0, 1)
            if len(points) > sample.left:
                raise Spent
            flags, _ = oracle(points, np.full(len(points), number, dtype=np.int64))
            sample.note(points, flags)
            if step.evaluating and sample.distance <= sample.radius:
                raise Spent
            # Any other class serves: the attack is untargeted.
            scores: Array = np.eye(classes, dtype=np.float32)[np.where(flags, other, sample.label)]
            return scores

        first = self._first_point(sample, predict)
        if first is None:
            return
        classifier = BlackBoxClassifier(predict, shape, classes, clip_values=(0.0, 1.0))
        norms = {"norm": 2 if sample.norm == 2 else math.inf} if self.name == "hop-skip-jump" else {}
        attack = self.attack(classifier, targeted=False, max_iter=ENDLESS, verbose=False, **norms)
        # ART expects one-hot labels.
        attack.generate(
            sample.x.reshape(1, *shape),
            np.eye(classes, dtype=np.float32)[[sample.label]],
            x_adv_init=first.reshape(1, *shape),
        )

    def _first_point(self, sample: Sample, predict: Callable[[Array], Array]) -> Array | None:
        """Return the first random image that is adversarial, as in ART, but from a seed.

        Return None if there is none, or if the sample itself is adversarial; ART would then search unseeded.
        """
        if sample.left and predict(sample.x[None])[0, sample.label] == 0:
            return None
        for _ in range(self.starts):
            if not sample.left:
                break
            image = sample.rng.random(len(sample.x), dtype=np.float32)
            if predict(image[None])[0, sample.label] == 0:
                return image
        return None

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the nearest adversarial points, projected into the vicinity."""
        return nearest(step, view, vicinity, self.samples(step, view, vicinity))

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on the data."""
        return Cost.unknown()
