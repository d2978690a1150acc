"""Data and models that a script brings: read, checked, trained on, resumed, and given back unchanged."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import robustplug
from robustplug.api import ArrayTask, Component, Feed, RecipeError, RunError, register
from robustplug.plugin.host import registry
from robustplug.subjects.data.arrays import as_inputs, as_labels, checked_bounds, outside
from robustplug.subjects.data.brought import read_arrays
from robustplug.subjects.data.splits import training_task
from robustplug.subjects.data.spool import Spool

PGD = [{"use": "pgd", "steps": 5}]
THREAT = {"use": "linf", "eps": 0.1}


def blobs(count: int = 60, seed: int = 0, shape: tuple[int, ...] = (1, 6, 6)) -> tuple[Tensor, Tensor]:
    """Return images of three classes: a bright row each, and noise."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = 0.3 * torch.rand(count, *shape, generator=rng)
    for at in range(count):
        x[at].flatten()[int(y[at]) * 6 : int(y[at]) * 6 + 6] += 0.2
    return x, y


class Net(nn.Module):
    def __init__(self, features: int = 36, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.linear = nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear((x / self.scale).flatten(1))
        return logits


@pytest.fixture(scope="module")
def net() -> Net:
    """A linear classifier that knows the three classes."""
    model = Net()
    with torch.no_grad():
        model.linear.weight.zero_()
        model.linear.bias.zero_()
        for k in range(3):
            model.linear.weight[k, 6 * k : 6 * k + 6] = 2.0
    return model.eval()


class Samples(Dataset[Any]):
    classes = ("a", "b", "c")

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, at: int) -> Any:
        return self.x[at], int(self.y[at])


class Rows(IterableDataset[Any]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(self.x, self.y, strict=True))


def ways(x: Tensor, y: Tensor) -> dict[str, Any]:
    """Return the same samples in every form that is read."""
    return {
        "tensors": (x, y),
        "numpy": (x.numpy(), y.numpy()),
        "without channels": (x[:, 0], y),
        "doubles and int8": (x.double(), y.to(torch.int8)),
        "one-hot": (x, nn.functional.one_hot(y)),
        "column of labels": (x.numpy(), y.numpy()[:, None]),
        "lists": (x.tolist(), y.tolist()),
        "dataset": Samples(x, y),
        "tensor dataset": TensorDataset(x, y),
        "loader": DataLoader(TensorDataset(x, y), batch_size=7),
        "loader of a stream": DataLoader(Rows(x, y), batch_size=7),
        "batches": [(x[:25], y[:25]), (x[25:], y[25:])],
        "generator": (pair for pair in [(x[:25], y[:25]), (x[25:], y[25:])]),
        "mappings": [{"image": x[:25], "label": y[:25]}, {"image": x[25:], "label": y[25:]}],
        "task": ArrayTask({"test": (x, y)}),
    }


@pytest.mark.parametrize("way", list(ways(*blobs())))
def test_every_form_gives_the_same_accuracies(way: str, net: Net) -> None:
    x, y = blobs()
    expected = robustplug.evaluate(net, data=(x, y), threat=THREAT, attacks=PGD)
    found = robustplug.evaluate(net, data=ways(x, y)[way], threat=THREAT, attacks=PGD)
    assert [row.right for row in found.attacks] == [row.right for row in expected.attacks]
    assert expected.attacks[0].accuracy == 1
    assert 0 < expected.attacks[1].accuracy < 1


