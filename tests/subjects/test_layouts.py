"""State dicts as other programs wrap them: averages, a normalisation, attackers, Lightning."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustplug.core.types import TaskInfo
from robustplug.errors import RunError
from robustplug.plugin.component import Use
from robustplug.subjects.formats.layouts import Numbers, place
from robustplug.subjects.loading import load_target

from .models import BARE, INFO, SMALL, bare, close, images, small

State = dict[str, Tensor]
MEAN, STD = 0.25, 0.5


class Normalize(nn.Module):
    """Stands for a layer of another program; buffers of any shape, under any names."""

    def __init__(self, names: tuple[str, str] = ("mean", "std"), shape: tuple[int, ...] = (1, 1, 1)) -> None:
        super().__init__()
        self.names = names
        self.register_buffer(names[0], torch.full(shape, MEAN))
        self.register_buffer(names[1], torch.full(shape, STD))

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (getattr(self, name).view(1, -1, 1, 1) for name in self.names)
        result: Tensor = (x - mean) / std
        return result


class Holder(nn.Module):
    """Holds a network under a name, and perhaps more under other names."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Behind(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.network((x - MEAN) / STD)
        return result


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: value.clone() for name, value in state.items()}


def loaded(state: Mapping[str, Tensor], tmp_path: Path, model: Use = SMALL) -> Any:
    path = tmp_path / "net.safetensors"
    save_file({name: value.clone().contiguous() for name, value in state.items()}, path)
    return load_target(path, INFO, model=model)


def told(target: Any, *texts: str) -> bool:
    notes = " | ".join(target.description["notes"])
    return all(text in notes for text in texts)


def averaged(wrap: Callable[[nn.Module], nn.Module], **options: Any) -> State:
    """Return the state of an average whose weights are those of the small CNN."""
    average = AveragedModel(wrap(small()), **options)
    return dict(average.state_dict())


def moved(state: Mapping[str, Tensor]) -> State:
    return {name: value + 1 for name, value in state.items()}


