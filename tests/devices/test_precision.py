"""The alarm for catastrophic overfitting, and the choice of precision and memory layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import robustplug
from robustplug.core.calling.operations import forward_operations
from robustplug.core.types import EpochReport
from robustplug.devices import precision
from robustplug.devices.precision import (
    choose_channels_last,
    choose_precision,
    fitting_threads,
    has_native_bfloat16,
)
from robustplug.recipe.load import read_recipe
from robustplug.training import train
from robustplug.training.validate import collapsed

from ..training.runs import newest, tiny


def reports(*pairs: tuple[float | None, float | None]) -> list[EpochReport]:
    """Make reports from (robust validation accuracy, robust training accuracy)."""
    return [
        EpochReport(
            epoch,
            {"loss": 1.0} | ({} if trained is None else {"accuracy/adv": trained}),
            {} if robust is None else {"clean": 0.9, "robust": robust},
            0.1,
            1.0,
            False,
        )
        for epoch, (robust, trained) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], False),
        ([(0.5, 0.4)], False),
        ([(0.5, 0.4), (0.2, 0.6)], True),
        ([(0.5, 0.4), (0.31, 0.6)], False),
        ([(0.5, 0.4), (0.2, 0.3)], False),
        ([(0.5, 0.4), (0.2, 0.4)], False),
        ([(0.1, 0.2), (0.5, 0.4), (0.45, 0.5), (0.1, 0.9)], True),
        ([(0.5, 0.4), (0.1, 0.9), (0.5, 0.5)], False),
        ([(0.5, 0.4), (None, 0.9)], False),
        ([(0.5, 0.4), (0.2, 0.6), (None, 0.9)], False),
        ([(0.5, 0.4), (None, 0.5), (0.1, 0.9)], True),
        ([(0.5, None), (0.1, None)], False),
    ],
)
def test_a_collapse_is_a_fall_on_validation_with_a_rise_in_training(
    pairs: list[tuple[float | None, float | None]], expected: bool
) -> None:
    assert collapsed(reports(*pairs)) is expected


def test_a_collapse_warns_and_stops_if_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "collapsed", lambda history: bool(history) and history[-1].epoch >= 1)
    on = robustplug.train(tiny(train={"epochs": 4}), out=tmp_path / "on")
    assert len(on.history) == 4
    off = robustplug.train(tiny(train={"epochs": 4, "stop_on_collapse": True}), out=tmp_path / "off")
    assert len(off.history) == 2
    assert off.result.meta["training"]["epochs"] == 2


IMAGES = torch.zeros(2, 1, 8, 8)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


@pytest.mark.parametrize(
    ("native", "rows", "expected"),
    [(True, 2, "float32"), (True, 400, "bfloat16"), (False, 400, "float32")],
)
def test_bfloat16_is_chosen_where_it_is_native_and_the_work_is_large(
    native: bool, rows: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_native_bfloat16", lambda device: native)
    large = nn.Sequential(nn.Flatten(), nn.Linear(64, 20_000), nn.Linear(20_000, 2))
    x = torch.zeros(rows, 1, 8, 8)

    def chosen(option: str, x: Any = x) -> str:
        return choose_precision(option, large, x, lambda: forward_operations(large, x))

    assert [chosen("auto") for _ in range(3)] == [expected] * 3
    assert chosen("float32") == "float32"
    assert chosen("bfloat16") == "bfloat16"
    assert chosen("auto", ["a text"]) == "float32"
    assert chosen("auto", torch.zeros(2, 3, dtype=torch.int64)) == "float32"


@pytest.mark.parametrize(
    ("known", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)],
)
def test_what_the_processor_says_about_bfloat16(
    known: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert has_native_bfloat16(torch.device("cpu")) is expected
    assert not has_native_bfloat16(torch.device("mps"))


class Restless(nn.BatchNorm2d):
    """Statistics that move in eval mode, too, as in a model whose author leaves them in training mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.training = True
        return super().forward(x)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, Restless])
def test_counting_operations_leaves_the_model_as_it_is(norm: Any) -> None:
    model = nn.Sequential(norm(1), nn.Flatten(), nn.Linear(64, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert forward_operations(model, IMAGES + 0.5) == 2 * 64 * 2 * len(IMAGES)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_weights_are_channels_last_for_a_block_and_then_where_they_were() -> None:
    convolution = nn.Conv2d(3, 4, 3)
    model = nn.Sequential(convolution, nn.Flatten(), nn.Linear(16, 2))
    before = {name: (value.data_ptr(), value.clone()) for name, value in model.state_dict().items()}
    with precision.in_channels_last(model):
        assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(convolution.weight, before["0.weight"][1])
    for name, value in model.state_dict().items():
        assert value.data_ptr() == before[name][0]
        assert torch.equal(value, before[name][1])


def test_images_are_kept_channels_last_unless_told_otherwise() -> None:
    assert choose_channels_last("auto", IMAGES)
    assert choose_channels_last(True, IMAGES)
    assert not choose_channels_last(False, IMAGES)
    assert not choose_channels_last("auto", IMAGES[0])
    assert not choose_channels_last(True, ["a text"])


def test_a_run_in_bfloat16_trains_keeps_float32_weights_and_is_evaluated_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "rounding", lambda *_: {})  # evaluates in bfloat16, to compare
    dtypes: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def listen(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        if isinstance(module, nn.Linear):
            dtypes[module.training].add(output.dtype)

    hook = nn.modules.module.register_module_forward_hook(listen)
    try:
        recipe = tiny(train={"precision": "bfloat16", "epochs": 1})
        run = robustplug.train(recipe, out=tmp_path / "run")
    finally:
        hook.remove()
    assert dtypes == {True: {torch.bfloat16}, False: {torch.float32}}
    assert {value.dtype for value in run.model.parameters()} == {torch.float32}
    assert read_recipe(run.folder / "recipe.toml").train.precision == "bfloat16"
    assert newest(run.folder) == "epoch-00001-batch-0000000"


def test_what_auto_chose_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_native_bfloat16", lambda device: False)
    recipe = tiny(train={"precision": "auto", "epochs": 1})
    run = robustplug.train(recipe, out=tmp_path / "run")
    stored = read_recipe(run.folder / "recipe.toml").train
    assert (stored.precision, stored.channels_last) == ("float32", True)


@pytest.mark.parametrize(
    ("x", "alone"),
    [
        (torch.zeros(64, 1, 8, 8), True),
        (torch.zeros(64, 3, 32, 32), False),
        (torch.zeros(32, 150, dtype=torch.int64), True),
        (torch.zeros(64, 390, dtype=torch.int64), False),
        (["a text"], False),
    ],
)
def test_one_thread_is_used_for_tiny_batches_only(x: object, alone: bool) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with fitting_threads(x):
            assert torch.get_num_threads() == (1 if alone else 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