def test_hugging_face_datasets_are_read(net: Net) -> None:
    datasets = pytest.importorskip("datasets")
    x, y = blobs()
    features = datasets.Features(
        {
            "picture": datasets.Array3D(shape=(1, 6, 6), dtype="float32"),
            "label": datasets.ClassLabel(names=["a", "b", "c"]),
        }
    )
    data = datasets.Dataset.from_dict({"picture": x.numpy(), "label": y.tolist()}, features=features)
    found = read_arrays(data, ("picture", "label"))
    assert torch.allclose(found.x, x)
    assert found.class_names == ("a", "b", "c")
    with pytest.raises(RunError, match=r"columns 'picture', 'label'.*columns=\(inputs, labels\)"):
        robustplug.evaluate(net, data=data, threat=THREAT, attacks=PGD)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(3, 1, 6, 6), r"is one array: give a pair"),
        ((torch.zeros(3, 1, 6, 6), torch.zeros(2)), "there are 3 inputs"),
        ((torch.zeros(3, 1, 6, 6), torch.tensor([0, 1, -1])), "start at 0"),
        ((torch.zeros(3, 1, 6, 6), torch.tensor([0, 1, 5])), "3 outputs"),
        ((torch.zeros(3, 1, 6, 6), torch.tensor([0.5, 1, 1])), "whole numbers"),
        ((torch.full((3, 1, 6, 6), 200.0), torch.zeros(3)), r"200.*bounds=\(0, 255\)"),
        ((torch.full((3, 1, 6, 6), -0.5), torch.zeros(3)), r"bounds=\(-1, 1\)"),
        ((torch.full((3, 1, 6, 6), -2.5), torch.zeros(3)), r"mean=…, std=…"),
        ((torch.full((3, 1, 6, 6), torch.nan), torch.zeros(3)), "NaN"),
        ((np.array([["a"], ["b"]]), np.zeros(2)), "array of numbers"),
        ([], "empty"),
        (iter([]), "empty"),
        ([(torch.zeros(2, 1, 6, 6), torch.zeros(2)), (torch.zeros(2, 1, 5, 6), torch.zeros(2))], "batch 1"),
        ([torch.zeros(2, 1, 6, 6)], "pair"),
        ("digits", "is a str"),
        (7, "is a int"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data_that_cannot_be_used_say_what_mends_them(data: Any, message: str, net: Net) -> None:
    with pytest.raises(RunError, match=message):
        robustplug.evaluate(net, data=data, attacks=PGD)


def test_arguments_that_exclude_each_other_are_refused(net: Net) -> None:
    with pytest.raises(TypeError, match="either a task or data"):
        robustplug.evaluate(net, task="digits", data=blobs())
    with pytest.raises(TypeError, match="two names of one argument"):
        robustplug.evaluate(net, data=blobs(), threat=THREAT, vicinity=THREAT)
    with pytest.raises(TypeError, match="either a suite or attacks"):
        robustplug.evaluate(net, data=blobs(), suite="quick", attacks=PGD)
    with pytest.raises(TypeError, match=r"data=\(x, y\)"):
        robustplug.evaluate(net)


def test_bounds_are_the_units_of_the_radius(net: Net) -> None:
    x, y = blobs()
    unit = robustplug.evaluate(net, data=(x, y), threat=THREAT, attacks=PGD, keep_examples=True)
    scaled = copy.deepcopy(net)
    scaled.scale = 255.0
    big = robustplug.evaluate(
        scaled,
        data=(x * 255, y),
        bounds=(0, 255),
        threat={"use": "linf", "eps": 25.5},
        attacks=PGD,
        keep_examples=True,
    )
    assert [row.right for row in big.attacks] == [row.right for row in unit.attacks]
    assert float(big.examples.x.max()) > 1
    assert float((big.examples.x - big.examples.origin).abs().max()) == pytest.approx(25.5, rel=1e-5)
    assert big.meta["input_range"] == [0, 255]
    bytes_ = robustplug.evaluate(net, data=((x * 255).round().to(torch.uint8), y), threat=THREAT, attacks=PGD)
    assert bytes_.attacks[1].accuracy == pytest.approx(unit.attacks[1].accuracy, abs=0.05)


def test_bounds_may_differ_between_features() -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.stack([y + 0.1 * torch.rand(40, generator=rng), 100 * torch.rand(40, generator=rng)], 1)

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], 1)

    found = robustplug.evaluate(
        First(),
        data=(x, y),
        bounds=([0, 0], [1.1, 100]),
        threat={"use": "linf", "eps": 2},
        attacks=["pgd"],
        keep_examples=True,
    )
    assert found.attacks[1].accuracy == 0
    assert float(found.examples.x[:, 0].max()) <= 1.1 + 1e-5
    assert float((found.examples.x[:, 1] - found.examples.origin[:, 1]).abs().max()) <= 2 + 1e-4
    assert found.examples.survives is None, "tables are not pictures"


