"""The task text: tables, data sets, documentation and grammar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import BrokenData, DataMissing, Feed, View
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.write import recipe_to_mapping
from robustplug_text.data.docstrings import PACKAGES
from robustplug_text.data.passages import passages, texts

from .small import small_task

TABLE = "label,text\nsports,The team won\nnews,A vote was held\nsports,They lost in sports\nnews,It rained\n"


def table(folder: Path, content: str, name: str = "data.csv") -> str:
    (folder / name).write_text(content)
    return str(folder / name)


def task_of(**options: Any) -> Any:
    return robustplug.build("task", "text", **options)


def read(task: Any, split: Any) -> list[tuple[str, str]]:
    (batch,) = task.batches(split, Feed(batch_size=10_000))
    names = task.info.class_names
    return [(text, names[label]) for text, label in zip(texts(batch.x), batch.y.tolist(), strict=True)]


def test_a_table_is_read_and_its_classes_are_named(tmp_path: Path) -> None:
    test = table(tmp_path, "text;label\nRain; news \n", "test.csv")
    task = task_of(data=table(tmp_path, TABLE), test=test, validation=0.25)
    assert task.info.class_names == ("news", "sports")
    assert task.info.sizes == {"train": 3, "validation": 1, "test": 1}
    assert read(task, "test") == [("Rain", "news")]
    rows = {tuple(line.split(",")[::-1]) for line in TABLE.splitlines()[1:]}
    assert {*read(task, "train"), *read(task, "validation")} == rows
    assert {"won", "the"} & set(task.info.vocabulary) <= {"won", "the"}


def test_numbers_as_labels_are_in_order(tmp_path: Path) -> None:
    lines = "".join(f"text {number},{number}\n" for number in (10, 2, 0, 10, 2, 0, 10, 2, 0))
    task = task_of(data=table(tmp_path, "sentence,label\n" + lines), validation=0.3, test=0.3)
    assert task.info.class_names == ("0", "2", "10")


def test_words_of_the_classes_are_fixed(tmp_path: Path) -> None:
    data = table(tmp_path, TABLE)
    for keep, expected in ((True, [{3}]), (False, [])):
        task = task_of(data=data, validation=0.25, test=0.25, keep_labels=keep)
        found = [
            set(passage.fixed)
            for split in ("train", "validation", "test")
            for batch in task.batches(split, Feed())
            for passage in passages(batch.x)
            if passage.fixed
        ]
        assert found == expected


def test_long_texts_are_cut_and_counted(tmp_path: Path) -> None:
    task = task_of(data=table(tmp_path, TABLE), validation=0.25, test=0.25, longest=2)
    assert max(len(text.split()) for text, _ in read(task, "train")) == 2
    assert task.notes[0].startswith("3 texts were cut")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\ngood,1\nbad\n", "data.csv:3: 1 cells"),
        ("text,label\n ,1\n", "data.csv:2: the text is empty"),
        ("text,label\ngood, \n", "data.csv:2: the label is empty"),
        ("text,label\n", "holds no texts"),
        ("text,label\n\xff\xfe,1\n", "is not UTF-8"),
    ],
)
def test_broken_rows_are_listed_with_their_lines(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "data.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(BrokenData, match=message):
        task_of(data=str(tmp_path / "data.csv"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "txt"}, r"no column 'txt'.*did you mean \"text\""),
        ({"label": "kind"}, "no column 'kind'"),
        ({"test": "nowhere.csv"}, "there is no file"),
        ({"validation": 0.6, "test": 0.6}, "leaves none for training"),
    ],
)
def test_options_that_do_not_fit_the_table(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_of(data=table(tmp_path, TABLE), **options)


def test_splits_with_other_classes_are_refused(tmp_path: Path) -> None:
    test = table(tmp_path, "text,label\nRain,weather\n", "test.csv")
    with pytest.raises(ValueError, match="the test split has the class 'weather'"):
        task_of(data=table(tmp_path, TABLE), test=test)
    with pytest.raises(ValueError, match="nothing to classify"):
        task_of(data=table(tmp_path, "text,label\na b,x\nc d,x\n"))


def test_a_folder_that_does_not_exist() -> None:
    with pytest.raises(DataMissing, match="there is no folder"):
        task_of(data="./nowhere/at/all")


def test_a_folder_of_hugging_face_with_its_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    labels = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": labels})

    def split(count: int) -> Any:
        rows = {"sentence": [f"text {n}" for n in range(count)], "label": [n % 2 for n in range(count)]}
        return datasets.Dataset.from_dict(rows, features)

    datasets.DatasetDict({"train": split(12), "test": split(4)}).save_to_disk(str(tmp_path / "set"))
    task = task_of(data=str(tmp_path / "set"), validation=2 / 12)
    assert task.info.sizes == {"train": 10, "validation": 2, "test": 4}
    assert task.info.class_names == ("neg", "pos")
    assert read(task, "test") == [(f"text {n}", ("neg", "pos")[n % 2]) for n in range(4)]
    with pytest.raises(ValueError, match="has no split 'unlabelled'"):
        task_of(data=str(tmp_path / "set"), test="unlabelled")


def test_data_sets_are_given_as_objects(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    labels = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": labels})

    def split(count: int) -> Any:
        rows = {"sentence": [f"text {n}" for n in range(count)], "label": [n % 2 for n in range(count)]}
        return datasets.Dataset.from_dict(rows, features)

    known = {"train": split(20), "test": split(4)}
    for whole in (known, datasets.DatasetDict(known)):
        task = robustplug.build("task", "text", data=whole)
        assert task.info.sizes == {"train": 18, "validation": 2, "test": 4}
        assert read(task, "test") == [(f"text {n}", ("neg", "pos")[n % 2]) for n in range(4)]
    assert robustplug.build("task", "text", data=split(20)).info.sizes["test"] == 4
    # A recipe holds a name of it, under which this process finds it.
    tables = {"task": {"use": "text", "data": known["train"]}, "method": {"use": "erm"}}
    recipe = recipe_from_mapping(tables)
    assert recipe.task.options.data.startswith("dataset:")
    assert recipe_from_mapping(recipe_to_mapping(recipe)).task == recipe.task
    with pytest.raises(DataMissing, match=r"task.data names a data set .* of another process"):
        robustplug.build("task", "text", data="dataset:0")


class Columns:
    """Behave as a data set does."""

    column_names = ("text", "label")

    def __init__(self, rows: int) -> None:
        self.features: dict[str, Any] = {"text": None, "label": None}
        self.columns = {"text": [f"text {n}" for n in range(rows)], "label": [n % 3 for n in range(rows)]}

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def select_columns(self, _: Any) -> Columns:
        return self


def test_what_behaves_as_a_data_set_is_one() -> None:
    task = robustplug.build("task", "text", data=Columns(30))
    assert task.info.sizes == {"train": 21, "validation": 3, "test": 6}
    assert task.info.class_names == ("0", "1", "2")


@pytest.mark.slow
def test_documentation_is_from_six_packages() -> None:
    task = task_of()
    assert task.info.class_names == PACKAGES
    assert task.info.sizes["train"] > 500
    assert all(int((task.labels("test") == number).sum()) >= 5 for number in range(len(PACKAGES)))
    train, test = ({text for text, _ in read(task, split)} for split in ("train", "test"))
    assert not train & test


def test_reviews_depend_on_their_seed_alone() -> None:
    first, again, other = (task_of(data="synthetic", reviews=40, split_seed=seed) for seed in (1, 1, 2))
    assert read(first, "train") == read(again, "train") != read(other, "train")


def test_measures_records_and_told() -> None:
    task = small_task()
    (batch,) = task.batches("test", Feed(batch_size=2, samples=2))
    before = texts(batch.x)
    x = batch.x.clone()
    x[0] = task_rows(before[0].replace(before[0].split()[0], "Ze"), x.shape[1])
    output = torch.nn.functional.one_hot(torch.stack([1 - batch.y[0], batch.y[1]]), 2).float()
    view = View.of(batch, "adv", x=x, info={"queries": torch.tensor([7.0, 3.0])})
    found = task.measure(view, output)
    assert found["success %"].tolist() == [100, 0]
    assert found["words changed %"][0] == pytest.approx(100 / len(before[0].split()))
    assert bool(found["words changed %"][1].isnan())
    assert task.measure(View.of(batch), output) == {}
    one, other = task.records(view, output)
    assert (one.result_type, one.num_queries, one.original_text) == ("Successful", 7, before[0])
    assert (other.result_type, other.perturbed_score) == ("Failed", pytest.approx(1 / (1 + torch.e)))
    assert task.records(View.of(batch), output) == []
    told = task.tell(view, output)
    assert "[[Ze]]" in told[0]
    assert "attacked" not in told[1]


def task_rows(text: str, width: int) -> torch.Tensor:
    from .small import rows_of

    return rows_of(text, width=width)[0]


def test_a_recipe_with_a_wrong_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="longest"):
        robustplug.train({"task": {"use": "text", "longest": 0}, "method": {"use": "erm"}})
    with pytest.raises(RecipeError, match=r"perturbs numbers(.|\n)*word-substitution"):
        robustplug.train({"task": {"use": "text"}, "method": {"use": "erm", "vicinity": {"use": "linf"}}})
