"""What a task measures and tells besides right and wrong reaches the result and the tables."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import robustplug
from robustplug.core.measures import Measure, Quantity, bootstrap_interval, mean_of, wilson_interval
from robustplug.core.step import Step
from robustplug.core.types import Cost, Result, View
from robustplug.devices.processes import start
from robustplug.evaluation.evaluate import Evaluation
from robustplug.evaluation.setting import Attack
from robustplug.plugin.component import Component, NoOptions
from robustplug.report.pages.run_page import evaluation_html
from robustplug.report.tables.measures import measure_table, measure_text
from robustplug.report.tables.results import result_tables
from robustplug.runs.result_file import result_from_json, result_to_json
from robustplug.subjects.data.task import ArrayTask

from ..training.runs import offered, tiny

SIZE = 23


class Telling(ArrayTask):
    """Measure the brightness of each sample, and for the bright ones how bright; tell both."""

    def measure(self, view: View, output: Any) -> Mapping[str, Tensor]:
        brightness = view.x.flatten(1).mean(1)
        return {"brightness": brightness, "bright": brightness.masked_fill(brightness < 0.5, torch.nan)}

    def tell(self, view: View, output: Any) -> Sequence[str]:
        return [
            f"sample {index}: {value:.3f}"
            for index, value in zip(view.index.tolist(), output[:, 0], strict=True)
        ]


def telling() -> Telling:
    x = torch.rand(SIZE, 1, 1, 2, generator=torch.Generator().manual_seed(3)) * 0.6 + 0.2
    data = (x, x.flatten(1).argmax(1))
    return Telling(
        {"train": data, "validation": data, "test": data}, class_names=["left", "right"], default_model="none"
    )


def printed(*parts: Any, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(*parts, sep="\n")
    return console.export_text()


def told(_: object) -> Telling:
    return telling()


class Brighter:
    """Break the samples of odd index, and leave the vicinity with sample 0."""

    def __call__(self, step: Step, view: View, vicinity: Any) -> View:
        odd = (view.index % 2 == 1).view(-1, 1, 1, 1)
        x = torch.where(odd, view.origin.flip(3), view.origin)
        return view.replace(x=torch.where((view.index == 0).view(-1, 1, 1, 1), 7.0, x))

    def cost(self, target: Cost) -> Cost:
        return Cost(0, 0)


def evaluation(**changes: Any) -> Evaluation:
    vicinity = robustplug.build("vicinity", "linf", eps=0.9)
    loss = robustplug.build("loss", "ce")
    return Evaluation(nn.Flatten(), telling(), vicinity, loss, 0, start("cpu", "float32"), **changes)


@pytest.mark.parametrize("batch_size", [1, 5, 23])
def test_means_are_over_the_samples_that_a_row_was_run_on(batch_size: int) -> None:
    clean, row = evaluation().run("test", [Attack("brighter", {}, Brighter())], batch_size)
    x = next(iter(telling().batches("test", robustplug.api.Feed(batch_size=SIZE)))).x
    brightness = x.flatten(1).mean(1)
    assert clean.measures["brightness"].mean == pytest.approx(float(brightness.mean()), abs=1e-6)
    assert clean.measures["brightness"].count == SIZE
    bright = brightness[brightness >= 0.5]
    assert clean.measures["bright"].count == len(bright)
    assert clean.measures["bright"].mean == pytest.approx(float(bright.mean()), abs=1e-6)
    half = 1.96 * float(brightness.double().std()) / math.sqrt(SIZE)
    found = clean.measures["brightness"]
    assert (found.high - found.mean, found.mean - found.low) == pytest.approx((half, half), rel=0.2)
    # A result that is not legal has no numbers.
    assert row.rejected == 1
    assert row.measures["brightness"].count == SIZE - 1


@pytest.mark.parametrize("batch_size", [1, 5, 23])
def test_the_sample_told_of_is_the_first_that_was_broken(batch_size: int) -> None:
    clean, row = evaluation().run("test", [Attack("brighter", {}, Brighter())], batch_size)
    assert clean.example.startswith("sample 0: ")
    first = next(index for index in range(SIZE) if not row.right[index])
    assert first % 2 == 1
    assert row.example.startswith(f"sample {first}: ")


def test_a_mean_of_one_has_no_interval_and_one_of_none_no_mean() -> None:
    one = mean_of(torch.tensor([2.0, torch.nan]))
    assert (one.mean, one.count) == (2.0, 1)
    assert math.isnan(one.high)
    assert measure_text(one) == "2.00"
    assert mean_of(torch.tensor([torch.nan])).count == 0
    assert measure_text(mean_of(torch.tensor([]))) == ""
    assert measure_text(Measure(4.954, 4.8, 5.108, 9)) == "4.95\n±0.15"
    # The interval of a share, or of a perplexity, is not symmetric; that of all of them has nothing above.
    assert measure_text(Measure(100.0, 97.2226, 100 * wilson_interval(135, 135)[1], 135)) == (
        "100.00\n97.22–100.00"
    )
    assert measure_text(Measure(-0.001, -0.004, 0.002, 9)) == "0.00\n±<0.01"
    # Rounding may leave the end of an interval below the mean.
    assert measure_text(Measure(100.0, 99.99999, 99.99999, 38)) == "100.00\n±<0.01"


def test_measures_and_examples_survive_json_a_kill_and_reach_the_tables(tmp_path: Path) -> None:
    with offered("task", Component("telling", f"{__name__}:told", NoOptions, "tells")):
        result = robustplug.evaluate(
            nn.Flatten(), task="telling", attacks=["none"], vicinity={"use": "linf", "eps": 0.9}, out=tmp_path
        )
    body = json.loads(json.dumps(result_to_json(result)))
    again = result_from_json(body)
    assert again.attacks[0].measures == result.attacks[0].measures
    assert again.attacks[0].example == result.attacks[0].example
    older = [{k: v for k, v in row.items() if k not in ("measures", "example")} for row in body["attacks"]]
    assert result_from_json({**body, "attacks": older}).attacks[0].measures == {}
    table = measure_table(result)
    assert table is not None
    assert [column.header for column in table.columns] == ["attack", "samples", "brightness", "bright"]
    assert table.row_count == 2
    texts = [part.plain for part in result_tables(result, 80) if hasattr(part, "plain")]
    assert any("sample 0" in text for text in texts)


def test_seven_measures_fit_a_terminal_and_none_make_no_table() -> None:
    names = ("PAR %", "adversary", "target", "advantage", "agree %", "turns")
    measures = {name: Measure(54.32, 50.0, 58.64, 500) for name in names}
    (clean,) = evaluation().run("test", [], 23)
    attacked = dataclasses.replace(clean, name="Reactive attack", measures=measures, attempted=500)
    meta = {"name": "run", "task": "telling", "input_range": None, "seconds": 1.0}
    shown = printed(measure_table(Result("test", 500, {"use": "rules"}, (attacked,), meta)), width=80)
    lines = shown.splitlines()
    assert all(name in lines[2] for name in ("attack", "samples", *names))
    assert lines[4].split()[-7:] == ["500", *["54.32"] * 6]
    silent = dataclasses.replace(clean, measures={"turns": mean_of(torch.tensor([torch.nan]))})
    parts = result_tables(Result("test", 500, {"use": "rules"}, (silent,), meta), 80)
    assert not any(getattr(part, "title", "") == "measured" for part in parts)


@pytest.mark.parametrize("width", [100, 80, 60, 40])
def test_a_narrow_terminal_gets_more_tables_and_nothing_is_cut(width: int) -> None:
    names = ("BLEU", "input BLEU", "words changed", "success %", "perplexity", "perplexity before")
    measures = {name: Measure(1012.69, 748.86, 1369.48, 500) for name in names}
    (clean,) = evaluation().run("test", [], 23)
    rows = [
        dataclasses.replace(clean, name=name, measures=measures, seconds=1234.5, example="")
        for name in ("clean", "1-keyword · no gradient regularisation")
    ]
    meta = {"name": "run", "task": "telling", "input_range": None, "seconds": 1.0}
    shown = printed(
        *result_tables(Result("test", 500, {"use": "words"}, tuple(rows), meta), width), width=width
    )
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    heads = [line for line in shown.splitlines() if "attack " in line]
    told = " ".join(heads)
    assert all(name in told for name in ("accuracy (95 %)", "backwards", "time", "samples", *names))
    words = shown.split()
    # Each table names its rows, and each measure has its number and interval in both.
    assert words.count("regularisation") == len(heads)
    assert words.count("1012.69") == words.count("748.86–1369.48") == 2 * len(names)


def test_a_journal_keeps_measures_and_examples(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    attacks = [Attack("brighter", {}, Brighter())]
    whole = evaluation(journal=journal).run("test", attacks, 5)
    again = evaluation(journal=journal).run("test", attacks, 5)
    assert [row.measures for row in again] == [row.measures for row in whole]
    assert [row.example for row in again] == [row.example for row in whole]


def test_the_loss_is_measured_on_request() -> None:
    (clean,) = evaluation(losses=True).run("test", [], 5)
    (without,) = evaluation().run("test", [], 5)
    batch = next(iter(telling().batches("test", robustplug.api.Feed(batch_size=SIZE))))
    expected = nn.functional.cross_entropy(batch.x.flatten(1), batch.y)
    assert clean.measures["loss"].mean == pytest.approx(float(expected), abs=1e-6)
    assert "loss" not in without.measures


def test_the_epoch_of_the_lowest_validation_loss_is_kept(tmp_path: Path) -> None:
    train = {"epochs": 5, "select": "loss"}
    run = robustplug.train(tiny(train=train, optimizer={"lr": 0.3}), out=tmp_path / "run")
    losses = [report.validation["loss"] for report in run.history]
    flagged = [report.epoch for report in run.history if report.best]
    assert flagged[-1] == losses.index(min(losses))
    other = robustplug.train(tiny(), out=tmp_path / "other")
    assert all("loss" not in report.validation for report in other.history)


def test_what_is_measured_under_the_attack_of_the_validation_is_reported(tmp_path: Path) -> None:
    with offered("task", Component("telling", f"{__name__}:told", NoOptions, "tells")):
        recipe = {
            **tiny(model={"use": "small-cnn"}),
            "task": {"use": "telling"},
            "model": {"use": "linear-pair"},
        }
        with offered("model", Component("linear-pair", f"{__name__}:pair", NoOptions, "two pixels")):
            run = robustplug.train(recipe, out=tmp_path / "run")
    assert {"brightness", "bright", "clean", "robust"} <= run.history[0].validation.keys()


def pair(_: object, *, info: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(2, 2))


class Pooling(Telling):
    """Pool the largest brightness; a sample with a goal is right as long as it is darker."""

    def measure(self, view: View, output: Any) -> Mapping[str, Tensor]:
        return {"brightness": view.x.flatten(1).mean(1), "_hidden": view.x.flatten(1).amax(1)}

    def pool(self, values: Mapping[str, Tensor]) -> Mapping[str, Measure]:
        assert values["_hidden"].dtype == torch.float64
        return {"peak": Measure(float(values["_hidden"].max()), math.nan, math.nan, len(values["_hidden"]))}

    def score(self, view: View, output: Any) -> Tensor:
        if "limit" not in view.info:
            return view.index % 2 == 0
        darker: Tensor = view.x.flatten(1).mean(1) < view.info["limit"]
        return darker


class Aiming:
    """Make samples as bright as they must be, but the one of index 5; claim another goal than the stated."""

    def aim(self, step: Step, view: View) -> Mapping[str, Any]:
        return {"limit": view.x.flatten(1).mean(1) + 0.1}

    def __call__(self, step: Step, view: View, vicinity: Any) -> View:
        brighter = view.x + torch.where(view.index == 5, 0.05, 0.15).view(-1, 1, 1, 1)
        return view.replace(x=brighter, info={"limit": torch.zeros(len(view))})

    def cost(self, target: Cost) -> Cost:
        return Cost(0, 0)


def pooling(batch_size: int) -> Sequence[Any]:
    first = telling()
    task = Pooling(
        {split: first._data[split] for split in ("train", "validation", "test")},
        class_names=["left", "right"],
        default_model="none",
    )
    vicinity, loss = robustplug.build("vicinity", "linf", eps=0.9), robustplug.build("loss", "ce")
    found = Evaluation(nn.Flatten(), task, vicinity, loss, 0, start("cpu", "float32"))
    return found.run("test", [Attack("aiming", {}, Aiming(), chain="")], batch_size)


@pytest.mark.parametrize("batch_size", [5, 23])
def test_an_attack_with_a_goal_runs_on_all_samples_and_is_judged_by_the_goal_it_stated(
    batch_size: int,
) -> None:
    clean, row = pooling(batch_size)
    assert clean.broken == SIZE // 2
    assert row.attempted == SIZE
    assert row.right == tuple(index == 5 for index in range(SIZE))


@pytest.mark.parametrize("batch_size", [5, 23])
def test_a_task_pools_what_is_no_mean(batch_size: int) -> None:
    clean, _ = pooling(batch_size)
    x = next(iter(telling().batches("test", robustplug.api.Feed(batch_size=SIZE)))).x
    assert set(clean.measures) == {"brightness", "peak"}
    assert clean.measures["peak"].mean == pytest.approx(float(x.max()))


def test_a_bootstrap_is_that_of_its_numbers_alone_and_equal_numbers_have_none() -> None:
    values = torch.randn(200, generator=torch.Generator().manual_seed(0)).double() ** 3
    state = torch.get_rng_state()
    low, high = bootstrap_interval(values)
    assert torch.equal(torch.get_rng_state(), state)
    assert (low, high) == bootstrap_interval(values.clone())
    assert low < float(values.mean()) < high
    half = 1.96 * float(values.std()) / math.sqrt(200)
    assert high - low == pytest.approx(2 * half, rel=0.2)
    assert all(math.isnan(end) for end in bootstrap_interval(torch.full((50,), 100.0)))
    assert all(math.isnan(end) for end in bootstrap_interval(torch.tensor([1.0])))
    many = torch.arange(6000.0)
    assert bootstrap_interval(many)[1] == pytest.approx(2999.5 + 1.96 * float(many.std()) / math.sqrt(6000))
    assert measure_text(mean_of(torch.full((50,), 100.0))) == "100.00"


class Described(Telling):
    """Show the share of bright samples in the place of the accuracy."""

    quantities = (Quantity("bright %", better="higher", share=True, headline=True), Quantity("brightness"))

    def measure(self, view: View, output: Any) -> Mapping[str, Tensor]:
        brightness = view.x.flatten(1).mean(1)
        return {"bright %": 100.0 * (brightness > 0), "brightness": brightness}


def described(_: object) -> Described:
    first = telling()
    return Described(
        {split: first._data[split] for split in ("train", "validation", "test")},
        class_names=["left", "right"],
        default_model="none",
    )


def test_a_task_says_which_measures_its_tables_show_and_that_they_are_shares(tmp_path: Path) -> None:
    with offered("task", Component("described", f"{__name__}:described", NoOptions, "tells")):
        result = robustplug.evaluate(
            nn.Flatten(),
            task="described",
            attacks=["none"],
            vicinity={"use": "linf", "eps": 0.9},
            out=tmp_path,
        )
    (stored,) = tmp_path.glob("*.json")
    again = result_from_json({k: v for k, v in json.loads(stored.read_text()).items() if k != "seal"})
    for each in (result, again):
        share = each.attacks[0].measures["bright %"]
        low, high = wilson_interval(SIZE, SIZE)
        assert (share.mean, share.low, share.high) == (100.0, 100 * low, 100 * high)
        shown = printed(*result_tables(each, 140), width=140)
        assert "accuracy (95 %)" not in shown
        assert "Worst case" not in shown
        assert f"{100 * low:.2f}–100.00" in shown
        others = measure_table(each)
        assert others is not None
        assert [column.header for column in others.columns] == ["attack", "samples", "brightness"]
        page = evaluation_html(each, "evaluation")
        assert "bright %" in page
        assert "accuracy (95 %)" not in page


def test_results_are_plain_values() -> None:
    (clean,) = evaluation().run("test", [], 23)
    assert all(dataclasses.is_dataclass(measure) for measure in clean.measures.values())
