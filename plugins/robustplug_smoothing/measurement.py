"""The certificate of randomised smoothing, Cohen et al. 2019 (arXiv:1902.02918)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustplug.api import CERTIFIED_RADIUS, Measure, Quantity, Refused, View

from . import SmoothingOptions
from .draws import rows_of_a_call, votes
from .radii import draws_for, largest_radius, lower_bound, radius_of
from .wrapper import Smoothed

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity

_NORMS = {"l2": 2.0, "linf": math.inf, "l1": 1.0}
ACCURACY, ABSTAINED = "smoothed accuracy", "abstained"


class Smoothing:
    """Certify g(x), the class that f(x + noise) takes most often: CERTIFY of Cohen et al. 2019.

    n0 draws choose a class, and n others bound its probability from below by Clopper and Pearson. If the
    bound is at most 1/2, the certificate abstains. It fails with a probability of at most α, for each sample
    on its own. The noise of a sample depends on the seed and the sample alone.

    Args:
        options: the noise, the draws and the norm.
    """

    about: str
    # A sample takes 100,000 passes by default: the progress is recorded after each few.
    portion = 4

    def __init__(self, options: SmoothingOptions) -> None:
        self.options = options
        self.norm = _NORMS[options.norm]
        self.radii: Sequence[float] = options.radii
        self.confidence = 1 - options.alpha
        self.about = f"the model smoothed with {options.noise} noise (sigma = {options.sigma:g})"
        if options.noise == "gaussian" and options.norm != "l2":
            # Said, so that nobody takes the radius for one of a noise that is made for this norm.
            self.about += f", and the {options.norm} ball within its certified L2 ball"

    @property
    def quantities(self) -> Sequence[Quantity]:
        """Describe the accuracy of the smoothed model, and how often it abstains."""
        return Quantity(ACCURACY, "higher", share=True), Quantity(ABSTAINED, "lower", share=True)

    def doubts(self, trained: Mapping[str, Any] | None, measures: Mapping[str, Measure]) -> Sequence[str]:
        """Return a sentence about a model that was not trained with the noise that it votes under."""
        known = None if trained is None else set(noise_of(trained))
        own = self.options.noise, self.options.sigma
        if known is None or any(noise == own[0] and math.isclose(s, own[1]) for noise, s in known):
            return ()
        said = ", ".join(f"{noise} noise of sigma = {sigma:g}" for noise, sigma in sorted(known))
        return (
            f"the model was trained {f'with {said}' if said else 'without noise'}, and votes under {own[0]} "
            f"noise of sigma = {own[1]:g}: the smoothed model is right on {measures[ACCURACY].mean:.1f} % of "
            "the samples; train one with this noise, for example by the method consistency",
        )

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> Mapping[str, Tensor]:
        """Return the certified radii, and for each sample whether g is right, and whether it abstains.

        Raises:
            Refused: the model is random, in training mode, smoothed already, or no classifier of numbers; or
                n is too small for a radius.
        """
        options, x = self.options, view.x
        classes = step.task.info.classes
        if classes is None or not isinstance(x, Tensor) or not x.is_floating_point():
            raise Refused("it certifies classifiers of inputs that are numbers, such as images")
        size = x[0].numel() if len(x) else 1
        refuse_large(max((float(vicinity.eps), *options.radii)), options, size)
        refuse_unfit(step, x)
        index, rows = view.index.tolist(), rows_of_a_call(x[0], options.batch)

        def predict(inputs: Tensor) -> Tensor:
            largest, places = step.forward(inputs).max(1)
            # An output that is not finite votes for no class.
            return torch.where(largest.isfinite(), places, classes)

        def counted(phase: str, n: int) -> Tensor:
            noise = (options.sigma, options.noise)
            return votes(predict, x, index, step.seed, phase, n, classes, *noise, rows)

        with torch.no_grad():
            chosen = counted("choice", options.n0).argmax(1)
            agreeing = counted("bound", options.n).gather(1, chosen[:, None])[:, 0]
        bound = lower_bound(agreeing.cpu().numpy(), options.n, options.alpha)
        radius = radius_of(bound, options.sigma, options.noise, options.norm, size)
        found = torch.from_numpy(radius).to(x.device)
        abstained = found < 0
        right = step.score(view, torch.nn.functional.one_hot(chosen, classes).to(x)) & ~abstained
        return {
            CERTIFIED_RADIUS: torch.where(right, found, -1.0),
            ACCURACY: 100.0 * right,
            ABSTAINED: 100.0 * abstained,
        }


def noise_of(table: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the kind and the sigma of every noise in the table of a method, such as that of its vicinity."""
    sigma = table.get("sigma")
    if isinstance(sigma, int | float) and sigma > 0:
        yield str(table.get("noise", "gaussian")), float(sigma)
    for value in table.values():
        for inner in value if isinstance(value, list) else (value,):
            if isinstance(inner, Mapping):
                yield from noise_of(inner)


def refuse_large(radius: float, options: SmoothingOptions, size: int) -> None:
    """Refuse a radius that no outcome of the draws could certify.

    Raises:
        Refused: it is too large; the message says how many draws could do.
    """
    given = (options.alpha, options.sigma, options.noise, options.norm, size)
    if radius <= largest_radius(options.n, *given):
        return
    needed = draws_for(radius, *given)
    mend = (
        f"it takes n = {needed:,.0f} at least" if needed <= 1e9 else "no useful n could: take a larger sigma"
    )
    raise Refused(
        f"n = {options.n:,} draws with sigma = {options.sigma:g} and alpha = {options.alpha:g} certify at "
        f"most a radius of {max(0.0, largest_radius(options.n, *given)):.4g}, and {radius:g} is asked for: "
        f"{mend}"
    )


def refuse_unfit(step: Step, x: Tensor) -> None:
    """Refuse a model whose votes would not be those of one function.

    Raises:
        Refused: it is in training mode, answers at random, or is smoothed already.
    """
    if any(isinstance(module, Smoothed) for module in step.model.modules()):
        raise Refused(
            "the model under test is smoothed already: leave out the wrapper, and certify the model"
        )
    if step.model.training:
        raise Refused("the model is in training mode, so that its outputs depend on the batch: call eval()")
    with torch.no_grad():
        first, second = step.forward(x.clone()), step.forward(x.clone())
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise Refused(
            "the model answers at random: two calls on the same inputs differ, and the certificate is about "
            "one function; switch off dropout and the like in eval mode"
        )
