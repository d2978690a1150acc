"""A note where the clean accuracy looks like inputs of another kind, and none where it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.api import ArrayTask, Normalized, isolated, stream
from robustplug.subjects.hints import inputs_hint

CPU = torch.device("cpu")
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CIFAR = ([0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616])


class Brightness(nn.Module):
    """Classifies by the brightness of each channel, which it compares with prepared centres."""

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        self.centres = centres

    def forward(self, x: Tensor) -> Tensor:
        return -(x.mean((2, 3))[:, None] - self.centres).abs().sum(2)


def centres(channels: int) -> Tensor:
    """Return five colours, (5, C), which are others with their channels reversed."""
    colours = [[0.1, 0.5, 0.9], [0.9, 0.5, 0.1], [0.3, 0.2, 0.8], [0.8, 0.2, 0.3], [0.6, 0.9, 0.2]]
    return torch.tensor(colours)[:, :channels]


def task(channels: int = 3, samples: int = 200) -> ArrayTask:
    rng = stream(0, "samples")
    labels = torch.arange(samples) % 5
    noise = 0.02 * torch.rand(samples, channels, 4, 4, generator=rng)
    x = centres(channels)[labels].view(samples, channels, 1, 1) + noise
    return ArrayTask({"test": (x.clamp(0, 1), labels)}, classes=5)


def hint(model: nn.Module, data: Any = None) -> str | None:
    return inputs_hint(model, data or task(), "test", CPU)


def prepared(before: Callable[[Tensor], Tensor], channels: int = 3) -> nn.Module:
    """Return a model that is right on inputs that were prepared like this."""
    return Brightness(before(centres(channels)[:, :, None, None]).flatten(1))


def normaliser(mean: list[float], std: list[float]) -> Callable[[Tensor], Tensor]:
    return lambda x: (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


CASES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "imagenet": (normaliser(*IMAGENET), "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
    "cifar": (normaliser(*CIFAR), "--mean 0."),
    # Close to ImageNet's: both are right on all samples here.
    "half": (normaliser([0.5], [0.5]), "--mean 0."),
    "times 255": (lambda x: 255 * x, "--mean 0 --std 1/255"),
    "caffe": (lambda x: 255 * (x - torch.tensor(IMAGENET[0]).view(-1, 1, 1)), "--std 1/255"),
    "bgr": (lambda x: x.flip(1), "x.flip(1)"),
    "bgr and half": (lambda x: (x.flip(1) - 0.5) / 0.5, "x.flip(1)"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_usual_ways_are_found_and_told_with_their_numbers(name: str) -> None:
    before, remedy = CASES[name]
    found = hint(prepared(before))
    assert found is not None
    assert remedy in found
    assert "on 128 clean samples the model is right on" in found
    assert "100%" in found
    assert ("BGR" in found) is ("bgr" in name)


def test_grey_images() -> None:
    found = hint(prepared(normaliser([0.1307], [0.3081]), 1), task(1))
    assert found is not None
    assert "MNIST" in found
    assert "--mean 0.1307 --std 0.3081" in found
    assert "BGR" not in found


def test_a_normalisation_that_is_wrong_is_told() -> None:
    right = prepared(lambda x: x)
    found = hint(Normalized(right, [0.5] * 3, [0.1] * 3))
    assert found is not None
    assert "model.normalize=false" in found
    found = hint(Normalized(prepared(normaliser(*IMAGENET)), [0.0] * 3, [5.0] * 3))
    assert found is not None
    assert "--mean 0.485,0.456,0.406" in found


def test_a_good_model_is_asked_once_and_gets_no_note() -> None:
    calls = []
    model = prepared(lambda x: x)
    model.register_forward_hook(lambda *_: calls.append(1))
    assert hint(model) is None
    assert len(calls) == 1


class Constant(nn.Module):
    """Answers one class, and another one for inputs that leave [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        outside = ((x < 0) | (x > 1)).flatten(1).any(1).long()
        return nn.functional.one_hot(1 - outside, 5).float()


def test_poor_models_that_nothing_helps_get_no_note() -> None:
    rng = stream(0, "weights")
    digits = robustplug.build("task", "digits")
    for seed in range(8):
        with isolated(seed):
            untrained = robustplug.build("model", "small-cnn", width=4, hidden=16, info=digits.info)
        assert hint(untrained, digits) is None
    # Most samples are of the class that is answered outside of [0, 1].
    labels = torch.cat([torch.zeros(180), torch.arange(20) % 5]).long()
    x = torch.rand(200, 3, 4, 4, generator=rng)
    assert hint(Constant(), ArrayTask({"test": (x, labels)}, classes=5)) is None
    one = ArrayTask({"test": (x, torch.zeros(200, dtype=torch.int64))}, classes=5)
    assert hint(Constant(), one) is None


class Strict(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool((x < 0).any()) or bool((x > 1).any()):
            raise ValueError("not an image")
        return torch.zeros(len(x), 5) + torch.tensor([1.0, 0, 0, 0, 0])


def test_a_model_that_refuses_other_inputs_gets_no_note_and_no_error() -> None:
    assert hint(Strict()) is None


def test_other_data_are_left_alone() -> None:
    rng = stream(0, "table")
    labels = torch.arange(60) % 3
    table = ArrayTask({"test": (torch.rand(60, 4, generator=rng), labels)})
    wide = ArrayTask({"test": (torch.rand(60, 3, 4, 4, generator=rng), labels)}, bounds=(-1, 1))
    many = ArrayTask({"test": (torch.rand(60, 5, 4, 4, generator=rng), labels)})
    for data in (table, wide, many):
        assert inputs_hint(Constant(), data, "test", CPU) is None


def test_the_mode_and_the_inputs_stay_as_they_are() -> None:
    data = task()
    model = nn.Sequential(nn.BatchNorm2d(3), prepared(CASES["imagenet"][0])).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    hint(model, data)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_evaluation_notes_it() -> None:
    data = task()
    arrays = next(iter(data.batches("test", robustplug.api.Feed(batch_size=200))))
    with pytest.warns(UserWarning, match=r"--mean 0\.485"):
        result = robustplug.evaluate(
            prepared(CASES["imagenet"][0]), data=(arrays.x, arrays.y), attacks=["fgsm"], samples=20
        )
    assert any("--mean 0.485,0.456,0.406" in note for note in result.meta["loaded"]["notes"])
    mended = robustplug.evaluate(
        prepared(CASES["imagenet"][0]),
        data=(arrays.x, arrays.y),
        attacks=["fgsm"],
        mean=IMAGENET[0],
        std=IMAGENET[1],
    )
    assert mended.attacks[0].accuracy == 1.0
    assert not any("clean samples" in note for note in mended.meta["loaded"]["notes"])
