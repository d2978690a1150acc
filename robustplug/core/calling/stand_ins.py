"""Stand-ins of a model for the gradients of an attack, whose examples are judged on the model itself.

Athalye et al. 2018 (arXiv:1802.00420): identities in the place of parts without a gradient are their BPDA
(§4.1), averages over draws their EOT (§4.2). Audits and the attacks `bpda` and `eot` share them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import Refused


def link(x: Tensor, z: Tensor) -> Tensor | None:
    """Return x in the shape of z, for z that is made of x value by value; None if the shapes do not allow it.

    A z with several channels for each of x (a thermometer code) receives each value as often, channels of one
    value side by side.
    """
    if z.numel() == x.numel():
        return x.reshape(z.shape)
    if x.dim() < 2 or z.dim() != x.dim() or z.shape[0] != x.shape[0] or z.shape[2:] != x.shape[2:]:
        return None
    times, rest = divmod(z.shape[1], x.shape[1])
    return None if rest or times < 1 else x.repeat_interleave(times, 1)


def straight_through(value: Tensor, path: Tensor) -> Tensor:
    """Return `value`, with the gradient of `path`."""
    return value.detach() + (path - path.detach())


class Averaged(nn.Module):
    """The mean of a random model's outputs over several draws, with the gradient of the mean (EOT).

    Args:
        model: a model whose outputs are random.
        draws: number of draws.
    """

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean outputs."""
        total: Tensor = self.model(x)
        for _ in range(self.draws - 1):
            total = total + self.model(x)
        return total / self.draws


def passes(module: nn.Module) -> int:
    """Return the number of passes through the model that one through its stand-in takes."""
    if isinstance(module, Averaged):
        return module.draws * passes(module.model)
    return passes(module.model) if isinstance(module, Passed) else 1


class Passed(nn.Module):
    """A model in which one part has the gradient of the identity; its outputs are those of the model.

    Args:
        model: the model.
        part: name of the part, as in `named_modules`; what comes before it may be left out where it is clear.

    Raises:
        Refused: the model has no such part, or several.
    """

    def __init__(self, model: nn.Module, part: str) -> None:
        super().__init__()
        self.model, self.part = model, part
        names = [name for name, _ in model.named_modules() if name == part or name.endswith(f".{part}")]
        exact = [name for name in names if name == part] or names
        if not part or len(exact) != 1:
            known = ", ".join(name for name, _ in list(model.named_modules())[1:25])
            why = f"has {len(exact)} parts" if part and exact else "has no part"
            raise Refused(f'the model {why} named "{part}"; it has {known or "none"}')
        self.name = exact[0]

    def forward(self, x: Tensor) -> Any:
        """Return the model's outputs.

        Raises:
            Refused: the part's output is not made of its input value by value.
        """

        def hook(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
            if not torch.is_grad_enabled():
                return None
            both = arguments and isinstance(arguments[0], Tensor) and isinstance(output, Tensor)
            path = link(arguments[0], output) if both else None
            if path is None:
                raise Refused(
                    f'the part "{self.part}" is no identity: its output has another shape than its input'
                )
            return straight_through(output, path)

        handle = self.model.get_submodule(self.name).register_forward_hook(hook)
        try:
            return self.model(x)
        finally:
            handle.remove()
