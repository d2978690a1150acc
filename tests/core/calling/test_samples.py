"""BatchNorm that its author leaves in training mode does not mix the samples of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustplug.core.calling.samples import apart, is_restless
from robustplug.core.modules import evaluating


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.5)
        with torch.no_grad():
            self.norm.running_mean.fill_(0.5)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y


class NoEval(Plain):
    def eval(self) -> NoEval:
        return self


class TrainsNorm(Plain):
    def train(self, mode: bool = True) -> TrainsNorm:
        super().train(mode)
        self.norm.train()
        return self


class Switches(Plain):
    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()
        return super().forward(x)


@pytest.mark.parametrize("kind", [NoEval, TrainsNorm, Switches])
def test_each_sample_is_alone(kind: type[Plain]) -> None:
    x, wanted = torch.rand(8, 3), Plain().eval()
    model = kind().train()
    flags = [part.training for part in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with apart(model, watch=True), torch.no_grad():
        model(x)
    for _ in range(2):
        with evaluating(model), torch.no_grad():
            torch.testing.assert_close(model(x), wanted(x))
            torch.testing.assert_close(model(x[:1]), wanted(x[:1]))
    assert is_restless(model)
    assert [part.training for part in model.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.norm._forward_pre_hooks


def test_other_models_are_left_alone() -> None:
    model = Plain().train()
    with evaluating(model):
        assert not model.norm.training
        assert not model.drop.training
    assert model.norm.training
    assert not is_restless(model)
