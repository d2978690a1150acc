"""Probabilities are told from logits, and turned into them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustplug.core.calling.outputs import AsLogits, Scale, scale_of

LOGITS = 4 * torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
CASES: dict[str, tuple[Tensor, Scale]] = {
    "logits": (LOGITS, "logits"),
    "softmax": (LOGITS.softmax(1), "probabilities"),
    "softmax in half precision": (LOGITS.softmax(1).to(torch.bfloat16), "probabilities"),
    "log softmax": (LOGITS.log_softmax(1), "logits"),
    "sigmoid": (LOGITS.sigmoid(), "sigmoids"),
    "decisions": (nn.functional.one_hot(LOGITS.argmax(1), 5).float(), "logits"),
    "ReLU": (LOGITS.relu(), "logits"),
    "scores cut off": (LOGITS.clamp(0, 1), "logits"),
    "NaN": (LOGITS.softmax(1).where(LOGITS > -9, torch.nan) * torch.nan, "logits"),
    "class numbers": (LOGITS.argmax(1), "logits"),
    "one column": (LOGITS[:, :1].sigmoid(), "logits"),
    "nothing": (LOGITS[:0].softmax(1), "logits"),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_scale_of_outputs(kind: str) -> None:
    outputs, scale = CASES[kind]
    assert scale_of(outputs) == scale
    assert scale_of({"out": outputs}) == "logits"


@pytest.mark.parametrize(("end", "scale"), [(nn.Softmax(1), "probabilities"), (nn.Sigmoid(), "sigmoids")])
def test_logits_come_back(end: nn.Module, scale: Scale) -> None:
    x = LOGITS.clone().requires_grad_()
    model = AsLogits(end, scale)
    found, labels = model(x), LOGITS.argmin(1)
    if scale == "sigmoids":
        torch.testing.assert_close(found, LOGITS, atol=1e-3, rtol=1e-3)
    assert torch.equal(found.argmax(1), LOGITS.argmax(1))
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(found, labels), x)
    plain = LOGITS.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(nn.functional.cross_entropy(plain, labels), plain)
    torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-3)


def test_saturated_probabilities_stay_finite() -> None:
    x = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    for end, scale in ((nn.Softmax(1), "probabilities"), (nn.Sigmoid(), "sigmoids")):
        found = AsLogits(end, scale)(x)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(found.sum(), x)
        assert bool(found.isfinite().all())
        assert bool(gradient.isfinite().all())
        assert int(found.argmax()) == 0
