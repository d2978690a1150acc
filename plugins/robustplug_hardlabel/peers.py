"""Boundary and HopSkipJump of the Adversarial Robustness Toolbox, asked through our oracle."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import warnings
from typing import Any

import numpy as np
import torch

from robustplug.api import Cost, Refused, Step, Vicinity, View, guarded

from . import PeerOptions
from .attack import nearest, norm_of
from .oracle import Wanted, make_oracle, make_samples
from .pool import Array, Oracle, Sample, failed

# So many rounds that only the budget ends an attack.
ENDLESS = 10**6


class Spent(BaseException):
    """Say that a sample's budget is spent, past ART's handlers of exceptions."""


class Peer:
    """Run a decision-based attack of ART, one sample at a time, with a budget of queries.

    Args:
        name: for messages.
        attack: name of the class in art.attacks.evasion.
        norms: of the threat models that it is for.
        arguments: of its constructor; the classifier and the norm are passed here.
        queries: for each sample.
    """

    def __init__(
        self, name: str, attack: str, norms: tuple[float, ...], arguments: dict[str, Any], queries: int
    ) -> None:
        self.name, self.norms, self.arguments, self.queries = name, norms, arguments, queries
        try:
            self.attack = getattr(importlib.import_module("art.attacks.evasion"), attack)
        except ImportError as error:
            raise Refused(f'ART is not installed: pip install "robustplug[art]" ({error})') from error

    @classmethod
    def boundary(cls, options: PeerOptions) -> Peer:
        """Build the Boundary attack."""
        arguments = {"targeted": False, "max_iter": ENDLESS, "init_size": options.starts}
        return cls("boundary", "BoundaryAttack", (2.0,), arguments, options.queries)

    @classmethod
    def hop_skip_jump(cls, options: PeerOptions) -> Peer:
        """Build HopSkipJump."""
        arguments = {"targeted": False, "max_iter": ENDLESS, "init_size": options.starts}
        return cls("hop-skip-jump", "HopSkipJump", (2.0, math.inf), arguments, options.queries)

    def samples(self, step: Step, view: View, vicinity: Vicinity, keep: bool = False) -> list[Sample]:
        """Search for each sample of a view, and return what was found; see HardLabel.samples."""
        norm = norm_of(self.name, vicinity, self.norms)
        found = make_samples(step, view, vicinity, norm, Wanted(self.queries, scores=True, keep=keep))
        oracle = make_oracle(step, view, found, scores=False)
        with guarded(step), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Attacks inside of attacks show progress bars whatever `verbose` says.
            with contextlib.redirect_stderr(io.StringIO()):
                for number, sample in enumerate(found):
                    try:
                        self._search(step, view, oracle, number, sample)
                    except Spent:
                        continue
                    except Exception as error:
                        raise failed(error, found, sample.asked + 1) from error
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
            # Which other class it is, an untargeted attack does not ask.
            scores: Array = np.eye(classes, dtype=np.float32)[np.where(flags, other, sample.label)]
            return scores

        if not sample.left:
            return
        classifier = BlackBoxClassifier(predict, shape, classes, clip_values=(0.0, 1.0))
        norms = {"norm": 2 if sample.norm == 2 else math.inf} if self.name == "hop-skip-jump" else {}
        attack = self.attack(classifier, verbose=False, **norms, **self.arguments)
        # ART's labels are rows; its attacks draw from NumPy's global generator, which is ours here.
        np.random.seed(int(sample.rng.integers(2**31)))
        attack.generate(sample.x.reshape(1, *shape), np.eye(classes, dtype=np.float32)[[sample.label]])

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the nearest adversarial points, or what of them is legal."""
        return nearest(step, view, vicinity, self.samples(step, view, vicinity))

    def cost(self, target: Cost) -> Cost:
        """Say that it depends on the data."""
        return Cost.unknown()
