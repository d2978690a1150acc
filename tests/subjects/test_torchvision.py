"""Models of torchvision, with weights from files; nothing is downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import nn

from robustplug.core.random import isolated
from robustplug.core.types import TaskInfo
from robustplug.errors import RunError
from robustplug.plugin.component import Use
from robustplug.subjects.formats import torchvision_net
from robustplug.subjects.loading import load_target

from .models import images

NAME = "torchvision:squeezenet1_1"
FEW = TaskInfo({}, shape=(3, 32, 32), classes=5)
IMAGENET = TaskInfo({}, shape=(3, 32, 32), classes=1000)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def squeezenet(classes: int) -> nn.Module:
    with isolated(0):
        network: nn.Module = torchvision.models.squeezenet1_1(weights=None, num_classes=classes)
    return network.eval()


def by_hand(network: nn.Module, rows: int) -> Any:
    x = images(rows, (3, 32, 32))
    with torch.no_grad():
        return network((x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))


def test_weights_of_a_file(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in squeezenet(5).state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    generator = torch.get_rng_state()
    for path in tmp_path.iterdir():
        target = load_target(NAME, FEW, weights=str(path), mean=MEAN, std=STD)
        assert (target.kind, target.gradients) == ("torchvision", True)
        assert target.description["weights"] == str(path)
        assert target.description["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert target.description["prefix"] == "module."
        assert target.description["normalisation"]["where"] == "in front"
        with torch.no_grad():
            torch.testing.assert_close(target.module(images(3, (3, 32, 32))), by_hand(squeezenet(5), 3))
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_file_states_no_normalisation(tmp_path: Path) -> None:
    save_file(squeezenet(5).state_dict(), tmp_path / "w.safetensors")
    target = load_target(NAME, FEW, weights=str(tmp_path / "w.safetensors"))
    assert target.description["normalisation"]["where"] == "none stated"
    assert any("no normalisation was stated" in note for note in target.description["notes"])


def test_a_copy_of_torchvisions_own_file_is_known_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pth"
    torch.save(squeezenet(1000).state_dict(), path)
    short = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    real = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    fake = SimpleNamespace(
        url=f"https://example.org/squeezenet1_1-{short}.pth",
        name="IMAGENET1K_V1",
        transforms=real.transforms,
        meta=real.meta,
    )
    monkeypatch.setattr(torchvision_net, "_all_weights", lambda name: {"IMAGENET1K_V1": fake})
    target = load_target(NAME, IMAGENET, weights=str(path))
    assert target.description["weights"] == "IMAGENET1K_V1"
    assert target.description["normalisation"] == {"mean": list(MEAN), "std": list(STD), "where": "in front"}
    with torch.no_grad():
        torch.testing.assert_close(target.module(images(2, (3, 32, 32))), by_hand(squeezenet(1000), 2))


def test_named_weights_bring_their_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get_model(name: str, weights: Any) -> nn.Module:
        asked.append((name, weights))
        return squeezenet(1000)

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    target = load_target(NAME, IMAGENET, weights="DEFAULT")
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    assert asked == [("squeezenet1_1", weights)]
    assert target.description["weights"] == "IMAGENET1K_V1"
    assert target.description["url"] == weights.url
    assert target.description["normalisation"] == {"mean": list(MEAN), "std": list(STD), "where": "in front"}
    assert any("224x224 pixels; the task has 32x32" in note for note in target.description["notes"])
    with torch.no_grad():
        torch.testing.assert_close(target.module(images(2, (3, 32, 32))), by_hand(squeezenet(1000), 2))
    target = load_target(NAME, IMAGENET, weights="DEFAULT", mean=[0.5], std=[0.5])
    assert target.description["normalisation"]["mean"] == [0.5]


def test_a_failed_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_model(name: str, weights: Any) -> nn.Module:
        raise OSError("<urlopen error Name or service not known>")

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    with pytest.raises(RunError, match=r"cannot be downloaded.*--weights FILE"):
        load_target(NAME, IMAGENET, weights="DEFAULT")


@pytest.mark.parametrize(
    ("source", "weights", "info", "message"),
    [
        (NAME, None, FEW, "needs trained weights.*IMAGENET1K_V1, DEFAULT"),
        (NAME, "IMAGENET", FEW, "known: IMAGENET1K_V1, DEFAULT"),
        (NAME, "missing.pth", FEW, "there is no file missing.pth"),
        (NAME, "DEFAULT", FEW, "have 1000 classes, but the task has 5"),
        (NAME, "DEFAULT", TaskInfo({}, shape=(1, 32, 32), classes=1000), "3 channels, but the task has 1"),
        ("torchvision:resnet5O", "DEFAULT", FEW, 'did you mean "resnet50"'),
        ("torchvision:x", "DEFAULT", FEW, "known: alexnet"),
    ],
)
def test_what_cannot_be(source: str, weights: str | None, info: TaskInfo, message: str) -> None:
    with pytest.raises(RunError, match=message):
        load_target(source, info, weights=weights)


def test_a_file_for_another_number_of_classes(tmp_path: Path) -> None:
    save_file(squeezenet(7).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(RunError, match=r"\(7, 512, 1, 1\) in the file, \(5, 512, 1, 1\) in the model"):
        load_target(NAME, FEW, weights=str(tmp_path / "w.safetensors"))


def test_a_component_does_not_go_with_it() -> None:
    with pytest.raises(RunError, match="leave out --model"):
        load_target(NAME, FEW, weights="DEFAULT", model=Use("small-cnn"))
