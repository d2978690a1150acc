"""DeepFool and C&W find the nearest example."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.builtin.perturbations.carlini_wagner import Adam, Box
from robustplug.core.types import Batch, View

from .attacks import attacked, digits, right, step_of, trained_model

CW: dict[str, Any] = {"steps": 300, "search_steps": 6, "initial_c": 1.0, "lr": 0.02}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained_model()


@pytest.fixture(scope="module")
def batch(model: nn.Module) -> Batch:
    whole = digits(24)
    rows = right(model, whole.x, whole)
    return Batch(whole.x[rows], whole.y[rows], whole.index[rows])


def far(norm: str) -> Any:
    return robustplug.build("vicinity", norm, eps=1.0 if norm == "linf" else 8.0)


def lengths(moved: Tensor, origin: Tensor, norm: str) -> Tensor:
    order = torch.inf if norm == "linf" else 2
    result: Tensor = torch.linalg.vector_norm((moved - origin).flatten(1), ord=order, dim=1)
    return result


@pytest.mark.table(3)
@pytest.mark.parametrize(
    ("name", "norm", "classes"),
    [
        ("deepfool", "linf", 2),
        ("deepfool", "linf", 5),
        ("deepfool", "l2", 2),
        ("deepfool", "l2", 5),
        pytest.param("cw-l2", "l2", 2, marks=pytest.mark.slow),
        ("cw-l2", "l2", 5),
    ],
)
def test_the_distance_to_a_hyperplane(name: str, norm: str, classes: int) -> None:
    rng = torch.Generator().manual_seed(2)
    linear: Any = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    linear[1].weight.data = torch.randn(classes, 16, generator=rng)
    linear[1].bias.data.zero_()
    x = 0.45 + 0.1 * torch.rand(12, 1, 4, 4, generator=rng)
    y = linear(x).argmax(1)
    linear[1].bias.data = 0.3 * torch.nn.functional.one_hot(y, classes).float().mean(0)
    logits, weight = linear(x).detach(), linear[1].weight.detach()
    y = logits.argmax(1)
    exact = []
    for row, label in zip(logits, y.tolist(), strict=True):
        others = [k for k in range(classes) if k != label]
        slopes = (weight[others] - weight[label]).norm(p=1 if norm == "linf" else 2, dim=1)
        exact.append(((row[label] - row[others]) / slopes).min())
    options: dict[str, Any] = (
        CW | {"steps": 1000, "search_steps": 9} if name == "cw-l2" else {"overshoot": 0.0}
    )
    batch = Batch(x, y, torch.arange(12))
    found = attacked(name, linear, batch, far(norm), **options)
    assert not right(linear, found, batch).any()
    # Adam leaves a little; DeepFool's own 1e-4 is all that it overshoots by.
    torch.testing.assert_close(lengths(found, x, norm), torch.stack(exact), rtol=0.03, atol=2e-4)


@pytest.mark.slow
def test_deepfool_is_about_as_near_as_torchattacks(model: nn.Module, batch: Batch) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    ours = attacked("deepfool", model, batch, far("l2"))
    with torch.random.fork_rng(devices=[]):
        theirs = torchattacks.DeepFool(model, steps=50, overshoot=0.02)(batch.x, batch.y)
    model.eval()
    assert not right(model, ours, batch).any()
    # torchattacks clips after every step and takes all classes; on average that is the same.
    ratio = lengths(ours, batch.x, "l2").mean() / lengths(theirs, batch.x, "l2").mean()
    assert 0.85 < float(ratio) < 1.1


@pytest.mark.slow
def test_carlini_wagner_is_about_as_near_as_deepfool_and_as_art(model: nn.Module, batch: Batch) -> None:
    small = Batch(batch.x[:10], batch.y[:10], batch.index[:10])
    ours = attacked("cw-l2", model, small, far("l2"), **CW)
    assert not right(model, ours, small).any()
    distance = lengths(ours, small.x, "l2")
    deepfool = lengths(attacked("deepfool", model, small, far("l2")), small.x, "l2")
    assert distance.mean() < deepfool.mean()
    classifier = pytest.importorskip("art.estimators.classification")
    from art.attacks.evasion import CarliniL2Method

    wrapped = classifier.PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = CarliniL2Method(
        wrapped,
        learning_rate=0.02,
        binary_search_steps=6,
        max_iter=60,
        initial_const=1.0,
        batch_size=10,
        verbose=False,
    )
    theirs = torch.from_numpy(attack.generate(small.x.contiguous().numpy(), small.y.numpy()))
    model.eval()
    fooled = ~right(model, theirs, small)
    assert bool(fooled.any())
    # ART searches its step sizes; it gets no nearer than some percent.
    assert distance[fooled].mean() < 1.1 * lengths(theirs, small.x, "l2")[fooled].mean()


@pytest.mark.parametrize("name", ["deepfool", "cw-l2"])
def test_a_sample_does_not_depend_on_its_batch(name: str, model: nn.Module, batch: Batch) -> None:
    options: dict[str, Any] = {"steps": 40, "search_steps": 3, "initial_c": 1.0} if name == "cw-l2" else {}
    together = attacked(name, model, batch, far("l2"), **options)
    for row in (0, 5):
        alone = Batch(batch.x[row : row + 1], batch.y[row : row + 1], batch.index[row : row + 1])
        torch.testing.assert_close(
            attacked(name, model, alone, far("l2"), **options)[0], together[row], atol=1e-3, rtol=0
        )


@pytest.mark.parametrize("name", ["deepfool", "cw-l2"])
def test_what_is_too_far_is_projected(name: str, model: nn.Module, batch: Batch) -> None:
    options: dict[str, Any] = {"steps": 40, "search_steps": 3, "initial_c": 1.0} if name == "cw-l2" else {}
    radius = torch.linspace(0, 0.3, len(batch))
    for norm in ("linf", "l2"):
        found = attacked(name, model, batch, far(norm), radius, **options)
        assert bool((lengths(found, batch.x, norm) <= radius + 1e-5).all())
        assert torch.equal(found[0], batch.x[0])


def test_passes_are_counted(model: nn.Module, batch: Batch) -> None:
    for name, options in (("deepfool", {"steps": 3}), ("cw-l2", {"steps": 3, "search_steps": 1})):
        step, rows = step_of(model, batch), 0

        def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            nonlocal rows
            rows += len(args[0])

        handle = model.register_forward_pre_hook(note)
        robustplug.build("perturbation", name, **options)(step, View.of(batch, "adv"), far("l2"))
        handle.remove()
        assert rows == step.meter.forwards > 0
        assert step.meter.backwards > 0


def test_tanh_space_and_adam() -> None:
    for bounds in ((0.0, 1.0), (-1.0, 3.0), ([-2.0, 0.0], [2.0, 255.0])):
        x = torch.stack([torch.as_tensor(side).expand(1, 2) for side in bounds], 2)
        box = Box.of(bounds, x)
        torch.testing.assert_close(box.leave(box.enter(x)), x, atol=1e-6 * float(box.span.max()), rtol=0)
        w = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (slope,) = torch.autograd.grad(box.leave(w).sum(), w)
        torch.testing.assert_close(box.slope(w.detach()), slope)
    w = torch.tensor([[1.0, -2.0]])
    parameter = nn.Parameter(w.clone())
    theirs, ours = torch.optim.Adam([parameter], lr=0.1), Adam(w, 0.1)
    for _ in range(5):
        theirs.zero_grad()
        torch.autograd.backward((parameter**2).sum())
        theirs.step()
        w = ours.step(w, 2 * w)
    torch.testing.assert_close(w, parameter.detach())
