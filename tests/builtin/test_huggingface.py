"""The task huggingface: folders that save_to_disk wrote, and what load_dataset reads from a folder."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustplug.builtin.tasks import HuggingFaceOptions
from robustplug.builtin.tasks.huggingface import choose_splits
from robustplug.core.types import Feed
from robustplug.errors import BrokenData, DataMissing
from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.run import build
from robustplug.testing.kit import run_checks

from ..subjects.pictures import bits, picture

datasets = pytest.importorskip("datasets")

NAMES = ["ash", "birch", "cedar"]
Y = [n % 3 for n in range(30)]


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def images(count: int = 30, depth: int = 8, height: int = 9) -> list[Image.Image]:
    return [Image.fromarray(bits(picture(height, 9, seed=n), depth)) for n in range(count)]


def pictured(
    depth: int = 8, kind: Any = None, values: Any = None, image: str = "image", label: str = "label"
) -> Any:
    kind = kind or datasets.ClassLabel(names=NAMES)
    features = datasets.Features({image: datasets.Image(), label: kind, "id": datasets.Value("int64")})
    columns = {image: images(depth=depth), label: Y if values is None else values, "id": list(range(30))}
    return datasets.Dataset.from_dict(columns, features=features)


def task_of(folder: Path, **options: Any) -> Any:
    return build("task", "huggingface", name=str(folder), **{"workers": 0, **options})


def served(task: Any) -> dict[int, torch.Tensor]:
    """Return the inputs of all splits by the row in the data set, if that is one split."""
    found = {}
    for split in task.info.sizes:
        for batch in task.batches(split, Feed()):
            for x, index in zip(batch.x, batch.index.tolist(), strict=True):
                found[int(task.sample_name(split, index).split()[1])] = x
    return found


def test_a_data_set_of_pictures_is_split_by_shares(tmp_path: Path) -> None:
    pictured().save_to_disk(tmp_path / "set")
    task = task_of(tmp_path / "set", validation=0.2, test=0.2)
    assert task.info.sizes == {"train": 18, "validation": 6, "test": 6}
    assert (task.info.shape, task.info.class_names) == ((3, 9, 9), tuple(NAMES))
    for row, x in served(task).items():
        assert torch.equal(x[1], torch.tensor(bits(picture(9, 9, seed=row), 8)) / 255)
    for split in task.info.sizes:
        assert [task.sample_name(split, at) for at in range(3)] != ["row 0 of train"] * 3
        for at, label in enumerate(task.labels(split).tolist()):
            assert int(task.sample_name(split, at).split()[1]) % 3 == label


def test_pictures_of_16_bits_are_not_clipped(tmp_path: Path) -> None:
    pictured(depth=16).save_to_disk(tmp_path / "set")
    found = served(task_of(tmp_path / "set"))
    for row, x in found.items():
        assert torch.allclose(x[0].double(), torch.tensor(picture(9, 9, seed=row)[..., 0]), atol=1e-4)


def test_splits_of_the_data_set_are_used(tmp_path: Path) -> None:
    whole = pictured()
    parts = {"train": range(18), "validation": range(18, 24), "test": range(24, 30), "extra": range(3)}
    datasets.DatasetDict({name: whole.select(rows) for name, rows in parts.items()}).save_to_disk(
        tmp_path / "set"
    )
    assert task_of(tmp_path / "set").info.sizes == {"train": 18, "validation": 6, "test": 6}
    chosen = task_of(tmp_path / "set", train="test", validation=0.5, test="extra")
    assert chosen.info.sizes == {"train": 3, "validation": 3, "test": 3}
    with pytest.raises(ValueError, match="no split 'tset'; it has train, validation, test, extra"):
        task_of(tmp_path / "set", test="tset")
    with pytest.raises(ValueError, match="no split 'tarin'"):
        task_of(tmp_path / "set", train="tarin")


@pytest.mark.parametrize(
    ("known", "names", "shares"),
    [
        (["train"], {"train": "train"}, {"validation": 0.1, "test": 0.2}),
        (["train", "test"], {"train": "train", "test": "test"}, {"validation": 0.1}),
        (["train", "valid"], {"train": "train", "validation": "valid"}, {"test": 0.2}),
        (["train", "dev", "test"], {"train": "train", "validation": "dev", "test": "test"}, {}),
        (["test"], {"test": "test"}, {}),
    ],
)
def test_the_splits_that_a_data_set_has(
    known: list[str], names: dict[str, str], shares: dict[str, float]
) -> None:
    assert choose_splits(known, HuggingFaceOptions(name="x")) == (names, shares)
    with pytest.raises(ValueError, match="splits a, b: say which"):
        choose_splits(["a", "b"], HuggingFaceOptions(name="x"))


def test_columns_are_recognised_or_chosen(tmp_path: Path) -> None:
    pictured(image="img", label="fine_label").save_to_disk(tmp_path / "usual")
    assert task_of(tmp_path / "usual").info.classes == 3
    pictured(image="scan", label="kind").save_to_disk(tmp_path / "own")
    with pytest.raises(ValueError, match=r"'scan', 'kind', 'id'.*task\.columns"):
        task_of(tmp_path / "own")
    assert task_of(tmp_path / "own", columns=["scan", "kind"]).info.class_names == tuple(NAMES)
    with pytest.raises(ValueError, match="no column 'sacn'"):
        task_of(tmp_path / "own", columns=["sacn", "kind"])


def test_labels_may_be_texts_or_numbers(tmp_path: Path) -> None:
    pictured(kind=datasets.Value("string"), values=[NAMES[y] for y in Y]).save_to_disk(tmp_path / "text")
    assert task_of(tmp_path / "text").info.class_names == tuple(NAMES)
    pictured(kind=datasets.Value("int8"), values=[y + 1 for y in Y]).save_to_disk(tmp_path / "numbers")
    assert task_of(tmp_path / "numbers").info.class_names == ("1", "2", "3")
    pictured(values=[-1] * 30).save_to_disk(tmp_path / "hidden")
    with pytest.raises(ValueError, match="range from -1"):
        task_of(tmp_path / "hidden")
    pictured(values=[1] * 30).save_to_disk(tmp_path / "one")
    with pytest.raises(ValueError, match="class birch: a classification needs two"):
        task_of(tmp_path / "one")


def test_broken_pictures_are_named_or_skipped(tmp_path: Path) -> None:
    content = []
    for image in images():
        file = io.BytesIO()
        image.save(file, "PNG")
        content.append({"bytes": file.getvalue(), "path": None})
    content[4]["bytes"], content[7] = content[4]["bytes"][:40], None  # type: ignore[index, call-overload]
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict({"image": content, "label": Y}, features=kinds).save_to_disk(tmp_path / "set")
    with pytest.raises(
        BrokenData, match="2 of 30(.|\n)*row 4 of train(.|\n)*row 7 of train holds no picture"
    ):
        task_of(tmp_path / "set")
    assert sum(task_of(tmp_path / "set", broken="skip").info.sizes.values()) == 28


def test_sizes_that_differ_are_asked_for(tmp_path: Path) -> None:
    found = images()
    found[3] = found[3].resize((12, 14))
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict({"image": found, "label": Y}, features=kinds).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match=r"task\.size = 9"):
        task_of(tmp_path / "set")
    assert task_of(tmp_path / "set", size=9).info.shape == (3, 9, 9)


def test_numbers_are_read_into_memory(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((30, 5)).round(3)
    datasets.Dataset.from_dict({"features": x.tolist(), "label": Y}).save_to_disk(tmp_path / "table")
    task = task_of(tmp_path / "table")
    assert (task.info.shape, task.info.classes) == ((5,), 3)
    (batch,) = task.batches("test", Feed())
    rows = {tuple(row): y for row, y in zip(x.astype(np.float32).tolist(), Y, strict=True)}
    assert [rows[tuple(row)] for row in batch.x.tolist()] == batch.y.tolist()
    kinds = datasets.Features({"x": datasets.Array2D((4, 4), "uint8"), "y": datasets.ClassLabel(names=NAMES)})
    grey = np.random.default_rng(1).integers(0, 256, (30, 4, 4), dtype=np.uint8)
    datasets.Dataset.from_dict({"x": grey, "y": Y}, features=kinds).save_to_disk(tmp_path / "grey")
    task = task_of(tmp_path / "grey")
    assert (task.info.shape, task.info.class_names) == ((1, 4, 4), tuple(NAMES))
    wide = (100 * x - 50).tolist()
    datasets.Dataset.from_dict({"features": wide, "label": Y}).save_to_disk(tmp_path / "wide")
    with pytest.raises(ValueError, match="bounds="):
        task_of(tmp_path / "wide")
    assert task_of(tmp_path / "wide", bounds=[-50, 50]).info.bounds == (-50, 50)


def test_texts_are_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"x": ["a", "b"] * 15, "label": Y}).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match="not an array of numbers"):
        task_of(tmp_path / "set")
    ragged = [[0.0] * (1 + n % 2) for n in range(30)]
    datasets.Dataset.from_dict({"x": ragged, "label": Y}).save_to_disk(tmp_path / "ragged")
    with pytest.raises(ValueError, match="not an array of numbers"):
        task_of(tmp_path / "ragged")


def test_a_folder_of_files_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    for split, rows in (("train", range(24)), ("test", range(24, 30))):
        pictured().select(rows).to_parquet(tmp_path / "set" / f"{split}.parquet")
    task = task_of(tmp_path / "set")
    assert task.info.sizes == {"train": 22, "validation": 2, "test": 6}
    assert task.info.class_names == tuple(NAMES)


def test_a_data_set_is_given_as_an_object() -> None:
    whole = pictured()
    task = build("task", "huggingface", name=whole, validation=0.2, test=0.2)
    assert task.info.sizes == {"train": 18, "validation": 6, "test": 6}
    parts = datasets.DatasetDict({"train": whole.select(range(24)), "test": whole.select(range(24, 30))})
    assert build("task", "huggingface", name=parts, validation=0.25).info.sizes == {
        "train": 18,
        "validation": 6,
        "test": 6,
    }


def test_what_does_not_exist_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataMissing, match="no folder .*nothing"):
        task_of(tmp_path / "nothing")
    with pytest.raises(DataMissing, match=r"folder .* cannot be loaded"):
        task_of(tmp_path)

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataMissing, match="owner/set, which is no folder here, cannot be loaded: no route"):
        build("task", "huggingface", name="owner/set")


def test_a_name_on_the_hub_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(*args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        return datasets.DatasetDict(train=pictured())

    monkeypatch.setattr(datasets, "load_dataset", load)
    options = {"config": "small", "revision": "v1", "workers": 0}
    assert resolve(Use("huggingface:owner/set"), "task").options.name == "owner/set"
    assert build("task", "huggingface:owner/set", **options).info.classes == 3
    assert asked == [(("owner/set", "small"), {"revision": "v1"})]


def test_the_missing_library_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r'pip install "robustplug\[huggingface\]"'):
        task_of(tmp_path)


def test_workers_change_no_bit(tmp_path: Path) -> None:
    pictured().save_to_disk(tmp_path / "set")
    one, other = (
        torch.cat([b.x for b in task_of(tmp_path / "set", workers=n).batches("train", Feed(augment=True))])
        for n in (0, 2)
    )
    assert torch.equal(one, other)


def test_the_conformance_kit_passes(tmp_path: Path) -> None:
    pictured().save_to_disk(tmp_path / "set")
    outcomes = run_checks("huggingface", "task", {"name": str(tmp_path / "set"), "workers": 0})
    assert [(each.check, each.detail) for each in outcomes if not each.passed or each.skipped] == []
