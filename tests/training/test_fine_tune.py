"""Fine-tuning: a new classifier, frozen parts, and parts of the model with a learning rate of their own."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import robustplug
from robustplug.core.modules import Normalized
from robustplug.core.random import derive, isolated, stream
from robustplug.errors import RunError
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe, recipe_from_mapping
from robustplug.recipe.write import recipe_to_mapping, write_recipe
from robustplug.subjects.formats.layouts import Numbers
from robustplug.subjects.starting import load_start, set_in_front
from robustplug.subjects.tuning import classifier_of, freeze, new_head, parts_of
from robustplug.training.train import Training

from .runs import MODEL, merged, tiny
from .test_resume import check_resume

EIGHT = {"classes": list(range(8))}
LAST = "network.19"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on the digits 0 to 7."""
    return robustplug.train(tiny(task=EIGHT), out=tmp_path_factory.mktemp("pretrained") / "run").folder


def tuned(start: Path, **tables: Any) -> dict[str, Any]:
    """Return a recipe that fine-tunes to all ten digits in one epoch."""
    return merged(tiny(model={"from": str(start), "head": "new"}, train={"epochs": 1}), tables)


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return found


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    return {name for name in first if not torch.equal(first[name], second[name])}


def started(recipe: dict[str, Any]) -> tuple[nn.Module, list[str]]:
    """Return the model with its initial weights, as a run builds it, and the notes."""
    known = recipe_from_mapping(recipe)
    parts = Training(known, Path("nowhere")).parts
    assert known.model is not None
    _, notes = load_start(known.model, parts.model, parts.task.info)
    return parts.model, notes


def fresh() -> dict[str, Tensor]:
    """Return the weights of an untrained run."""
    options = {key: value for key, value in MODEL.items() if key != "use"}
    info = robustplug.build("task", "digits", validation=64, test=1600).info
    with isolated(derive(0, "model")):
        return dict(robustplug.build("model", "small-cnn", info=info, **options).state_dict())


def test_the_head_is_that_of_a_fresh_model_and_the_rest_that_of_the_file(pretrained: Path) -> None:
    model, notes = started(tuned(pretrained))
    head = {f"{LAST}.weight", f"{LAST}.bias"}
    assert not differing(dict(model.state_dict()), fresh()) & head
    old = {name: value for name, value in weights(pretrained).items() if name not in head}
    assert not differing(old, dict(model.state_dict()))
    assert f'the classifier, "{LAST}", starts anew, with 10 outputs' in notes


def test_the_head_also_starts_anew_for_the_same_number_of_classes(pretrained: Path) -> None:
    recipe = tuned(pretrained, task={"classes": [2, 3, 4, 5, 6, 7, 8, 9]})
    model, _ = started(recipe)
    assert f"{LAST}.weight" in differing(weights(pretrained), dict(model.state_dict()))
    del recipe["model"]["head"]
    model, _ = started(recipe)
    assert not differing(weights(pretrained), dict(model.state_dict()))


def test_another_number_of_classes_without_a_new_head_says_how(pretrained: Path, tmp_path: Path) -> None:
    recipe = tuned(pretrained)
    del recipe["model"]["head"]
    with pytest.raises(RunError, match=r"\(8, 16\) in the file, \(10, 16\)(.|\n)*model\.head = \"new\""):
        robustplug.train(recipe, out=tmp_path / "run")


def test_frozen_parts_and_their_statistics_stay(pretrained: Path, tmp_path: Path) -> None:
    recipe = tuned(pretrained, model={"freeze": ["network.0", "1", "4.bias"]})
    folder = robustplug.train(recipe, out=tmp_path / "run").folder
    old, new = weights(pretrained), weights(folder)
    del old[f"{LAST}.weight"], old[f"{LAST}.bias"]
    moved = differing(old, new)
    still = {"network.0.weight", "network.1.weight", "network.1.bias", "network.1.running_mean"}
    still |= {"network.1.running_var", "network.1.num_batches_tracked", "network.4.bias", "mean", "std"}
    assert moved == set(old) - still
    assert (
        recipe_to_mapping(read_recipe(folder / "recipe.toml"))["model"]["freeze"] == recipe["model"]["freeze"]
    )
    again = robustplug.evaluate(folder, samples=20, attacks=["fgsm"])
    assert again.samples == 20


