"""FreeLB, Zhu et al. 2020 (arXiv:1909.11764): adversarial training in the space of embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustplug.api import (
    Batch,
    Cost,
    Method,
    ParamGroup,
    Refused,
    Step,
    Task,
    View,
    derive,
    evaluating,
    isolated,
    uniform_like,
)

from .options import FreeLbOptions
from .words import Shifted

SHIFT = "shift"
"""Key of a view's info: what is added to its embeddings, (N, S, d)."""


def start(there: Tensor, width: int, scale: float, rng: torch.Generator) -> Tensor:
    """Return δ₀: scale/√(size of the text) · U(−1, 1) at each token, (N, S, d).

    Args:
        there: which places hold a token, bool (N, S).
        width: size of an embedding.
        scale: length scale of the start.
        rng: a generator on the same device.
    """
    noise = uniform_like(torch.zeros(*there.shape, width, device=there.device), rng)
    sizes = (there.sum(1).clamp_min(1) * width).sqrt()
    return noise * there[..., None] * (scale / sizes)[:, None, None]


def ascended(shift: Tensor, gradient: Tensor, step_size: float, largest: float) -> Tensor:
    """Return Π(δ + α·g/‖g‖): a step of one length for each text, and back into the ball of radius ε.

    Norms are those of whole texts.

    Args:
        shift, gradient: δ and g, (N, S, d).
        step_size: α.
        largest: ε; 0 for no bound.
    """
    moved = shift + step_size * gradient / _lengths(gradient)
    return moved * (largest / _lengths(moved)).clamp_max(1) if largest else moved


def _lengths(vectors: Tensor) -> Tensor:
    """Return the length of each text's vectors, at least 1e-12, (N, 1, 1)."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=(1, 2), keepdim=True)
    return lengths.clamp_min(1e-12)


class AtShifted:
    """g∘f: the logits at shifted embeddings, with one dropout for all outputs of an update.

    So does the authors' code (`dp_masks`).
    """

    # A text is read on the CPU.
    needs_sync = True

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View) -> Any:
        """Return the logits; without a shift, those of the text."""
        x = Shifted(view.x, view.info[SHIFT]) if SHIFT in view.info else view.x
        with isolated(derive(step.seed, "freelb", "dropout"), view.x.device):
            return step.forward(x)


class _Ascent:
    """The loss of FreeLB: the mean over K steps, whose gradients are those that the ascent computes anyway.

    Each of the first K − 1 steps gives, with one backward pass, the direction of the next δ and the gradient
    of the parameters. The latter enters the loss of the last step as a linear term of value 0, so that the
    one backward pass of the loop adds everything up, on several processes, too.
    """

    def __init__(self, method: FreeLb, inner: Any) -> None:
        self.method, self.inner = method, inner

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        if SHIFT not in view.info or not torch.is_grad_enabled():
            plain: Tensor = self.inner(step, view, output, target)
            return plain
        options, parameters = self.method.options, self.method.trained
        known: Sequence[Tensor | None] = [None] * len(parameters)
        total = torch.zeros(len(view), device=view.index.device)
        weight = torch.as_tensor(step.weight(view), device=total.device, dtype=torch.float32).expand(
            len(view)
        )
        losses = self.inner(step, view, output, target)
        for _ in range(options.steps - 1):
            shift = view.info[SHIFT]
            total = total + losses.detach()
            ascending, *gradients = torch.autograd.grad(
                (weight * losses).mean() / options.steps, [shift, *parameters], allow_unused=True
            )
            known = [_sum(*pair) for pair in zip(known, gradients, strict=True)]
            moved = ascended(shift.detach(), ascending.float(), options.step_size, options.largest)
            view = view.replace(info={**view.info, SHIFT: moved.requires_grad_()})
            losses = self.inner(step, view, step.output(view), target)
        self.method.shift = view.info[SHIFT].detach()
        pairs = [(p, g) for p, g in zip(parameters, known, strict=True) if g is not None]
        linear = sum(((p * g).sum() for p, g in pairs), torch.zeros((), device=total.device))
        # The loop weights the linear term as it weights the losses.
        result: Tensor = (total + losses) / options.steps + (linear - linear.detach()) / weight.mean()
        return result


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


class FreeLb(Method[FreeLbOptions]):
    """min E[1/K Σ_t max L(f(X + δ_t), y)], the maxima over growing balls, as the authors' code does.

    `trained` are the parameters that the updates train, `shift` the last δ of the last update, (N, S, d).
    """

    # A text is read on the CPU.
    needs_sync = True

    def __init__(self, options: FreeLbOptions, **slots: Any) -> None:
        super().__init__(options, **slots)
        self.loss = _Ascent(self, self.loss)
        self.trained: list[nn.Parameter] = []
        self.shift: Tensor | None = None

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Train all parameters of the model.

        Raises:
            Refused: the model has no embeddings of texts that can be shifted, or does not use them as they
                are.
        """
        refuse_unshiftable("freelb", model, task)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return super().setup(model, task)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the texts with a random shift, where the ascent starts: δ₀."""
        model: Any = step.model
        shift = start(model.there(point.x), model.width, self.options.start, step.rng).requires_grad_()
        return [View.of(point, "adv", info={**point.info, SHIFT: shift})]

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the length of the last shift of each text, (N,)."""
        return {} if self.shift is None else {"shift": self.shift.flatten(1).norm(dim=1)}

    def loss_cost(self) -> Cost:
        """Count a forward and a backward for each of the K steps."""
        return Cost(self.options.steps, self.options.steps)


def refuse_unshiftable(method: str, model: Any, task: Task) -> None:
    """Refuse a model without embeddings of texts, or that scales them after it has looked them up.

    Raises:
        Refused: there is nothing to shift, or a shift of 0 changes its outputs.
    """
    from robustplug.api import Feed

    if not hasattr(model, "there") or not hasattr(model, "width"):
        raise Refused(f"{method} shifts embeddings of text: use the model word-cnn or huggingface-text")
    batch = next(iter(task.batches("train", Feed(batch_size=2, samples=2))))
    x = batch.x.to(next(model.parameters()).device)
    with evaluating(model), torch.no_grad():
        shift = torch.zeros(*model.there(x).shape, model.width, device=x.device)
        plain, shifted = model(x), model(Shifted(x, shift))
    difference = float((plain - shifted).abs().max())
    if not difference < 1e-3 * max(1.0, float(plain.abs().max())) or math.isnan(difference):
        raise Refused(
            f"the model changes embeddings after it has looked them up, so that {method} cannot shift them"
        )
