"""Tables as tasks: encoding in their own units, and bad input with file and line before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import DataMissing, Feed, RecipeError, RunError
from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.recipe.load import recipe_from_mapping
from robustplug.subjects.assemble import assemble, build_vicinity
from robustplug_tasks.classes import ordinal, table
from robustplug_tasks.encoding import TableInfo
from robustplug_tasks.moves import as_json, lines, moved_columns
from robustplug_tasks.options import MultiLabelOptions, OrdinalOptions, RegressionOptions, SourceOptions
from robustplug_tasks.regression import RegressionTask, regression
from robustplug_tasks.sheets import from_frame

ROWS = [
    "age,job,rooms,income,late",
    *(
        f"{20 + n},{('clerk', 'driver', 'cook')[n % 3]},{1 + n % 4},{1000 + 37 * n}.5,{n % 2}"
        for n in range(40)
    ),
]


def csv(folder: Path, *changes: tuple[int, str], name: str = "people.csv") -> str:
    """Write a table with some of its lines, counted from 1, replaced."""
    rows = list(ROWS)
    for line, text in changes:
        rows[line - 1] = text
    file = folder / name
    file.write_text("\n".join(rows) + "\n")
    return str(file)


def options(folder: Path, *changes: tuple[int, str], **more: Any) -> SourceOptions:
    return SourceOptions(data=csv(folder, *changes), **{"target": "late", **more})


def test_columns_become_inputs_in_their_own_units(tmp_path: Path) -> None:
    task = table(options(tmp_path, integers=("age",), units={"age": "years"}, bounds={"age": (18.0, 99.0)}))
    info = task.info
    assert isinstance(info, TableInfo)
    assert [column.name for column in info.columns] == ["age", "job", "rooms", "income"]
    assert info.columns[1].categories == ("clerk", "cook", "driver")
    assert info.columns[1].places == (1, 2, 3)
    assert info.columns[0].integer
    assert info.columns[0].unit == "years"
    assert info.shape == (6,)
    assert info.classes == 2
    assert info.class_names == ("0", "1")
    low, high = info.bounds
    assert (low[0], high[0]) == (18.0, 99.0)  # type: ignore[index]
    assert (low[1], high[1]) == (0.0, 1.0)  # type: ignore[index]
    assert high[5] == pytest.approx(1000.5 + 37 * 39)  # type: ignore[index]
    x = torch.cat([batch.x for split in info.sizes for batch in task.batches(split, Feed())])
    assert len(x) == 40
    assert sorted(x[:, 0].tolist()) == list(range(20, 60))
    assert bool((x[:, 1:4].sum(1) == 1).all())


def test_a_numeric_column_can_be_categories_and_a_split_a_file(tmp_path: Path) -> None:
    test = csv(tmp_path, name="test.csv")
    task = table(options(tmp_path, categorical=("rooms",), test=test))
    assert isinstance(task.info, TableInfo)
    assert task.info.columns[2].categories == ("1", "2", "3", "4")
    assert task.info.sizes == {"train": 34, "validation": 6, "test": 40}


def test_a_data_frame_is_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    sheet = from_frame(pandas.read_csv(csv(tmp_path)))
    assert table(SourceOptions(target="late"), sheet).digest() == table(options(tmp_path)).digest()
    with pytest.raises(ValueError, match="named twice"):
        from_frame(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


def test_long_numbers_stay_apart_as_categories_and_classes() -> None:
    columns = {"code": [1234567.0, 1234568.0, 0.25] * 10, "late": [2000001.0, 2000002, 0.12345678] * 10}
    task = table(SourceOptions(target="late", categorical=("code",)), from_frame(columns))
    assert isinstance(task.info, TableInfo)
    assert task.info.columns[0].categories == ("0.25", "1234567", "1234568")
    assert task.info.class_names == ("0.12345678", "2000001", "2000002")


def test_columns_from_python_are_checked() -> None:
    with pytest.raises(ValueError, match="the column 'late' has 1 rows, and 'age' has 2"):
        from_frame({"age": [1.0, 2.0], "late": [0]})
    names = from_frame({"name": [f"n{number}" for number in range(1001)], "late": [0] * 500 + [1] * 501})
    with pytest.raises(ValueError, match="the column 'name' has 1001 categories, too many"):
        table(SourceOptions(target="late"), names)
    sheet = from_frame({"age": ["1.5", "2"] * 9, "late": [0, 1] * 9})
    with pytest.raises(ValueError, match=r"integers: .* row 0: the column 'age' holds 1.5, no whole number"):
        table(SourceOptions(target="late", integers=("age",)), sheet)


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ([(5, "22,clerk,,1100.5,0")], {}, r"line 5: the column 'rooms' is empty"),
        ([(5, "22,clerk,nan,1100.5,0")], {}, r"line 5: the column 'rooms' holds 'nan', which is no finite"),
        ([(7, "x,clerk,1,1100.5,0")], {}, r"line 7: the column 'age' holds 'x'.*categorical = \[\"age\"\]"),
        ([(7, "24.5,clerk,1,1100.5,0")], {"integers": ("age",)}, r"line 7: .* holds 24.5, no whole number"),
        (
            [(7, "24,clerk,1,1100.5,0")],
            {"bounds": {"age": (0.0, 50.0)}},
            r"line 33: .* holds 51, outside \[0, 50\]",
        ),
        ([(4, "22,clerk,1,1100.5,")], {}, r"target: .*line 4: the column 'late' is empty"),
        ([(4, "22,clerk,1,1100.5")], {}, r"line 4: 4 cells, but the first has 5"),
        ([], {"target": "lat"}, r"target: .* has no column 'lat'; did you mean \"late\""),
        ([], {"features": ("age", "jobs")}, r"features: .* has no column 'jobs'; did you mean \"job\""),
        ([], {"categorical": ("rom",)}, r"categorical: 'rom' is no column of the inputs"),
        ([], {"target": "income"}, None),
    ],
)
def test_bad_rows_and_columns_are_named(
    tmp_path: Path, changes: list[tuple[int, str]], more: dict[str, Any], message: str | None
) -> None:
    if message is None:
        table(options(tmp_path, *changes, **more))  # forty incomes are forty classes
        return
    with pytest.raises((ValueError, RunError), match=message):
        table(options(tmp_path, *changes, **more))


def test_a_category_that_training_rows_lack_is_refused(tmp_path: Path) -> None:
    test = csv(tmp_path, (9, "27,pilot,1,1100.5,0"), name="test.csv")
    with pytest.raises(
        ValueError, match=r"test.csv, line 9: the column 'job' holds 'pilot', which no training"
    ):
        table(options(tmp_path, test=test))
    test = csv(tmp_path, (9, "27,cook,1,1100.5,7"), name="test.csv")
    with pytest.raises(
        ValueError, match=r"test.csv, line 9: .* holds '7', which is none of the classes 0, 1"
    ):
        table(options(tmp_path, test=test))
    with pytest.raises(DataMissing, match="there is no file"):
        table(SourceOptions(data="nowhere.csv", target="a"))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: SourceOptions(bounds={"a": (1.0, 1.0)}), "the first must be the lower"),
        (lambda: SourceOptions(categorical=("a",), integers=("a",)), "has categories"),
        (lambda: SourceOptions(target="a", features=("a",)), "is the target"),
        (lambda: OrdinalOptions(cuts=(2.0, 1.0)), "ascending"),
        (lambda: OrdinalOptions(cuts=(1.0,), order=("a", "b")), "give one of them"),
        (lambda: MultiLabelOptions(data="a.csv"), "at least two columns"),
        (lambda: MultiLabelOptions(target="a"), "several labels"),
        (lambda: MultiLabelOptions(data="a.csv", targets=("a", "a")), "each column of labels once"),
    ],
)
def test_contradictory_options_are_refused(made: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made()


def test_the_recipe_is_refused_before_anything_runs(tmp_path: Path) -> None:
    task = {"use": "regression", "bound": -1.0}
    with pytest.raises(RecipeError, match="bound"):
        recipe_from_mapping({"task": task, "method": {"use": "erm"}})
    data = csv(tmp_path, (5, "22,clerk,,1100.5,0"))
    task = {"use": "table", "data": data, "target": "late"}
    recipe = recipe_from_mapping({"task": task, "method": {"use": "erm"}})
    with pytest.raises(RecipeError, match=r"people.csv, line 5"):
        assemble(recipe, torch.device("cpu"))
    for bad in ({"loss": {"use": "ce"}}, {"loss": {"use": "pixel-ce"}}):
        with pytest.raises(RecipeError, match="and the labels of the task are numbers"):
            recipe_from_mapping(
                {"task": {"use": "regression", "bound": 1.0}, "method": {"use": "erm", **bad}}
            )
    with pytest.raises(RecipeError, match='"apgd-ce" is for classes'):
        recipe_from_mapping(
            {
                "task": {"use": "regression", "bound": 1.0},
                "method": {"use": "erm"},
                "evaluate": {"attack": [{"use": "apgd-ce"}]},
            }
        )


def test_the_loss_of_a_method_is_by_default_that_of_the_task() -> None:
    recipe = recipe_from_mapping({"task": {"use": "regression", "bound": 1.0}, "method": {"use": "pgd-at"}})
    assert recipe.method.options.loss.name == "absolute"
    assert recipe.evaluate.loss.name == "absolute"
    plain = recipe_from_mapping({"task": {"use": "table"}, "method": {"use": "pgd-at"}})
    assert plain.method.options.loss.name == "ce"
    assert plain.evaluate.loss.name == "ce"


def test_ordered_classes_come_from_cuts_or_an_order(tmp_path: Path) -> None:
    task = ordinal(OrdinalOptions(cuts=(100.0, 200.0)))
    assert task.info.class_names == ("below 100", "100 to 200", "200 and above")
    numbers = {split: regression(RegressionOptions(bound=1.0)) for split in ("test",)}
    assert numbers["test"].info.sizes == task.info.sizes
    task = ordinal(
        OrdinalOptions(data=csv(tmp_path), target="job", order=("cook", "clerk", "driver"), within=1)
    )
    assert task.info.class_names == ("cook", "clerk", "driver")
    with pytest.raises(ValueError, match="are no numbers: state their order"):
        ordinal(OrdinalOptions(data=csv(tmp_path), target="job"))
    with pytest.raises(ValueError, match="none of the classes cook, clerk"):
        ordinal(OrdinalOptions(data=csv(tmp_path), target="job", order=("cook", "clerk")))
    with pytest.raises(ValueError, match="every prediction would be right"):
        ordinal(OrdinalOptions(cuts=(100.0, 200.0), within=2))
    with pytest.raises(ValueError, match="no training row"):
        ordinal(OrdinalOptions(cuts=(0.0, 200.0)))


def test_regression_of_arrays_checks_its_labels() -> None:
    x = torch.rand(6, 2)
    with pytest.raises(ValueError, match="must be above 0, not -2"):
        RegressionTask({"test": (x, torch.rand(6))}, bound=-2.0)
    with pytest.raises(ValueError, match=r"the shape \(6, 2\): give a number for each input"):
        RegressionTask({"test": (x, torch.rand(6, 2))}, bound=1.0)
    y = torch.rand(6)
    y[3] = torch.nan
    with pytest.raises(ValueError, match="the first at 3"):
        RegressionTask({"test": (x, y)}, bound=1.0)
    with pytest.raises(ValueError, match="5"):
        RegressionTask({"test": (x, torch.rand(5))}, bound=1.0)


def test_moves_are_told_in_the_units_of_the_columns(tmp_path: Path) -> None:
    info = table(options(tmp_path, units={"age": "years"})).info
    assert isinstance(info, TableInfo)
    origin = torch.tensor([[30.0, 1, 0, 0, 2, 1500], [40, 0, 1, 0, 2, 1600], [50, 0, 1, 0, 2, 1700]])
    x = origin.clone()
    x[:, 0] += torch.tensor([2.0, 4.0, -1.0])
    x[1, 1:4] = torch.tensor([0.0, 0.0, 1.0])
    x[2, 5] += 1e-4  # rounding
    found = moved_columns(info.columns, [1.0] * 5 + [1000.0], origin, x)
    age, job = found
    assert (age.column, age.rows, age.of, age.median) == ("age", 3, 3, 2.0)
    assert age.up == pytest.approx(2 / 3)
    assert age.sentence() == "+2 years, up in 67%"
    assert (job.column, job.rows, job.sentence()) == ("job", 1, "mostly cook → driver")


def named(**more: Any) -> dict[str, Any]:
    """Return rules that name columns of `ROWS`."""
    return {
        "eps": 3.0,
        "feature": [{"columns": ["age"], "change": "up", "step": 1.0}, {"columns": ["rooms"], "cost": 0.5}],
        "one_hot": [{"columns": ["job"], "cost": 1.5}],
        "sums": [{"column": "income", "of": ["rooms"], "weights": [2.0]}],
        **more,
    }


def test_rules_name_the_columns_of_a_table(tmp_path: Path) -> None:
    task = table(options(tmp_path))
    numbers = {
        "eps": 3.0,
        "feature": [{"columns": [0], "change": "up", "step": 1.0}, {"columns": [4], "cost": 0.5}],
        "one_hot": [{"columns": [1, 2, 3], "cost": 1.5}],
        "sums": [{"column": 5, "of": [4], "weights": [2.0]}],
    }
    both = [
        build_vicinity(resolve(Use("table", rules), "vicinity"), "evaluate.vicinity", task.info)
        for rules in (named(), numbers)
    ]
    origin = next(iter(task.batches("train", Feed()))).x
    far = origin + torch.tensor([2.3, 0, 0.6, 0, 1.0, 0]) * torch.rand(len(origin), 1)
    radius = torch.full((len(origin),), 3.0)
    found = [each.project(far, origin, radius) for each in both]
    assert bool((found[0] != origin).any())
    assert torch.equal(*found)
    said = both[0].described()
    assert "age: only up in steps of 1" in said
    assert "job: another category, 1.5" in said
    assert "income follows from 1 others" in said
    # On a task whose columns have other places, the same rules are for those.
    other = table(options(tmp_path, features=("job", "income", "rooms", "age")))
    both[0].inform(other.info)
    assert both[0].numbers.one_hot[0].columns == [0, 1, 2]
    assert both[0].numbers.sums[0].column == 3


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (named(feature=[{"columns": ["agee"]}]), 'no column "agee"; did you mean "age"'),
        (named(feature=[{"columns": ["x"]}]), 'no column "x"; there are age, job, rooms, income'),
        (named(feature=[{"columns": ["age", 0]}]), "column 0 has two rules"),
        (named(one_hot=[{"columns": ["rooms"]}], feature=[], sums=[]), "a one-hot feature has at least two"),
        (named(sums=[{"column": "income", "of": ["job"]}], one_hot=[]), '"job" has categories'),
        (named(sums=[{"column": "income", "of": ["income"]}]), "other columns than the sum itself"),
    ],
)
def test_names_that_do_not_fit_a_table_are_refused(rules: dict[str, Any], said: str, tmp_path: Path) -> None:
    info = table(options(tmp_path)).info
    with pytest.raises(RecipeError, match=said):
        build_vicinity(resolve(Use("table", rules), "vicinity"), "evaluate.vicinity", info)


def test_names_need_a_task_that_has_some() -> None:
    info = robustplug.build("task", "digits").info
    with pytest.raises(RecipeError, match='"age" is a name, and the columns of the task have none'):
        build_vicinity(resolve(Use("table", named()), "vicinity"), "evaluate.vicinity", info)
    vicinity = robustplug.build("vicinity", "table", **named())
    rows = torch.zeros(2, 6)
    with pytest.raises(ValueError, match='"age" is a name'):
        vicinity.contains(rows, rows, torch.ones(2))


BY_NAME = [
    (
        {"use": "mask", "columns": ["job", 4], "inner": {"use": "linf", "eps": 3.0}},
        {"use": "mask", "columns": [1, 2, 3, 4], "inner": {"use": "linf", "eps": 3.0}},
    ),
    (
        {"use": "scaled", "scales": {"age": 2.0, "job": 0.5}, "eps": 1.0},
        {"use": "scaled", "scales": [2.0, 0.5, 0.5, 0.5, 0.0, 0.0], "eps": 1.0},
    ),
]


@pytest.mark.parametrize(("named", "numbered"), BY_NAME)
def test_masks_and_scales_name_the_columns_of_a_table(
    named: dict[str, Any], numbered: dict[str, Any], tmp_path: Path
) -> None:
    task = table(options(tmp_path))
    recipe = {"task": {"use": "table", "data": csv(tmp_path), "target": "late"}, "model": {"use": "mlp"}}
    method = {"use": "pgd-at", "perturbation": {"use": "pgd", "steps": 1}}
    vicinities = []
    for table_ in (named, numbered):
        read = recipe_from_mapping({**recipe, "method": {**method, "vicinity": table_}})
        vicinities.append(build_vicinity(read.method.options.vicinity, "method.vicinity", task.info))
    origin = next(iter(task.batches("train", Feed()))).x
    rng = torch.Generator().manual_seed(0)
    far = origin + 5 * torch.rand(origin.shape, generator=rng)
    radius = torch.full((len(origin),), vicinities[0].eps)
    found = [each.project(far, origin, radius) for each in vicinities]
    assert bool((found[0] != origin).any())
    assert torch.equal(*found)


@pytest.mark.parametrize(("named", "_"), BY_NAME)
def test_names_of_masks_and_scales_need_a_column(
    named: dict[str, Any], _: dict[str, Any], tmp_path: Path
) -> None:
    key = "columns" if named["use"] == "mask" else "scales"
    wrong = {**named, key: ["jobb"] if key == "columns" else {"jobb": 1.0}}
    rules = {name: value for name, value in wrong.items() if name != "use"}
    use = resolve(Use(wrong["use"], rules), "vicinity")
    with pytest.raises(RecipeError, match=f'{key}: there is no column "jobb"; did you mean "job"'):
        build_vicinity(use, "evaluate.vicinity", table(options(tmp_path)).info)
    with pytest.raises(RecipeError, match='"jobb" is a name, and the columns of the task have none'):
        build_vicinity(use, "evaluate.vicinity", robustplug.build("task", "digits").info)
    rows = torch.zeros(2, 6)
    with pytest.raises(ValueError, match='"jobb" is a name'):
        robustplug.build("vicinity", wrong["use"], **rules).contains(rows, rows, torch.ones(2))


@pytest.mark.slow
def test_attacks_on_a_run_of_a_table_are_told(tmp_path: Path) -> None:
    from robustplug.api import open_evaluation
    from robustplug_tasks.moves import cheap, draw, found_moves

    rows = {"columns": [0, 1, 2, 3], "cost": 1.0}
    recipe = {
        "task": {"use": "table", "data": "wine", "features": ["alcohol", "hue", "proline", "ash"]},
        "model": {"use": "mlp", "hidden": [8]},
        "method": {"use": "erm", "vicinity": {"use": "table", "eps": 2.0, "feature": [rows]}},
        "optimizer": {"use": "adamw", "lr": 0.03},
        "train": {"epochs": 3, "batch_size": 32},
        "validate": {"attack": {"use": "none"}},
        "evaluate": {"samples": 24, "attack": [{"use": "apgd", "steps": 15}, {"use": "other-rows"}]},
    }
    run = robustplug.train(recipe, out=tmp_path / "run")
    opened = open_evaluation(run.folder)
    assert not cheap(opened)  # the cost of other-rows is unknown
    found = found_moves(opened)
    first = found[0]
    assert first.broken > 0
    assert first.attempted == sum(run.result.attacks[0].right)
    assert {moved.column for moved in first.columns} <= {"alcohol", "hue", "proline", "ash"}
    assert any("rows that were right" in line for line in lines(found))
    assert as_json(found)[0]["broken"] == first.broken
    made = draw(found, tmp_path / "figures", "wine")
    assert made[0].exists()
    assert made[0].with_suffix(".svg").exists()