@pytest.mark.parametrize("method", ["trades", "robmask", "free-at", "sprout"])
def test_methods_keep_what_is_frozen(method: str, pretrained: Path, tmp_path: Path) -> None:
    recipe = merged(tiny(method), {"model": {"from": str(pretrained), "head": "new", "freeze": ["0", "3"]}})
    folder = robustplug.train(
        recipe | {"train": {**recipe["train"], "epochs": 1}}, out=tmp_path / "run"
    ).folder
    new, old = weights(folder), weights(pretrained)
    assert all(torch.equal(old[name], new[name]) for name in ("network.0.weight", "network.3.weight"))
    assert not torch.equal(old["network.15.weight"], new["network.15.weight"])


def test_freezing_goes_with_training_batchnorm_only(pretrained: Path, tmp_path: Path) -> None:
    recipe = tuned(pretrained, model={"freeze": ["1"]}, train={"only": "batchnorm"})
    folder = robustplug.train(recipe, out=tmp_path / "run").folder
    old, new = weights(pretrained), weights(folder)
    moved = {name for name in differing(old, new) if name.endswith(("weight", "bias"))}
    assert moved - {f"{LAST}.weight", f"{LAST}.bias"} == {
        f"network.{place}.{what}" for place in (4, 8, 11) for what in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ({"freeze": ["netwrk.0"]}, r'model\.freeze\.0(.|\n)*did you mean "network\.0"'),
        ({"freeze": ["0", "layer1"]}, r"model\.freeze\.1(.|\n)*its modules: 0, 1, 2"),
        ({"freeze": [str(place) for place in range(20)]}, "leaves nothing of the model to train"),
    ],
)
def test_what_cannot_be_frozen_is_said_with_what_is_near(
    model: dict[str, Any], text: str, pretrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=text):
        robustplug.train(tuned(pretrained, model=model), out=tmp_path / "run")


GROUPS = [{"params": ["19", "17"], "lr": 0.2}, {"params": ["0"], "lr": 1e-12, "weight_decay": 0.0}]