AVERAGES: dict[str, Callable[[], State]] = {
    "AveragedModel": lambda: averaged(lambda net: net),
    "of buffers, too": lambda: averaged(lambda net: net, use_buffers=True),
    "exponential": lambda: averaged(lambda net: net, multi_avg_fn=get_ema_multi_avg_fn(0.9)),  # type: ignore[no-untyped-call]
    "of DataParallel": lambda: averaged(nn.DataParallel),
    "of a holder": lambda: averaged(lambda net: Holder(model=net)),
    "of a backbone": lambda: averaged(lambda net: Holder(backbone=net)),
    "of a compiled net": lambda: averaged(lambda net: Holder(_orig_mod=net)),
    "beside the weights": lambda: (
        prefixed("model.", small().state_dict())
        | prefixed("ema_model.", moved(small().state_dict()))
        | {"initted": torch.tensor([True]), "step": torch.tensor([7])}
    ),
    "under its own name only": lambda: prefixed("ema.", small().state_dict()),
    "of a student and a teacher": lambda: (
        prefixed("student.", small().state_dict()) | prefixed("teacher.", moved(small().state_dict()))
    ),
    "of a module in a module": lambda: (
        prefixed("module.module.", small().state_dict())
        | {"module.n_averaged": torch.tensor(3), "n_averaged": torch.tensor(5)}
    ),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_averages(name: str, tmp_path: Path) -> None:
    target = loaded(AVERAGES[name](), tmp_path)
    close(target.module, small())
    assert told(target, "was removed")
    if "teacher." in " ".join(AVERAGES[name]()) or "ema_model." in " ".join(AVERAGES[name]()):
        assert told(target, "not used: other copies of the network in the file")


def sequential(**parts: nn.Module) -> State:
    return dict(nn.Sequential(OrderedDict(parts)).state_dict())


NORMALISED: dict[str, Callable[[], State]] = {
    "Sequential": lambda: dict(nn.Sequential(Normalize(), bare()).state_dict()),
    "flat buffers": lambda: dict(nn.Sequential(Normalize(shape=(1,)), bare()).state_dict()),
    "four axes": lambda: dict(nn.Sequential(Normalize(shape=(1, 1, 1, 1)), bare()).state_dict()),
    "scalars": lambda: dict(nn.Sequential(Normalize(shape=()), bare()).state_dict()),
    "named": lambda: sequential(normalize=Normalize(), model=bare()),
    "named otherwise": lambda: sequential(norm=Normalize(("mu", "sigma")), net=bare()),
    "means and sds": lambda: sequential(input_norm=Normalize(("means", "sds")), backbone=bare()),
    "in DataParallel": lambda: prefixed("module.", nn.Sequential(Normalize(), bare()).state_dict()),
    "compiled": lambda: prefixed("_orig_mod.", nn.Sequential(Normalize(), bare()).state_dict()),
    "of the holder": lambda: {
        "pixel_mean": torch.tensor([MEAN]),
        "pixel_std": torch.tensor([STD]),
        **prefixed("net.", bare().state_dict()),
    },
    "for inputs up to 255": lambda: {
        "data_preprocessor.mean": torch.tensor([255 * MEAN]),
        "data_preprocessor.std": torch.tensor([255 * STD]),
        **prefixed("backbone.", bare().state_dict()),
    },
    "beside the names of the network": lambda: {
        "normalizer.mean": torch.tensor([MEAN]),
        "normalizer.std": torch.tensor([STD]),
        **dict(bare().state_dict()),
    },
}


@pytest.mark.parametrize("name", NORMALISED)
@pytest.mark.parametrize("model", [BARE, SMALL], ids=["bare", "normalised"])
def test_a_normalisation_is_kept_and_told(name: str, model: Use, tmp_path: Path) -> None:
    target = loaded(NORMALISED[name](), tmp_path, model)
    close(target.module, Behind(bare()))
    where = "in front" if model is BARE else "inside the model"
    assert target.description["normalisation"] == {"mean": [MEAN], "std": [STD], "where": where}
    if model is BARE:
        assert told(target, "kept in front of the model", "mean 0.25, std 0.5")
    else:
        assert told(target, "replaces the one that the model was built with", f"mean {INFO.mean[0]:.4g}")
    assert told(target, "divided by 255") is ("255" in name)


def test_a_normalisation_before_a_normalised_network_is_not_lost(tmp_path: Path) -> None:
    target = loaded(nn.Sequential(Normalize(), small()).state_dict(), tmp_path)
    close(target.module, Behind(small()))
    assert target.description["normalisation"]["where"] == "in front"


def test_the_same_normalisation_as_the_models_is_not_applied_twice(tmp_path: Path) -> None:
    inside = {name.removeprefix("network."): value for name, value in small().state_dict().items()}
    state = {
        "normalizer.mean": inside.pop("mean").flatten(),
        "normalizer.std": inside.pop("std").flatten(),
        **prefixed("model.", inside),
    }
    target = loaded(state, tmp_path)
    close(target.module, small())
    assert told(target, "is the one of the model")


def test_the_callers_numbers_replace_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(nn.Sequential(Normalize(), bare()).state_dict(), path)
    target = load_target(path, INFO, model=BARE, mean=[0.5], std=[0.25])
    assert target.description["normalisation"] == {"mean": [0.5], "std": [0.25], "where": "in front"}


@pytest.mark.parametrize(
    ("mean", "std", "why"),
    [
        (torch.zeros(1), torch.zeros(1), "a std of zero"),
        (torch.zeros(16), torch.ones(16), "as many numbers as a layer has channels"),
        (torch.tensor([float("nan")]), torch.ones(1), "no number"),
        (torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64), "whole numbers"),
    ],
)
def test_what_is_no_normalisation_is_refused(mean: Tensor, std: Tensor, why: str, tmp_path: Path) -> None:
    state = {"0.mean": mean, "0.std": std, **prefixed("1.", bare().state_dict())}
    with pytest.raises(RunError, match=r"2 unexpected: (0|.*\.)?mean"):
        loaded(state, tmp_path, BARE)


def test_running_statistics_are_no_normalisation(tmp_path: Path) -> None:
    state = {
        "norm.running_mean": torch.zeros(1),
        "norm.running_std": torch.ones(1),
        **prefixed("1.", bare().state_dict()),
    }
    with pytest.raises(RunError, match="2 unexpected"):
        loaded(state, tmp_path, BARE)


def attacker(
    prefix: str = "module.", copy: str = "attacker.model.", names: tuple[str, str] = ("new_mean", "new_std")
) -> State:
    """Return a checkpoint of a model that holds an attacker, which holds the model again."""
    state = prefixed(f"{prefix}model.", bare().state_dict())
    state |= prefixed(prefix + copy, bare().state_dict())
    for holder in ("", copy.partition(".")[0] + "."):
        for name, value in zip(names, (MEAN, STD), strict=True):
            state[f"{prefix}{holder}normalizer.{name}"] = torch.full((1, 1, 1), value)
    return state


