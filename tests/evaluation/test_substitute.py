"""A substitute learns a model's answers, in bfloat16 where this pays, and attacks from it transfer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.evaluation.audit import substitute


@pytest.mark.table(1)
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_substitute_answers_as_the_model_does(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    computed: set[torch.dtype] = set()

    def choose(option: str, net: nn.Module, some: Tensor, operations: object) -> str:
        assert option == "auto"
        assert callable(operations)
        asked.append(operations())
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(lambda _, __, output: computed.add(output.dtype))
        return precision

    monkeypatch.setattr(substitute, "choose_precision", choose)
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(256, 1, 8, 8, generator=rng)

    def answers(rows: Tensor) -> Tensor:
        left, right = rows[..., :4].mean((1, 2, 3)), rows[..., 4:].mean((1, 2, 3))
        return torch.stack([left, right], 1)

    vicinity = robustplug.build("vicinity", "linf", eps=0.1)
    before = torch.get_rng_state()
    net = substitute.train_substitute(answers, x, vicinity, torch.full((256,), 0.1), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert asked[0] > 0
    assert computed == {getattr(torch, precision)}
    assert not net.training
    fresh = torch.rand(200, 1, 8, 8, generator=rng)
    agreed = (net(fresh).argmax(1) == answers(fresh).argmax(1)).float().mean()
    assert agreed > 0.85
    assert net(fresh).dtype == torch.float32