def test_every_kind_of_bounds_is_checked() -> None:
    assert checked_bounds((0, 255), (3, 4, 4)) == (0, 255)
    assert checked_bounds(([0, 1], 2), (2,)) == ((0, 1), (2, 2))
    for wrong, message in (((0,), "pair"), ((1, 0), "below"), (([0, 0], 1), "channels"), ("ab", "pair")):
        with pytest.raises(ValueError, match=message):
            checked_bounds(wrong, (3, 4, 4))
    assert outside(torch.tensor([[0.0, 5.0]]), ((0, 0), (1, 5))) == ""
    assert "for each channel" in outside(torch.tensor([[0.0, 6.0]]), ((0, 0), (1, 5)))


def test_examples_name_sample_labels_and_row(net: Net, tmp_path: Path) -> None:
    from safetensors import safe_open

    x, y = blobs()
    attacks: list[Any] = ["fgsm", {"use": "pgd", "steps": 20}]
    found = robustplug.evaluate(
        net, data=(x, y), threat=THREAT, attacks=attacks, keep_examples=True, images="png", out=tmp_path
    )
    kept = found.examples
    broken = [index for index, right in enumerate(found.attacks[-1].right) if not right]
    assert sorted(kept.index.tolist()) == broken
    assert torch.equal(kept.label, y[kept.index])
    assert torch.equal(kept.before, kept.label), "all were classified correctly before"
    assert torch.equal(net(kept.x).argmax(1), kept.after)
    assert not bool((kept.after == kept.label).any())
    assert torch.equal(kept.origin, x[kept.index])
    assert float((kept.x - kept.origin).abs().max()) <= 0.1 + 1e-6
    assert [int(kept.of(row.name).sum()) for row in found.attacks] == [row.broken for row in found.attacks]
    with safe_open(tmp_path / "examples.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("x"), kept.x)
        assert file.metadata()["1"] == "fgsm"
    pictures = sorted((tmp_path / "examples").glob("*.png"))
    assert len(pictures) == len(kept)
    assert found.meta["examples"]["fgsm"]["examples"] == found.attacks[1].broken


def test_pictures_that_survive_rounding_are_inside_the_radius_and_wrong(net: Net, tmp_path: Path) -> None:
    from PIL import Image

    x, y = blobs()
    found = robustplug.evaluate(
        net, data=(x, y), threat=THREAT, attacks=PGD, keep_examples=True, images="png", out=tmp_path
    )
    survivors = 0
    for path in sorted((tmp_path / "examples").glob("*.png")):
        index = int(path.name[:6])
        picture = torch.from_numpy(np.array(Image.open(path))).float()[None, None] / 255
        inside = float((picture[0] - x[index]).abs().max()) <= 0.1 + 1e-6
        survivors += inside and int(net(picture).argmax()) != int(y[index])
    assert survivors == found.meta["examples"]["pgd (steps=5)"]["8-bit"] == int(found.examples.survives.sum())
    assert survivors > 0


def test_attack_returns_a_tensor_of_the_same_samples(net: Net) -> None:
    x, y = blobs()
    found = robustplug.attack(net, x, y, "pgd", threat=THREAT)
    assert found.shape == x.shape
    assert float((found - x).abs().max()) <= 0.1 + 1e-6
    assert float((net(found).argmax(1) == y).float().mean()) < 1
    without = robustplug.attack(net, x[:, 0], y, {"use": "pgd", "steps": 3}, threat=THREAT)
    assert without.shape == x[:, 0].shape
    assert torch.equal(found, robustplug.attack(net, x.numpy(), y.numpy(), "pgd", threat=THREAT))
    assert not torch.equal(found, robustplug.attack(net, x, y, "pgd", threat=THREAT, seed=1))


@pytest.mark.parametrize("context", ["plain", "no_grad", "inference_mode", "autocast", "exception"])
def test_the_module_is_given_back_as_it_was(context: str, net: Net) -> None:
    class Failing(Net):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if context == "exception" and self.calls > 12:
                raise ValueError("no more")
            return super().forward(x)

    x, y = blobs()
    model = Failing()
    model.load_state_dict(net.state_dict())
    model.train()
    model.linear.weight.grad = torch.ones(3, 36)
    model.linear.bias.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    data, expected = (x.clone(), y.clone()), x.clone()
    around: Any = {
        "no_grad": torch.no_grad(),
        "inference_mode": torch.inference_mode(),
        "autocast": torch.autocast("cpu", torch.bfloat16),
    }.get(context, warnings.catch_warnings())
    torch_state = torch.random.get_rng_state()
    with around:
        result = robustplug.evaluate(model, data=data, threat=THREAT, attacks=PGD)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.linear.weight.grad, torch.ones(3, 36))
    assert not model.linear.bias.requires_grad
    assert model.linear.weight.requires_grad
    assert torch.equal(data[0], expected)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    if context != "exception":
        plain = robustplug.evaluate(net, data=(x, y), threat=THREAT, attacks=PGD)
        assert [row.right for row in result.attacks] == [row.right for row in plain.attacks]


