"""Models by name: timm, transformers and RobustBench; their weights come from files."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import robustplug
from robustplug.api import Component, TaskInfo, Weights, isolated, stream
from robustplug.errors import RunError
from robustplug.plugin.component import Use
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe, recipe_from_mapping
from robustplug.recipe.toml.files import find_recipe
from robustplug.subjects.loading import load_target
from robustplug.subjects.named import component_in
from robustplug.subjects.opening import Opening
from robustplug.subjects.subject import open_subject

from ..training.runs import merged, offered, tiny

TINY = "test_efficientnet"
COLOUR = TaskInfo({}, (3, 32, 32), 5, (), (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}


def colours(classes: int) -> Any:
    """Return a task of twelve images for each split."""
    rng = stream(0, "data")
    data = {
        split: (torch.rand(12, 3, 32, 32, generator=rng), torch.arange(12) % 3)
        for split in ("train", "validation", "test")
    }
    return robustplug.api.ArrayTask(data, classes=classes)  # type: ignore[arg-type]


def images(rows: int, info: TaskInfo = COLOUR) -> Tensor:
    assert info.shape is not None
    return torch.rand(rows, *info.shape, generator=stream(0, "images", rows))


def normalised(x: Tensor, mean: Any, std: Any) -> Tensor:
    return (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


# --- which sources are names


@pytest.mark.parametrize(
    ("source", "component"),
    [
        ("timm:resnet18", "timm"),
        ("torchvision:resnet18", "torchvision"),
        ("huggingface-image:google/vit", "huggingface-image"),
        ("robustbench:Wong2020Fast", "robustbench"),
        *(("small-cnn:x", None), ("timm:", None), ("timm", None), ("nothing:x", None), ("runs/a:b", None)),
        *((Path("timm:resnet18"), None), (nn.Identity(), None)),
    ],
)
def test_names_are_told_from_paths(source: Any, component: str | None) -> None:
    assert component_in(source) == component


# --- timm


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm")


def of_timm(timm: Any, classes: int = 5, channels: int = 3, seed: int = 0) -> nn.Module:
    with isolated(seed):
        network: nn.Module = timm.create_model(TINY, num_classes=classes, in_chans=channels)
    return network.eval()


@pytest.fixture
def offline(timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Let timm find its weights of 1,000 classes in a file."""
    network = of_timm(timm, classes=1000)
    save_file(network.state_dict(), tmp_path / "timm.safetensors")
    create = timm.create_model

    def created(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        local = {"pretrained_cfg_overlay": {"file": str(tmp_path / "timm.safetensors")}} if pretrained else {}
        made: nn.Module = create(name, pretrained=pretrained, **local, **options)
        return made

    monkeypatch.setattr(timm, "create_model", created)
    return network


@pytest.mark.parametrize("channels", [1, 3])
def test_timm_builds_for_the_task(timm: Any, channels: int) -> None:
    info = TaskInfo({}, (channels, 32, 32), 7, (), (0.5,) * channels, (0.25,) * channels)
    model = robustplug.build("model", f"timm:{TINY}", info=info)
    assert model(images(3, info)).shape == (3, 7)
    assert model.mean.flatten().tolist() == [0.5] * channels
    plain = robustplug.build("model", f"timm:{TINY}", info=info, normalize=False)
    assert "network.conv_stem.weight" not in plain.state_dict()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_maxvit"])
def test_timm_makes_transformers_for_the_tasks_size(timm: Any, name: str) -> None:
    info = TaskInfo({}, (3, 160, 160), 4)
    assert robustplug.build("model", f"timm:{name}", info=info).eval()(images(1, info)).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "info", "text"),
    [
        ("resnet81", COLOUR, 'no model "resnet81"; did you mean "resnet'),
        ("zzzz", COLOUR, "list_models"),
        ("test_coatnet", TaskInfo({}, (3, 17, 17), 4), "does not take images of 3x17x17"),
        (TINY, TaskInfo({}, (4,), 3), "classifies images"),
        (TINY, TaskInfo({}, (3, 32, 32), None), "classifies images"),
    ],
)
def test_timm_refuses_what_cannot_be(timm: Any, name: str, info: TaskInfo, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        robustplug.build("model", f"timm:{name}", info=info)


def test_a_file_of_timm_is_evaluated_by_name(timm: Any, tmp_path: Path) -> None:
    network = of_timm(timm)
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth")
    bare = Use("timm", {"name": TINY, "normalize": False})
    target = load_target(
        f"timm:{TINY}", COLOUR, model=bare, weights=str(tmp_path / "w.pth"), mean=[0.5], std=[0.5]
    )
    torch.testing.assert_close(target.module(images(3)), network(normalised(images(3), *HALF)))
    assert (target.kind, target.description["prefix"]) == ("library", "module.")
    assert target.description["weights"] == str(tmp_path / "w.pth")
    assert len(target.description["sha256"]) == 64
    assert target.description["model"]["name"] == TINY
    with pytest.raises(RunError, match=r"no normalisation(.|\n)*model\.normalize=false"):
        load_target(f"timm:{TINY}", COLOUR, weights=str(tmp_path / "w.pth"))


def test_timms_own_weights_bring_their_normalisation(timm: Any, offline: nn.Module) -> None:
    info = TaskInfo({}, (3, 32, 32), 1000, (), (0.1, 0.1, 0.1), (0.2, 0.2, 0.2))
    cfg = offline.pretrained_cfg
    target = load_target(f"timm:{TINY}", info)
    expected = offline(normalised(images(3), cfg["mean"], cfg["std"]))  # type: ignore[index]
    torch.testing.assert_close(target.module(images(3)), expected, atol=1e-5, rtol=1e-5)
    assert target.description["normalisation"]["where"] == "inside the model"
    assert any("replaces the one" in note for note in target.description["notes"])
    assert target.description["weights"].startswith(f"timm's {TINY}.")
    with pytest.raises(RunError, match=r"\(1000, \d+\) in the file, \(5, \d+\)"):
        load_target(f"timm:{TINY}", COLOUR)


def test_a_run_starts_from_timms_weights_and_needs_them_no_more(
    timm: Any, offline: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(train={"epochs": 1}, optimizer={"lr": 1e-12})
    recipe["model"] = {"use": f"timm:{TINY}", "from": "DEFAULT", "head": "new", "freeze": ["conv_stem"]}
    folder = robustplug.train(recipe, out=tmp_path / "run").folder
    state = load_file(folder / "model.safetensors")
    # Digits are grey: timm adds the three channels of the first convolution.
    ours, theirs = state["network.conv_stem.weight"], offline.state_dict()["conv_stem.weight"]
    torch.testing.assert_close(ours, theirs.sum(1, keepdim=True))
    assert state["network.classifier.weight"].shape[0] == 10
    mean = sum(offline.pretrained_cfg["mean"]) / 3  # type: ignore[index]
    assert state["mean"].item() == pytest.approx(mean)
    assert len(json.loads((folder / "environment.json").read_text())["started_from"]) == 64
    model = read_recipe(folder / "recipe.toml").model
    assert model is not None
    assert (model.start, model.more.head) == ("DEFAULT", "new")
    monkeypatch.setattr("robustplug_timm.model.timm_weights", None)
    assert robustplug.evaluate(folder, samples=10, attacks=["fgsm"]).samples == 10


def test_a_run_without_from_starts_untrained(timm: Any, offline: nn.Module, tmp_path: Path) -> None:
    recipe = tiny(train={"epochs": 1})
    recipe["model"] = {"use": f"timm:{TINY}"}
    folder = robustplug.train(recipe, out=tmp_path / "run").folder
    assert "started_from" not in json.loads((folder / "environment.json").read_text())


def test_the_recipe_for_convnext_trains_a_tiny_one(timm: Any, tmp_path: Path) -> None:
    recipe = tomllib.loads(find_recipe("convnext-cifar10").read_text(encoding="utf-8"))
    assert timm.is_model(recipe["model"]["use"].removeprefix("timm:"))
    component = Component("small-colours", lambda options: colours(10), summary="twelve images")
    recipe |= {"task": {"use": "small-colours"}, "model": {"use": "timm:test_convnext"}}
    recipe["train"] |= {"epochs": 1, "batch_size": 6, "device": "cpu"}
    recipe["method"]["perturbation"]["steps"] = 1
    recipe["evaluate"] = {"attack": [{"use": "fgsm"}]}
    with offered("task", component):
        trained = robustplug.train(recipe, out=tmp_path / "run")
    assert [row.name for row in trained.result.attacks] == ["clean", "fgsm"]
    assert any("stages.3" in name for name in load_file(trained.folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("start", "error", "text"),
    [
        (
            "a9_in1k",
            RecipeError,
            r'model\.from(.|\n)*no weights "a9_in1k" of test_efficientnet; known: r160_in1k',
        ),
        ("DEFAULT", RunError, r"cannot be had(.|\n)*model\.from=FILE"),
        ("nowhere.pth", RecipeError, r'model\.from(.|\n)*neither a file(.|\n)*from = "DEFAULT"'),
        ("runs/nowhere", RecipeError, r"model\.from(.|\n)*neither a file"),
    ],
)
def test_weights_that_cannot_be_had(
    timm: Any, start: str, error: type[Exception], text: str, tmp_path: Path
) -> None:
    recipe = tiny()
    recipe["model"] = {"use": f"timm:{TINY}", "from": start}
    with pytest.raises(error, match=text):
        robustplug.train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.toml").exists()


def test_options_of_a_named_model_are_set_on_the_command_line(timm: Any, tmp_path: Path) -> None:
    save_file(of_timm(timm, 10, 1).state_dict(), tmp_path / "w.safetensors")
    opening = Opening(
        task="digits",
        weights=str(tmp_path / "w.safetensors"),
        overrides=["model.normalize=false"],
        samples=10,
    )
    subject = open_subject(f"timm:{TINY}", opening)
    assert subject.description["normalisation"]["where"] == "none stated"
    with pytest.raises(RunError, match="leave out --model"):
        open_subject(f"timm:{TINY}", Opening(task="digits", architecture="small-cnn"))


# --- transformers


@pytest.fixture
def transformers() -> Any:
    return pytest.importorskip("transformers")


@pytest.fixture
def folder(transformers: Any, tmp_path: Path) -> Path:
    """Write a small ResNet of 5 classes, as `save_pretrained` does, with an image processor."""
    config = transformers.AutoConfig.for_model("resnet", num_labels=5, **RESNET)
    with isolated(0):
        network = transformers.AutoModelForImageClassification.from_config(config)
    network.save_pretrained(tmp_path / "model")
    processor = {
        "image_processor_type": "ConvNextImageProcessor",
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    }
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / "model"


def logits(transformers: Any, folder: Path, x: Tensor) -> Tensor:
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    found: Tensor = model(pixel_values=x).logits
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_a_type_of_transformers_is_built_for_the_task(transformers: Any, channels: int) -> None:
    info = TaskInfo({}, (channels, 32, 32), 7, (), (0.5,) * channels, (0.25,) * channels)
    model = robustplug.build("model", "huggingface-image:resnet", config=RESNET, info=info)
    assert model(images(3, info)).shape == (3, 7)
    vit = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = robustplug.build("model", "huggingface-image:vit", config=vit, info=info)
    assert model(images(3, info)).shape == (3, 7)


def test_a_folder_of_transformers_is_evaluated_with_its_normalisation(
    transformers: Any, folder: Path
) -> None:
    target = load_target(f"huggingface-image:{folder}", COLOUR)
    x = images(3)
    expected = logits(transformers, folder, normalised(x, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    torch.testing.assert_close(target.module(x), expected, atol=1e-5, rtol=1e-5)
    assert target.description["normalisation"]["std"] == pytest.approx([0.2, 0.3, 0.4])
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(RunError, match=r"no normalisation(.|\n)*model\.normalize=false"):
        load_target(f"huggingface-image:{folder}", COLOUR)
    bare = Use("huggingface-image", {"name": str(folder), "normalize": False})
    target = load_target(f"huggingface-image:{folder}", COLOUR, model=bare)
    torch.testing.assert_close(target.module(x), logits(transformers, folder, x), atol=1e-5, rtol=1e-5)


def test_a_run_starts_from_the_folders_weights(transformers: Any, folder: Path, tmp_path: Path) -> None:
    known = {"channels_last": False, "epochs": 1}
    recipe = merged(tiny(), {"train": known, "optimizer": {"lr": 1e-12}})
    recipe["task"] = {**recipe["task"], "classes": [0, 1, 2, 3, 4]}
    recipe["model"] = {"use": "huggingface-image:resnet", "config": RESNET}
    first = robustplug.train(recipe, out=tmp_path / "untrained").folder
    assert "started_from" not in json.loads((first / "environment.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_channels": 1}))
    state = load_file(folder / "model.safetensors")
    name = next(name for name, value in state.items() if value.ndim == 4 and value.shape[1] == 3)
    state[name] = state[name].sum(1, keepdim=True)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    (folder / "preprocessor_config.json").unlink()
    recipe["model"] = {"use": f"huggingface-image:{folder}"}
    second = robustplug.train(recipe, out=tmp_path / "trained").folder
    ours = load_file(second / "model.safetensors")
    assert len(json.loads((second / "environment.json").read_text())["started_from"]) == 64
    torch.testing.assert_close(ours["network.model.classifier.1.weight"], state["classifier.1.weight"])


@pytest.mark.parametrize(
    ("name", "info", "text"),
    [
        ("nowhere/at-all", COLOUR, "nowhere/at-all is neither a type of model nor a folder"),
        ("resnett", COLOUR, 'did you mean "resnet"'),
        ("bert", COLOUR, "does not take images|Unrecognized"),
        ("resnet", TaskInfo({}, (4,), 3), "classifies images"),
    ],
)
def test_what_transformers_cannot_open(transformers: Any, name: str, info: TaskInfo, text: str) -> None:
    with pytest.raises((RecipeError, RunError), match=text):
        recipe_from_mapping(tiny())
        load_target(f"huggingface-image:{name}", info)


def test_a_type_has_no_weights(transformers: Any) -> None:
    small = Use("huggingface-image", {"name": "resnet", "config": RESNET})
    with pytest.raises(RecipeError, match="is a type of model, without weights"):
        load_target("huggingface-image:resnet", COLOUR, model=small)


# --- RobustBench


class Zoo(nn.Module):
    """Stands for a definition of the zoo, which normalises its inputs itself."""

    mu: Tensor
    sigma: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mu", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("sigma", torch.full((1, 3, 1, 1), 0.25))
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv((x - self.mu) / self.sigma).relu().mean((2, 3)))
        return logits


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a library in the place of robustbench, whose real one pins other libraries."""
    loaded: list[tuple[Any, ...]] = []

    def load_model(name: str, root: str, dataset: str, threat: str) -> nn.Module:
        loaded.append((name, root, dataset, threat))
        if root == "unreachable":
            raise RuntimeError("Cannot retrieve the public link of the file")
        with isolated(7):
            return Zoo()

    utils: Any = ModuleType("robustbench.utils")
    utils.all_models = {"cifar10": {"Linf": {"Small2020": {"model": Zoo, "gdrive_id": "x"}}, "L2": {}}}
    utils.BenchmarkDataset = utils.ThreatModel = str
    utils.DATASET_CLASSES = {"cifar10": 10}
    utils.load_model, utils.loaded = load_model, loaded
    package: Any = ModuleType("robustbench")
    package.utils = utils
    monkeypatch.setitem(sys.modules, "robustbench", package)
    monkeypatch.setitem(sys.modules, "robustbench.utils", utils)
    return utils


TEN = TaskInfo({}, (3, 32, 32), 10, (), (0.1, 0.1, 0.1), (0.2, 0.2, 0.2))


def test_a_model_of_the_zoo_is_evaluated_as_it_is(zoo: Any) -> None:
    target = load_target("robustbench:Small2020", TEN)
    with isolated(7):
        expected = Zoo().eval()(images(3))
    torch.testing.assert_close(target.module(images(3)), expected)
    assert zoo.loaded == [("Small2020", "models", "cifar10", "Linf")]
    assert target.description["weights"] == "RobustBench's Small2020 (cifar10, Linf)"


def test_a_run_starts_from_the_zoo_with_a_new_head(zoo: Any, tmp_path: Path) -> None:
    component = Component("small-colours", lambda options: colours(3), summary="twelve images")
    recipe = tiny(train={"epochs": 1, "batch_size": 6}, optimizer={"lr": 1e-12})
    recipe["task"] = {"use": "small-colours"}
    recipe["model"] = {"use": "robustbench:Small2020", "head": "new"}
    with offered("task", component):
        folder = robustplug.train(recipe, out=tmp_path / "run").folder
        del recipe["model"]["head"]
        with pytest.raises(
            RunError, match=r'fc\.weight \(\(10, 4\) in the file, \(3, 4\)(.|\n)*head = "new"'
        ):
            robustplug.train(recipe, out=tmp_path / "other")
    state = load_file(folder / "model.safetensors")
    with isolated(7):
        torch.testing.assert_close(state["conv.weight"], Zoo().conv.weight.detach())
    assert state["fc.weight"].shape == (3, 4)


@pytest.mark.parametrize(
    ("options", "info", "text"),
    [
        ({"name": "Smal2020"}, TEN, 'no model "Smal2020" for cifar10, Linf; did you mean "Small2020"'),
        ({"name": "Small2020", "threat": "L2"}, TEN, "for cifar10, L2; known:"),
        ({"name": "Small2020", "threat": "linf"}, TEN, 'must be one of "Linf", "L2"'),
        ({"name": "Small2020"}, TaskInfo({}, (1, 8, 8), 10), "classify colour images"),
        ({"name": "Small2020"}, TaskInfo({}, (3, 2, 2), 10), r"does not take images of \(3, 2, 2\)"),
        ({"name": "Small2020", "root": "unreachable"}, TEN, "cannot be had.*public link"),
    ],
)
def test_what_the_zoo_has_not(zoo: Any, options: dict[str, Any], info: TaskInfo, text: str) -> None:
    with pytest.raises((RecipeError, RunError), match=text):
        load_target(f"robustbench:{options['name']}", info, model=Use("robustbench", options))


# --- what is missing, and other plugins


@pytest.mark.parametrize(
    ("library", "name", "extra"),
    [("timm", "timm:x", "timm"), ("transformers", "huggingface-image:resnet", "huggingface")],
)
def test_a_missing_library_says_how_to_install_it(
    library: str, name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(RecipeError, match=rf'this needs {library}: pip install "robustplug\[{extra}\]"'):
        load_target(name, COLOUR)


def test_robustbench_is_missing_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robustbench", None)
    with pytest.raises(RecipeError, match=r'pip install "robustplug\[robustbench\]".*pins timm==1\.0\.9'):
        load_target("robustbench:x", COLOUR)


def test_a_named_model_without_weights_of_its_library_needs_a_file(tmp_path: Path) -> None:
    from dataclasses import make_dataclass

    options = make_dataclass("Options", [("name", str)], frozen=True)

    def build(options: Any, *, info: TaskInfo) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, info.classes or 0))

    component = Component("linear", build, options, "a linear model")
    with offered("model", component):
        with pytest.raises(RunError, match="needs trained weights: give --weights FILE"):
            load_target("linear:a", COLOUR)
        network = build(SimpleNamespace(), info=COLOUR)
        save_file(network.state_dict(), tmp_path / "a.safetensors")
        target = load_target("linear:a", COLOUR, weights=str(tmp_path / "a.safetensors"))
        torch.testing.assert_close(target.module(images(2)), network(images(2)))
        with pytest.raises(RunError, match="there is no file"):
            load_target("linear:a", COLOUR, weights="b.safetensors")


def test_a_plugin_offers_weights_of_its_own(tmp_path: Path) -> None:
    def build(options: Any, *, info: TaskInfo) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, info.classes or 0))

    def offer(options: Any, name: str | None, *, info: TaskInfo) -> Weights | None:
        if name is None:
            return None
        if name != "ones":
            raise ValueError(f'no weights "{name}"; known: ones')
        return Weights({"1.weight": torch.ones(10, 64), "1.bias": torch.ones(10)}, "the plugin's ones")

    component = Component("flat", build, summary="a linear model", weights=offer)
    recipe = tiny(train={"epochs": 1}, optimizer={"lr": 1e-12})
    with offered("model", component):
        recipe["model"] = {"use": "flat", "from": "ones"}
        folder = robustplug.train(recipe, out=tmp_path / "run").folder
        torch.testing.assert_close(load_file(folder / "model.safetensors")["1.bias"], torch.ones(10))
        recipe["model"] = {"use": "flat", "from": "twos"}
        with pytest.raises(RecipeError, match=r'model\.from(.|\n)*no weights "twos"; known: ones'):
            robustplug.train(recipe, out=tmp_path / "other")


def test_torchvisions_weights_start_a_run_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.models

    from robustplug.subjects.starting import library_weights

    own = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    with isolated(0):
        state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    monkeypatch.setattr(type(own), "get_state_dict", lambda self, *_, **__: dict(state))
    model = robustplug.api.Use("torchvision:squeezenet1_1")
    from robustplug.recipe.convert import resolve

    found = library_weights(resolve(model, "model"), "DEFAULT", COLOUR)
    assert found is not None
    assert found.source == "torchvision's squeezenet1_1 IMAGENET1K_V1"
    assert found.numbers is not None
    assert found.numbers.mean == (0.485, 0.456, 0.406)
    assert library_weights(resolve(model, "model"), None, COLOUR) is None
    with pytest.raises(
        RecipeError, match='no weights "IMAGENET" of squeezenet1_1.*Known: IMAGENET1K_V1, DEFAULT'
    ):
        library_weights(resolve(model, "model"), "IMAGENET", COLOUR)