ATTACKERS: dict[str, Callable[[], State]] = {
    "as published": attacker,
    "of one device": lambda: attacker(prefix=""),
    "compiled": lambda: attacker(prefix="_orig_mod."),
    "compiled, of many devices": lambda: attacker(prefix="module._orig_mod."),
    "of many devices, twice": lambda: attacker(prefix="module.module."),
    "plain names": lambda: attacker(names=("mean", "std")),
    "without the copy": lambda: {k: v for k, v in attacker().items() if "attacker" not in k},
    "without the copy's normalisation": lambda: {
        k: v for k, v in attacker().items() if "attacker.n" not in k
    },
    "with a network within": lambda: {k.replace("model.", "model.model."): v for k, v in attacker().items()},
    "with old counters missing": lambda: {
        k: v for k, v in attacker().items() if not k.endswith("num_batches_tracked")
    },
    "the attacker first": lambda: dict(sorted(attacker().items())),
}


@pytest.mark.parametrize("name", ATTACKERS)
@pytest.mark.parametrize("model", [BARE, SMALL], ids=["bare", "normalised"])
def test_attackers(name: str, model: Use, tmp_path: Path) -> None:
    target = loaded(ATTACKERS[name](), tmp_path, model)
    close(target.module, Behind(bare()))
    assert target.description["normalisation"]["mean"] == [MEAN]


def test_an_attacker_with_other_numbers_is_told(tmp_path: Path) -> None:
    state = attacker()
    state["module.attacker.normalizer.new_mean"] = torch.full((1, 1, 1), 0.75)
    target = loaded(state, tmp_path, BARE)
    close(target.module, Behind(bare()))
    assert told(target, "not used: another normalisation in the file (mean 0.75")


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "net.", "network.", "backbone."),
        *("module.model.", "module._orig_mod.", "_orig_mod.module.", "module.net.", "model.backbone."),
        *("network.network.", "module.model.net.", "model.module.", "backbone.model.", "0.", "module.1."),
    ],
)
@pytest.mark.parametrize("model", [BARE, SMALL], ids=["bare", "normalised"])
def test_wrappers_and_their_combinations(prefix: str, model: Use, tmp_path: Path) -> None:
    network = bare() if model is BARE else small()
    target = loaded(prefixed(prefix, network.state_dict()), tmp_path, model)
    close(target.module, network)
    assert target.description["prefix"] in (prefix, f"{prefix}network.")


def test_a_layer_beside_the_network_in_a_sequential_is_no_wrapper(tmp_path: Path) -> None:
    state = {"0.weight": torch.ones(1, 1, 1, 1), **prefixed("1.", bare().state_dict())}
    with pytest.raises(RunError, match=r"unexpected"):
        loaded(state, tmp_path, BARE)


def lightning(hyper: Any, **more: Any) -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": prefixed("net.", small().state_dict()) | {"criterion.weight": torch.ones(10)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"momentum": torch.ones(3)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hyper_parameters": hyper,
        **more,
    }


class Attributes(dict[str, Any]):
    """As Lightning's AttributeDict."""


HYPER: dict[str, Any] = {
    "plain": {"lr": 0.1, "name": "net"},
    "a namespace": argparse.Namespace(lr=0.1),
    "a subclass of dict": Attributes(lr=0.1, inner=Attributes(width=4)),
    "a path": {"root": Path("data")},
    "a class": {"network": nn.Linear, "loss": nn.CrossEntropyLoss()},
}


@pytest.mark.parametrize("name", HYPER)
def test_lightning(name: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(lightning(HYPER[name]), path)
    target = load_target(path, INFO, model=SMALL)
    close(target.module, small())
    assert told(target, 'under "state_dict"', '"net."', "criterion.weight")
    assert told(target, "Python objects, which were not read") is (name != "plain")


class Marked:
    """Leaves a mark where it is built or restored."""

    marks: ClassVar[list[str]] = []

    def __init__(self, *_: Any) -> None:
        self.marks.append("built")

    def __setstate__(self, state: Any) -> None:
        self.marks.append("restored")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Marked, ("argument",), {"state": 1})