SETTINGS = ["train.precision=float32", "validate.attack.steps=2", "evaluate.attack=[{use='fgsm'}]"]


def test_training_leaves_the_module_alone_and_records_the_objects(tmp_path: Path) -> None:
    x, y = blobs(90)
    model = Net()
    before = copy.deepcopy(model.state_dict())
    trained = robustplug.train(
        "pgd-at",
        model=model,
        data=(x, y),
        validation=0.2,
        test=blobs(30, 1),
        epochs=2,
        batch_size=30,
        threat=THREAT,
        overrides=SETTINGS,
        out=tmp_path / "run",
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(trained.model.state_dict()["linear.weight"], model.linear.weight)
    assert trained.result.split == "test"
    assert trained.result.samples == 30
    recipe = (trained.folder / "recipe.toml").read_text()
    assert 'kind = "Net"' in recipe
    assert "eps = 0.1" in recipe
    assert len(trained.history) == 2
    with pytest.raises(RecipeError, match=r"robustplug.train\(resume=…, data=…\)"):
        robustplug.evaluate(trained.folder)
    weights = trained.folder / "model.safetensors"
    again = robustplug.evaluate(weights, architecture=Net, data=blobs(30, 1), threat=THREAT, attacks=["fgsm"])
    assert again.attacks[0].accuracy == trained.result.attacks[0].accuracy


class Stopped(Exception):
    pass


class StopAfterEpoch:
    def begin(self, *_: Any) -> None:
        pass

    def batch(self, *_: Any) -> None:
        pass

    def epoch(self, *_: Any) -> None:
        raise Stopped

    def attack(self, *_: Any) -> None:
        pass

    def warn(self, *_: Any) -> None:
        pass


class Noisy(Samples):
    """Samples whose transform draws from the global generators of torch, NumPy and Python."""

    def __getitem__(self, at: int) -> Any:
        noise = float(torch.rand(())) + float(np.random.rand())
        return (self.x[at] + 0.01 * noise).clamp(0, 1), int(self.y[at])


@pytest.mark.parametrize("kind", ["arrays", "random transforms", "function"])
def test_a_killed_run_of_given_objects_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    x, y = blobs(60)
    data: Any = Noisy(x, y) if kind == "random transforms" else (x, y)
    model: Any = Net if kind == "function" else Net()
    given: dict[str, Any] = {"model": model, "data": data, "validation": 0.2}
    more: dict[str, Any] = {**given, "epochs": 2, "batch_size": 20, "threat": THREAT, "overrides": SETTINGS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = robustplug.train("cat", **more, out=tmp_path / "whole")
        with pytest.raises(Stopped):
            robustplug.train("cat", **more, out=tmp_path / "killed", reporter=StopAfterEpoch())
        with pytest.raises(RecipeError, match="not what the run was started with"):
            robustplug.train(resume=tmp_path / "killed", model=model, data=blobs(59), validation=0.2)
        again = robustplug.train(resume=tmp_path / "killed", **given)
    assert [a.train for a in again.history] == [b.train for b in whole.history]
    for one, other in zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_without_test_data_the_result_is_called_optimistic(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="optimistic"):
        trained = robustplug.train(
            "erm", data=blobs(60), model=Net, epochs=1, overrides=SETTINGS, out=tmp_path / "run"
        )
    assert trained.result.split == "validation"


def test_random_transforms_are_read_anew_in_each_epoch_and_said_of_validation() -> None:
    x, y = blobs(30)
    task, notes = training_task(Noisy(x, y), 0.2)
    assert "validation" in notes[0]
    first, again, next_ = (
        torch.cat([b.x for b in task.batches("train", Feed(epoch=epoch, augment=True))])
        for epoch in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, next_)
    same = [torch.cat([b.x for b in task.batches("validation", Feed(epoch=epoch))]) for epoch in (0, 1)]
    assert torch.equal(*same)
    _, quiet = training_task(Noisy(x, y), blobs(12, 1))
    assert quiet == []


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_a_share_lies_between_0_and_1(share: float, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no share"):
        robustplug.train("erm", data=blobs(), validation=share, out=tmp_path / "run")


def test_training_on_one_class_is_refused(tmp_path: Path) -> None:
    x, y = blobs()
    with pytest.raises(RunError, match="all 60 training samples are of class 0"):
        robustplug.train("erm", data=(x, torch.zeros_like(y)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_parameter_to_train_is_refused(net: Net, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no parameter of the model requires a gradient"):
        robustplug.train("erm", model=net.requires_grad_(False), data=blobs(), out=tmp_path / "run")


def test_an_eps_in_pixels_is_noticed(net: Net) -> None:
    with pytest.warns(UserWarning, match="8/255"):
        robustplug.evaluate(net, data=blobs(), threat={"use": "linf", "eps": 8}, attacks=["fgsm"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        robustplug.evaluate(net, data=blobs(), threat={"use": "linf", "eps": "8/255"}, attacks=["fgsm"])
        robustplug.evaluate(net, data=blobs(), threat={"use": "l2", "eps": 1.4}, attacks=["fgsm"])


def test_components_are_registered_within_the_process() -> None:
    class Half:
        def __init__(self, options: object) -> None:
            pass

        def __call__(self, step: Any, view: Any, output: Tensor, target: Any) -> Tensor:
            return nn.functional.cross_entropy(output, target, reduction="none") / 2

    try:
        register("loss", Component("half-ce", Half))
        assert isinstance(robustplug.build("loss", "half-ce"), Half)
        register("loss", Component("half-ce", Half))  # a cell of a notebook that is run again
        with pytest.raises(ValueError, match="offered by the plugin builtin"):
            register("loss", Component("ce", Half))
    finally:
        known = registry()
        del known.components["loss", "half-ce"], known.owners["loss", "half-ce"]


def test_a_large_stream_goes_through_a_file() -> None:
    parts = [torch.arange(6.0).view(2, 3) + 10 * number for number in range(5)]
    for limit in (0, 30, 10_000):
        spool = Spool(limit)
        for part in parts:
            spool.add(part)
        found = spool.tensor()
        assert torch.equal(found, torch.cat(parts))
        found[0, 0] = 7.0  # it may be written to


def test_inputs_and_labels_of_every_type() -> None:
    assert as_inputs(torch.zeros(2, 3, 3)).shape == (2, 1, 3, 3)
    assert as_inputs(np.zeros((2, 5))).dtype == torch.float32
    assert as_inputs(torch.zeros(2, 1, 3, 3, dtype=torch.uint8)).dtype == torch.uint8
    for kind in (torch.int8, torch.uint8, torch.int32, torch.int64, torch.float32):
        assert as_labels(torch.tensor([0, 2]).to(kind), 2).tolist() == [0, 2]
    assert as_labels([[0, 1, 0], [1, 0, 0]], 2).tolist() == [1, 0]


def dictionaries(items: list[Any]) -> dict[str, Tensor]:
    return {"x": torch.stack([x for x, _ in items]), "label": torch.tensor([int(y) for _, y in items])}


LOADERS: dict[str, dict[str, Any]] = {
    "one sample": {"batch_size": 1},
    "ragged": {"batch_size": 7},
    "larger than the set": {"batch_size": 500},
    "all at once": {"batch_size": 60},
    "workers": {"batch_size": 16, "num_workers": 1},
    "pinned": {"batch_size": 16, "pin_memory": False},
    "dictionaries": {"batch_size": 16, "collate_fn": dictionaries},
    "reversed": {"batch_size": 16, "sampler": range(59, -1, -1)},
    "batches of a sampler": {"batch_sampler": [list(range(25)), list(range(25, 60))]},
    "without a batch size": {"batch_size": None, "sampler": [list(range(30)), list(range(30, 60))]},
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_gives_all_its_samples_in_its_order(name: str, net: Net) -> None:
    x, y = blobs()
    loader: Any = DataLoader(TensorDataset(x, y), **LOADERS[name])
    found = robustplug.evaluate(net, data=loader, threat=THREAT, attacks=PGD)
    order = list(range(59, -1, -1)) if name == "reversed" else list(range(60))
    expected = robustplug.evaluate(net, data=(x[order], y[order]), threat=THREAT, attacks=PGD)
    assert [row.right for row in found.attacks] == [row.right for row in expected.attacks]


@pytest.mark.parametrize(
    ("norm", "eps", "bounds", "noticed"),
    [
        ("linf", 8, (0, 1), "8/255"),
        ("linf", 4, (0, 1), "4/255"),
        ("linf", 1, (0, 1), "1/255"),
        ("linf", 0.3, (0, 1), "quarter"),
        ("linf", 0.25, (0, 1), ""),
        ("linf", "8/255", (0, 1), ""),
        ("linf", 8, (0, 255), ""),
        ("linf", 70, (0, 255), "quarter"),
        ("l2", 128, (0, 1), "128/255"),
        ("l2", 0.5, (0, 1), ""),
        ("l2", 1.6, (0, 1), "quarter"),
    ],
)
def test_every_radius_that_is_no_small_perturbation_is_noticed(
    norm: str, eps: Any, bounds: tuple[float, float], noticed: str, net: Net
) -> None:
    x, y = blobs(12)
    given: dict[str, Any] = {"data": (x * bounds[1], y), "bounds": bounds}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        robustplug.evaluate(net, **given, threat={"use": norm, "eps": eps}, attacks=["noise"])
    notes = " ".join(str(each.message) for each in caught if "eps =" in str(each.message))
    assert bool(notes) == bool(noticed)
    assert noticed in notes


ATTACKS: dict[str, Any] = {
    "one": ["fgsm"],
    "by name": "pgd",
    "a chain": ["fgsm", {"use": "pgd", "steps": 3}],
    "a margin": [{"use": "pgd", "steps": 3, "loss": {"use": "margin"}}],
    "restarts": [{"use": "pgd", "steps": 2, "restarts": 2}],
    "apgd": [{"use": "apgd-ce", "steps": 5}],
    "momentum": [{"use": "mi-fgsm", "steps": 3}],
    "square": [{"use": "square", "queries": 20}],
    "noise": ["noise"],
    "none breaks": [{"use": "pgd", "steps": 1, "step_size": 0.0001, "start": "zero"}],
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_the_examples_of_every_attack_are_legal_and_wrong(name: str, norm: str, net: Net) -> None:
    x, y = blobs()
    eps = 0.1 if norm == "linf" else 0.6
    found = robustplug.evaluate(
        net, data=(x, y), threat={"use": norm, "eps": eps}, attacks=ATTACKS[name], keep_examples=True
    )
    broken = sum(row.broken for row in found.attacks)
    assert (found.examples is None) == (broken == 0)
    if found.examples is None:
        return
    kept = found.examples
    assert len(kept) == broken
    moved = (kept.x - kept.origin).flatten(1)
    size = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    assert float(size.max()) <= eps * (1 + 1e-4) + 1e-6
    assert not bool((net(kept.x).argmax(1) == kept.label).any())
    assert float(kept.x.min()) >= 0
    assert float(kept.x.max()) <= 1