def entries(recipe: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the entry of the optimizer that each parameter is in, by name."""
    training = Training(recipe_from_mapping(recipe), Path("nowhere"))
    session = training._session()
    names = {id(parameter): name for name, parameter in training.parts.model.named_parameters()}
    return {
        names.get(id(parameter), f"own {number}"): entry
        for optim in session.loop.optimizers.by_name.values()
        for entry in optim.param_groups
        for number, parameter in enumerate(entry["params"])
    }


def test_parts_have_a_learning_rate_of_their_own() -> None:
    found = entries(tiny(optimizer={"groups": GROUPS, "weight_decay": 0.25}))
    assert {name for name, entry in found.items() if entry["lr"] == 0.2} == {
        f"network.{place}.{what}" for place in (17, 19) for what in ("weight", "bias")
    }
    first = found["network.0.weight"]
    assert (first["lr"], first["weight_decay"]) == (1e-12, 0.0)
    assert (found["network.3.weight"]["lr"], found["network.3.weight"]["weight_decay"]) == (0.05, 0.25)
    assert found["network.19.bias"]["weight_decay"] == 0.25
    assert len(found) == len(list(fresh())) - 2 - 4 * 3


def test_where_groups_overlap_the_last_one_counts_and_all_parameters_may_be_in_groups() -> None:
    found = entries(
        tiny(optimizer={"groups": [{"params": ["network"], "lr": 0.3}, {"params": ["0", "19"], "lr": 0.7}]})
    )
    assert {entry["lr"] for entry in found.values()} == {0.3, 0.7}
    assert {name for name, entry in found.items() if entry["lr"] == 0.7} == {
        *("network.0.weight", "network.19.weight", "network.19.bias")
    }


def test_the_groups_of_a_method_keep_their_own_rate() -> None:
    plain, grouped = entries(tiny("sprout")), entries(tiny("sprout", optimizer={"groups": GROUPS[:1]}))
    own = {name: entry for name, entry in grouped.items() if name.startswith("own")}
    assert own
    assert {name: entry["lr"] for name, entry in own.items()} == {name: plain[name]["lr"] for name in own}
    assert grouped["network.19.weight"]["lr"] == 0.2


@pytest.mark.parametrize("optimizer", [{"use": "adamw", "lr": 0.01}, {"use": "sgd", "momentum": 0.0}])
def test_the_schedule_scales_every_rate(optimizer: dict[str, Any]) -> None:
    recipe = tiny(optimizer={**optimizer, "groups": GROUPS}, schedule={"use": "cosine"})
    training = Training(recipe_from_mapping(recipe), Path("nowhere"))
    optimizers = training._session().loop.optimizers
    before = [entry["lr"] for entry in optimizers.by_name["model"].param_groups]
    optimizers.set_rates(robustplug.api.Progress(epoch=1, epochs=2))
    after = [entry["lr"] for entry in optimizers.by_name["model"].param_groups]
    assert after == pytest.approx([rate / 2 for rate in before])


@pytest.mark.parametrize(
    ("groups", "model", "text"),
    [
        ([{"params": ["conv1"], "lr": 1}], {}, r"optimizer\.groups\.0\.params\.0(.|\n)*\"conv1\""),
        (
            [*GROUPS, {"params": ["network.19.wieght"], "lr": 1}],
            {},
            r"groups\.2\.params\.0(.|\n)*\"network\.19\.weight\"",
        ),
        (
            [{"params": ["0"], "lr": 1}],
            {"freeze": ["0"]},
            r"groups\.0\.params(.|\n)*no parameter that is trained",
        ),
        ([{"params": ["2"], "lr": 1}], {}, r"groups\.0\.params(.|\n)*no parameter that is trained"),
    ],
)
def test_groups_that_name_nothing_are_refused(
    groups: list[dict[str, Any]], model: dict[str, Any], text: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=text):
        robustplug.train(tiny(optimizer={"groups": groups}, model=model), out=tmp_path / "run")


@pytest.mark.table(1)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_fine_tuned_run_resumes(optimizer: str, pretrained: Path, tmp_path: Path) -> None:
    recipe = tiny(
        "trades",
        model={"from": str(pretrained), "head": "new", "freeze": ["0", "1"]},
        optimizer={"use": optimizer, "lr": 0.01, "groups": GROUPS[:1]},
        schedule={"use": "cosine"},
    )
    check_resume(recipe, tmp_path, (1, 3, 6))


@pytest.mark.parametrize(
    ("tables", "key", "text"),
    [
        ({"model": {"head": "old"}}, "model.head", '"new"'),
        ({"model": {"head": "new"}}, "model.head", "starts from no weights"),
        ({"model": {"freeze": []}}, "model.freeze", "must name modules"),
        ({"model": {"freeze": [""]}}, "model.freeze", "must name modules"),
        ({"model": {"freeze": "0"}}, "model.freeze", "an array"),
        ({"model": {"freez": ["0"]}}, "model.freez", 'did you mean "freeze"'),
        ({"optimizer": {"groups": [{"params": ["0"]}]}}, "optimizer.groups.0.params", "neither an lr nor"),
        ({"optimizer": {"groups": [{"lr": 1}]}}, "optimizer.groups.0", "missing"),
        ({"optimizer": {"groups": [{"params": ["0"], "lr": 0}]}}, "optimizer.groups.0.lr", "above 0"),
        ({"optimizer": {"groups": [{"params": ["0"], "momentum": 1, "lr": 1}]}}, "momentum", "no such key"),
        ({"optimizer": {"groups": {"params": ["0"]}}}, "optimizer.groups", "an array of tables"),
        ({"optimizer": {"group": []}}, "optimizer.group", 'did you mean "groups"'),
        ({"task": {"classes": [1]}}, "task.classes", "at least two different digits"),
        ({"task": {"classes": [1, 1]}}, "task.classes", "at least two different digits"),
        ({"task": {"classes": [1, 10]}}, "task.classes.1", "at most 9"),
        ({"model": {"mean": [0.5]}}, "model.mean", "belong together"),
        ({"model": {"mean": [0.5], "std": [0.5], "normalize": False}}, "model.mean", "no effect"),
    ],
)
def test_problems_are_found_when_the_recipe_is_read(tables: dict[str, Any], key: str, text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(tiny(**tables))
    assert key in str(caught.value)
    assert text in str(caught.value)


def test_the_keys_are_written_back_and_are_in_the_schema(pretrained: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from robustplug.recipe.schema import recipe_schema

    recipe = recipe_from_mapping(tuned(pretrained, model={"freeze": ["0"]}, optimizer={"groups": GROUPS}))
    table = tomllib.loads(write_recipe(recipe))
    assert (table["model"]["head"], table["model"]["freeze"]) == ("new", ["0"])
    assert table["optimizer"]["groups"] == GROUPS
    assert recipe_from_mapping(table) == recipe
    validator = jsonschema.Draft202012Validator(recipe_schema())
    assert list(validator.iter_errors(table)) == []
    wrong = merged(table, {"model": {"freeze": []}, "optimizer": {"groups": [{"lr": 0.1}]}})
    assert len(list(validator.iter_errors(wrong))) == 2
    plain = tomllib.loads(write_recipe(recipe_from_mapping(tiny())))
    assert not {"head", "freeze", "mean", "std"} & plain["model"].keys()
    assert not {"groups"} & plain["optimizer"].keys()
    assert "classes" not in plain["task"]


def test_a_run_that_starts_from_a_tuned_one_has_its_architecture_and_not_its_keys(
    pretrained: Path, tmp_path: Path
) -> None:
    folder = robustplug.train(tuned(pretrained, model={"freeze": ["0"]}), out=tmp_path / "run").folder
    recipe = tuned(folder)
    recipe["model"] = {"from": str(folder)}
    table = recipe_to_mapping(recipe_from_mapping(recipe))["model"]
    assert table["width"] == MODEL["width"]
    assert not {"head", "freeze"} & table.keys()


def test_digits_of_some_classes_keep_their_split() -> None:
    whole = robustplug.build("task", "digits")
    some = robustplug.build("task", "digits", classes=[7, 3])
    assert (some.info.classes, some.info.class_names) == (2, ("7", "3"))
    for split in ("train", "validation", "test"):
        labels = whole.labels(split)
        expected = labels[(labels == 7) | (labels == 3)]
        assert torch.equal(some.labels(split), (expected == 3).long())


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        self.first, self.last = nn.Linear(3, 5), nn.Linear(3, 5, bias=False)


def test_parts_are_found_by_name() -> None:
    model = Two()
    assert parts_of(model, ["body", "first.bias"], "key") == [model.body, model.first.bias]
    wrapped = Normalized(model, [0.0], [1.0])
    assert parts_of(wrapped, ["network.body", "body.0", "network"], "key") == [
        model.body,
        model.body[0],
        model,
    ]
    frozen = freeze(model.train(), ["body"])
    assert [each.shape for each in frozen] == [(3, 4), (3,), (3,), (3,)]
    assert [part.training for part in model.body.modules()] == [True, True, False]
    assert classifier_of(model, 5) == "last"
    assert classifier_of(model, 6) is None
    assert classifier_of(nn.Sequential(nn.Linear(2, 3), nn.Conv2d(3, 7, 1)), 7) == "1"
    new_head(model, 5, 2)
    assert tuple(model.last.weight.shape) == (2, 3)
    assert [name for name, _ in model.last.named_parameters()] == ["weight"]
    network = nn.Sequential(nn.Conv2d(3, 7, 1, stride=2))
    new_head(network, 7, 2)
    assert network(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 2, 2)
    with pytest.raises(ValueError, match="no linear layer with 9 outputs"):
        new_head(model, 9, 2)


def test_a_normalisation_before_a_normalised_network_is_merged_into_it() -> None:
    model = Normalized(nn.Identity(), [0.25, 0.5], [0.5, 2.0])
    x = torch.rand(3, 2, 4, 4, generator=stream(0, "x"))
    expected = model((x - 0.3) / 0.4)
    set_in_front(model, Numbers((0.3,), (0.4,)), "file")
    torch.testing.assert_close(model(x), expected)
    with pytest.raises(RunError, match=r"model\.normalize = true"):
        set_in_front(nn.Identity(), Numbers((0.3,), (0.4,)), "file")


def test_weights_behind_a_normalisation_start_a_run_with_it(pretrained: Path, tmp_path: Path) -> None:
    inside = {name.removeprefix("network."): value for name, value in weights(pretrained).items()}
    del inside["mean"], inside["std"]
    save_file(inside, tmp_path / "bare.safetensors")
    model, notes = started(tuned(tmp_path / "bare.safetensors"))
    assert any("states no normalisation; the model keeps its own" in note for note in notes)
    numbers = {"normalizer.mean": torch.tensor([0.125]), "normalizer.std": torch.tensor([0.5])}
    save_file(
        {f"module.model.{name}": value for name, value in inside.items()} | numbers,
        tmp_path / "a.safetensors",
    )
    model, notes = started(tuned(tmp_path / "a.safetensors"))
    assert isinstance(model, Normalized)
    assert (model.mean.item(), model.std.item()) == (0.125, 0.5)
    assert any("replaces the one that the model was built with" in note for note in notes)
    assert torch.equal(model.state_dict()["network.0.weight"], inside["0.weight"])


SHORT = ["train.epochs=1", "evaluate.samples=20", "validate.samples=20"]
FEW = ['evaluate.attack=[{use="fgsm"}]', "method.perturbation.steps=1", "validate.attack.steps=1"]


def test_the_bundled_recipes_pretrain_and_fine_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = robustplug.train("pretrain", overrides=[*SHORT, FEW[0]])
    assert first.folder.resolve() == tmp_path / "runs" / "pretrain"
    second = robustplug.train("fine-tune", overrides=[*SHORT, *FEW])
    assert second.model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    old, new = weights(first.folder), weights(second.folder)
    assert torch.equal(old["network.0.weight"], new["network.0.weight"])
    assert old[f"{LAST}.weight"].shape[0] == 8


def folder_of_images(root: Path, classes: int = 3, each: int = 8) -> Path:
    rng = stream(0, "pixels")
    for label in range(classes):
        (root / f"class-{label}").mkdir(parents=True)
        for number in range(each):
            pixels = torch.randint(0, 256, (64, 64, 3), generator=rng).to(torch.uint8)
            pixels[..., label] = 255
            Image.fromarray(pixels.numpy()).save(root / f"class-{label}" / f"{number}.png")
    return root


@pytest.mark.parametrize("known", [True, False], ids=["torchvision's own file", "another file"])
def test_the_same_recipe_fine_tunes_a_file_of_torchvision(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with isolated(0):
        network = torchvision.models.squeezenet1_1(weights=None)
    file = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    torch.save(network.state_dict(), file)
    if known:
        from robustplug.subjects.formats import torchvision_net

        own = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
        monkeypatch.setattr(torchvision_net, "digest", lambda path: "b8a52dc0")
        assert torchvision_net.own_weights("squeezenet1_1", file) is own
    images = folder_of_images(tmp_path / "images")
    trained = robustplug.train(
        "fine-tune",
        overrides=[
            *("task.use=image-folder", f"task.root={images}", "task.size=64", "task.workers=0"),
            f'model={{use = "torchvision:squeezenet1_1", from = "{file}", head = "new"}}',
            'model.freeze=["features.0"]',
            *('optimizer.groups.0.params=["classifier"]', "train.batch_size=8"),
            *(*SHORT, *FEW),
        ],
        out=tmp_path / "run",
    )
    state = weights(trained.folder)
    assert torch.equal(state["network.features.0.weight"], network.state_dict()["features.0.weight"])
    assert state["network.classifier.1.weight"].shape == (3, 512, 1, 1)
    assert torch.allclose(state["mean"].flatten(), torch.tensor([0.485, 0.456, 0.406])) is known