def test_objects_that_are_left_out_are_neither_built_nor_restored(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(lightning({"x": Marked()}), path)
    Marked.marks.clear()
    before = set(map(str, torch.serialization.get_safe_globals()))
    target = load_target(path, INFO, model=SMALL)
    assert Marked.marks == []
    assert told(target, "Marked")
    assert set(map(str, torch.serialization.get_safe_globals())) == before


def test_objects_among_the_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": Marked()}, path)
    with pytest.raises(RunError, match="could run any code"):
        load_target(path, INFO, model=SMALL)


@pytest.mark.parametrize(
    "places",
    [
        *(
            ["state_dict"],
            ["model_state_dict"],
            ["model"],
            ["net"],
            ["ema"],
            ["model_ema"],
            ["state_dict_ema"],
        ),
        *(["ema", "shadow"], ["state", "model"], ["generator"]),
    ],
    ids=".".join,
)
def test_tables(places: list[str], tmp_path: Path) -> None:
    value: Any = dict(small().state_dict())
    for name in reversed(places):
        value = {name: value, "epoch": 1, "best": torch.tensor(0.5)}
    torch.save(
        {**value, "optimizer": {"state": {"a": torch.ones(2)}}, "scheduler": {"last": 3}}, tmp_path / "a.pt"
    )
    target = load_target(tmp_path / "a.pt", INFO, model=SMALL)
    close(target.module, small())
    assert told(target, f'under "{".".join(places)}"')


def test_weights_come_before_averages_and_several_unknown_tables_are_refused(tmp_path: Path) -> None:
    state, average = dict(small().state_dict()), moved(small().state_dict())
    torch.save({"ema": average, "net": state}, tmp_path / "a.pt")
    target = load_target(tmp_path / "a.pt", INFO, model=SMALL)
    close(target.module, small())
    assert told(target, "not used: ema")
    torch.save({"first": state, "second": average}, tmp_path / "b.pt")
    with pytest.raises(RunError, match=r"no state dict \(keys: first, second\)"):
        load_target(tmp_path / "b.pt", INFO, model=SMALL)


def test_a_state_dict_with_other_values_beside(tmp_path: Path) -> None:
    torch.save({**small().state_dict(), "epoch": 3, "name": "net"}, tmp_path / "a.pt")
    target = load_target(tmp_path / "a.pt", INFO, model=SMALL)
    close(target.module, small())
    assert told(target, "not used of the file: epoch, name")


def test_what_is_missing_is_told_by_name_and_shape_the_nearest_first(tmp_path: Path) -> None:
    state = dict(small().state_dict())
    state["head"] = state.pop("network.15.bias")
    state["network.19.wieght"] = state.pop("network.19.weight")
    with pytest.raises(RunError) as caught:
        loaded(state, tmp_path)
    missing, unexpected = str(caught.value).splitlines()[1:3]
    near = "network.19.weight (10, 16) (in the file: network.19.wieght (10, 16))"
    assert missing == f"  2 missing: {near}, network.15.bias (16,) (in the file: head (16,))"
    assert unexpected == "  2 unexpected: head (16,), network.19.wieght (10, 16)"


def test_place_is_pure_and_needs_no_module() -> None:
    wanted = {"conv.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(4)}
    found = place({"m.conv.weight": torch.ones(2, 3), "m.fc.bias": torch.ones(4)}, wanted)
    assert (found.fits, set(found.missing), len(found.unexpected)) == (False, set(wanted), 2)
    found = place(
        {"net.conv.weight": torch.ones(2, 3), "net.fc.bias": torch.ones(5)}, wanted, skip=["fc.bias"]
    )
    assert (found.fits, found.stripped, set(found.state)) == (True, "net.", {"conv.weight"})
    assert str(Numbers((0.5, 0.25), (0.1, 0.2))) == "mean 0.5, 0.25, std 0.1, 0.2"


def test_three_channels(tmp_path: Path) -> None:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    info = TaskInfo({}, shape=(3, 8, 8), classes=10)
    import robustplug

    network = robustplug.build("model", "small-cnn", width=4, hidden=16, info=info).eval()
    state = {"normalize.mean": mean.view(1, 3, 1, 1), "normalize.std": std.view(1, 3, 1, 1)}
    save_file(state | prefixed("model.", network.state_dict()), tmp_path / "a.safetensors")
    target = load_target(tmp_path / "a.safetensors", info, model=SMALL)
    x = images(3, (3, 8, 8))
    with torch.no_grad():
        expected = network((x - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        torch.testing.assert_close(target.module(x), expected, atol=1e-5, rtol=1e-5)
