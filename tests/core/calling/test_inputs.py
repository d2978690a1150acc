"""A model cannot write into what it is called on, however it tries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustplug.core.calling.inputs import call
from robustplug.errors import RunError

pytestmark = pytest.mark.table


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.function(x)


def through_numpy(x: Tensor) -> Tensor:
    x.detach().numpy()[:] *= 2
    return x * 1


def through_data(x: Tensor) -> Tensor:
    x.data.mul_(2)
    return x * 1


WRITERS: dict[str, Callable[[Tensor], Tensor]] = {
    "mul_": lambda x: x.mul_(2) * 1,
    "indexing": lambda x: (x.__setitem__(slice(None), x.detach() * 2), x * 1)[1],  # type: ignore[func-returns-value]
    "a view": lambda x: (x.view(-1).mul_(2), x * 1)[1],
    "out=": lambda x: torch.mul(x.detach(), 2, out=x.data) * 1,
    "the same values": lambda x: x.add_(1).sub_(1).mul_(2) * 1,
    "an activation": lambda x: nn.functional.relu(x.neg_().neg_().mul_(2), inplace=True) * 1,
    "data": through_data,
    "numpy": through_numpy,
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("leaf", [True, False])
@pytest.mark.parametrize("kind", WRITERS)
def test_inputs_stay_as_they_are(kind: str, leaf: bool, grad: bool) -> None:
    model = Function(WRITERS[kind])
    for size in (3, 2):  # the second call knows
        x = torch.rand(size, 4)
        kept = x.clone()
        x.requires_grad_(leaf)
        with torch.set_grad_enabled(grad):
            output = call(model, x)
        torch.testing.assert_close(output.detach(), 2 * kept)
        assert torch.equal(x.detach(), kept)
        if leaf and grad and output.requires_grad:
            assert torch.autograd.grad(output.sum(), x)[0].shape == x.shape


def test_only_a_writer_gets_copies() -> None:
    model = Function(lambda x: x * 2)
    x = torch.rand(2, 3)
    for _ in range(3):
        call(model, x)
    assert [seen is x for seen in model.seen] == [False, True, True]
    with torch.no_grad():
        call(model, x)
        call(model, x)
    assert [seen is x for seen in model.seen[3:]] == [False, True]


def test_a_late_write_is_named() -> None:
    model = Function(lambda x: x.clamp_(0, 1) if float(x.detach().amax()) > 1 else x * 1)
    call(model, torch.rand(2, 3))
    with pytest.raises(RunError, match=r"x\.clone\(\)"):
        call(model, 1 + torch.rand(2, 3))
    x = 1 + torch.rand(2, 3)
    assert float(call(model, x).amax()) == 1 < float(x.amax())


def test_tensors_of_inference_mode_and_other_inputs() -> None:
    with torch.inference_mode():
        x = torch.rand(2, 3)
    layer = nn.Linear(3, 2)
    for _ in range(2):
        assert call(layer, x).requires_grad
        with torch.inference_mode():
            assert call(layer, x).shape == (2, 2)
    assert call(lambda words: len(words), ["a", "b"]) == 2  # type: ignore[arg-type]
